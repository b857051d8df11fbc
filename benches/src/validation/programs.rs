//! The guests that are run on both sides.

use crate::guests;
use anyhow::Result;
use std::time::Duration;

/// Names and texts of the guests.
pub fn all() -> [(&'static str, String); 5] {
    [
        // Some 5 ms, ten slices.
        ("computes", guests::computing(3_000_000)),
        ("short", guests::computing(600_000)),
        // Some 100 ms.
        ("long", guests::computing(60_000_000)),
        ("sleeps", guests::sleeping(Duration::from_millis(20))),
        ("sleeps-long", guests::sleeping(Duration::from_millis(50))),
    ]
}

/// Whether this program sleeps, and computes nothing.
pub fn sleeps(program: &str) -> bool {
    program.starts_with("sleeps")
}

/// The guests as files, which gateways have as programs.
pub struct Programs {
    folder: tempfile::TempDir,
}

impl Programs {
    /// Writes them.
    pub fn new() -> Result<Programs> {
        let folder = tempfile::tempdir()?;
        for (name, text) in all() {
            std::fs::write(folder.path().join(name).with_extension("wat"), text)?;
        }
        std::fs::write(folder.path().join("empty.wat"), guests::EMPTY)?;
        Ok(Programs { folder })
    }

    /// Their part of a gateway's configuration.
    pub fn configuration(&self) -> String {
        let names = all().map(|(name, _)| name).into_iter().chain(["empty"]);
        let file = |name: &str| self.folder.path().join(name).with_extension("wat");
        names.map(|name| format!("[[program]]\nname = {name:?}\nfile = {:?}\n", file(name))).collect()
    }
}
