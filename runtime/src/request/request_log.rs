//! One line a request at `debug`: who asked for what, how it ended, and how long that took.

use super::observer::{AnswerObserver, Arrival, Observer};
use crate::telemetry::bounded;
use offload_protocol::answer::{Answer, Outcome};
use offload_protocol::request::Code;
use std::sync::Arc;
use std::time::Instant;

/// Logs a line for each answer.
pub struct RequestLog(());

/// What is known of a request before its answer.
struct Asked {
    client: Arc<str>,
    topic: String,
    what: String,
    payload: usize,
    arrived: Instant,
}

impl RequestLog {
    /// `None` if such lines are not logged.
    pub fn if_enabled() -> Option<RequestLog> {
        tracing::enabled!(tracing::Level::DEBUG).then_some(RequestLog(()))
    }
}

impl Observer for RequestLog {
    fn request(&self, arrival: &Arrival<'_>) -> Option<Box<dyn AnswerObserver>> {
        Some(Box::new(Asked {
            client: arrival.client.name().into(),
            topic: arrival.topic.to_owned(),
            what: match arrival.request {
                Some(request) => what(&request.code),
                None if arrival.is_sealed => "a sealed request".to_owned(),
                None => "no request".to_owned(),
            },
            payload: arrival.payload.len(),
            arrived: arrival.arrived,
        }))
    }
}

impl AnswerObserver for Asked {
    fn answer(self: Box<Self>, answer: &Answer) {
        let Asked { client, topic, what, payload, arrived } = *self;
        let outcome = match &answer.outcome {
            Outcome::Exited(code) => format!("exit code {code}"),
            Outcome::Failed(error) => format!("{}: {}", error.kind, error.message),
        };
        tracing::debug!(
            client = %bounded(&client),
            topic = %bounded(&topic),
            what = %bounded(&what),
            payload,
            id = answer.id.as_ref().map(|id| id.as_str()),
            outcome = %bounded(&outcome),
            fuel = answer.fuel,
            queue_us = answer.queue_us,
            run_us = answer.run_us,
            total_us = arrived.elapsed().as_micros() as u64,
            "request"
        );
    }
}

/// What is to be run, in a word or two.
fn what(code: &Code) -> String {
    match code {
        Code::Module(_) => "a module".to_owned(),
        Code::Digest(digest) => format!("module {digest}"),
        Code::Source(source) => format!("source {}", source.name.as_str()),
        Code::Files(files) => format!("{} files", files.files.len()),
        Code::Program(name) => format!("program {name}"),
        Code::DefaultProgram => "the default program".to_owned(),
        Code::Modules(modules) => modules.to_string(),
        Code::Cancel(id) => format!("the cancelling of {id}"),
        Code::Sealed => "a sealed request".to_owned(),
    }
}
