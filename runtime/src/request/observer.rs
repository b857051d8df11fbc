//! Who sees requests and their answers: the audit log and the request log, and whoever embeds the gateway.

use crate::client::Client;
use bytes::Bytes;
use offload_protocol::answer::Answer;
use offload_protocol::request::Request;
use std::time::Instant;

/// Sees each request, and may want to see its answer. Called on the thread of an ingress, so it never blocks.
pub trait Observer: Send + Sync + 'static {
    /// A request has arrived, or what was sent in place of one. What is returned sees the answer to it.
    fn request(&self, arrival: &Arrival<'_>) -> Option<Box<dyn AnswerObserver>>;
}

/// Sees the answer to one request: exactly once, whatever becomes of the request, before it is published. Dropped
/// without having seen one, the request was given up, for an external broker to deliver it again.
pub trait AnswerObserver: Send {
    /// Called on the thread that has the answer, often a worker's, so it never blocks. Of an answer that is sealed it
    /// sees the outcome's kind and the times, and nothing that the program or the request says.
    fn answer(self: Box<Self>, answer: &Answer);
}

/// A request as it arrived.
pub struct Arrival<'a> {
    /// Who asks.
    pub client: &'a Client,
    /// On which topic.
    pub topic: &'a str,
    /// The whole payload.
    pub payload: &'a Bytes,
    /// What is asked; `None` where the payload is no request, or is sealed.
    pub request: Option<&'a Request>,
    /// Whether it is sealed: then nobody sees what is in it, nor in its answer ([`AnswerObserver::answer`]).
    pub is_sealed: bool,
    /// When it arrived.
    pub arrived: Instant,
}
