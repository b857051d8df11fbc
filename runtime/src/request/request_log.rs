//! One line a request at `debug`: who asked for what, how it ended, and how long that took.

use std::sync::Arc;
use std::time::Instant;

use offload_protocol::answer::{Answer, Outcome};
use offload_protocol::request::{Code, Request};

use crate::client::Client;
use crate::telemetry::bounded;

/// What is known of a request before its answer.
pub struct RequestLog {
    client: Arc<str>,
    topic: String,
    what: String,
    payload: usize,
    arrived: Instant,
}

impl RequestLog {
    /// Notes a request, or what was sent in place of one, if such lines are logged.
    pub fn begin(
        client: &Client,
        topic: &str,
        payload: usize,
        request: Option<&Request>,
        arrived: Instant,
    ) -> Option<Box<RequestLog>> {
        tracing::enabled!(tracing::Level::DEBUG).then(|| {
            let what = request.map_or_else(|| "no request".to_owned(), |request| what(&request.code));
            Box::new(RequestLog {
                client: client.key().clone(),
                topic: topic.to_owned(),
                what,
                payload,
                arrived,
            })
        })
    }

    /// Logs the line.
    pub fn answered(self, answer: &Answer) {
        let RequestLog { client, topic, what, payload, arrived } = self;
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
    }
}
