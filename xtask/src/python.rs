//! The Python of the tests: a virtual environment in the target folder, with what the clients in Python need.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{find, run, succeeds};
use crate::workspace::Workspace;

/// Debian's, which its packages are for, where another one comes first in `PATH`.
const SYSTEM: &str = "/usr/bin/python3";

/// The client's dependency, and what builds its wheel.
const WHEELS: [&str; 3] = ["paho-mqtt", "setuptools", "wheel"];

/// The first Python that can make virtual environments.
pub fn interpreter() -> Option<PathBuf> {
    let known = [find("python3"), find("python"), Some(PathBuf::from(SYSTEM))];
    known.into_iter().flatten().find(can_make_environments)
}

/// The one that computes fastest of these: Debian's is built with all optimisations, most others are not.
pub fn fastest() -> Option<PathBuf> {
    Some(PathBuf::from(SYSTEM)).filter(can_make_environments).or_else(interpreter)
}

fn can_make_environments(python: &PathBuf) -> bool {
    succeeds(Command::new(python).args(["-c", "import ensurepip, venv"]))
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
    run(install.arg(workspace.root.join("tests/python/requirements.txt")))?;
    wheels(&folder, &python)?;
    Ok(python)
}

/// Whether Debian's Python has the paho-mqtt that Debian packages.
pub fn has_debians_paho() -> bool {
    succeeds(Command::new(SYSTEM).args(["-c", "import paho.mqtt.client"]))
}

/// What `pip install clients/python` fetches, so that tests can run it without a network.
fn wheels(folder: &Path, python: &Path) -> Result<()> {
    let wheels = folder.join("wheels");
    if WHEELS.iter().all(|name| has_wheel(&wheels, name)) {
        return Ok(());
    }
    let mut download = Command::new(python);
    download.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest"]).arg(&wheels);
    run(download.args(WHEELS))
}

fn has_wheel(folder: &Path, name: &str) -> bool {
    let start = format!("{}-", name.replace('-', "_"));
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    names.map(|entry| entry.file_name()).any(|file| file.to_string_lossy().starts_with(&start))
}

fn has_pip(python: &Path) -> bool {
    succeeds(Command::new(python).args(["-m", "pip", "--version"]))
}
