//! `cargo xtask guests`: builds the guest examples, whatever they are written in, each to one wasm module or component.
//!
//! A guest is a folder with a `cases.toml`. Which language it is in, its sources say: `<name>.wat`, C files, or a
//! `Cargo.toml`, which cargo then knows as a package with a binary. One whose `Cargo.toml` has
//! `component = true` in `[package.metadata.guest]` is made into a component.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wit_component::ComponentEncoder;

use crate::process;
use crate::setup::Toolchains;
use crate::toolchain::C;
use crate::workspace::Workspace;

/// Builds those that changed.
pub fn run(toolchains: &Toolchains) -> Result<()> {
    let workspace = Workspace::find()?;
    let output = workspace.built_guests();
    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    let rust = build_rust(toolchains, &workspace)?;
    for (name, folder) in find(&workspace.guest_examples())? {
        let module = output.join(&name).with_extension("wasm");
        let sources = files_with_ending(&folder, "c")?;
        let wat = folder.join(&name).with_extension("wat");
        if let Some(built) = rust.get(&folder) {
            built.put(&module)?;
        } else if wat.is_file() {
            assemble(&wat, &module)?;
        } else if !sources.is_empty() {
            compile(&toolchains.c, &folder, &sources, &module)?;
        } else {
            bail!(
                "{}: neither {name}.wat nor C files nor a member of the guests' Cargo.toml",
                folder.display()
            );
        }
        println!("{name}: {}", module.display());
    }
    Ok(())
}

/// All guests' names and folders, by name.
fn find(guest_examples: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut guests = Vec::new();
    for entry in fs::read_dir(guest_examples).with_context(|| format!("{}", guest_examples.display()))? {
        let folder = entry?.path();
        if folder.join("cases.toml").is_file() {
            let name =
                folder.file_name().unwrap_or_default().to_str().context("a guest's name is not UTF-8")?;
            guests.push((name.to_owned(), folder.clone()));
        }
    }
    guests.sort();
    Ok(guests)
}

/// A package's program, as cargo left it.
struct Built {
    module: PathBuf,
    /// Says whether it is to be a component.
    manifest: PathBuf,
    is_component: bool,
}

impl Built {
    /// Writes the guest, if it is not there yet.
    fn put(&self, guest: &Path) -> Result<()> {
        if !newer(&[self.module.clone(), self.manifest.clone()], guest)? {
            return Ok(());
        }
        let mut wasm =
            fs::read(&self.module).with_context(|| format!("cannot read {}", self.module.display()))?;
        if self.is_component {
            wasm = component(&wasm).with_context(|| format!("{}", self.module.display()))?;
        }
        fs::write(guest, wasm).with_context(|| format!("cannot write {}", guest.display()))
    }
}

/// Makes a component of a preview 1 command, with the adapter that wasmtime publishes for it. What else the module
/// imports, its `component-type` section describes, which `wit-bindgen` has put there.
fn component(module: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default()
        .module(module)?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)?
        .validate(true)
        .encode()
}

/// The built program of each package in the guests' workspace, by the package's folder.
fn build_rust(toolchains: &Toolchains, workspace: &Workspace) -> Result<HashMap<PathBuf, Built>> {
    let folder = workspace.guest_examples();
    let built = toolchains.rust.build(&folder, &workspace.target.join("guests-build"))?;
    let metadata = MetadataCommand::new().current_dir(&folder).no_deps().exec()?;
    let mut programs = HashMap::new();
    for package in metadata.workspace_packages() {
        let program = package.targets.iter().find(|target| target.is_bin());
        let program = program.with_context(|| format!("{} has no binary", package.name))?;
        let folder = package.manifest_path.parent().context("a manifest has no folder")?;
        if !folder.join("cases.toml").is_file() {
            bail!("{folder} has no cases.toml, so that nothing would test it");
        }
        let module = built.join(format!("{}.wasm", program.name));
        let is_component = package.metadata["guest"]["component"] == true;
        let manifest = package.manifest_path.as_std_path().to_owned();
        programs.insert(folder.as_std_path().to_owned(), Built { module, manifest, is_component });
    }
    Ok(programs)
}

fn assemble(source: &Path, module: &Path) -> Result<()> {
    if newer(&[source.to_owned()], module)? {
        let bytes = wat::parse_file(source)?;
        fs::write(module, bytes).with_context(|| format!("cannot write {}", module.display()))?;
    }
    Ok(())
}

fn compile(compiler: &C, folder: &Path, sources: &[PathBuf], module: &Path) -> Result<()> {
    let mut inputs = files_with_ending(folder, "h")?;
    inputs.extend_from_slice(sources);
    if newer(&inputs, module)? {
        process::run(compiler.compile(module).args(sources))?;
    }
    Ok(())
}

/// Whether the module is missing, or older than an input or than this program, which says how to build it.
fn newer(inputs: &[PathBuf], module: &Path) -> Result<bool> {
    let modified = |file: &Path| -> Result<SystemTime> {
        fs::metadata(file).and_then(|data| data.modified()).with_context(|| format!("{}", file.display()))
    };
    if !module.is_file() {
        return Ok(true);
    }
    let built = modified(module)?;
    if modified(&std::env::current_exe()?)? > built {
        return Ok(true);
    }
    for input in inputs {
        if modified(input)? > built {
            return Ok(true);
        }
    }
    Ok(false)
}

fn files_with_ending(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let file = entry?.path();
        if file.extension().is_some_and(|found| found == ending) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
