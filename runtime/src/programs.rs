//! The programs that requests can name, compiled before the gateway takes its first request.

use crate::config;
use crate::ingress::Client;
use crate::modules::{Artifact, Digest, Modules};
use bytes::Bytes;
use offload_protocol::error::WireError;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The built-in program: adds its arguments. It is the default until the configuration names another.
pub const BUILT_IN: &str = "add";

/// Its source, which is also an example for whoever writes a guest.
const BUILT_IN_SOURCE: &str = include_str!("../../guest-examples/add/add.wat");

/// A program that the gateway has.
pub struct Program {
    /// Its name, and its `argv[0]`.
    pub name: Arc<str>,
    /// Its code.
    pub artifact: Arc<Artifact>,
}

/// All programs that the gateway has.
pub struct Programs {
    by_name: BTreeMap<Arc<str>, Program>,
    default: Arc<str>,
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
        /// Why.
        error: std::io::Error,
    },
    /// Its text is no WebAssembly text.
    #[error("program `{name}`: {error}")]
    Text {
        /// The program.
        name: String,
        /// Where, and why.
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
    /// Reads and compiles the configured programs, and the built-in one.
    ///
    /// # Errors
    ///
    /// When any of them cannot be offered.
    pub async fn load(configured: &[config::Program], modules: &Modules) -> Result<Programs, ProgramError> {
        let mut programs = Programs { by_name: BTreeMap::new(), default: BUILT_IN.into() };
        programs.add(BUILT_IN, BUILT_IN_SOURCE.as_bytes(), modules).await?;
        for program in configured {
            let name = &program.name;
            let read = |error| ProgramError::Read { name: name.clone(), path: program.file.clone(), error };
            let source = tokio::fs::read(&program.file).await.map_err(read)?;
            programs.add(name, &source, modules).await.map_err(|error| match error {
                ProgramError::Text { name, mut error } => {
                    error.set_path(&program.file);
                    ProgramError::Text { name, error }
                }
                other => other,
            })?;
            if program.default {
                programs.default = name.as_str().into();
            }
        }
        Ok(programs)
    }

    async fn add(&mut self, name: &str, source: &[u8], modules: &Modules) -> Result<(), ProgramError> {
        let text = |error| ProgramError::Text { name: name.into(), error };
        let module: Bytes = wat::parse_bytes(source).map_err(text)?.into_owned().into();
        let owner = Client { principal: None, flow: "configuration".into(), web: false };
        let artifact = modules
            .compile(&owner, Digest::of(&module), Some(module))
            .await
            .map_err(|error| ProgramError::Compile { name: name.into(), error })?;
        let name: Arc<str> = name.into();
        self.by_name.insert(name.clone(), Program { name, artifact });
        Ok(())
    }

    /// The program of this name.
    pub fn get(&self, name: &str) -> Option<&Program> {
        self.by_name.get(name)
    }

    /// The program whose module has this digest: what the configuration offers to all is known to all.
    pub fn by_digest(&self, digest: &Digest) -> Option<&Program> {
        self.by_name.values().find(|program| program.artifact.digest == *digest)
    }

    /// The program that runs when a request has arguments alone.
    pub fn default_program(&self) -> &Program {
        &self.by_name[&self.default]
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_name.keys()
    }
}
