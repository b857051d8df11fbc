//! JSON envelopes, written and read as `docs/protocol.md` says, independently of the project's own code.

use std::fmt::Display;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::device::{Device, Message};

/// Bytes in JSON.
pub fn bytes(bytes: impl AsRef<[u8]>) -> Value {
    BASE64_STANDARD.encode(bytes).into()
}

/// The answer's envelope.
pub fn read(message: &Message) -> Result<Value> {
    serde_json::from_slice(&message.payload).with_context(|| format!("no envelope: {}", message.text()))
}

/// Asks with an envelope, and reads the answer's.
pub async fn ask(device: &mut Device, topic: &str, request: impl Display) -> Result<Value> {
    read(&device.ask(topic, request.to_string()).await?)
}

/// The bytes in a field of an envelope.
pub fn bytes_of(envelope: &Value, field: &str) -> Result<Vec<u8>> {
    let text = envelope[field].as_str().with_context(|| format!("{field} is no text: {envelope}"))?;
    BASE64_STANDARD.decode(text).with_context(|| format!("{field} is not base64"))
}

/// `error.kind`, or the empty text.
pub fn error_kind(envelope: &Value) -> &str {
    envelope["error"]["kind"].as_str().unwrap_or_default()
}
