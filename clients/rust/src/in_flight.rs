//! The requests that have no answer yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use offload_mqtt::Message;
use offload_protocol::answer::{self, AnswerForm};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::debug;

use crate::options::random;
use crate::sealing::SealedAnswers;
use crate::{Answer, Error, Part, RequestId};

/// What comes of a request.
pub(crate) type Reply = Result<Answer, Error>;

/// The number of a request within one client: what its Correlation Data says.
pub(crate) type Sequence = u64;

/// The Correlation Data of a request.
fn correlation(nonce: u64, sequence: Sequence) -> Bytes {
    [nonce.to_be_bytes(), sequence.to_be_bytes()].concat().into()
}

/// One request that waits for its answer.
struct Entry {
    message: Message,
    known_by: KnownBy,
    parts: Option<Parts>,
    reply: oneshot::Sender<Reply>,
}

/// Where the parts of a stream go.
#[derive(Clone)]
pub(crate) struct Parts {
    /// The request's id, by which they are known.
    pub(crate) id: RequestId,
    /// Takes what there is room for.
    pub(crate) sender: mpsc::Sender<Part>,
}

/// How an answer is known to be a request's.
pub(crate) enum KnownBy {
    /// By its Correlation Data; it has this form.
    Correlation(AnswerForm),
    /// By the id in its envelope, which is the caller's own or, without that, made up and kept from the caller.
    Id { id: RequestId, made_up: bool },
    /// By its Correlation Data, or in MQTT 3.1.1 by its being opened with this key.
    Seal(SealedAnswers),
}

/// All of a client's requests in flight; shared by the callers, who put them in and take them out when they no longer
/// wait, and the driver, who sends and answers them.
pub(crate) struct InFlight {
    /// What Correlation Data of this client starts with: answers to an earlier client of the same id are not ours.
    nonce: u64,
    table: Mutex<Table>,
    /// Why there is no connection at the moment.
    lost: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct Table {
    last: Sequence,
    /// In the order in which they came.
    entries: BTreeMap<Sequence, Entry>,
    /// Set once, when there will be no answers any more.
    closed: Option<Error>,
}

/// A caller's request among those in flight; dropped, it is no longer waited for.
pub(crate) struct Registration {
    in_flight: Arc<InFlight>,
    pub(crate) sequence: Sequence,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.in_flight.table().entries.remove(&self.sequence);
    }
}

/// Stands for Correlation Data of the same length, before a request has its own.
pub(crate) fn no_correlation() -> Bytes {
    correlation(0, 0)
}

impl InFlight {
    pub(crate) fn new() -> Self {
        Self { nonce: random(), table: Mutex::default(), lost: watch::Sender::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No code that holds it can panic half-way through a change.
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes a request in; the receiver gets its answer. Sets the message's Correlation Data.
    pub(crate) fn insert(
        self: &Arc<Self>,
        mut message: Message,
        known_by: KnownBy,
        parts: Option<Parts>,
    ) -> Result<(Registration, oneshot::Receiver<Reply>), Error> {
        let (reply, receiver) = oneshot::channel();
        let mut table = self.table();
        if let Some(error) = &table.closed {
            return Err(error.clone());
        }
        table.last += 1;
        let sequence = table.last;
        message.properties.correlation_data = Some(correlation(self.nonce, sequence));
        table.entries.insert(sequence, Entry { message, known_by, parts, reply });
        Ok((Registration { in_flight: self.clone(), sequence }, receiver))
    }

    /// The message of a request that is still waited for.
    pub(crate) fn message(&self, sequence: Sequence) -> Option<Message> {
        self.table().entries.get(&sequence).map(|entry| entry.message.clone())
    }

    /// All requests that are still waited for, in order.
    pub(crate) fn unanswered(&self) -> Vec<Sequence> {
        self.table().entries.keys().copied().collect()
    }

    /// Hands a part of a stream to whoever waits for its answer; leaves it out if there is no room for it.
    pub(crate) fn part(&self, id: &str, part: Part) {
        let table = self.table();
        let parts = table.entries.values().filter_map(|entry| entry.parts.as_ref());
        for parts in parts.filter(|parts| parts.id.as_str() == id) {
            let _ = parts.sender.try_send(part.clone());
        }
    }

    /// Hands an answer to whoever waits for it.
    pub(crate) fn answer(&self, message: Message) {
        let Some((reply_to, reply)) = self.known(message) else {
            return debug!("an answer that nobody waits for");
        };
        // Nobody minds if the caller has just gone.
        let _ = reply_to.send(reply);
    }

    fn known(&self, message: Message) -> Option<(oneshot::Sender<Reply>, Reply)> {
        let Message { topic, payload, properties, .. } = message;
        let user_properties = properties.user_properties;
        if let Some(correlation) = properties.correlation_data {
            let sequence = self.sequence(&correlation)?;
            let Entry { known_by, reply, .. } = self.table().entries.remove(&sequence)?;
            let answer = match known_by {
                KnownBy::Correlation(form) => {
                    answer::decode(form, payload, &user_properties).map_err(Error::Answer)
                }
                KnownBy::Seal(answers) => answers.open(&topic, &payload),
                KnownBy::Id { .. } => return None,
            };
            return Some((reply, answer));
        }
        if let Some(known) = self.sealed(&topic, &payload) {
            return Some(known);
        }
        let form = if payload.starts_with(b"{") { AnswerForm::Json } else { AnswerForm::Cbor };
        let mut answer = answer::decode(form, payload, &user_properties).ok()?;
        let mut table = self.table();
        // The oldest of those that have this id. There are few: what is in flight is bounded.
        let (&sequence, made_up) =
            table.entries.iter().find_map(|(sequence, entry)| match &entry.known_by {
                KnownBy::Id { id, made_up } if answer.id.as_ref() == Some(id) => Some((sequence, *made_up)),
                _ => None,
            })?;
        if made_up {
            answer.id = None;
        }
        table.entries.remove(&sequence).map(|entry| (entry.reply, Ok(answer)))
    }

    /// The sealed request that this is the answer to: it opens, or is a refusal in clear, which says not of what.
    fn sealed(&self, topic: &str, payload: &Bytes) -> Option<(oneshot::Sender<Reply>, Reply)> {
        let mut table = self.table();
        let opened = table.entries.iter().find_map(|(sequence, entry)| match &entry.known_by {
            KnownBy::Seal(answers) => Some((*sequence, answers.open(topic, payload).ok()?)),
            _ => None,
        });
        let (sequence, answer) = opened?;
        table.entries.remove(&sequence).map(|entry| (entry.reply, Ok(answer)))
    }

    fn sequence(&self, correlation: &[u8]) -> Option<Sequence> {
        let (nonce, sequence) = correlation.split_first_chunk::<8>()?;
        let sequence = sequence.try_into().ok()?;
        (u64::from_be_bytes(*nonce) == self.nonce).then(|| Sequence::from_be_bytes(sequence))
    }

    /// Ends one request with an error.
    pub(crate) fn fail(&self, sequence: Sequence, error: Error) {
        if let Some(entry) = self.table().entries.remove(&sequence) {
            let _ = entry.reply.send(Err(error));
        }
    }

    /// Ends all requests, those in flight and those to come.
    pub(crate) fn close(&self, error: Error) {
        let mut table = self.table();
        table.closed = Some(error.clone());
        for (_, entry) in std::mem::take(&mut table.entries) {
            let _ = entry.reply.send(Err(error.clone()));
        }
    }

    /// Why there will be no more answers.
    pub(crate) fn closed(&self) -> Option<Error> {
        self.table().closed.clone()
    }

    /// Notes why the connection is lost, or that there is one.
    pub(crate) fn set_lost(&self, reason: Option<String>) {
        self.lost.send_if_modified(|lost| std::mem::replace(lost, reason) != *lost);
    }

    /// Why there is no connection at the moment.
    pub(crate) fn lost(&self) -> watch::Receiver<Option<String>> {
        self.lost.subscribe()
    }
}
