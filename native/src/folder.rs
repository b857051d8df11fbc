//! What a build leaves beside its program: what each run of the program finds, read-only, where it was built.
//!
//! It leaves the sandbox as a tar archive and is unpacked in the sandbox of each run. The host looks into the archive,
//! in memory, and makes no file of it.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The most that a build's folder may hold, whatever is configured: it is in the gateway's memory as long as its
/// program.
pub const MAX_FOLDER: u64 = 64 << 20;

/// The most files, folders and links that a build's folder may have: half of what a run may have by default.
pub const MAX_ENTRIES: usize = 2_048;

/// The longest path, and the longest target of a link, in bytes: what Linux takes. An archive is what a stranger's
/// build made of it, whatever tar would have written.
const MAX_PATH: usize = 4_096;

/// What a file takes of a work directory at the least, and what its size is rounded to, in bytes.
const BLOCK: u64 = 4096;

/// A folder as an archive, cheap to clone. Its entries are in it for certain.
#[derive(Clone, PartialEq, Eq)]
pub struct Folder {
    archive: Arc<[u8]>,
    entries: Arc<[Entry]>,
}

/// What is at one path of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path: relative, and without `.`, `..` and empty parts.
    pub path: String,
    /// What it is.
    pub node: Node,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Folder,
    /// A file: where its contents are in [`Folder::archive`].
    File(Range<usize>),
    /// A symbolic link, as it was made.
    Link(String),
}

impl Folder {
    /// Reads an archive. What has no name in UTF-8, and what is neither file, folder nor link, is no entry, but counts
    /// as one, and so do folders that are named by what is in them alone. `None` for what is no archive, has more than
    /// [`MAX_ENTRIES`], or paths that no file can have.
    pub fn read(archive: impl Into<Arc<[u8]>>) -> Option<Self> {
        let archive = archive.into();
        let mut entries = Vec::new();
        let mut folders = HashSet::new();
        for (index, found) in tar::Archive::new(&archive[..]).entries().ok()?.enumerate() {
            let found = found.ok()?;
            let target = found.link_name_bytes().unwrap_or_default();
            if index >= MAX_ENTRIES || found.path_bytes().len() > MAX_PATH || target.len() > MAX_PATH {
                return None;
            }
            let Some(path) = str::from_utf8(&found.path_bytes()).ok().and_then(relative) else { continue };
            let node = match found.header().entry_type() {
                tar::EntryType::Directory => Node::Folder,
                tar::EntryType::Regular => {
                    let start = usize::try_from(found.raw_file_position()).ok()?;
                    let end = start.checked_add(usize::try_from(found.size()).ok()?)?;
                    archive.get(start..end)?;
                    Node::File(start..end)
                }
                tar::EntryType::Symlink => {
                    let Ok(target) = str::from_utf8(&target) else { continue };
                    Node::Link(target.to_owned())
                }
                _ => continue,
            };
            // From the innermost on, up to one that is known: then those around it are.
            let mut inner = path.as_str();
            while let Some((folder, _)) = inner.rsplit_once('/')
                && folders.insert(folder.to_owned())
            {
                inner = folder;
            }
            if folders.len() > MAX_ENTRIES {
                return None;
            }
            entries.push(Entry { path, node });
        }
        Some(Self { archive, entries: entries.into() })
    }

    /// The archive, in tar's format.
    pub fn archive(&self) -> &Arc<[u8]> {
        &self.archive
    }

    /// What it holds, each folder before what is in it.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Bytes that it takes of a work directory.
    pub fn size(&self) -> u64 {
        let size = |entry: &Entry| match &entry.node {
            Node::File(range) => (range.len() as u64).next_multiple_of(BLOCK),
            Node::Folder | Node::Link(_) => BLOCK,
        };
        self.entries.iter().map(size).sum()
    }
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Folder({} entries, {} bytes)", self.entries.len(), self.archive.len())
    }
}

/// A path without what leads nowhere; `None` for one that leads elsewhere.
fn relative(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let leads_elsewhere = path.starts_with('/') || parts.contains(&"..");
    (!leads_elsewhere && !parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(add: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        add(&mut archive);
        archive.into_inner().unwrap()
    }

    fn header(kind: tar::EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header
    }

    #[test]
    fn files_folders_and_links_are_found() {
        let long = format!("{}/a", "folder".repeat(30));
        let archive = archive(|archive| {
            let add = |archive: &mut tar::Builder<_>, path: &str, kind, contents: &[u8]| {
                archive.append_data(&mut header(kind, contents.len() as u64), path, contents).unwrap();
            };
            add(archive, "./data", tar::EntryType::Directory, b"");
            add(archive, "data/a b.txt", tar::EntryType::Regular, b"contents");
            add(archive, &long, tar::EntryType::Regular, b"");
            add(archive, "pipe", tar::EntryType::Fifo, b"");
            archive.append_link(&mut header(tar::EntryType::Symlink, 0), "link", "data/a b.txt").unwrap();
        });
        let folder = Folder::read(archive).unwrap();
        let found: Vec<(&str, Option<&[u8]>)> = folder
            .entries()
            .iter()
            .map(|entry| match &entry.node {
                Node::File(range) => (entry.path.as_str(), Some(&folder.archive()[range.clone()])),
                Node::Folder => (entry.path.as_str(), None),
                Node::Link(to) => (to.as_str(), None),
            })
            .collect();
        let expected = [
            ("data", None),
            ("data/a b.txt", Some(&b"contents"[..])),
            (&long, Some(b"")),
            ("data/a b.txt", None),
        ];
        assert_eq!(found, expected);
        assert_eq!(folder.size(), 3 * BLOCK);
    }

    #[test]
    fn an_archive_that_no_tar_has_made_is_bounded() {
        let of = |entries: &[(String, tar::EntryType, String)]| {
            archive(|archive| {
                for (path, kind, target) in entries {
                    let mut header = header(*kind, 0);
                    match kind {
                        tar::EntryType::Symlink => archive.append_link(&mut header, path, target).unwrap(),
                        _ => archive.append_data(&mut header, path, &[][..]).unwrap(),
                    }
                }
            })
        };
        let file = |path: String| (path, tar::EntryType::Regular, String::new());
        let link = |target: usize| ("link".to_owned(), tar::EntryType::Symlink, "l".repeat(target));
        let pipe = |number: usize| (number.to_string(), tar::EntryType::Fifo, String::new());
        for (entries, is_read) in [
            (vec![file(format!("{}a", "a/".repeat(1_000)))], true),
            // Folders that are nowhere but in a path.
            (vec![file(format!("{}a", "a/".repeat(2_046))), file(format!("b/{}a", "a/".repeat(100)))], false),
            (vec![file("a".repeat(MAX_PATH + 1))], false),
            (vec![link(MAX_PATH)], true),
            (vec![link(MAX_PATH + 1)], false),
            ((0..MAX_ENTRIES).map(pipe).collect(), true),
            // What is left out is looked at all the same.
            ((0..=MAX_ENTRIES).map(pipe).collect(), false),
        ] {
            assert_eq!(Folder::read(of(&entries)).is_some(), is_read, "{} entries", entries.len());
        }
    }

    #[test]
    fn nothing_leads_elsewhere_or_beyond_the_archive() {
        for path in ["/etc/passwd", "a/../../b", "..", ".", "./"] {
            let mut header = header(tar::EntryType::Regular, 0);
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            let folder = Folder::read(header.as_bytes().to_vec()).unwrap();
            assert_eq!(folder.entries(), [], "{path}");
        }
        let mut header = header(tar::EntryType::Regular, 1 << 40);
        header.as_old_mut().name[0] = b'a';
        header.set_cksum();
        assert_eq!(Folder::read(header.as_bytes().to_vec()), None);
        assert_eq!(Folder::read(vec![7; 1024]), None);
        assert_eq!(Folder::read(Vec::new()).map(|folder| folder.size()), Some(0));
    }
}
