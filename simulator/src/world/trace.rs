//! Each step of each request, a line of JSON each, for whoever looks for one.

use std::io::Write;

use super::capture::Capture;
use crate::clock::Nanos;
use crate::model::Outcome;

/// A step of a request.
#[derive(Clone, Copy, Debug)]
pub enum Happening {
    /// Its device sends it.
    Sent,
    /// It is at its gateway.
    Arrived,
    /// It is on its way from this gateway to another site.
    Departed,
    /// It has come to this gateway from another site.
    Visited,
    /// There was no connection, and it had QoS 0.
    Dropped,
    /// Its gateway answers.
    Answered(Outcome),
    /// Its device is done with it.
    Done(Outcome),
}

/// Where the lines go, and the packets.
pub struct Trace<'w> {
    writer: Option<Box<dyn Write + Send + 'w>>,
    /// Where packets go.
    pub(super) capture: Option<Capture<'w>>,
    /// After an error nothing more is written; whoever flushes the writer is told of it.
    has_failed: bool,
}

impl<'w> Trace<'w> {
    /// Lines go there.
    pub fn new(writer: impl Write + Send + 'w) -> Self {
        Self { writer: Some(Box::new(writer)), capture: None, has_failed: false }
    }

    /// Packets go there too, or alone.
    pub fn capturing(trace: Option<Self>, capture: Capture<'w>) -> Self {
        let none = Self { writer: None, capture: None, has_failed: false };
        Self { capture: Some(capture), ..trace.unwrap_or(none) }
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
        let Some(writer) = self.writer.as_mut().filter(|_| !self.has_failed) else { return };
        let (step, outcome) = match what {
            Happening::Sent => ("sent", None),
            Happening::Arrived => ("arrived", None),
            Happening::Departed => ("departed", None),
            Happening::Visited => ("visited", None),
            Happening::Dropped => ("dropped", None),
            Happening::Answered(outcome) => ("answered", Some(outcome)),
            Happening::Done(outcome) => ("done", Some(outcome)),
        };
        let outcome =
            outcome.map_or_else(String::new, |outcome| format!(",\"outcome\":\"{}\"", outcome.name()));
        let line = writeln!(
            writer,
            "{{\"ns\":{now},\"step\":\"{step}\",\"request\":{request},\"device\":{device},\"gateway\":{gateway},\
             \"attempt\":{attempt}{outcome}}}"
        );
        self.has_failed = line.is_err();
    }
}
