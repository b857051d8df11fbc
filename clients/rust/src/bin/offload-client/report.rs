//! What the command prints, and what it exits with.

use std::io::{self, Write};

use offload_client::answer;
use offload_client::{Answer, AnswerForm, ErrorKind, Outcome};
use serde_json::json;

use crate::failure::{EXIT_ERROR, Failure, exit_code};

/// Prints an answer, or why there is none; returns the exit code.
///
/// With `as_json` all of it is one JSON object on stdout, an envelope of the wire contract. Else the guest's stdout and
/// stderr go where they belong, and an error follows on stderr as one `error: <kind>: <message>`. Where a compiler said
/// more than a line, that is its first error, and all that it said follows.
pub fn report(result: Result<Answer, Failure>, as_json: bool) -> u8 {
    let answer = match result {
        Ok(answer) => answer,
        Err(failure) => return report_failure(&failure, as_json),
    };
    let printed = if as_json {
        print_line(io::stdout(), &answer::encode(&answer, AnswerForm::Json).0)
    } else {
        print_streams(&answer)
    };
    unless_unprintable(printed, answer_exit_code(&answer))
}

/// Prints why there is no answer, on stdout as JSON or else on stderr; returns the exit code.
pub fn report_failure(failure: &Failure, as_json: bool) -> u8 {
    if !as_json {
        return failure.report();
    }
    unless_unprintable(print_line(io::stdout(), failure_as_json(failure).as_bytes()), failure.exit_code)
}

/// The exit code, or another one when what belongs to it could not be printed.
pub fn unless_unprintable(printed: io::Result<()>, exit_code: u8) -> u8 {
    match printed {
        // Whoever read our output has had enough, as in `offload-client send … | head -1`.
        Err(problem) if problem.kind() == io::ErrorKind::BrokenPipe => exit_code,
        Err(problem) => {
            let _ = print_line(io::stderr(), error("output", &problem.to_string()).as_bytes());
            EXIT_ERROR
        }
        Ok(()) => exit_code,
    }
}

fn answer_exit_code(answer: &Answer) -> u8 {
    match &answer.outcome {
        // A code that does not fit must not become another one, least of all 0.
        Outcome::Exited(code) => u8::try_from(*code).unwrap_or(u8::MAX),
        Outcome::Failed(error) => exit_code(error.kind.as_str()),
    }
}

fn print_streams(answer: &Answer) -> io::Result<()> {
    print(io::stdout(), &answer.stdout)?;
    print(io::stderr(), &answer.stderr)?;
    match &answer.outcome {
        Outcome::Exited(_) => Ok(()),
        // What the compiler said stands there as it said it, so that editors find their way; the first error goes
        // before.
        Outcome::Failed(failed) if failed.kind == ErrorKind::Build && failed.message.contains('\n') => {
            let printed = format!("{}\n{}", failed.line(), failed.message.trim_end());
            print_line(io::stderr(), printed.as_bytes())
        }
        Outcome::Failed(failed) => {
            print_line(io::stderr(), error(failed.kind.as_str(), &failed.message).as_bytes())
        }
    }
}

fn error(kind: &str, message: &str) -> String {
    format!("error: {kind}: {message}")
}

fn failure_as_json(failure: &Failure) -> String {
    json!({
        "id": null,
        "status": "error",
        "exit_code": null,
        "stdout": "",
        "stderr": "",
        "error": { "kind": failure.kind, "message": failure.message },
        "fuel": 0,
        "run_us": 0,
        "queue_us": 0,
    })
    .to_string()
}

fn print_line(stream: impl Write, line: &[u8]) -> io::Result<()> {
    print(stream, &[line, b"\n"].concat())
}

pub fn print(mut stream: impl Write, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}
