//! Where a broker keeps what has to outlive its process: sessions that outlive their connection, the messages at QoS 1
//! and 2 for them, retained messages.
//!
//! The broker says what a [`Record`] holds and when it is there no longer; how records are written, and where, is the
//! [`Storage`]'s. A broker without one ([`Broker::new`](crate::Broker::new)) keeps everything in memory. One with a
//! storage ([`Broker::with_storage`](crate::Broker::with_storage)) begins with the records that an earlier process has
//! left, and acknowledges a message when its records are durable.
//!
//! | what happens | what is stored | what waits until that is durable |
//! | --- | --- | --- |
//! | a session that outlives its connection begins | [`Record::Session`] | CONNACK |
//! | another session takes its place | the removal of all that it has | CONNACK |
//! | its connection ends | [`Record::Session`] again, with the time | |
//! | SUBSCRIBE, UNSUBSCRIBE | [`Record::Subscription`] | SUBACK, UNSUBACK |
//! | a message at QoS 1 or 2 is queued for it | [`Record::Message`] once; for each session [`Record::Delivery`], at QoS 2 [`Record::Released`] too | the publisher's PUBACK or PUBREC; sending it at QoS 2 |
//! | it acknowledges one (PUBACK, PUBCOMP), or the message expires | its removal | |
//! | its PUBREC | the removal of the delivery; its [`Record::Released`] stays | PUBREL |
//! | it publishes at QoS 2 | [`Record::Received`], in one batch with the deliveries | PUBREC |
//! | its PUBREL | the removal of that | PUBCOMP |
//! | a client's message is retained, or clears one | [`Record::Retained`], or its removal | PUBACK, PUBREC |
//!
//! Nothing else is: no message at QoS 0 (unless a client retains it, and nobody waits for that), no session that ends
//! with its connection, no will, nothing that the application retains.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    message::{Message, QoS},
    reason::Reason,
    transport::peer::TransportKind,
    version::Version,
};

/// Keeps records across the end of the process, whatever ends it.
///
/// All methods are called under locks of the broker, on the tasks of connections: they take microseconds, wait for no
/// disk and call no broker.
pub trait Storage: Send + Sync + 'static {
    /// An empty batch.
    fn batch(&self) -> Box<dyn Batch>;

    /// Takes back a batch that is not being stored yet: none of it is, and its completion is dropped. False when it is
    /// too late for that, or the storage has no way to do it, as by default.
    fn withdraw(&self, ticket: Ticket) -> bool {
        let _ = ticket;
        false
    }

    /// Now, for [`age`](Self::age) to tell how long ago that was, in a later process too. By default that is the clock
    /// on the wall.
    fn now(&self) -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment([since.as_millis().try_into().unwrap_or(u64::MAX), 0, 0])
    }

    /// How long ago a moment was; zero for one that seems to come.
    fn age(&self, Moment([millis, ..]): Moment) -> Duration {
        let Moment([now, ..]) = self.now();
        Duration::from_millis(now.saturating_sub(millis))
    }
}

/// When something was: only the storage that has said it can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub [u64; 3]);

/// Names a batch that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// Records that are put and removed together, all of them or none.
pub trait Batch: Send {
    /// Puts a record; returns its key, which is larger than those of all records that were put before, in earlier
    /// processes too.
    fn put(&mut self, record: Record) -> Key;

    /// Removes a record. One that is not there is no error.
    fn remove(&mut self, key: Key);

    /// Takes the batch over: what is durable of all batches is always a first part of them, in the order of these
    /// calls. `on_durable` is called once, on any thread but not within this call, when the batch is durable or may
    /// not be; in the order of the batches, too.
    ///
    /// A batch with long messages may find no room when its turn comes: `on_durable` gets [`NotStored::Full`], and
    /// nothing of it is stored, though later batches are.
    ///
    /// # Errors
    ///
    /// When the batch is not taken: nothing of it is stored, and `on_durable` is dropped. One that only removes is
    /// never [`NotStored::Full`].
    fn commit(self: Box<Self>, on_durable: Option<OnDurable>) -> Result<Ticket, NotStored>;
}

/// Is told that a batch is durable, or that the storage has failed.
pub type OnDurable = Box<dyn FnOnce(Result<(), NotStored>) + Send>;

/// Why a batch is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// There is no room. The publisher is told as for a full queue.
    Full,
    /// The storage has failed and takes nothing any more: nothing is acknowledged from now on that needs it.
    Failed,
}

impl From<NotStored> for Reason {
    fn from(why: NotStored) -> Self {
        match why {
            NotStored::Full => Self::QuotaExceeded,
            NotStored::Failed => Self::ServerUnavailable,
        }
    }
}

/// Names a record as long as it is stored. Keys grow in the order in which records are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64);

/// What is stored. When a message expires is said by the wall clock.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A session that outlives its connection.
    Session(SessionRecord),
    /// A subscription of such a session.
    Subscription(SubscriptionRecord),
    /// A message for such sessions.
    Message(MessageRecord),
    /// One session's place in its queue.
    Delivery(DeliveryRecord),
    /// A message at QoS 2 whose PUBCOMP has not come; without a delivery under this identifier PUBREL is due. Put with
    /// the delivery, so that PUBREC removes only, and is never refused.
    Released {
        /// Whose.
        session: u64,
        /// Under which identifier it was sent.
        packet_id: u16,
    },
    /// A message at QoS 2 that a client has published and not released.
    Received {
        /// Whose.
        session: u64,
        /// Under which identifier it came.
        packet_id: u16,
    },
    /// A retained message.
    Retained(RetainedRecord),
}

/// See [`Record::Session`].
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRecord {
    /// Tells sessions apart, those of one client id too; a later one has a larger number.
    pub number: u64,
    /// Client id.
    pub client_id: Arc<str>,
    /// The broker chose the client id.
    pub assigned: bool,
    /// Whose it is.
    pub user: Option<Arc<str>>,
    /// The address that pays for it where it has no user.
    pub source: IpAddr,
    /// Where the client was connected from last.
    pub peer: SocketAddr,
    /// How.
    pub transport: TransportKind,
    /// In which version.
    pub version: Version,
    /// Seconds that it outlives its connection.
    pub expiry: u32,
    /// When its connection ended; `None` while there is one.
    pub disconnected: Option<Moment>,
}

/// See [`Record::Subscription`].
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionRecord {
    /// Whose.
    pub session: u64,
    /// Topic filter.
    pub filter: Arc<str>,
    /// The highest QoS that was granted.
    pub qos: QoS,
    /// Not what the client publishes itself.
    pub no_local: bool,
    /// With the RETAIN flag as it was published.
    pub retain_as_published: bool,
    /// Subscription identifier.
    pub id: Option<u32>,
}

/// See [`Record::Message`].
#[derive(Clone, Debug, PartialEq)]
pub struct MessageRecord {
    /// The message as it was published.
    pub message: Message,
    /// When it expires.
    pub expires: Option<SystemTime>,
}

/// See [`Record::Delivery`].
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryRecord {
    /// To whom.
    pub session: u64,
    /// The [`Record::Message`], which was put before.
    pub message: Key,
    /// The lower of the message's and the subscription's, 1 or 2.
    pub qos: QoS,
    /// The RETAIN flag as it is sent.
    pub retain: bool,
    /// The identifier under which it is sent, however often.
    pub packet_id: u16,
    /// Of every subscription that matched.
    pub subscription_ids: Vec<u32>,
}

/// See [`Record::Retained`].
#[derive(Clone, Debug, PartialEq)]
pub struct RetainedRecord {
    /// The message; of those on one topic the one with the largest key counts.
    pub message: Message,
    /// When it expires.
    pub expires: Option<SystemTime>,
    /// The user who pays for it.
    pub user: Option<Arc<str>>,
    /// The address that does where there is no user.
    pub source: IpAddr,
}

/// Records that are removed with one batch at most, so that a batch is never too long.
const REMOVED_AT_ONCE: usize = 256;

/// Removes records, in as many batches as they need. Nobody waits for it.
pub(crate) fn remove(storage: &dyn Storage, keys: &[Key]) {
    for keys in keys.chunks(REMOVED_AT_ONCE) {
        let mut batch = storage.batch();
        keys.iter().for_each(|key| batch.remove(*key));
        // A storage that has failed keeps what was there: it comes again.
        let _ = batch.commit(None);
    }
}
