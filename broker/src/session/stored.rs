//! A message on its way into the storage, and its place in the queue of a session that outlives its connection.
//!
//! Records are put while the message is queued, and handed over together when all sessions have it. A message is sent
//! when that is done, at QoS 2 when it is durable: a crash then never leaves a client with a message that its broker
//! does not know under that identifier.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    time::SystemTime,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    message::{Message, QoS},
    packet::outbound_publish::OutboundPublish,
    quotas::account::{Account, Held},
    storage::{Batch, DeliveryRecord, Key, MessageRecord, NotStored, OnDurable, Record, Storage, Ticket},
};

/// The records of one message that are not handed over yet; none for a message that no such session gets.
#[derive(Default)]
pub(crate) struct Storing {
    batch: Option<Box<dyn Batch>>,
    message: Option<Arc<StoredMessage>>,
    deliveries: usize,
    /// More is put than the message.
    has_more: bool,
}

impl Storing {
    /// Whether there is nothing to be handed over.
    pub fn is_empty(&self) -> bool {
        self.batch.is_none()
    }

    /// Sessions that it is put for.
    pub fn deliveries(&self) -> usize {
        self.deliveries
    }

    /// The message, if a session gets it.
    pub fn message(&self) -> Option<&Arc<StoredMessage>> {
        self.message.as_ref()
    }

    /// Puts a session's place for the message, which is the same each time.
    pub fn deliver(
        &mut self,
        storage: &Arc<dyn Storage>,
        session: u64,
        publish: &OutboundPublish,
        packet_id: u16,
        charge: Charge,
    ) -> Stored {
        let batch = self.batch.get_or_insert_with(|| storage.batch());
        let message = self.message.get_or_insert_with(|| {
            let record = MessageRecord {
                message: Message::clone(&publish.message),
                expires: publish.expires.map(on_wall_clock),
            };
            let key = batch.put(Record::Message(record));
            Arc::new(StoredMessage {
                key,
                stage: AtomicU8::new(PUT),
                storage: storage.clone(),
                ticket: OnceLock::new(),
                waiting: Waiting::default(),
            })
        });
        let delivery = batch.put(Record::Delivery(DeliveryRecord {
            session,
            message: message.key,
            qos: publish.qos,
            retain: publish.retain,
            packet_id,
            subscription_ids: publish.subscription_ids.clone(),
        }));
        // Put before it is needed: what is removed always finds room.
        let release =
            (publish.qos == QoS::ExactlyOnce).then(|| batch.put(Record::Released { session, packet_id }));
        self.deliveries += 1;
        Stored { delivery, release, packet_id, message: message.clone(), charge: Some(charge) }
    }

    /// Puts the identifier of a message that a session has published at QoS 2.
    pub fn receive(&mut self, storage: &Arc<dyn Storage>, session: u64, packet_id: u16) -> Key {
        let batch = self.batch.get_or_insert_with(|| storage.batch());
        self.has_more = true;
        batch.put(Record::Received { session, packet_id })
    }

    /// Hands the records over. If all sessions have the message before it is stored, it is not, and `on_durable` is
    /// called then; unless `waits_for_more`.
    pub fn commit(self, on_durable: Option<OnDurable>, waits_for_more: bool) -> Result<(), NotStored> {
        let Some(batch) = self.batch else { return Ok(()) };
        let message = self.message.filter(|_| !self.has_more && !waits_for_more);
        let Some(message) = message else { return batch.commit(on_durable).map(drop) };
        let on_durable = on_durable.map(|on_durable| {
            let waiting = message.waiting.clone();
            *waiting.lock() = Some(on_durable);
            Box::new(move |durable| {
                let on_durable = waiting.lock().take();
                if let Some(on_durable) = on_durable {
                    on_durable(durable);
                }
            }) as OnDurable
        });
        let ticket = batch.commit(on_durable)?;
        let _ = message.ticket.set(ticket);
        Ok(())
    }
}

/// Who waits for a message to be durable.
type Waiting = Arc<Mutex<Option<OnDurable>>>;

/// Its records are put and not handed over.
const PUT: u8 = 0;
/// They are handed over.
const HANDED_OVER: u8 = 1;
const DURABLE: u8 = 2;

/// A message that sessions have in common. Its record goes with the last of them.
pub(crate) struct StoredMessage {
    key: Key,
    stage: AtomicU8,
    storage: Arc<dyn Storage>,
    /// Of its batch, if that may be withdrawn.
    ticket: OnceLock<Ticket>,
    waiting: Waiting,
}

impl StoredMessage {
    /// One that an earlier process has stored.
    pub fn recovered(key: Key, storage: Arc<dyn Storage>) -> Self {
        let (ticket, waiting) = (OnceLock::new(), Waiting::default());
        Self { key, stage: AtomicU8::new(DURABLE), storage, ticket, waiting }
    }

    pub fn key(&self) -> Key {
        self.key
    }

    pub fn set_handed_over(&self) {
        self.stage.fetch_max(HANDED_OVER, SeqCst);
    }

    pub fn set_durable(&self) {
        self.stage.fetch_max(DURABLE, SeqCst);
    }
}

/// A session's place for a message in the storage.
pub(crate) struct Stored {
    delivery: Key,
    /// At QoS 2, the record that stays until PUBCOMP.
    release: Option<Key>,
    /// Under which it is sent, however often.
    pub packet_id: u16,
    message: Arc<StoredMessage>,
    charge: Option<Charge>,
}

/// Bytes of the storage, on the account of whose session has them, until this is dropped.
pub(crate) struct Charge {
    account: Arc<Account>,
    all: Arc<Held>,
    bytes: usize,
}

/// Bytes that the records of one place in a queue take beside the message.
const RECORDS_BYTES: usize = 512;
/// Bytes that a message takes at most: a longer one is a file, for which there is other room.
const MOST_BYTES: usize = 64 * 1024;

impl Charge {
    /// Room for a message of this weight, unless its identity had more than is left of `limit` then.
    pub fn new(account: &Arc<Account>, all: &Arc<Held>, weight: usize, limit: usize) -> Option<Self> {
        let bytes = weight.min(MOST_BYTES) + RECORDS_BYTES;
        let left = limit.saturating_sub(all.get());
        account.stored_bytes.try_add(bytes, left).then(|| {
            all.add(bytes);
            Self { account: account.clone(), all: all.clone(), bytes }
        })
    }

    /// The same for one that an earlier process has stored, whatever its identity has.
    pub fn of_recovered(
        account: &Arc<Account>,
        all: &Arc<Held>,
        weight: usize,
        limit: usize,
    ) -> Option<Self> {
        let bytes = weight.min(MOST_BYTES) + RECORDS_BYTES;
        all.try_add(bytes, limit).then(|| {
            account.stored_bytes.add(bytes);
            Self { account: account.clone(), all: all.clone(), bytes }
        })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.stored_bytes.subtract(self.bytes);
        self.all.subtract(self.bytes);
    }
}

impl Stored {
    /// One that an earlier process has stored.
    pub fn recovered(
        delivery: Key,
        release: Option<Key>,
        packet_id: u16,
        message: Arc<StoredMessage>,
    ) -> Self {
        Self { delivery, release, packet_id, message, charge: None }
    }

    /// Takes the room that it has.
    pub fn charge(&mut self, charge: Charge) {
        self.charge = Some(charge);
    }

    /// Whether it may be sent.
    pub fn may_be_sent(&self, qos: QoS) -> bool {
        let stage = self.message.stage.load(SeqCst);
        stage == DURABLE || stage == HANDED_OVER && qos != QoS::ExactlyOnce
    }

    pub fn is_of(&self, message: &Arc<StoredMessage>) -> bool {
        Arc::ptr_eq(&self.message, message)
    }

    /// The record that stays when the client has received a message at QoS 2.
    pub fn release(&self) -> Option<Key> {
        self.release
    }

    /// The client has the message: adds the keys of what is needed no longer. If it was the last one and the message is
    /// not stored yet, it never is; then returns who has waited for that, and is to be told outside of all locks.
    pub fn finish(self, keys: &mut Vec<Key>) -> Option<OnDurable> {
        let Some(message) = Arc::into_inner(self.message) else {
            keys.extend([self.delivery].into_iter().chain(self.release));
            return None;
        };
        if message.ticket.get().is_some_and(|ticket| message.storage.withdraw(*ticket)) {
            return message.waiting.lock().take();
        }
        keys.extend([self.delivery, message.key].into_iter().chain(self.release));
        None
    }

    /// Adds the keys of what is needed no longer when the client has the message.
    pub fn into_keys(self, keys: &mut Vec<Key>) {
        keys.push(self.delivery);
        keys.extend(Arc::into_inner(self.message).map(|message| message.key));
    }

    /// The same, and what would stay until PUBCOMP.
    pub fn into_all_keys(self, keys: &mut Vec<Key>) {
        keys.extend(self.release);
        self.into_keys(keys);
    }

    /// Where it is stored.
    pub fn storage(&self) -> Arc<dyn Storage> {
        self.message.storage.clone()
    }
}

/// What a session needs to store its place for a message.
pub(crate) struct Keep<'a> {
    pub storage: &'a Arc<dyn Storage>,
    /// The session's number.
    pub session: u64,
    pub storing: &'a mut Storing,
}

/// A moment of this process, as an instant of the wall clock.
pub(crate) fn on_wall_clock(at: Instant) -> SystemTime {
    SystemTime::now() + at.saturating_duration_since(Instant::now())
}

/// A message that waits for a client or is on its way to it.
pub(crate) struct Queued {
    pub publish: OutboundPublish,
    /// Where it is stored, if the session outlives its connection.
    pub stored: Option<Stored>,
}

impl Queued {
    /// Whether it may be sent, as far as the storage is concerned.
    pub fn may_be_sent(&self) -> bool {
        self.stored.as_ref().is_none_or(|stored| stored.may_be_sent(self.publish.qos))
    }
}
