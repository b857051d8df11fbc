//! The envelope of an answer, as CBOR or as JSON. Every field is always written.

use bytes::Bytes;

use super::properties::echoed_id;
use super::{Answer, Outcome, Status};
use crate::envelope::{Encoding, Fields, MAX_VALUES, Shape, Value, expected};
use crate::error::WireError;

pub(super) fn encode(encoding: Encoding, answer: &Answer) -> Bytes {
    let text = |text: &'static str| Value::Text(text.into());
    let (exit_code, error) = match &answer.outcome {
        Outcome::Exited(code) => (integer(*code), Value::Null),
        Outcome::Failed(error) => {
            let message = Value::Text(error.envelope_message().into());
            (
                Value::Null,
                Value::Map(vec![("kind".into(), text(error.kind.as_str())), ("message".into(), message)]),
            )
        }
    };
    encoding.write(vec![
        ("id".into(), answer.id.as_ref().map_or(Value::Null, |id| Value::Text(id.as_str().into()))),
        ("status".into(), text(Status::of(&answer.outcome).as_str())),
        ("exit_code".into(), exit_code),
        ("stdout".into(), Value::Bytes(answer.stdout.clone())),
        ("stderr".into(), Value::Bytes(answer.stderr.clone())),
        ("error".into(), error),
        ("fuel".into(), Value::Unsigned(answer.fuel)),
        ("run_us".into(), Value::Unsigned(answer.run_us)),
        ("queue_us".into(), Value::Unsigned(answer.queue_us)),
    ])
}

fn integer(number: i32) -> Value<'static> {
    u64::try_from(number).map_or(Value::Negative(number.into()), Value::Unsigned)
}

pub(super) fn decode(encoding: Encoding, payload: &Bytes) -> Result<Answer, WireError> {
    let shape_of = |name: &str| if name == "error" { Shape::Map(MAX_VALUES) } else { Shape::Scalar };
    let mut fields = encoding.read(payload, shape_of, MAX_VALUES)?;
    let id = optional(&mut fields, "id")?.map(|id| id.text("id")).transpose()?;
    let status = Status::parse(&take(&mut fields, "status")?.text("status")?)?;
    let exit_code = optional(&mut fields, "exit_code")?.map(exit_code).transpose()?;
    let error = optional(&mut fields, "error")?.map(error).transpose()?;
    let outcome = match (status, exit_code, error) {
        (Status::Error, _, Some(error)) => Outcome::Failed(error),
        (Status::Ok | Status::Exit, Some(code), _) => Outcome::Exited(code),
        (Status::Error, ..) => return Err(missing("error")),
        (Status::Ok | Status::Exit, ..) => return Err(missing("exit_code")),
    };
    Ok(Answer {
        id: echoed_id(id.as_deref())?,
        outcome,
        stdout: encoding.bytes("stdout", take(&mut fields, "stdout")?)?,
        stderr: encoding.bytes("stderr", take(&mut fields, "stderr")?)?,
        fuel: take(&mut fields, "fuel")?.unsigned("fuel")?,
        run_us: take(&mut fields, "run_us")?.unsigned("run_us")?,
        queue_us: take(&mut fields, "queue_us")?.unsigned("queue_us")?,
    })
}

fn exit_code(value: Value<'_>) -> Result<i32, WireError> {
    let code = match value {
        Value::Unsigned(number) => number.try_into().ok(),
        Value::Negative(number) => number.try_into().ok(),
        _ => None,
    };
    code.ok_or_else(|| expected("exit_code", "a 32-bit integer", &value))
}

fn error(value: Value<'_>) -> Result<WireError, WireError> {
    match value {
        Value::Map(mut fields) => {
            let kind = take(&mut fields, "kind")?.text("kind")?.parse()?;
            Ok(WireError::new(kind, take(&mut fields, "message")?.text("message")?))
        }
        other => Err(expected("error", "a map", &other)),
    }
}

/// Takes a field out. Fields that nobody takes are skipped: later gateways may say more.
fn take<'a>(fields: &mut Fields<'a>, name: &str) -> Result<Value<'a>, WireError> {
    let at = fields.iter().position(|(given, _)| given == name).ok_or_else(|| missing(name))?;
    Ok(fields.swap_remove(at).1)
}

/// Takes a field out that may be null.
fn optional<'a>(fields: &mut Fields<'a>, name: &str) -> Result<Option<Value<'a>>, WireError> {
    Ok(Some(take(fields, name)?).filter(|value| *value != Value::Null))
}

fn missing(field: &str) -> WireError {
    WireError::malformed(field, "expected, got none")
}
