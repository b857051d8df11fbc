//! A message on its way into the storage, and its place in the queue of a session that outlives its connection.
//!
//! Records are put while the message is queued, and handed over together when all sessions have it. A message is sent
//! when that is done, at QoS 2 when it is durable: a crash then never leaves a client with a message that its broker
//! does not know under that identifier.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst},
    },
    time::SystemTime,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    message::{Message, QoS},
    packet::outbound_publish::OutboundPublish,
    quotas::account::{Account, Held},
    storage::{
        self, Batch, DeliveryRecord, Key, MessageRecord, NotStored, OnDurable, Record, Storage, Ticket,
    },
};

/// What becomes of a message that the storage has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WithoutRoom {
    /// The sessions do not get it: its publisher is told, and may send it again.
    #[default]
    Refused,
    /// It waits for them in memory: nobody would send it again.
    InMemory,
}

/// The records of one message that are not handed over yet; none for a message that no such session gets.
#[derive(Default)]
pub(crate) struct Storing {
    without_room: WithoutRoom,
    batch: Option<Box<dyn Batch>>,
    message: Option<Arc<StoredMessage>>,
    /// Bytes of the sessions' places, about.
    bytes: usize,
    /// More is put than the message.
    has_more: bool,
}

impl Storing {
    pub fn new(without_room: WithoutRoom) -> Self {
        Self { without_room, ..Self::default() }
    }

    pub fn without_room(&self) -> WithoutRoom {
        self.without_room
    }

    /// Whether there is nothing to be handed over.
    pub fn is_empty(&self) -> bool {
        self.batch.is_none()
    }

    /// Bytes that the places of sessions take, about.
    pub fn bytes(&self) -> usize {
        self.bytes
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
                sessions: AtomicUsize::new(0),
                settled: Mutex::default(),
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
        self.bytes += RECORDS_BYTES + size_of::<u64>() * publish.subscription_ids.len();
        Stored { charge: Some(charge), ..Stored::new(delivery, release, packet_id, message.clone()) }
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
        let Some(message) = self.message else { return batch.commit(on_durable).map(drop) };
        if self.has_more || waits_for_more {
            return message.hand_over(batch, on_durable).map(drop);
        }
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
        let ticket = message.hand_over(batch, on_durable)?;
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
/// The storage has no room for them: the message is in memory alone.
const IN_MEMORY: u8 = 2;
const DURABLE: u8 = 3;

/// A message that sessions have in common. Its record goes when the last of them is done with it.
pub(crate) struct StoredMessage {
    key: Key,
    stage: AtomicU8,
    storage: Arc<dyn Storage>,
    /// Those that are not done with it.
    sessions: AtomicUsize,
    /// What is needed no longer, and is put and not handed over: it is removed after that.
    settled: Mutex<Vec<Key>>,
    /// Of its batch, if that may be withdrawn.
    ticket: OnceLock<Ticket>,
    waiting: Waiting,
}

impl StoredMessage {
    /// One that an earlier process has stored. It is kept until [`settle`](Self::settle) is called, for all sessions to
    /// be found that have it.
    pub fn recovered(key: Key, storage: Arc<dyn Storage>) -> Self {
        Self {
            key,
            stage: AtomicU8::new(DURABLE),
            storage,
            sessions: AtomicUsize::new(1),
            settled: Mutex::default(),
            ticket: OnceLock::new(),
            waiting: Waiting::default(),
        }
    }

    /// Hands the records over, and the removal of those that are needed no longer behind them.
    fn hand_over(&self, batch: Box<dyn Batch>, on_durable: Option<OnDurable>) -> Result<Ticket, NotStored> {
        let mut settled = self.settled.lock();
        let ticket = batch.commit(on_durable)?;
        self.stage.fetch_max(HANDED_OVER, SeqCst);
        if self.sessions.load(SeqCst) == 0 {
            settled.push(self.key);
        }
        storage::remove(&*self.storage, &std::mem::take(&mut *settled));
        Ok(ticket)
    }

    /// A session is done with it, and these records of its place: adds those to `keys` that are to be removed now, with
    /// that of the message if it was the last session; says whether it was.
    pub fn settle(&self, records: impl IntoIterator<Item = Key>, keys: &mut Vec<Key>) -> bool {
        let mut settled = self.settled.lock();
        let was_last = self.sessions.fetch_sub(1, SeqCst) == 1;
        if self.stage.load(SeqCst) == PUT {
            // More sessions may come.
            settled.extend(records);
            return false;
        }
        keys.extend(records.into_iter().chain(was_last.then_some(self.key)));
        was_last
    }

    /// The storage has not taken it, and its sessions get it all the same.
    pub fn set_in_memory(&self) {
        self.stage.fetch_max(IN_MEMORY, SeqCst);
    }

    pub fn set_durable(&self) {
        self.stage.fetch_max(DURABLE, SeqCst);
    }
}

/// A session's place for a message in the storage. Dropped, it stays there.
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
    /// Whether an identity may store a message of this weight: it may have as much as is left of `limit`.
    pub fn fits(account: &Account, all: &Held, weight: usize, limit: usize) -> bool {
        account.stored_bytes.get() + stored_bytes(weight) <= limit.saturating_sub(all.get())
    }

    /// Of a message of this weight.
    pub fn new(account: &Arc<Account>, all: &Arc<Held>, weight: usize) -> Self {
        let bytes = stored_bytes(weight);
        account.stored_bytes.add(bytes);
        all.add(bytes);
        Self { account: account.clone(), all: all.clone(), bytes }
    }
}

/// Whether a message of this weight may be a file: for that the disk may turn out to be full when its turn comes.
pub(crate) fn is_long(weight: usize) -> bool {
    weight >= MOST_BYTES / 2
}

fn stored_bytes(weight: usize) -> usize {
    weight.min(MOST_BYTES) + RECORDS_BYTES
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
        Self::new(delivery, release, packet_id, message)
    }

    fn new(delivery: Key, release: Option<Key>, packet_id: u16, message: Arc<StoredMessage>) -> Self {
        message.sessions.fetch_add(1, SeqCst);
        Self { delivery, release, packet_id, message, charge: None }
    }

    /// Takes the room that it has.
    pub fn charge(&mut self, charge: Charge) {
        self.charge = Some(charge);
    }

    /// Whether it may be sent.
    pub fn may_be_sent(&self, qos: QoS) -> bool {
        let stage = self.message.stage.load(SeqCst);
        stage >= IN_MEMORY || stage == HANDED_OVER && qos != QoS::ExactlyOnce
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
        let was_last = self.message.settle([self.delivery].into_iter().chain(self.release), keys);
        let ticket = self.message.ticket.get().filter(|_| was_last)?;
        if !self.message.storage.withdraw(*ticket) {
            return None;
        }
        keys.clear();
        self.message.waiting.lock().take()
    }

    /// Adds the keys of what is needed no longer when the client has the message.
    pub fn into_keys(self, keys: &mut Vec<Key>) {
        self.message.settle([self.delivery], keys);
    }

    /// The same, and what would stay until PUBCOMP.
    pub fn into_all_keys(self, keys: &mut Vec<Key>) {
        self.message.settle([self.delivery].into_iter().chain(self.release), keys);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quotas::account::Accounts;

    /// Takes everything at once, and says what there is.
    #[derive(Clone, Default)]
    struct Records(Arc<Mutex<(u64, Vec<Key>)>>);

    struct Puts(Records, Vec<Key>, Vec<Key>);

    impl Storage for Records {
        fn batch(&self) -> Box<dyn Batch> {
            Box::new(Puts(self.clone(), Vec::new(), Vec::new()))
        }
    }

    impl Batch for Puts {
        fn put(&mut self, _: Record) -> Key {
            let mut records = self.0.0.lock();
            records.0 += 1;
            self.1.push(Key(records.0));
            Key(records.0)
        }

        fn remove(&mut self, key: Key) {
            self.2.push(key);
        }

        fn commit(self: Box<Self>, _: Option<OnDurable>) -> Result<Ticket, NotStored> {
            let Self(records, puts, removals) = *self;
            let there = &mut records.0.lock().1;
            there.extend(puts);
            there.retain(|key| !removals.contains(key));
            Ok(Ticket(0))
        }
    }

    fn put(storage: &Arc<dyn Storage>, storing: &mut Storing, session: u64) -> Stored {
        let account = Accounts::default().of(None, [192, 0, 2, 1].into());
        let message = Message::new("t", "m", QoS::ExactlyOnce);
        let publish = OutboundPublish {
            qos: message.qos,
            message,
            retain: false,
            subscription_ids: Vec::new(),
            expires: None,
            receipt: None,
        };
        storing.deliver(storage, session, &publish, 1, Charge::new(&account, &Arc::default(), 1))
    }

    #[test]
    fn what_a_session_is_done_with_before_it_is_handed_over_is_removed_behind_that() {
        let records = Records::default();
        let storage: Arc<dyn Storage> = Arc::new(records.clone());
        let (mut storing, mut keys) = (Storing::default(), Vec::new());
        let (first, second) = (put(&storage, &mut storing, 1), put(&storage, &mut storing, 2));
        first.into_all_keys(&mut keys);
        assert_eq!(keys, [], "nothing is there that could be removed");
        storing.commit(None, false).unwrap();
        assert_eq!(records.0.lock().1.len(), 3, "the message, and what the second session has");
        second.into_all_keys(&mut keys);
        storage::remove(&*storage, &keys);
        assert_eq!(records.0.lock().1, []);
    }

    #[test]
    fn the_message_goes_when_the_last_session_is_done_with_it_whoever_has_it_else() {
        let records = Records::default();
        let storage: Arc<dyn Storage> = Arc::new(records.clone());
        let mut storing = Storing::default();
        let stored = put(&storage, &mut storing, 1);
        // Whoever has handed it over.
        let _held = storing.message().cloned();
        storing.commit(None, false).unwrap();
        let mut keys = Vec::new();
        assert!(stored.finish(&mut keys).is_none());
        storage::remove(&*storage, &keys);
        assert_eq!(records.0.lock().1, []);
        // It is gone too when all sessions are, before it was handed over.
        let mut storing = Storing::default();
        let mut keys = Vec::new();
        put(&storage, &mut storing, 1).into_all_keys(&mut keys);
        storing.commit(None, false).unwrap();
        assert_eq!((keys, &*records.0.lock().1), (vec![], &[][..]));
        // A broker that ends leaves all there.
        let mut storing = Storing::default();
        let stored = put(&storage, &mut storing, 1);
        storing.commit(None, false).unwrap();
        drop(stored);
        assert_eq!(records.0.lock().1.len(), 3);
    }
}
