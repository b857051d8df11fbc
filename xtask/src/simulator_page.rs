//! `cargo xtask simulator-page`: the simulator as one HTML file that needs nothing else, with the module in it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::setup::Toolchains;
use crate::workspace::Workspace;

/// The package that is compiled to wasm, and what it is called then.
const PACKAGE: &str = "offload-simulator-page";
const MODULE: &str = "offload_simulator_page.wasm";

/// Where the page is to have the module.
const PLACE: &str = "const MODULE = \"\";";

/// Builds it to `<target directory>/simulator-page/index.html`, whose path is returned.
///
/// # Errors
///
/// The toolchain makes no wasm, or the page has no place for it.
pub fn run(toolchains: &Toolchains) -> Result<PathBuf> {
    let Workspace { root, target } = Workspace::find()?;
    let folder = target.join("simulator-page");
    let built = toolchains.rust.build_module(&root, PACKAGE, &folder.join("build"))?;
    let module = fs::read(built.join(MODULE)).with_context(|| format!("cannot read {MODULE}"))?;
    let page = fs::read_to_string(root.join("simulator/page/index.html"))?;
    ensure!(page.matches(PLACE).count() == 1, "the page has no place for the module: {PLACE}");
    let page = page.replace(PLACE, &format!("const MODULE = \"{}\";", BASE64_STANDARD.encode(module)));
    let file = folder.join("index.html");
    fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))?;
    println!("the simulator as a page: {}", file.display());
    Ok(file)
}
