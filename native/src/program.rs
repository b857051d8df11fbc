//! A program that was built.

use crate::Folder;
use std::fmt;
use std::sync::Arc;

/// A program that was built: its bytes, cheap to clone, fit to be kept and run any number of times.
#[derive(Clone, PartialEq, Eq)]
pub struct NativeProgram {
    name: String,
    bytes: Arc<[u8]>,
    folder: Option<Folder>,
}

impl NativeProgram {
    /// From what an earlier build left. `name` as in [`crate::Source::name`].
    pub fn new(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { name: name.into(), bytes: bytes.into(), folder: None }
    }

    /// The same program with what it finds when it runs.
    pub fn with_folder(self, folder: Option<Folder>) -> Self {
        Self { folder, ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it lies when it runs, which is its first argument.
    pub fn path(&self) -> String {
        format!("/program/{}", self.name)
    }

    /// The executable file, or the wasm module.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the build has left beside it; `None` where that is nothing but what was sent as one file of source.
    pub fn folder(&self) -> Option<&Folder> {
        self.folder.as_ref()
    }
}

impl fmt::Debug for NativeProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NativeProgram({}, {} bytes)", self.name, self.bytes.len())
    }
}
