//! Each step of each request, a line of JSON each, for whoever looks for one.

use std::io::Write;

use crate::clock::Nanos;
use crate::model::Outcome;

/// A step of a request.
#[derive(Clone, Copy, Debug)]
pub enum Happening {
    /// Its device sends it.
    Sent,
    /// It is at its gateway.
    Arrived,
    /// There was no connection, and it had QoS 0.
    Dropped,
    /// Its gateway answers.
    Answered(Outcome),
    /// Its device is done with it.
    Done(Outcome),
}

/// Where the lines go.
pub struct Trace<'w> {
    writer: Box<dyn Write + Send + 'w>,
    /// After an error nothing more is written; whoever flushes the writer is told of it.
    has_failed: bool,
}

impl<'w> Trace<'w> {
    /// Lines go there.
    pub fn new(writer: impl Write + Send + 'w) -> Self {
        Self { writer: Box::new(writer), has_failed: false }
    }

    pub(super) fn write(
        &mut self,
        now: Nanos,
        what: Happening,
        request: u64,
        device: u32,
        gateway: u32,
        attempt: u16,
    ) {
        if self.has_failed {
            return;
        }
        let (step, outcome) = match what {
            Happening::Sent => ("sent", None),
            Happening::Arrived => ("arrived", None),
            Happening::Dropped => ("dropped", None),
            Happening::Answered(outcome) => ("answered", Some(outcome)),
            Happening::Done(outcome) => ("done", Some(outcome)),
        };
        let outcome =
            outcome.map_or_else(String::new, |outcome| format!(",\"outcome\":\"{}\"", outcome.name()));
        let line = writeln!(
            self.writer,
            "{{\"ns\":{now},\"step\":\"{step}\",\"request\":{request},\"device\":{device},\"gateway\":{gateway},\
             \"attempt\":{attempt}{outcome}}}"
        );
        self.has_failed = line.is_err();
    }
}
