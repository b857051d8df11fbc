//! The packages from npm of the tests, in the target folder.

use std::fs;
use std::path::{Path, PathBuf};
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
    if update(&workspace.root.join("broker/tests/mqttjs"), &folder, &LISTS)? {
        npm("ci", &folder, &folder)?;
    }
    // What `npm install clients/javascript` fetches is in the cache then, so that tests can run it without a network.
    let client = folder.join("client");
    if update(&workspace.root.join("clients/javascript"), &client, &LISTS[..1])? {
        npm("install", &client, &folder)?;
    }
    // What a program of `offload-client new --lang javascript` is built with.
    let guest = folder.join("guest");
    if update(&workspace.root.join("clients/rust/templates/javascript"), &guest, &LISTS[..1])? {
        npm("install", &guest, &folder)?;
    }
    Ok(folder)
}

/// Copies these lists of packages. Returns whether any has changed, or nothing was installed.
fn update(from: &Path, folder: &Path, lists: &[&str]) -> Result<bool> {
    let mut changed = !folder.join("node_modules").is_dir();
    fs::create_dir_all(folder)?;
    for name in lists {
        let wanted = fs::read(from.join(name)).with_context(|| format!("cannot read {name}"))?;
        if fs::read(folder.join(name)).ok().as_ref() != Some(&wanted) {
            changed = true;
            fs::write(folder.join(name), wanted)?;
        }
    }
    Ok(changed)
}

/// Runs it in this folder, with the cache of `packages`.
fn npm(command: &str, folder: &Path, packages: &Path) -> Result<()> {
    let mut npm = Command::new(find("npm").context("no npm")?);
    // Packages get no chance to run anything.
    npm.args([command, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--cache"]);
    run(npm.arg(packages.join("cache")).current_dir(folder))
}
