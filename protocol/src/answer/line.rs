//! The line form: stdout and nothing else, or one error line.

use bytes::Bytes;

use super::properties::{self, echoed_id};
use super::{Answer, Outcome, Status};
use crate::error::{ErrorKind, WireError};

const ERROR: &str = "error: ";
const EXITED: &str = "program exited with code ";

/// Whether a program's exit is said by an error line, since it printed nothing.
pub(super) fn needs_error_line(answer: &Answer) -> bool {
    matches!(answer.outcome, Outcome::Exited(code) if code != 0) && answer.stdout.is_empty()
}

pub(super) fn encode(answer: &Answer) -> Bytes {
    match &answer.outcome {
        Outcome::Exited(code) if needs_error_line(answer) => {
            WireError::new(ErrorKind::Exit, format!("{EXITED}{code}")).line().into()
        }
        Outcome::Exited(_) => answer.stdout.clone(),
        Outcome::Failed(error) => error.line().into(),
    }
}

pub(super) fn decode(payload: Bytes, user_properties: &[(String, String)]) -> Result<Answer, WireError> {
    let Some(properties) = properties::decode(user_properties)? else {
        let (outcome, stdout) = match error_line(&payload) {
            Some(outcome) => (outcome, Bytes::new()),
            None => (Outcome::Exited(0), payload),
        };
        return Ok(answer(outcome, stdout));
    };
    let (outcome, stdout) = match properties.status {
        Status::Error => {
            let kind = properties.error_kind.ok_or_else(|| missing("error-kind"))?;
            let message = match error_line(&payload) {
                Some(Outcome::Failed(error)) => error.message,
                _ => String::new(),
            };
            (Outcome::Failed(WireError::new(kind, message)), Bytes::new())
        }
        Status::Ok | Status::Exit => {
            let code = properties.exit_code.ok_or_else(|| missing("exit-code"))?;
            let printed = if properties.error_kind.is_some() { Bytes::new() } else { payload };
            (Outcome::Exited(code), printed)
        }
    };
    Ok(Answer {
        id: echoed_id(properties.id)?,
        fuel: properties.fuel,
        run_us: properties.run_us,
        ..answer(outcome, stdout)
    })
}

fn answer(outcome: Outcome, stdout: Bytes) -> Answer {
    Answer { id: None, outcome, stdout, stderr: Bytes::new(), fuel: 0, run_us: 0, queue_us: 0 }
}

fn missing(property: &str) -> WireError {
    WireError::malformed(property, "expected as user property, got none")
}

/// Reads an error line; `None` for anything else.
fn error_line(payload: &[u8]) -> Option<Outcome> {
    let (kind, message) = str::from_utf8(payload).ok()?.strip_prefix(ERROR)?.split_once(": ")?;
    let kind = kind.parse().ok()?;
    if kind == ErrorKind::Exit
        && let Some(code) = message.strip_prefix(EXITED).and_then(|code| code.parse().ok())
    {
        return Some(Outcome::Exited(code));
    }
    Some(Outcome::Failed(WireError::new(kind, message)))
}
