//! An answer as it came, read by the contract alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::key::Key;
use crate::request::key_of;

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The program ended well.
    Output {
        /// The field `id` of an envelope.
        id: Option<String>,
        /// What it printed.
        stdout: Vec<u8>,
    },
    /// It was refused, or failed.
    Error {
        /// The field `id` of an envelope.
        id: Option<String>,
        /// Kind and message.
        what: String,
    },
    /// No answer of the contract.
    Unreadable,
}

impl Answer {
    /// Reads an envelope in JSON, or else a line.
    pub fn read(payload: &[u8]) -> Answer {
        if payload.first() == Some(&b'{') {
            return Answer::read_envelope(payload).unwrap_or(Answer::Unreadable);
        }
        match payload.strip_prefix(b"error: ") {
            Some(what) => Answer::Error { id: None, what: String::from_utf8_lossy(what).into_owned() },
            None => Answer::Output { id: None, stdout: payload.to_vec() },
        }
    }

    fn read_envelope(payload: &[u8]) -> Option<Answer> {
        let envelope: Value = serde_json::from_slice(payload).ok()?;
        let id = envelope["id"].as_str().map(str::to_owned);
        match envelope["status"].as_str()? {
            "ok" => {
                let stdout = STANDARD.decode(envelope["stdout"].as_str()?).ok()?;
                Some(Answer::Output { id, stdout })
            }
            "exit" => Some(Answer::Error { id, what: format!("exit code {}", envelope["exit_code"]) }),
            "error" => {
                let error = &envelope["error"];
                let what = format!("{}: {}", error["kind"].as_str()?, error["message"].as_str()?);
                Some(Answer::Error { id, what })
            }
            _ => None,
        }
    }

    /// The request that it names: by what was printed, and an error by its `id`.
    pub fn key(&self) -> Option<Key> {
        match self {
            Answer::Output { stdout, .. } => key_of(stdout),
            Answer::Error { id, .. } => id.as_deref()?.parse().ok(),
            Answer::Unreadable => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_envelopes_are_read() {
        let output = |id: Option<&str>, stdout: &[u8]| Answer::Output {
            id: id.map(str::to_owned),
            stdout: stdout.to_vec(),
        };
        assert_eq!(Answer::read(b"3\n"), output(None, b"3\n"));
        let ok = br#"{"id":"c1-2","status":"ok","exit_code":0,"stdout":"Mwo="}"#;
        assert_eq!(Answer::read(ok), output(Some("c1-2"), b"3\n"));
        let error =
            Answer::read(br#"{"id":"c1-2","status":"error","error":{"kind":"busy","message":"full"}}"#);
        assert_eq!(error, Answer::Error { id: Some("c1-2".to_owned()), what: "busy: full".to_owned() });
        assert_eq!(error.key(), Some(Key { client: 1, number: 2 }));
        let line = Answer::read(b"error: trap: unreachable");
        assert_eq!(line, Answer::Error { id: None, what: "trap: unreachable".to_owned() });
        assert_eq!(Answer::read(b"{\"status\":"), Answer::Unreadable);
    }
}
