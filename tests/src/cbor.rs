//! CBOR envelopes, by way of the JSON ones that say the same, with a library that the project does not use.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ciborium::Value;

use crate::device::Message;

/// The self-described CBOR tag, which every envelope starts with.
const TAG: [u8; 3] = [0xD9, 0xD9, 0xF7];

/// The fields that hold bytes: in JSON they are base64.
const BYTES: [&str; 6] = ["module", "stdin", "stdout", "stderr", "sealed", "encapsulated"];

/// A JSON envelope as CBOR.
pub fn write(envelope: &serde_json::Value) -> Result<Vec<u8>> {
    let mut value = Value::serialized(envelope)?;
    for (name, field) in fields(&mut value)? {
        if BYTES.contains(&name) {
            let text = field.as_text().with_context(|| format!("{name} is not base64"))?;
            *field = Value::Bytes(BASE64_STANDARD.decode(text)?);
        }
    }
    let mut payload = TAG.to_vec();
    ciborium::into_writer(&value, &mut payload)?;
    Ok(payload)
}

/// The answer's envelope as JSON.
pub fn read(message: &Message) -> Result<serde_json::Value> {
    let tagged = message.payload.strip_prefix(&TAG);
    let mut left = tagged.with_context(|| format!("it does not start with the tag: {}", message.text()))?;
    let mut value: Value = ciborium::from_reader(&mut left).context("no CBOR")?;
    ensure!(left.is_empty(), "{} bytes after the envelope", left.len());
    for (name, field) in fields(&mut value)? {
        match field {
            Value::Bytes(bytes) if BYTES.contains(&name) => *field = BASE64_STANDARD.encode(bytes).into(),
            Value::Null => {}
            _ => ensure!(!BYTES.contains(&name) && !field.is_bytes(), "{name} is {field:?}"),
        }
    }
    Ok(value.deserialized()?)
}

/// The fields of an envelope, each of them there once.
fn fields(envelope: &mut Value) -> Result<Vec<(&str, &mut Value)>> {
    let map = envelope.as_map_mut().context("an envelope is a map")?;
    let mut fields: Vec<(&str, &mut Value)> = Vec::new();
    for (name, field) in map {
        let name = name.as_text().context("a field's name is no text")?;
        ensure!(fields.iter().all(|(other, _)| *other != name), "{name} is there twice");
        fields.push((name, field));
    }
    Ok(fields)
}
