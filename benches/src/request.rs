//! The requests that are measured, as docs/protocol.md says: each with the one answer that is right.

use crate::load::{ID_PLACE, Request};
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use offload_protocol::request::Digest;
use serde_json::{Value, json};
use std::time::Duration;

/// Bytes of what a small request carries.
pub const SMALL: usize = 64;

/// Two numbers to be added, as [`SMALL`] bytes: what an echo can answer too.
pub fn numbers() -> Vec<u8> {
    let mut text = b"5 7".to_vec();
    text.resize(SMALL, b' ');
    text
}

/// [`numbers`] for the gateway's default program.
pub fn add() -> Request {
    Request { topic: "localCode", payload: numbers(), answer: b"12\n".to_vec() }
}

/// Two numbers for the gateway's default program, with an `id`.
pub fn add_with_id() -> Request {
    let id = str::from_utf8(ID_PLACE).unwrap_or_default();
    let envelope = json!({ "id": id, "program": "add", "args": ["5", "7"], "reply": "stdout" });
    Request { topic: "localCode", payload: envelope.to_string().into_bytes(), answer: b"12\n".to_vec() }
}

/// A program of the gateway that prints nothing, asked for on this topic.
pub fn program(topic: &'static str, name: &str) -> Request {
    let envelope = json!({ "program": name, "reply": "stdout" });
    Request { topic, payload: envelope.to_string().into_bytes(), answer: Vec::new() }
}

/// The same, to be answered by an envelope.
pub fn program_in_envelope(topic: &'static str, name: &str) -> Request {
    Request { topic, payload: json!({ "program": name }).to_string().into_bytes(), answer: Vec::new() }
}

/// How long a program ran and how long it had waited, from the envelope that answers for it.
pub fn times(answer: &[u8]) -> Result<(Duration, Duration)> {
    let envelope: Value = serde_json::from_slice(answer)?;
    ensure!(envelope["status"] == "ok", "a program has failed: {envelope}");
    let time = |key: &str| envelope[key].as_u64().map(Duration::from_micros);
    time("run_us").zip(time("queue_us")).context("an answer without its times")
}

/// [`numbers`] for a server that publishes back what it gets.
pub fn echo() -> Request {
    Request { topic: "localCode", payload: numbers(), answer: numbers() }
}

/// A module that comes with the request, and what it prints.
pub fn module(module: &[u8], answer: &[u8]) -> Request {
    Request { topic: "inputCode", payload: module.to_vec(), answer: answer.to_vec() }
}

/// A module that was sent before, [`SMALL`] bytes for its standard input, and what it prints.
pub fn known(digest: &Digest, stdin: &[u8], answer: &[u8]) -> Request {
    let digest = format!("sha256:{}", digest.hex());
    let envelope = json!({ "digest": digest, "stdin": BASE64_STANDARD.encode(stdin), "reply": "stdout" });
    Request { topic: "inputCode", payload: envelope.to_string().into_bytes(), answer: answer.to_vec() }
}

/// A module that is kept, and ends at once.
pub fn without_fuel(module: &[u8]) -> Request {
    let envelope = json!({ "module": BASE64_STANDARD.encode(module), "fuel": 1 });
    Request { topic: "inputCode", payload: envelope.to_string().into_bytes(), answer: Vec::new() }
}

/// A module that is to run until `timeout` and then to be told about, in an envelope.
pub fn until(digest: &Digest, timeout: Duration) -> Request {
    let digest = format!("sha256:{}", digest.hex());
    let envelope = json!({ "digest": digest, "timeout_ms": timeout.as_millis() as u64 });
    Request { topic: "inputCode", payload: envelope.to_string().into_bytes(), answer: Vec::new() }
}

/// The fuel of a guest that ran [`until`] its timeout, from its answer; none if it never had a slice.
pub fn fuel_until(answer: &[u8]) -> Result<u64> {
    let envelope: Value = serde_json::from_slice(answer)?;
    let kind = envelope["error"]["kind"].as_str().unwrap_or_default();
    ensure!(["timeout", "expired"].contains(&kind), "a guest that never ends has ended: {envelope}");
    envelope["fuel"].as_u64().context("an answer without fuel")
}

/// C source to be built with gcc and run, in the form of the deployed devices.
pub fn source(source: &str, args: &str, answer: &[u8]) -> Request {
    let payload = format!("add----{args}----{source}----gcc add.c -o add");
    Request { topic: "inputCode", payload: payload.into_bytes(), answer: answer.to_vec() }
}
