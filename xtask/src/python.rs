//! The Python of the tests: a virtual environment in the target folder, with what the clients in Python need.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{find, run, succeeds};
use crate::workspace::Workspace;

/// Debian's, which its packages are for, where another one comes first in `PATH`.
const SYSTEM: &str = "/usr/bin/python3";

/// The first Python that can make virtual environments.
pub fn interpreter() -> Option<PathBuf> {
    let known = [find("python3"), find("python"), Some(PathBuf::from(SYSTEM))];
    let able = |python: &PathBuf| succeeds(Command::new(python).args(["-c", "import ensurepip, venv"]));
    known.into_iter().flatten().find(able)
}

/// Makes the environment where there is none, and installs what it lacks. Returns its Python.
pub fn environment(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("python");
    let python = folder.join("bin/python");
    // Without pip it was not finished.
    if !has_pip(&python) {
        let interpreter = interpreter().context("no Python that can make virtual environments")?;
        run(Command::new(interpreter).args(["-m", "venv", "--clear"]).arg(&folder))?;
    }
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    run(install.arg(workspace.root.join("clients/raspberry-pi/requirements.txt")))?;
    Ok(python)
}

fn has_pip(python: &Path) -> bool {
    succeeds(Command::new(python).args(["-m", "pip", "--version"]))
}
