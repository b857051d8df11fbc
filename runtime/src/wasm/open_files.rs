//! Which of a module's descriptors are files of its folder, and how far each has been read.

use super::folder::{Folder, NodeId, PATH};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Files and folders that a module may have open at once.
const MAX_OPEN: usize = 256;

/// The paths that the folder is found at: where it was built, and where a program begins.
const PREOPENED: [&str; 2] = [PATH, "."];

/// Descriptors below are standard streams at the start.
const FIRST: i32 = 3;

/// A descriptor of a file or folder.
#[derive(Clone, Copy, Debug)]
pub struct OpenFile {
    /// What it is of.
    pub node: NodeId,
    /// Where the next read begins; in a folder it stays 0.
    pub position: u64,
    /// The path that it stands for, where the module did not open it.
    pub preopened: Option<&'static str>,
}

/// The descriptors of a module's folder, none where it has no folder.
#[derive(Debug, Default)]
pub struct OpenFiles {
    folder: Option<Arc<Folder>>,
    open: BTreeMap<i32, OpenFile>,
}

impl OpenFiles {
    /// As a module finds them.
    pub fn new(folder: Option<Arc<Folder>>) -> OpenFiles {
        let open = |path| OpenFile { node: Folder::ROOT, position: 0, preopened: Some(path) };
        let preopened = folder.iter().flat_map(|_| (FIRST..).zip(PREOPENED.map(open)));
        OpenFiles { open: preopened.collect(), folder }
    }

    /// The folder, and what is at this descriptor of it.
    pub fn at(&mut self, descriptor: i32) -> Option<(&Folder, &mut OpenFile)> {
        Some((self.folder.as_ref()?, self.open.get_mut(&descriptor)?))
    }

    /// Whether this descriptor is one of these.
    pub fn has(&self, descriptor: i32) -> bool {
        self.open.contains_key(&descriptor)
    }

    /// The lowest descriptor that is free here and not `taken` elsewhere, now of this node. `None` where too many are
    /// open.
    pub fn open(&mut self, node: NodeId, taken: impl Fn(i32) -> bool) -> Option<i32> {
        if self.open.len() >= MAX_OPEN {
            return None;
        }
        let descriptor = (FIRST..).find(|descriptor| !self.has(*descriptor) && !taken(*descriptor))?;
        self.open.insert(descriptor, OpenFile { node, position: 0, preopened: None });
        Some(descriptor)
    }

    /// Closes this descriptor; false where it is none of these.
    pub fn close(&mut self, descriptor: i32) -> bool {
        self.open.remove(&descriptor).is_some()
    }

    /// The descriptor `from` becomes `to`, and what was at `to` is closed.
    pub fn renumber(&mut self, from: i32, to: i32) {
        if let Some(open) = self.open.remove(&from) {
            self.open.insert(to, open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offload_native::Folder as Left;

    #[test]
    fn descriptors_are_the_lowest_that_are_free() {
        let mut none = OpenFiles::new(None);
        assert!(none.at(3).is_none() && !none.close(3));
        let folder = Arc::new(Folder::new(&Left::read(Vec::new()).unwrap()));
        let mut files = OpenFiles::new(Some(folder));
        let names = [3, 4, 5].map(|descriptor| files.at(descriptor).and_then(|(_, open)| open.preopened));
        assert_eq!(names, [Some("/work"), Some("."), None]);
        assert_eq!(files.open(Folder::ROOT, |taken| taken == 5), Some(6));
        assert!(files.close(3) && !files.close(3));
        assert_eq!(files.open(Folder::ROOT, |_| false), Some(3));
        files.renumber(6, 0);
        assert!(files.has(0) && !files.has(6));
        files.renumber(4, 4);
        assert!(files.has(4));
        let opened = (0..).take_while(|_| files.open(Folder::ROOT, |_| false).is_some()).count();
        assert_eq!(opened, MAX_OPEN - 3);
    }
}
