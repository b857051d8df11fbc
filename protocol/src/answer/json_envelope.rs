//! The JSON envelope of an answer. Byte strings are base64 (standard alphabet, padded).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::properties::echoed_id;
use super::{Answer, Outcome, Status};
use crate::error::WireError;

/// Every field is always written. Readers skip fields that they do not know: later gateways may say more.
#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    exit_code: Option<i32>,
    #[serde(borrow)]
    stdout: Cow<'a, str>,
    #[serde(borrow)]
    stderr: Cow<'a, str>,
    #[serde(borrow)]
    error: Option<Error<'a>>,
    fuel: u64,
    run_us: u64,
    queue_us: u64,
}

#[derive(Serialize, Deserialize)]
struct Error<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
}

pub(super) fn encode(answer: &Answer) -> Bytes {
    let (exit_code, error) = match &answer.outcome {
        Outcome::Exited(code) => (Some(*code), None),
        Outcome::Failed(error) => (None, Some(error)),
    };
    let envelope = Envelope {
        id: answer.id.as_ref().map(|id| id.as_str().into()),
        status: Status::of(&answer.outcome).as_str().into(),
        exit_code,
        stdout: BASE64.encode(&answer.stdout).into(),
        stderr: BASE64.encode(&answer.stderr).into(),
        error: error.map(|error| Error {
            kind: error.kind.as_str().into(),
            message: error.envelope_message().into(),
        }),
        fuel: answer.fuel,
        run_us: answer.run_us,
        queue_us: answer.queue_us,
    };
    serde_json::to_vec(&envelope).expect("texts and integers always serialize").into()
}

pub(super) fn decode(payload: &[u8]) -> Result<Answer, WireError> {
    let envelope: Envelope<'_> =
        serde_json::from_slice(payload).map_err(|problem| WireError::malformed("envelope", problem))?;
    let outcome = match (Status::parse(&envelope.status)?, envelope.exit_code, envelope.error) {
        (Status::Error, _, Some(error)) => {
            let kind = error.kind.parse()?;
            Outcome::Failed(WireError::new(kind, error.message))
        }
        (Status::Ok | Status::Exit, Some(code), _) => Outcome::Exited(code),
        (Status::Error, ..) => return Err(WireError::malformed("error", "expected, got none")),
        (Status::Ok | Status::Exit, ..) => {
            return Err(WireError::malformed("exit_code", "expected, got none"));
        }
    };
    Ok(Answer {
        id: echoed_id(envelope.id.as_deref())?,
        outcome,
        stdout: bytes("stdout", &envelope.stdout)?,
        stderr: bytes("stderr", &envelope.stderr)?,
        fuel: envelope.fuel,
        run_us: envelope.run_us,
        queue_us: envelope.queue_us,
    })
}

fn bytes(field: &str, text: &str) -> Result<Bytes, WireError> {
    BASE64.decode(text).map(Bytes::from).map_err(|problem| WireError::malformed(field, problem))
}
