//! The packages from npm of the tests, in the target folder.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{find, run};
use crate::workspace::Workspace;

/// What is installed is written in `package.json` and, to the last digit, in `package-lock.json`.
const LISTS: [&str; 2] = ["package.json", "package-lock.json"];

/// Where Node.js is, if npm is there too.
pub fn program() -> Option<PathBuf> {
    find("npm").and_then(|_| find("node"))
}

/// Installs what the folder lacks, and returns it.
pub fn packages(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("node");
    let lists = workspace.root.join("broker/tests/mqttjs");
    let mut changed = !folder.join("node_modules").is_dir() || !folder.join("cache").is_dir();
    fs::create_dir_all(&folder)?;
    for name in LISTS {
        let wanted = fs::read(lists.join(name)).with_context(|| format!("cannot read {name}"))?;
        if fs::read(folder.join(name)).ok().as_ref() != Some(&wanted) {
            changed = true;
            fs::write(folder.join(name), wanted)?;
        }
    }
    if changed {
        let mut npm = Command::new(find("npm").context("no npm")?);
        // Packages get no chance to run anything.
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
            // Tests install again from it, without a network.
            .arg("--cache")
            .arg(folder.join("cache"))
            .current_dir(&folder);
        run(&mut npm)?;
    }
    Ok(folder)
}
