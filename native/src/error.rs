//! Why there is no answer.

use crate::{Limit, Report};
use std::io;

/// This machine cannot contain native programs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("native programs cannot be contained here; {report}")]
pub struct Unavailable {
    /// What is missing, and what to do about it.
    pub report: Report,
}

/// Why a build made no program, or a run no outcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The compiler or make failed.
    #[error("{first}")]
    Build {
        /// The first line that names an error, else the last line.
        first: String,
        /// The last [`crate::MAX_DIAGNOSTICS`] bytes of what they printed, without control characters but line ends and
        /// tabs.
        output: String,
    },
    /// The build went over a limit.
    #[error("the build went over its limit of {limit}")]
    BuildLimit {
        /// The limit.
        limit: Limit,
        /// The last bytes of what was printed, as in [`Error::Build`].
        output: String,
    },
    /// A compiler was killed, and not by a limit of the build's.
    #[error(
        "a compiler was killed from outside, most likely by the kernel for want of memory on this machine: `dmesg` tells"
    )]
    CompilerKilled,
    /// Arguments or environment cannot be handed to a program: a NUL in them, a name with `=`, or too many.
    #[error("{0}")]
    Input(&'static str),
    /// The sandbox itself failed, for a reason of the machine and not of the program.
    #[error("the sandbox could not be set up: {0}")]
    Sandbox(String),
    /// The machine is out of descriptors, processes or the like.
    #[error("the sandbox could not be started: {0}")]
    Io(#[from] io::Error),
}
