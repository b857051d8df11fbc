//! What runs requests. Another backend is one more case of [`Backend`], a file in here, and a line where requests are
//! dispatched.

mod comparison;
pub mod modules;
pub mod native;
pub mod remote;
pub mod wasm;

use crate::modules::{Artifact, Content, Digest};
use crate::source::{Buildable, BuiltProgram};
use crate::wasm::folder::Folder;
use modules::Operation;
use std::sync::Arc;

/// `argv[0]` of a program that came without a name.
const UNNAMED: &str = "program";

/// What runs a request, and what it is to run.
pub enum Backend {
    /// The workers, as a guest.
    Wasm(Module),
    /// The sandbox: source is built and run natively.
    Native {
        /// The source.
        source: Buildable,
        /// Whether it is run as wasm too, when it is answered, to compare the two.
        compare: bool,
    },
    /// What is kept of clients' modules: nothing runs.
    Modules(Operation),
    /// The gateway of another site, or one that is less busy.
    Remote {
        /// Its gate.
        gate: Arc<str>,
    },
}

/// A module, as far as it is known when the request comes.
pub enum Module {
    /// It can run at once.
    Ready(ReadyModule),
    /// It must be compiled, loaded or kept first.
    Unprepared(Digest, Content),
    /// It must be built from source, and prepared then.
    Unbuilt(Buildable),
}

/// A module that can run at once.
pub struct ReadyModule {
    /// The program's `argv[0]`.
    pub name: Arc<str>,
    /// What runs.
    pub artifact: Arc<Artifact>,
    /// What it finds, where it was built from source.
    pub folder: Option<Arc<Folder>>,
}

impl ReadyModule {
    /// One that came without a name.
    pub fn unnamed(artifact: Arc<Artifact>) -> ReadyModule {
        ReadyModule { name: UNNAMED.into(), artifact, folder: None }
    }

    /// One that was built from source.
    pub fn of_source(made: BuiltProgram, artifact: Arc<Artifact>) -> ReadyModule {
        ReadyModule { name: made.program.path().into(), artifact, folder: made.folder }
    }
}
