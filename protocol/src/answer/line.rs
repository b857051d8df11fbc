//! The line form: stdout and nothing else, or one error line.

use bytes::Bytes;

use super::properties::{self, echoed_id};
use super::{Answer, Outcome, Status};
use crate::error::{ErrorKind, MAX_ERROR_LINE, WireError, cut};

const ERROR: &str = "error: ";
const EXITED: &str = "program exited with code ";

/// What is between a kind, a message and the first line of stderr.
const SEPARATOR: &str = ": ";

/// Bytes of the longer of the kinds whose message is explained by stderr.
const LONGEST_KIND: usize = ErrorKind::Trap.as_str().len();

/// Bytes of stderr in which its first line is looked for.
const MAX_STDERR: usize = 4096;

/// Whether a program's exit is said by an error line, since it printed nothing.
pub(super) fn needs_error_line(answer: &Answer) -> bool {
    matches!(answer.outcome, Outcome::Exited(code) if code != 0) && answer.is_silent()
}

pub(super) fn encode(answer: &Answer) -> Bytes {
    match &answer.outcome {
        Outcome::Exited(code) if needs_error_line(answer) => {
            WireError::new(ErrorKind::Exit, explained(format!("{EXITED}{code}"), answer)).line().into()
        }
        Outcome::Exited(_) => answer.stdout.clone(),
        Outcome::Failed(error) if error.kind == ErrorKind::Trap => {
            WireError::new(error.kind, explained(error.message.clone(), answer)).line().into()
        }
        Outcome::Failed(error) => error.line().into(),
    }
}

/// A message, and after it the first line of stderr, where the program printed nothing else. Either gives way to the
/// other only as far as it has more than half of the line.
fn explained(message: String, answer: &Answer) -> String {
    let stderr = &answer.stderr[..answer.stderr.len().min(MAX_STDERR)];
    let stderr = String::from_utf8_lossy(stderr);
    let Some(said) = stderr.lines().map(str::trim).find(|line| !line.is_empty()) else { return message };
    if !answer.is_silent() {
        return message;
    }
    let room = MAX_ERROR_LINE - ERROR.len() - LONGEST_KIND - 2 * SEPARATOR.len();
    let message = cut(&message, room - said.len().min(room / 2));
    [message, said].join(SEPARATOR)
}

pub(super) fn decode(payload: Bytes, user_properties: &[(String, String)]) -> Result<Answer, WireError> {
    let Some(properties) = properties::decode(user_properties)? else {
        return Ok(match error_line(&payload) {
            Some(error) => error,
            None => answer(Outcome::Exited(0), payload),
        });
    };
    let read = match properties.status {
        Status::Error => {
            let kind = properties.error_kind.ok_or_else(|| missing("error-kind"))?;
            let message = match error_line(&payload).map(|error| error.outcome) {
                Some(Outcome::Failed(error)) => error.message,
                _ => String::new(),
            };
            answer(Outcome::Failed(WireError::new(kind, message)), Bytes::new())
        }
        Status::Ok | Status::Exit => {
            let code = properties.exit_code.ok_or_else(|| missing("exit-code"))?;
            let stderr = error_line(&payload).map(|error| error.stderr).unwrap_or_default();
            match properties.error_kind {
                Some(_) => Answer { stderr, ..answer(Outcome::Exited(code), Bytes::new()) },
                None => answer(Outcome::Exited(code), payload),
            }
        }
    };
    Ok(Answer { id: echoed_id(properties.id)?, fuel: properties.fuel, run_us: properties.run_us, ..read })
}

fn answer(outcome: Outcome, stdout: Bytes) -> Answer {
    Answer {
        id: None,
        outcome,
        stdout,
        content_range: None,
        stderr: Bytes::new(),
        fuel: 0,
        run_us: 0,
        queue_us: 0,
    }
}

fn missing(property: &str) -> WireError {
    WireError::malformed(property, "expected as user property, got none")
}

/// Reads an error line; `None` for anything else. What an exit says of stderr is stderr again.
fn error_line(payload: &[u8]) -> Option<Answer> {
    let (kind, message) = str::from_utf8(payload).ok()?.strip_prefix(ERROR)?.split_once(SEPARATOR)?;
    let kind = kind.parse().ok()?;
    if kind == ErrorKind::Exit
        && let Some(exited) = message.strip_prefix(EXITED)
    {
        let (code, stderr) = exited.split_once(SEPARATOR).unwrap_or((exited, ""));
        if let Ok(code) = code.parse() {
            let stderr = Bytes::copy_from_slice(stderr.as_bytes());
            return Some(Answer { stderr, ..answer(Outcome::Exited(code), Bytes::new()) });
        }
    }
    Some(answer(Outcome::Failed(WireError::new(kind, message)), Bytes::new()))
}
