//! The programs that requests can name, compiled before the gateway takes its first request.

use crate::client::Client;
use crate::config::{self, BUILT_IN};
use crate::modules::{Artifact, Digest, Modules};
use crate::wasm::engine::Tier;
use bytes::Bytes;
use offload_protocol::error::WireError;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Source of the built-in program, which is also an example of a guest.
const BUILT_IN_SOURCE: &str = include_str!("../../guest-examples/add/add.wat");

/// A program that requests can name.
pub struct NamedProgram {
    /// Its name, and its `argv[0]`.
    pub name: Arc<str>,
    /// Its compiled code.
    pub artifact: Arc<Artifact>,
}

/// All programs that requests can name, and the modules that are compiled at start.
pub struct Programs {
    by_name: BTreeMap<Arc<str>, NamedProgram>,
    default: Arc<str>,
    /// Modules of `[modules] preload`, which have no name.
    preloaded: HashMap<Digest, Arc<Artifact>>,
}

/// Why a program cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Its file cannot be read.
    #[error("program `{name}`: {}: {error}", path.display())]
    Read {
        /// The program.
        name: String,
        /// Its file.
        path: PathBuf,
        /// The reason.
        error: std::io::Error,
    },
    /// Its text is no WebAssembly text.
    #[error("program `{name}`: neither a module nor WebAssembly text: {error}")]
    Text {
        /// The program.
        name: String,
        /// Where it is wrong, and why.
        error: wat::Error,
    },
    /// It cannot be compiled.
    #[error("program `{name}`: {error}")]
    Compile {
        /// The program.
        name: String,
        /// Why.
        error: WireError,
    },
}

impl Programs {
    /// Reads and compiles the configured programs, the built-in one, and the files to `preload`.
    ///
    /// # Errors
    ///
    /// When any of them cannot be offered.
    pub async fn load(
        configured: &[config::Program],
        preload: &[PathBuf],
        modules: &Arc<Modules>,
    ) -> Result<Programs, ProgramError> {
        let mut programs =
            Programs { by_name: BTreeMap::new(), default: BUILT_IN.into(), preloaded: HashMap::new() };
        let built_in = parse(BUILT_IN, BUILT_IN_SOURCE.as_bytes())?;
        programs.add(BUILT_IN, compile(BUILT_IN, built_in, modules).await?);
        for program in configured {
            let config::Program { name, file, .. } = program;
            programs.add(name, compile(name, read_module(name, file).await?, modules).await?);
            if program.default {
                programs.default = program.name.as_str().into();
            }
        }
        for file in preload {
            let name = file.display().to_string();
            let artifact = compile(&name, read_module(&name, file).await?, modules).await?;
            programs.preloaded.insert(artifact.digest, artifact);
        }
        Ok(programs)
    }

    fn add(&mut self, name: &str, artifact: Arc<Artifact>) {
        let name: Arc<str> = name.into();
        self.by_name.insert(name.clone(), NamedProgram { name, artifact });
    }

    /// The program of this name.
    pub fn get(&self, name: &str) -> Option<&NamedProgram> {
        self.by_name.get(name)
    }

    /// The program whose module has this digest: what the configuration offers to all is known to all.
    pub fn by_digest(&self, digest: &Digest) -> Option<&NamedProgram> {
        self.by_name.values().find(|program| program.artifact.digest == *digest)
    }

    /// The module without a name that has this digest.
    pub fn preloaded(&self, digest: &Digest) -> Option<&Arc<Artifact>> {
        self.preloaded.get(digest)
    }

    /// The artifacts of all programs and preloaded modules.
    pub fn artifacts(&self) -> Vec<Arc<Artifact>> {
        let named = self.by_name.values().map(|program| &program.artifact);
        named.chain(self.preloaded.values()).cloned().collect()
    }

    /// The program that runs when a request has arguments alone.
    pub fn default_program(&self) -> &NamedProgram {
        &self.by_name[&self.default]
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_name.keys()
    }
}

/// The module in a `.wasm` or `.wat` file.
///
/// # Errors
///
/// When it cannot be read, or is no WebAssembly text; `name` is what errors call it.
pub async fn read_module(name: &str, file: &Path) -> Result<Bytes, ProgramError> {
    let read = |error| ProgramError::Read { name: name.into(), path: file.into(), error };
    let source = tokio::fs::read(file).await.map_err(read)?;
    parse(name, &source).map_err(|mut error| {
        if let ProgramError::Text { error, .. } = &mut error {
            error.set_path(file);
        }
        error
    })
}

fn parse(name: &str, source: &[u8]) -> Result<Bytes, ProgramError> {
    let text = |error| ProgramError::Text { name: name.into(), error };
    Ok(wat::parse_bytes(source).map_err(text)?.into_owned().into())
}

/// The artifact of a module that the operator offers.
///
/// # Errors
///
/// When it cannot be compiled; `name` is what errors call it.
pub async fn compile(
    name: &str,
    module: Bytes,
    modules: &Arc<Modules>,
) -> Result<Arc<Artifact>, ProgramError> {
    let owner =
        Client { principal: None, flow: "configuration".into(), account: "configuration".into(), web: false };
    modules
        .compile(&owner, Digest::of(&module), Some(module), Tier::Optimized)
        .await
        .map_err(|error| ProgramError::Compile { name: name.into(), error })
}
