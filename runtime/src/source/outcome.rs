//! What a client is told of how a build or a run in the sandbox ended.

use crate::once_cache::MakeError;
use crate::telemetry;
use offload_native::{Ending, Error, Limit, SandboxLimits};
use offload_protocol::error::{ErrorKind, WireError};
use std::time::Duration;

/// What a compiler says of a source it says each time; anything else may have been the machine.
pub fn build_error(error: Error) -> MakeError {
    let permanent = matches!(error, Error::Build { .. });
    MakeError { error: wire_error(error), permanent }
}

/// A refusal, with what to do instead.
pub fn unauthorized(message: &str) -> WireError {
    WireError::new(ErrorKind::Unauthorized, message)
}

/// An error of the sandbox, as the client is told.
pub fn wire_error(error: Error) -> WireError {
    match error {
        // What is cut from a long output is its beginning, and a line of an answer has the first error alone.
        Error::Build { first, output } if output.contains(&first) => WireError::new(ErrorKind::Build, output),
        Error::Build { first, output } => WireError::new(ErrorKind::Build, format!("{first}\n{output}")),
        Error::BuildLimit { limit, output } => {
            let what = match limit {
                Limit::Stdout => "the size of its program and of what is in its folder besides".to_owned(),
                limit => limit.to_string(),
            };
            let message = format!("error: the build went over its limit of {what}\n{output}");
            WireError::new(ErrorKind::Build, message)
        }
        Error::Input(problem) => WireError::new(ErrorKind::TooLarge, problem),
        Error::CompilerKilled | Error::Sandbox(_) | Error::Io(_) => {
            telemetry::internal_error(&format!("native: {error}"))
        }
    }
}

/// The exit code of a run, or what the client is told instead. `requested` tells whether the wall-clock time was
/// limited by the request, and not by the gateway.
pub fn run_result(ending: Ending, limits: &SandboxLimits, requested: bool) -> Result<i32, WireError> {
    let (kind, message) = match ending {
        Ending::Exit(code) => return Ok(code),
        Ending::Signal(signal) => (ErrorKind::Trap, format!("killed by {}", signal_name(signal))),
        Ending::Limit(Limit::Cpu) => (ErrorKind::Timeout, format!("used its {:?} of CPU time", limits.cpu)),
        Ending::Limit(Limit::Wall) => {
            let whose = if requested { "the request's timeout" } else { "the gateway's limit" };
            (ErrorKind::Timeout, format!("still running after {:.1?}, {whose}", rounded(limits.wall)))
        }
        Ending::Limit(Limit::Memory) => {
            (ErrorKind::Memory, format!("used more than its {} bytes", limits.memory))
        }
        Ending::Limit(Limit::FileSize) => {
            (ErrorKind::Trap, format!("wrote a file of more than {} bytes", limits.file_size))
        }
        Ending::Limit(Limit::Files) => (ErrorKind::Trap, format!("made more than {} files", limits.files)),
        Ending::Limit(Limit::Stdout | Limit::Stderr) => {
            (ErrorKind::Output, format!("stdout is over the limit of {} bytes", limits.stdout))
        }
    };
    Err(WireError::new(kind, message))
}

/// To the millisecond, which is what a request can ask for.
fn rounded(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_millis() as u64)
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGABRT => "SIGABRT, which abort() raises",
        libc::SIGBUS => "SIGBUS, a bad memory access",
        libc::SIGFPE => "SIGFPE, an arithmetic error such as a division by zero",
        libc::SIGILL => "SIGILL, an illegal instruction",
        libc::SIGKILL => "SIGKILL",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGSEGV => "SIGSEGV, a bad memory access",
        libc::SIGSYS => "SIGSYS, a system call that the sandbox does not allow",
        libc::SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ending_has_its_kind() {
        let limits = SandboxLimits::run();
        let kind = |ending| run_result(ending, &limits, true).unwrap_err().kind;
        assert_eq!(run_result(Ending::Exit(3), &limits, false), Ok(3));
        assert_eq!(kind(Ending::Signal(libc::SIGSEGV)), ErrorKind::Trap);
        assert_eq!(kind(Ending::Limit(Limit::Cpu)), ErrorKind::Timeout);
        assert_eq!(kind(Ending::Limit(Limit::Wall)), ErrorKind::Timeout);
        assert_eq!(kind(Ending::Limit(Limit::Memory)), ErrorKind::Memory);
        assert_eq!(kind(Ending::Limit(Limit::FileSize)), ErrorKind::Trap);
        assert_eq!(kind(Ending::Limit(Limit::Files)), ErrorKind::Trap);
        assert_eq!(kind(Ending::Limit(Limit::Stdout)), ErrorKind::Output);
    }

    #[test]
    fn a_build_error_keeps_the_first_error_even_where_the_output_was_cut() {
        let error = |first: &str, output: &str| {
            wire_error(Error::Build { first: first.to_owned(), output: output.to_owned() })
        };
        assert_eq!(error("a.c:1: error: x", "a.c:1: error: x\nmore").message, "a.c:1: error: x\nmore");
        let cut = error("a.c:1: error: x", "a.c:9: error: y");
        assert_eq!(cut.line(), "error: build: a.c:1: error: x");
    }
}
