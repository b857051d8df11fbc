//! What is known of one thing that was sent.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::request::{RANDOM_BYTES, Request};

/// Events of one entry that are kept, the first ones: what is repeated for long repeats itself.
const MAX_HISTORY: usize = 48;

/// Bytes of an answer or message that a history shows.
const SHOWN: usize = 160;

/// What was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A request.
    Request(Request),
    /// An ordinary message, for all listeners.
    Message {
        /// The quality of service at which it is published.
        qos: u8,
        /// All of it.
        payload: Bytes,
    },
    /// A retained message.
    Retained {
        /// Where.
        topic: String,
        /// The value; empty to have none.
        payload: Bytes,
    },
}

/// What happened to it.
#[derive(Clone, Debug)]
pub enum Event {
    /// It was published: this, at this quality of service.
    Sent(String, u8),
    /// It was published once more.
    SentAgain,
    /// PUBACK or PUBREC came.
    Acknowledged,
    /// An answer came to this client.
    Answered(u16, Bytes),
    /// A listener received it.
    Heard(u16),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Sent(what, qos) => write!(f, "{what} sent at QoS {qos}"),
            Event::SentAgain => write!(f, "sent again"),
            Event::Acknowledged => write!(f, "acknowledged"),
            Event::Answered(client, payload) => write!(f, "client {client} received {}", shown(payload)),
            Event::Heard(client) => write!(f, "client {client} received it"),
        }
    }
}

/// The entry of one key.
#[derive(Debug)]
pub struct Entry {
    /// What was sent.
    pub sent: Sent,
    /// Whether something is owed still: an acknowledgement, an answer, a delivery.
    pub open: bool,
    /// Whether what was sent last is acknowledged.
    pub acknowledged: bool,
    /// Whether an answer came since it was sent last.
    pub answered: bool,
    /// How often it was published.
    pub sends: u32,
    /// Crashes that there had been before.
    pub crashes_before: u32,
    /// The round of its last event.
    pub round: u32,
    /// The first answer.
    pub answer: Option<Bytes>,
    /// Runs of a request without an `id`, by their random bytes.
    pub runs: Vec<[u8; RANDOM_BYTES]>,
    /// Which listeners have received it, once for each time.
    pub heard: Vec<u16>,
    history: Vec<(Duration, Event)>,
}

impl Entry {
    /// Of what is sent now.
    pub fn new(at: Duration, round: u32, crashes: u32, sent: Sent) -> Entry {
        let (what, qos) = match &sent {
            Sent::Request(request) => (request.to_string(), request.qos),
            Sent::Message { qos, .. } => ("message".to_owned(), *qos),
            Sent::Retained { topic, payload } => (format!("{} to retain on {topic}", shown(payload)), 1),
        };
        Entry {
            sent,
            open: true,
            acknowledged: false,
            answered: false,
            sends: 1,
            crashes_before: crashes,
            round,
            answer: None,
            runs: Vec::new(),
            heard: Vec::new(),
            history: vec![(at, Event::Sent(what, qos))],
        }
    }

    /// Adds an event to its history.
    pub fn note(&mut self, at: Duration, round: u32, event: Event) {
        self.round = round;
        if self.history.len() < MAX_HISTORY {
            self.history.push((at, event));
        }
    }

    /// Its events, and those beside it since it was sent.
    pub fn history<'a>(
        &self,
        beside: impl Iterator<Item = &'a (Duration, String)>,
    ) -> Vec<(Duration, String)> {
        let begin = self.history.first().map_or(Duration::MAX, |(at, _)| *at);
        let own = self.history.iter().map(|(at, event)| (*at, event.to_string()));
        own.chain(beside.filter(|(at, _)| *at >= begin).take(MAX_HISTORY).cloned()).collect()
    }
}

/// The beginning and the end of a payload, as text.
pub fn shown(payload: &[u8]) -> String {
    let half = SHOWN / 2;
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    if payload.len() <= SHOWN {
        return format!("`{}`", text(payload));
    }
    let (begin, end) = (&payload[..half], &payload[payload.len() - half..]);
    format!("`{}…{}` ({} bytes)", text(begin), text(end), payload.len())
}

/// By what two payloads are compared once they are forgotten.
pub fn mark(payload: &[u8]) -> u64 {
    let digest: [u8; 32] = Sha256::digest(payload).into();
    u64::from_le_bytes(digest[..8].try_into().expect("a digest has more than eight bytes"))
}
