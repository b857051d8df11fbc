//! The client in C, built as its users build it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::built;

/// What its compiler is told besides: no warning is passed over.
pub const STRICT: &str = "-O2 -g -Werror";

/// Every access and every overflow is checked.
pub const SANITIZED: &str = "-O1 -g -Werror -fsanitize=address,undefined -fno-sanitize-recover=all";

/// The programs of its Makefile in a folder of their own.
pub struct CClient(TempDir);

impl CClient {
    /// Builds them with these flags.
    pub fn build(flags: &str) -> Result<CClient> {
        let folder = TempDir::new()?;
        let makefile = built::client("c/Makefile")?;
        let mut make = Command::new("make");
        make.arg("--quiet").arg("--directory").args(makefile.parent());
        make.arg(format!("BUILD={}", folder.path().display())).arg(format!("CFLAGS={flags}"));
        let output = make.output()?;
        ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        Ok(CClient(folder))
    }

    /// One of them.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }
}
