//! The requests that have no answer yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use offload_protocol::answer::{self, AnswerForm};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};
use tokio::sync::oneshot;
use tracing::debug;

use crate::options::random;
use crate::{Answer, Error};

/// What comes of a request.
pub(crate) type Reply = Result<Answer, Error>;

/// The number of a request within one client: what its Correlation Data says.
pub(crate) type Sequence = u64;

/// A request as it is published, at QoS 1.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) properties: PublishProperties,
}

impl Message {
    /// The bytes of the whole packet, Correlation Data included.
    pub(crate) fn packet_size(&self) -> usize {
        let properties =
            PublishProperties { correlation_data: Some(correlation(0, 0)), ..self.properties.clone() };
        let mut publish =
            Publish::new(self.topic.as_str(), QoS::AtLeastOnce, self.payload.clone(), Some(properties));
        // Any packet id has the same size, but none has none.
        publish.pkid = 1;
        publish.size()
    }
}

fn correlation(nonce: u64, sequence: Sequence) -> Bytes {
    [nonce.to_be_bytes(), sequence.to_be_bytes()].concat().into()
}

/// One request that waits for its answer.
struct Entry {
    message: Message,
    form: AnswerForm,
    reply: oneshot::Sender<Reply>,
}

/// All of a client's requests in flight; shared by the callers, who put them in and take them out when they no longer
/// wait, and the driver, who sends and answers them.
pub(crate) struct InFlight {
    /// What Correlation Data of this client starts with: answers to an earlier client of the same id are not ours.
    nonce: u64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: Sequence,
    /// In the order in which they came.
    entries: BTreeMap<Sequence, Entry>,
    /// Set once, when there will be no answers any more.
    closed: Option<Error>,
    /// Why there is no connection at the moment.
    lost: Option<String>,
}

/// A caller's place; gives it up when dropped.
pub(crate) struct Place {
    in_flight: Arc<InFlight>,
    pub(crate) sequence: Sequence,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.in_flight.table().entries.remove(&self.sequence);
    }
}

impl InFlight {
    pub(crate) fn new() -> Self {
        Self { nonce: random(), table: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No code that holds it can panic half-way through a change.
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes a request in; the receiver gets its answer. Sets the message's Correlation Data.
    pub(crate) fn insert(
        self: &Arc<Self>,
        mut message: Message,
        form: AnswerForm,
    ) -> Result<(Place, oneshot::Receiver<Reply>), Error> {
        let (reply, receiver) = oneshot::channel();
        let mut table = self.table();
        if let Some(error) = &table.closed {
            return Err(error.clone());
        }
        table.last += 1;
        let sequence = table.last;
        message.properties.correlation_data = Some(correlation(self.nonce, sequence));
        table.entries.insert(sequence, Entry { message, form, reply });
        Ok((Place { in_flight: self.clone(), sequence }, receiver))
    }

    /// The message of a request that is still waited for.
    pub(crate) fn message(&self, sequence: Sequence) -> Option<Message> {
        self.table().entries.get(&sequence).map(|entry| entry.message.clone())
    }

    /// All requests that are still waited for, in order.
    pub(crate) fn unanswered(&self) -> Vec<Sequence> {
        self.table().entries.keys().copied().collect()
    }

    /// Hands an answer to whoever waits for it.
    pub(crate) fn answer(&self, publish: Publish) {
        let properties = publish.properties.unwrap_or_default();
        let sequence = properties.correlation_data.as_deref().and_then(|data| self.sequence(data));
        let Some(entry) = sequence.and_then(|sequence| self.table().entries.remove(&sequence)) else {
            return debug!("an answer that nobody waits for");
        };
        let reply = answer::decode(entry.form, publish.payload, &properties.user_properties);
        // Nobody minds if the caller has just gone.
        let _ = entry.reply.send(reply.map_err(Error::Answer));
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
        self.table().lost = reason;
    }

    /// Why there is no connection at the moment.
    pub(crate) fn lost(&self) -> Option<String> {
        self.table().lost.clone()
    }
}
