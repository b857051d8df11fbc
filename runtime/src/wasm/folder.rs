//! What a module that was built from source finds of its build's folder: files in memory, read-only, for all its runs.
//!
//! Paths are looked up here and nowhere else: no file of the host is opened, so nothing leads to one.

use offload_native::{Entry, Node as Left};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Where the folder is, as natively. A link to a path in it leads into the folder.
pub const PATH: &str = "/work";

/// Links that one path may lead through.
const MAX_LINKS: usize = 40;

/// Parts of a path and of the links in it that are looked up in one call, which costs the guest no fuel: some hundred
/// microseconds.
const MAX_PARTS: usize = 4_096;

/// A folder, with the bytes of its files.
pub struct Folder {
    archive: Arc<[u8]>,
    /// The first is the folder itself.
    nodes: Vec<Node>,
}

/// A number for what is at a path, the same as long as the folder is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(usize);

/// What is at a path.
#[derive(Debug)]
pub enum Node {
    /// Names, in order, and what they stand for.
    Folder(Vec<(Box<str>, NodeId)>),
    /// Where its bytes are in the archive.
    File(Range<usize>),
    /// A symbolic link.
    Link(Box<str>),
}

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSuchPath {
    /// A part of it is not there.
    Missing,
    /// A part of it is no folder, but more parts follow.
    NoFolder,
    /// It leads through too many links, or has too many parts.
    Loop,
    /// It leads out of the folder.
    Outside,
}

impl Folder {
    /// The folder itself.
    pub const ROOT: NodeId = NodeId(0);

    /// From what a build has left.
    pub fn new(left: &offload_native::Folder) -> Folder {
        let mut folder = Folder { archive: left.archive().clone(), nodes: vec![Node::Folder(Vec::new())] };
        for Entry { path, node } in left.entries() {
            let node = match node {
                Left::Folder => Node::Folder(Vec::new()),
                Left::File(range) => Node::File(range.clone()),
                Left::Link(to) => Node::Link(to.as_str().into()),
            };
            folder.add(path, node);
        }
        folder
    }

    /// Adds a node, with the folders that it is in. What is there already stays, and nothing is in a file.
    fn add(&mut self, path: &str, node: Node) {
        let mut node = Some(node);
        let mut parts = path.split('/').peekable();
        let mut at = Folder::ROOT;
        while let Some(part) = parts.next() {
            let next = NodeId(self.nodes.len());
            let Node::Folder(names) = &mut self.nodes[at.0] else { return };
            at = match names.binary_search_by(|(name, _)| (**name).cmp(part)) {
                Ok(found) => names[found].1,
                Err(place) => {
                    names.insert(place, (part.into(), next));
                    let is_last = parts.peek().is_none();
                    let added = if is_last { node.take() } else { None };
                    self.nodes.push(added.unwrap_or_else(|| Node::Folder(Vec::new())));
                    next
                }
            };
        }
    }

    /// What a node is.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The bytes of a file.
    pub fn bytes(&self, file: &Range<usize>) -> &[u8] {
        &self.archive[file.clone()]
    }

    /// What is at a path from `start` on. `follow` tells whether a link at its end is followed, as all others are.
    ///
    /// # Errors
    ///
    /// Where the path leads nowhere.
    pub fn find(&self, start: NodeId, path: &str, follow: bool) -> Result<NodeId, NoSuchPath> {
        if path.starts_with('/') {
            return Err(NoSuchPath::Outside);
        }
        // `start` is known by its number alone: `..` leads as far as the path itself has come.
        let mut above = vec![start];
        let mut left: Vec<&str> = path.rsplit('/').collect();
        let (mut links, mut parts) = (0, 0);
        while let Some(part) = left.pop() {
            parts += 1;
            if parts > MAX_PARTS {
                return Err(NoSuchPath::Loop);
            }
            let at = *above.last().ok_or(NoSuchPath::Outside)?;
            let Node::Folder(names) = self.node(at) else { return Err(NoSuchPath::NoFolder) };
            match part {
                "" | "." => continue,
                ".." if above.len() > 1 => drop(above.pop()),
                ".." => return Err(NoSuchPath::Outside),
                part => {
                    let found = names.binary_search_by(|(name, _)| (**name).cmp(part));
                    let id = names[found.map_err(|_| NoSuchPath::Missing)?].1;
                    match self.node(id) {
                        Node::Link(to) if follow || !left.is_empty() => {
                            links += 1;
                            if links > MAX_LINKS {
                                return Err(NoSuchPath::Loop);
                            }
                            let to = match to.strip_prefix(PATH) {
                                Some(inside) if inside.is_empty() || inside.starts_with('/') => {
                                    above = vec![Folder::ROOT];
                                    inside
                                }
                                _ if to.starts_with('/') => return Err(NoSuchPath::Outside),
                                _ => to,
                            };
                            left.extend(to.rsplit('/'));
                        }
                        _ => above.push(id),
                    }
                }
            }
        }
        above.pop().ok_or(NoSuchPath::Outside)
    }
}

impl NodeId {
    /// As an inode, of which 0 is none.
    pub fn inode(self) -> u64 {
        self.0 as u64 + 1
    }
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Folder({} nodes, {} bytes)", self.nodes.len(), self.archive.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(entries: &[(&str, Node)]) -> Folder {
        let mut folder = Folder { archive: b"contents"[..].into(), nodes: vec![Node::Folder(Vec::new())] };
        for (path, node) in entries {
            let node = match node {
                Node::Folder(_) => Node::Folder(Vec::new()),
                Node::File(range) => Node::File(range.clone()),
                Node::Link(to) => Node::Link(to.clone()),
            };
            folder.add(path, node);
        }
        folder
    }

    fn link(to: &str) -> Node {
        Node::Link(to.into())
    }

    /// The contents of the file at a path, if it is one.
    fn read<'f>(folder: &'f Folder, path: &str) -> Result<&'f str, NoSuchPath> {
        let id = folder.find(Folder::ROOT, path, true)?;
        Ok(match folder.node(id) {
            Node::File(range) => str::from_utf8(folder.bytes(range)).unwrap(),
            Node::Folder(_) => "a folder",
            Node::Link(_) => "a link",
        })
    }

    #[test]
    fn paths_lead_to_files_and_nowhere_else() {
        let folder = folder(&[
            ("b/deep/file", Node::File(0..8)),
            ("a", Node::File(0..3)),
            ("c", Node::Folder(Vec::new())),
            ("a/none", Node::File(0..1)),
            ("a", Node::File(0..1)),
        ]);
        for (path, expected) in [
            ("a", Ok("con")),
            ("./b//deep/./file", Ok("contents")),
            ("b/../c/../b/deep/file", Ok("contents")),
            ("b/deep/", Ok("a folder")),
            ("", Ok("a folder")),
            ("d", Err(NoSuchPath::Missing)),
            ("d/../a", Err(NoSuchPath::Missing)),
            ("a/", Err(NoSuchPath::NoFolder)),
            ("a/none", Err(NoSuchPath::NoFolder)),
            ("..", Err(NoSuchPath::Outside)),
            ("b/../../a", Err(NoSuchPath::Outside)),
            ("/a", Err(NoSuchPath::Outside)),
        ] {
            assert_eq!(read(&folder, path), expected, "{path}");
        }
    }

    #[test]
    fn links_are_followed_inside_of_the_folder() {
        let folder = folder(&[
            ("b/file", Node::File(0..8)),
            ("short", link("b")),
            ("b/up", link("../b/file")),
            ("absolute", link("/work/b/file")),
            ("root", link("/work")),
            ("secret", link("/etc/passwd")),
            ("workbench", link("/workbench")),
            ("out", link("../x")),
            ("one", link("two")),
            ("two", link("one")),
        ]);
        for (path, expected) in [
            ("short/file", Ok("contents")),
            ("short/up", Ok("contents")),
            ("absolute", Ok("contents")),
            ("root/root/b/file", Ok("contents")),
            ("secret", Err(NoSuchPath::Outside)),
            ("workbench", Err(NoSuchPath::Outside)),
            ("out", Err(NoSuchPath::Outside)),
            ("one", Err(NoSuchPath::Loop)),
        ] {
            assert_eq!(read(&folder, path), expected, "{path}");
        }
        let id = folder.find(Folder::ROOT, "secret", false).unwrap();
        assert!(matches!(folder.node(id), Node::Link(to) if **to == *"/etc/passwd"));
    }
}
