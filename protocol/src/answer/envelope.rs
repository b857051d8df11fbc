//! The envelope of an answer, as CBOR or as JSON. Every field is always written, but for those of a part of stdout:
//! they come where a part was asked for.

use bytes::Bytes;

use super::properties::echoed_id;
use super::{Answer, ContentRange, Outcome, Status};
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
    let mut fields: Fields<'_> = vec![
        ("id".into(), answer.id.as_ref().map_or(Value::Null, |id| Value::Text(id.as_str().into()))),
        ("status".into(), text(Status::of(&answer.outcome).as_str())),
        ("exit_code".into(), exit_code),
        ("stdout".into(), Value::Bytes(answer.stdout.clone())),
        ("stderr".into(), Value::Bytes(answer.stderr.clone())),
        ("error".into(), error),
        ("fuel".into(), Value::Unsigned(answer.fuel)),
        ("run_us".into(), Value::Unsigned(answer.run_us)),
        ("queue_us".into(), Value::Unsigned(answer.queue_us)),
    ];
    if let Some(ContentRange { offset, total }) = answer.content_range {
        fields.push(("stdout_offset".into(), Value::Unsigned(offset)));
        fields.push(("stdout_total".into(), Value::Unsigned(total)));
    }
    encoding.write(fields)
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
        content_range: content_range(&mut fields)?,
        stdout: encoding.bytes("stdout", take(&mut fields, "stdout")?)?,
        stderr: encoding.bytes("stderr", take(&mut fields, "stderr")?)?,
        fuel: take(&mut fields, "fuel")?.unsigned("fuel")?,
        run_us: take(&mut fields, "run_us")?.unsigned("run_us")?,
        queue_us: take(&mut fields, "queue_us")?.unsigned("queue_us")?,
    })
}

/// Reads where stdout is in the whole.
fn content_range(fields: &mut Fields<'_>) -> Result<Option<ContentRange>, WireError> {
    let mut number = |name: &str| -> Result<Option<u64>, WireError> {
        given(fields, name).map(|value| value.unsigned(name)).transpose()
    };
    let (offset, total) = (number("stdout_offset")?, number("stdout_total")?);
    Ok(total.map(|total| ContentRange { offset: offset.unwrap_or(0), total }))
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
    given(fields, name).ok_or_else(|| missing(name))
}

/// Takes a field out that may be absent.
fn given<'a>(fields: &mut Fields<'a>, name: &str) -> Option<Value<'a>> {
    let at = fields.iter().position(|(given, _)| given == name)?;
    Some(fields.swap_remove(at).1)
}

/// Takes a field out that may be null.
fn optional<'a>(fields: &mut Fields<'a>, name: &str) -> Result<Option<Value<'a>>, WireError> {
    Ok(Some(take(fields, name)?).filter(|value| *value != Value::Null))
}

fn missing(field: &str) -> WireError {
    WireError::malformed(field, "expected, got none")
}
