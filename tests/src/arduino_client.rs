//! The Arduino library's program for the conformance tests, built for this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::built;

/// As the library's own tests on a PC are built: every access and every overflow is checked.
const FLAGS: [&str; 8] = [
    "-std=c++11",
    "-Og",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
];

/// The program in a folder of its own.
pub struct ArduinoClient(TempDir);

impl ArduinoClient {
    /// Builds it.
    pub fn build() -> Result<ArduinoClient> {
        let folder = TempDir::new()?;
        let program = built::client("arduino/extras/pc/conformance.cpp")?;
        let headers = program.parent().context("a file lies in a folder")?;
        let source = built::client("arduino/src/Offload.cpp")?;
        let source = source.parent().context("a file lies in a folder")?;
        let mut compiler = Command::new("g++");
        compiler.args(FLAGS).arg("-I").arg(headers).arg("-I").arg(source);
        compiler.arg("-o").arg(folder.path().join("conformance")).arg(&program);
        for folder in [source.to_owned(), source.join("offload")] {
            compiler.args(sources(&folder)?);
        }
        let output = compiler.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(ArduinoClient(folder))
    }

    /// The program.
    pub fn program(&self) -> PathBuf {
        self.0.path().join("conformance")
    }
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    let paths = entries.into_iter().map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|ending| ending == "cpp")).collect())
}
