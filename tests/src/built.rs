//! Where cargo and `cargo xtask` put what is tested, and what it is tested with.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A program of this workspace: `offload-rt`, `offload-client`.
pub fn program(name: &str) -> Result<PathBuf> {
    existing(profile()?.join(name).with_extension(std::env::consts::EXE_EXTENSION))
}

/// Where a shell looks for programs, those of this workspace first.
pub fn search_path() -> Result<OsString> {
    for name in ["offload-rt", "offload-client"] {
        program(name)?;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(std::iter::once(profile()?).chain(std::env::split_paths(&path)))?)
}

/// The module of a guest example.
pub fn guest(name: &str) -> Result<PathBuf> {
    existing(target()?.join("guests").join(name).with_extension("wasm"))
}

/// The simulator as a page.
pub fn simulator_page() -> Result<PathBuf> {
    existing(target()?.join("simulator-page/index.html"))
}

/// A Python that has what the clients in Python need.
pub fn python() -> Result<PathBuf> {
    existing(target()?.join("python/bin/python"))
}

/// The folder with the packages from npm.
pub fn node() -> Result<PathBuf> {
    let folder = target()?.join("node");
    if !folder.join("node_modules/mqtt").is_dir() {
        bail!("mqtt.js is not installed: run `cargo xtask setup`");
    }
    Ok(folder)
}

/// Debian's Python, with the older paho-mqtt that Debian packages.
pub fn debians_python() -> Result<PathBuf> {
    existing(PathBuf::from("/usr/bin/python3"))
}

/// The folder with what `pip install clients/python` fetches.
pub fn wheels() -> Result<PathBuf> {
    let folder = target()?.join("python/wheels");
    if !folder.is_dir() {
        bail!("{} is not there: run `cargo xtask setup`", folder.display());
    }
    Ok(folder)
}

/// What npm has fetched.
pub fn npm_cache() -> Result<PathBuf> {
    Ok(target()?.join("node/cache"))
}

/// A file of a client, by its path in `clients/`.
pub fn client(file: &str) -> Result<PathBuf> {
    existing(Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients").join(file))
}

/// The sources of the guest examples, one folder each.
pub fn guest_examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-examples")
}

/// The projects of several files, one folder each.
pub fn projects() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("projects")
}

fn target() -> Result<PathBuf> {
    Ok(profile()?.parent().context("the profile's folder has no parent")?.to_owned())
}

/// `<target directory>/<profile>`, in which the running test is `deps/<name>`, and another program `<name>`.
fn profile() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.parent().context("a program is in a folder")?;
    let profile = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    Ok(profile.context("a test lies outside cargo's folders")?.to_owned())
}

fn existing(file: PathBuf) -> Result<PathBuf> {
    if !file.is_file() {
        bail!("{} is not built: run `cargo xtask test`", file.display());
    }
    Ok(file)
}
