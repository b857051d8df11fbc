//! The audit log: a JSON line under `gateway/<name>/jobs` for each request, and one for its answer, for whoever
//! watches.
//!
//! It never delays a request: lines go into a bounded channel, and those that find no room are counted and left out.

use crate::config;
use crate::ingress::Notice;
use crate::request::observer::{AnswerObserver, Arrival, Observer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use offload_protocol::answer::{self, Answer, AnswerForm};
use offload_protocol::request::Code;
use offload_protocol::topic;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Bytes of a topic that a line repeats; the rest is left out.
const MAX_TOPIC: usize = 1024;

/// Shows requests and their answers.
pub struct AuditLog(Arc<Lines>);

/// Where the lines begin.
struct Lines {
    topic: Arc<str>,
    /// Bytes of each payload that are shown, where any are.
    payload_bytes: Option<usize>,
    sender: mpsc::Sender<Notice>,
    jobs: AtomicU64,
    dropped: AtomicU64,
}

/// One request that was shown, whose answer will be.
struct AuditEntry {
    lines: Arc<Lines>,
    job: u64,
}

#[derive(Serialize)]
struct RequestLine<'a> {
    event: &'static str,
    job: u64,
    client: &'a str,
    topic: &'a str,
    id: Option<&'a str>,
    code: Option<&'static str>,
    name: Option<String>,
    payload_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped: u64,
}

#[derive(Serialize)]
struct AnswerLine {
    event: &'static str,
    job: u64,
    stdout_bytes: usize,
    stderr_bytes: usize,
    answer: Value,
    #[serde(skip_serializing_if = "is_zero")]
    dropped: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The audit log of the gateway of this name, if there is to be one, and what comes out of it.
pub fn start(name: &str, config: &config::Mirror) -> (Option<AuditLog>, mpsc::Receiver<Notice>) {
    let (sender, receiver) = mpsc::channel(config.queue);
    let audit_log = config.enabled.then(|| {
        AuditLog(Arc::new(Lines {
            topic: topic::gateway_jobs(name).into(),
            payload_bytes: config.payloads.then(|| config.payload_bytes.as_usize()),
            sender,
            jobs: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }))
    });
    (audit_log, receiver)
}

impl Observer for AuditLog {
    fn request(&self, arrival: &Arrival<'_>) -> Option<Box<dyn AnswerObserver>> {
        let AuditLog(lines) = self;
        let Arrival { client, topic, payload, request, is_sealed, .. } = arrival;
        let job = lines.jobs.fetch_add(1, Ordering::Relaxed) + 1;
        let (code, name) = match request.map(|request| &request.code) {
            None => (is_sealed.then_some("sealed"), None),
            Some(Code::Module(_)) => (Some("module"), None),
            Some(Code::Digest(digest)) => (Some("digest"), Some(digest.to_string())),
            Some(Code::Source(source)) => (Some("source"), Some(source.name.as_str().to_owned())),
            Some(Code::Files(_)) => (Some("files"), None),
            Some(Code::Program(name)) => (Some("program"), Some(name.clone())),
            Some(Code::DefaultProgram) => (Some("program"), None),
            Some(Code::Modules(modules)) => (Some("modules"), Some(modules.to_string())),
            Some(Code::Cancel(id)) => (Some("cancel"), Some(id.to_string())),
            Some(Code::Sealed) => (Some("sealed"), None),
        };
        lines.show(&RequestLine {
            event: "request",
            job,
            client: client.name(),
            topic: &topic[..topic.floor_char_boundary(MAX_TOPIC)],
            id: request.and_then(|request| request.id.as_ref()).map(|id| id.as_str()),
            code,
            name,
            payload_bytes: payload.len(),
            payload: lines.payload_bytes.map(|most| STANDARD.encode(cut(payload, most))),
            dropped: lines.dropped.load(Ordering::Relaxed),
        });
        Some(Box::new(AuditEntry { lines: lines.clone(), job }))
    }
}

impl AnswerObserver for AuditEntry {
    fn answer(self: Box<Self>, answer: &Answer) {
        let AuditEntry { lines, job } = *self;
        let most = lines.payload_bytes.unwrap_or(0);
        let shown = Answer {
            stdout: answer.stdout.slice_ref(cut(&answer.stdout, most)),
            stderr: answer.stderr.slice_ref(cut(&answer.stderr, most)),
            ..answer.clone()
        };
        let (envelope, _) = answer::encode(&shown, AnswerForm::Json);
        let mut envelope: Value = serde_json::from_slice(&envelope).expect("what was just written");
        if let (None, Some(fields)) = (lines.payload_bytes, envelope.as_object_mut()) {
            fields.remove("stdout");
            fields.remove("stderr");
        }
        lines.show(&AnswerLine {
            event: "answer",
            job,
            stdout_bytes: answer.stdout.len(),
            stderr_bytes: answer.stderr.len(),
            answer: envelope,
            dropped: lines.dropped.load(Ordering::Relaxed),
        });
    }
}

impl Lines {
    fn show(&self, line: &impl Serialize) {
        let payload = serde_json::to_vec(line).expect("texts and numbers can be written as JSON");
        let notice = Notice { topic: self.topic.clone(), payload: payload.into(), retain: false };
        if self.sender.try_send(notice).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(
                    dropped,
                    "the audit log leaves lines out: the broker does not take them as fast"
                );
            }
        }
    }
}

fn cut(bytes: &[u8], most: usize) -> &[u8] {
    &bytes[..bytes.len().min(most)]
}
