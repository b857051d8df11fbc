//! What is wrong with an answer, by the contract: an empty list for a right one.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::device::{Message, Version};
use crate::envelope;
use crate::guest::Expected;

/// Most bytes of an error line.
const MAX_ERROR_LINE: usize = 200;

/// What holds for every answer: published at QoS 1, not retained, and in MQTT 5 with the outcome as properties.
pub fn common_problems(message: &Message, version: Version, expected: &Expected) -> Vec<String> {
    let mut problems = Vec::new();
    if message.qos != 1 {
        problems.push(format!("came at QoS {}", message.qos));
    }
    if message.retain {
        problems.push("was retained".to_owned());
    }
    if version == Version::V5 {
        let mut property = |name: &str, expected: Option<String>| {
            let found = message.property(name).map(str::to_owned);
            if expected.is_some() && found != expected {
                problems.push(format!("user property {name} is {found:?}, expected {expected:?}"));
            }
        };
        match expected {
            Expected::Exit { code, .. } => {
                property("status", Some(if *code == 0 { "ok" } else { "exit" }.to_owned()));
                property("exit-code", Some(code.to_string()));
            }
            Expected::Error(kind) => {
                property("status", Some("error".to_owned()));
                property("error-kind", Some(kind.clone()));
            }
        }
        for name in ["fuel", "run-us"] {
            if message.property(name).is_none_or(|value| value.parse::<u64>().is_err()) {
                problems.push(format!("user property {name} is {:?}", message.property(name)));
            }
        }
    }
    problems
}

/// An answer in line form: stdout's bytes, or one error line.
pub fn line_problems(payload: &[u8], expected: &Expected) -> Vec<String> {
    match expected {
        Expected::Error(kind) => error_line_problems(payload, kind),
        Expected::Exit { code, stdout } if *code != 0 && stdout.is_empty() => {
            let line = format!("error: exit: program exited with code {code}");
            // What the program said on stderr may follow.
            let rest = payload.strip_prefix(line.as_bytes());
            let mut problems = error_line_problems(payload, "exit");
            if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b": ")) {
                problems.extend(unequal("payload", payload, line.as_bytes()));
            }
            problems
        }
        Expected::Exit { stdout, .. } => unequal("payload", payload, stdout),
    }
}

/// An error line of this kind.
pub fn error_line_problems(payload: &[u8], kind: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(payload);
    let mut problems = Vec::new();
    if !text.starts_with(&format!("error: {kind}: ")) {
        problems.push(format!("expected an error of kind {kind}, got {}", shown(payload)));
    }
    if payload.len() > MAX_ERROR_LINE {
        problems.push(format!("the error line has {} bytes", payload.len()));
    }
    if std::str::from_utf8(payload).is_err() || text.chars().any(char::is_control) {
        problems.push(format!("the error line is no clean text: {}", shown(payload)));
    }
    problems
}

/// An answer in an envelope, as `envelope::read` or `cbor::read` found it.
pub fn envelope_problems(
    answer: Result<Value>,
    id: Option<&str>,
    expected: &Expected,
    stderr: Option<&str>,
) -> Vec<String> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return vec![format!("{error:#}")],
    };
    let mut problems = Vec::new();
    let mut field = |name: &str, expected: Value| {
        if answer[name] != expected {
            problems.push(format!("{name} is {}, expected {expected}; {answer}", answer[name]));
        }
    };
    field("id", id.into());
    match expected {
        Expected::Exit { code, stdout } => {
            field("status", if *code == 0 { "ok" } else { "exit" }.into());
            field("exit_code", (*code).into());
            match envelope::bytes_of(&answer, "stdout") {
                Ok(found) => problems.extend(unequal("stdout", &found, stdout)),
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        Expected::Error(kind) => {
            field("status", "error".into());
            if envelope::error_kind(&answer) != kind || !answer["error"]["message"].is_string() {
                problems.push(format!("error is {}, expected kind {kind}", answer["error"]));
            }
        }
    }
    if let Some(expected) = stderr {
        match envelope::bytes_of(&answer, "stderr") {
            Ok(found) => problems.extend(unequal("stderr", &found, expected.as_bytes())),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    for name in ["fuel", "run_us", "queue_us"] {
        if !answer[name].is_u64() {
            problems.push(format!("{name} is {}", answer[name]));
        }
    }
    problems
}

/// Expects an error line of this kind whose message holds these words.
pub fn refused(answer: &Message, kind: &str, words: &str) -> Result<()> {
    let problems = error_line_problems(&answer.payload, kind);
    ensure!(problems.is_empty(), "{problems:?}");
    ensure!(answer.text().contains(words), "{words:?} is not in it: {}", answer.text());
    Ok(())
}

/// Expects an envelope, read already, with an error of this kind whose message holds these words.
pub fn refused_in_envelope(answer: Value, kind: &str, words: &str) -> Result<()> {
    let message = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
    let id = answer["id"].as_str().map(str::to_owned);
    let problems = envelope_problems(Ok(answer), id.as_deref(), &Expected::Error(kind.into()), None);
    ensure!(problems.is_empty(), "{problems:?}");
    ensure!(message.contains(words), "{words:?} is not in it: {message}");
    Ok(())
}

fn unequal(what: &str, found: &[u8], expected: &[u8]) -> Vec<String> {
    if found == expected {
        return Vec::new();
    }
    vec![format!("{what} is {}, expected {}", shown(found), shown(expected))]
}

/// The beginning of it, readable.
fn shown(bytes: &[u8]) -> String {
    const SHOWN: usize = 200;
    let beginning = bytes[..bytes.len().min(SHOWN)].escape_ascii();
    format!("\"{beginning}\" ({} bytes)", bytes.len())
}
