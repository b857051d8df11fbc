//! The client in JavaScript, in a folder with the packages that it needs: not in the sources, where they would stay.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

use crate::built;

/// Its files, and `node_modules` beside them.
pub struct JavaScriptClient(TempDir);

impl JavaScriptClient {
    /// Copies it.
    pub fn copy() -> Result<JavaScriptClient> {
        let folder = TempDir::new()?;
        let source = built::client("javascript/package.json")?;
        copy(&source.with_file_name(""), folder.path())?;
        symlink(built::node()?.join("node_modules"), folder.path().join("node_modules"))?;
        Ok(JavaScriptClient(folder))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// One of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if name == "node_modules" {
            continue;
        }
        if path.is_dir() {
            fs::create_dir(to.join(&name))?;
            copy(&path, &to.join(&name))?;
        } else {
            fs::copy(path, to.join(&name))?;
        }
    }
    Ok(())
}
