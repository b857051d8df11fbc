//! Builds and runs strangers' C programs inside bubblewrap.
//!
//! [`Sandbox::probe`] finds out at start whether this machine can contain them; [`Sandbox::build`] makes a [`Program`]
//! of [`Source`], [`Sandbox::build_project`] one of a [`Project`]; [`Sandbox::run`] runs it, unless it was built for
//! WASI ([`Platform`]). Each build and each run has a sandbox of its own that is thrown away. What contains what is
//! told in `docs/security.md`.
//!
//! The work directory is a file system in memory that exists only inside the sandbox. A program, and the folder that it
//! was built in, leave it as bytes on a pipe: there is nothing on the host to clean up, and the host never opens a file
//! that a stranger made.

mod bwrap_args;
mod compilers;
mod config;
mod diagnostics;
mod error;
mod folder;
mod hints;
mod job;
mod landlock;
mod left;
mod limits;
mod measurer;
mod outcome;
mod output;
mod platform;
mod priority;
mod probe;
mod program;
mod project;
mod report;
mod rlimits;
mod sandbox;
mod source;
mod supervisor;
mod syscalls;
mod tools;
mod usage;
mod wasi;

pub use compilers::Compilers;
pub use config::Config;
pub use diagnostics::MAX_DIAGNOSTICS;
pub use error::{Error, Unavailable};
pub use folder::{Entry, Folder, MAX_FOLDER, Node};
pub use limits::SandboxLimits;
pub use outcome::{Ending, Limit, Outcome};
pub use output::OnStdout;
pub use platform::Platform;
pub use program::NativeProgram;
pub use project::Project;
pub use report::{Finding, Mechanism, Need, Report, State};
pub use sandbox::{Input, Sandbox};
pub use source::{Build, Language, Source};
pub use tools::TOOL_FOLDERS;
pub use wasi::Wasi;
