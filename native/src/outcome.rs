//! How a run ended, and what it left.

use std::fmt;
use std::time::Duration;

/// How a run ended, and what it left.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// Standard output, at most [`crate::SandboxLimits::stdout`] bytes.
    pub stdout: Vec<u8>,
    /// The first [`crate::SandboxLimits::stderr`] bytes of standard error.
    pub stderr: Vec<u8>,
    /// CPU time of all its processes, the sandbox's own set-up included.
    pub cpu: Duration,
    /// Wall-clock time, the sandbox's own set-up included.
    pub wall: Duration,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Exit(i32),
    /// It died of this signal. bubblewrap reports it as exit code 128 + signal, so a program that exits with such a
    /// code of its own accord counts as well.
    Signal(i32),
    /// It was ended at this limit.
    Limit(Limit),
}

/// A limit that ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`crate::SandboxLimits::cpu`]
    Cpu,
    /// [`crate::SandboxLimits::wall`]
    Wall,
    /// [`crate::SandboxLimits::memory`]
    Memory,
    /// [`crate::SandboxLimits::file_size`]
    FileSize,
    /// [`crate::SandboxLimits::files`]
    Files,
    /// [`crate::SandboxLimits::stdout`]
    Stdout,
    /// [`crate::SandboxLimits::stderr`], of a build
    Stderr,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "CPU time",
            Self::Wall => "wall-clock time",
            Self::Memory => "memory",
            Self::FileSize => "file size",
            Self::Files => "files",
            Self::Stdout => "standard output",
            Self::Stderr => "standard error",
        })
    }
}

impl Ending {
    /// From bubblewrap's exit code.
    pub(crate) fn from_exit_code(code: i32) -> Self {
        match code - 128 {
            libc::SIGXCPU => Self::Limit(Limit::Cpu),
            libc::SIGXFSZ => Self::Limit(Limit::FileSize),
            signal @ (libc::SIGILL
            | libc::SIGTRAP
            | libc::SIGABRT
            | libc::SIGBUS
            | libc::SIGFPE
            | libc::SIGKILL
            | libc::SIGSEGV
            | libc::SIGPIPE
            | libc::SIGTERM
            | libc::SIGSYS) => Self::Signal(signal),
            _ => Self::Exit(code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_told_from_signals_and_limits() {
        for (code, ending) in [
            (0, Ending::Exit(0)),
            (42, Ending::Exit(42)),
            (128, Ending::Exit(128)),
            (139, Ending::Signal(libc::SIGSEGV)),
            (152, Ending::Limit(Limit::Cpu)),
            (153, Ending::Limit(Limit::FileSize)),
            (255, Ending::Exit(255)),
        ] {
            assert_eq!(Ending::from_exit_code(code), ending, "{code}");
        }
    }
}
