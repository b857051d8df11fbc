//! What keeps the command from getting an answer, and the exit codes that say so.

use std::io::{Write, stderr};

use offload_client::Error;

/// There is no guest's exit code to exit with: an error, the gateway's or ours.
pub const EXIT_ERROR: u8 = 125;

/// Time ran out, at the gateway or here.
pub const EXIT_TIMEOUT: u8 = 124;

/// As a shell says it of a command that ctrl-c ended.
pub const EXIT_INTERRUPTED: u8 = 130;

/// The exit code of an error of this kind.
pub fn exit_code(kind: &str) -> u8 {
    match kind {
        "timeout" | "expired" => EXIT_TIMEOUT,
        _ => EXIT_ERROR,
    }
}

/// An error that is not the gateway's answer.
#[derive(Debug)]
pub struct Failure {
    pub kind: &'static str,
    pub message: String,
    pub exit_code: u8,
}

impl Failure {
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), exit_code: exit_code(kind) }
    }

    /// The command line asks for something that cannot be done.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new("malformed", message)
    }

    /// The user pressed ctrl-c, with these consequences.
    pub fn interrupted(message: &str) -> Self {
        Self { exit_code: EXIT_INTERRUPTED, ..Self::new("interrupted", message) }
    }

    /// Prints it on stderr; returns its exit code.
    pub fn report(&self) -> u8 {
        // Whoever closed stderr does not want to be told.
        let _ = writeln!(stderr(), "error: {}: {}", self.kind, self.message);
        self.exit_code
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
