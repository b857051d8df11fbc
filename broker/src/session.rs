//! A client's session (section 4.1): its subscriptions, the messages that wait for it, the acknowledgements that are
//! due to it. It outlives the connection if the client asked for that.
//!
//! One mutex guards it, held for moments only, by the connection's task and by whoever delivers a message. A
//! message goes into the queue and wakes the connection once, however many follow before it runs.

pub(crate) mod acknowledgement;
pub(crate) mod backlog;
pub(crate) mod client;
pub(crate) mod incoming;
pub(crate) mod inflight;
pub(crate) mod outbox;
pub(crate) mod receipt;
pub(crate) mod stored;

use std::{
    collections::HashMap,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::{
    config::Config,
    message::QoS,
    packet::{codec, outbound_publish::OutboundPublish, will::Will},
    quotas::account::Account,
    reason::Reason,
    session::{
        backlog::{Backlog, Cursor},
        client::ClientInfo,
        incoming::{Decided, Incoming, PublishNumber, Released},
        inflight::Stage,
        outbox::{Encoding, Full, Outbox, Place, Release, Settled},
        receipt::Receipt,
        stored::{Keep, StoredMessage, Storing},
    },
    stats::{Counters, Tally},
    storage::{self, Key, Storage},
    version::Version,
};

pub(crate) struct Session {
    pub client_id: Arc<str>,
    /// The user whose it is, and with it the client id, as long as it lives; `None` for all who have no name, and give
    /// way to every user.
    pub owner: Option<Arc<str>>,
    /// Who pays for what it holds: who began it.
    pub account: Arc<Account>,
    /// Tells sessions apart, those of one client id too.
    pub serial: u64,
    /// Where it is stored, if it outlives its connection and the broker has a storage.
    pub storage: Option<Arc<dyn Storage>>,
    state: Mutex<State>,
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

pub(crate) struct State {
    /// The connection, while there is one.
    pub connection: Option<ConnectionHandle>,
    pub incoming: Incoming,
    pub outbox: Outbox,
    /// The filters that are in the tree of subscriptions.
    pub subscriptions: HashMap<Arc<str>, Subscribed>,
    pub backlog: Backlog,
    /// Of the connection, or of the last one while it is held back.
    pub will: Option<Box<Will>>,
    /// The client that was connected last, while none is.
    pub last_client: Option<Arc<ClientInfo>>,
    /// Seconds that the session outlives its connection; `u32::MAX` is for ever.
    pub expiry: u32,
    /// When a held-back will is due and when the session ends, while there is no connection.
    pub will_due: Option<Instant>,
    pub expires: Option<Instant>,
    /// Under which instant the deadlines know this session.
    pub deadline: Option<Instant>,
    /// Its number among the empty sessions.
    pub empty_number: Option<u64>,
    /// Why it is in no map any more and takes nothing.
    pub ended: Option<Reason>,
    /// Its record, if it is stored.
    pub record: Option<Key>,
    /// What the connection is to be sent since the storage has what it follows from.
    due: Vec<Due>,
    /// The identifiers that are released, and whose removal is not durable.
    releasing: HashMap<u16, Releasing>,
}

/// PUBREL came, and is answered when that is durable.
struct Releasing {
    connection_id: u64,
    /// The connection on which it came again; all of these are answered together.
    again: Option<u64>,
}

/// What is known of a filter beside the tree.
#[derive(Default)]
pub(crate) struct Subscribed {
    /// The number of its cursor in the backlog.
    pub cursor: Option<u64>,
    /// Its record, if it is stored.
    pub record: Option<Key>,
}

/// What waits for the storage alone.
enum Due {
    /// PUBREL of this identifier.
    Release(u16),
    /// PUBCOMP of this identifier, and whether it was known.
    Complete(u16, bool),
}

impl Session {
    pub fn new(
        client_id: Arc<str>,
        owner: Option<Arc<str>>,
        account: Arc<Account>,
        serial: u64,
        storage: Option<Arc<dyn Storage>>,
    ) -> Self {
        Self {
            client_id,
            owner,
            account: account.clone(),
            serial,
            storage,
            state: Mutex::new(State {
                connection: None,
                incoming: Incoming::default(),
                outbox: Outbox::new(account),
                subscriptions: HashMap::new(),
                backlog: Backlog::default(),
                will: None,
                last_client: None,
                expiry: 0,
                will_due: None,
                expires: None,
                deadline: None,
                empty_number: None,
                ended: None,
                record: None,
                due: Vec::new(),
                releasing: HashMap::new(),
            }),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Who is connected, or was last.
    pub fn client(&self) -> Option<Arc<ClientInfo>> {
        let state = &*self.state.lock();
        state.connection.as_ref().map(|connection| &connection.client).or(state.last_client.as_ref()).cloned()
    }

    /// Locks it for its connection.
    pub fn lock_for(&self, connection_id: u64) -> Result<MutexGuard<'_, State>, Evicted> {
        let state = self.state.lock();
        match &state.connection {
            Some(current) if current.id == connection_id => Ok(state),
            _ => Err(Evicted(state.ended.unwrap_or(Reason::SessionTakenOver))),
        }
    }

    /// Queues a message for the client. If it is stored, it is sent after `storing` was handed over and the session
    /// [woken](Self::wake).
    pub fn offer(
        &self,
        publish: OutboundPublish,
        storing: &mut Storing,
        config: &Config,
        counters: &Counters,
    ) -> Enqueued {
        let state = &mut *self.state.lock();
        let offered = state.offer(publish, self.keep(storing), config, counters);
        if let (Enqueued::InQueue | Enqueued::Unstored, Some(connection)) = (&offered, &mut state.connection)
        {
            connection.wake();
        }
        offered
    }

    /// Queues a message that nobody misses, if the client is connected and has much room. It is not stored.
    pub fn offer_if_room(&self, publish: OutboundPublish, config: &Config, counters: &Counters) {
        let state = &mut *self.state.lock();
        if state.connection.is_none() || !state.outbox.has_room_for_retained(config) {
            return;
        }
        let offered = state.offer(publish, None, config, counters);
        if let (Enqueued::InQueue, Some(connection)) = (&offered, &mut state.connection) {
            connection.wake();
        }
    }

    /// What is needed to store a message for it, if it is stored.
    pub fn keep<'a>(&'a self, storing: &'a mut Storing) -> Option<Keep<'a>> {
        let storage = self.storage.as_ref()?;
        Some(Keep { storage, session: self.serial, storing })
    }

    /// Lets the connection, if there is one, look at what it may send.
    pub fn wake(&self) {
        if let Some(connection) = &mut self.state.lock().connection {
            connection.wake();
        }
    }

    /// The storage has not taken a message: takes it out of the queue again.
    pub fn take_back(&self, message: &Arc<StoredMessage>, counters: &Counters) {
        self.state.lock().outbox.take_back(message, counters);
    }

    /// Decides an acknowledgement that the client is owed; `record` is where its identifier is stored.
    pub fn decide(&self, number: PublishNumber, id: u16, qos: QoS, reason: Reason, record: Option<Key>) {
        let state = &mut *self.state.lock();
        let unused = state.incoming.decide(number, id, qos, reason, record);
        if let Some(connection) = &mut state.connection {
            connection.wake();
        }
        self.remove_records(unused.as_slice());
    }

    /// PUBREL came from the client; says whether the identifier was known, if PUBCOMP may be sent now: where it is
    /// stored it is not before that is durably removed, so that the client can use it again. The error says whether too
    /// many wait for that, of which there are no more than `most`.
    pub fn release(
        self: &Arc<Self>,
        connection_id: u64,
        id: u16,
        most: u16,
    ) -> Result<Result<bool, Pause>, Evicted> {
        let mut state = self.lock_for(connection_id)?;
        if let Some(releasing) = state.releasing.get_mut(&id) {
            releasing.again = Some(connection_id);
            return Ok(Err(Pause(false)));
        }
        let Released { known, record } = state.incoming.release(id);
        let (Some(storage), Some(record)) = (&self.storage, record) else { return Ok(Ok(known)) };
        state.releasing.insert(id, Releasing { connection_id, again: None });
        let pause = Pause(state.releasing.len() > usize::from(most));
        let mut batch = storage.batch();
        batch.remove(record);
        let session = self.clone();
        // One that has failed completes nothing.
        let _ = batch.commit(Some(Box::new(move |durable| {
            if durable.is_ok() {
                session.lock().released_durably(id);
            }
        })));
        Ok(Err(pause))
    }

    /// PUBREC came from the client; says whether there is such a message, if PUBREL may be sent now: where it is stored
    /// it is not before that is durable, so that the message is never sent again.
    pub fn received(
        self: &Arc<Self>,
        connection_id: u64,
        id: u16,
        counters: &Counters,
    ) -> Result<Option<bool>, Evicted> {
        let mut state = self.lock_for(connection_id)?;
        let (Settled { is_known, keys, receipt, .. }, release) = state.outbox.receive(id, counters);
        if let (Some(storage), [_, ..]) = (&self.storage, &keys[..]) {
            let mut batch = storage.batch();
            keys.into_iter().for_each(|key| batch.remove(key));
            let session = self.clone();
            // One that has failed lets nothing be released.
            let _ = batch.commit(Some(Box::new(move |durable| {
                let mut state = session.lock();
                if durable.is_ok() && state.outbox.received_durably(id) {
                    state.put_due(Due::Release(id));
                }
            })));
        }
        drop(state);
        receipt.into_iter().for_each(Receipt::given);
        Ok((release == Release::Now).then_some(is_known))
    }

    /// The client has finished with a message that waited for this.
    pub fn finish(
        &self,
        connection_id: u64,
        id: u16,
        stage: Stage,
        counters: &Counters,
    ) -> Result<(), Evicted> {
        let mut state = self.lock_for(connection_id)?;
        let Settled { keys, receipt, withdrawn, .. } = state.outbox.finish(id, stage, counters);
        self.remove_records(&keys);
        drop(state);
        if let Some(on_durable) = withdrawn {
            on_durable(Ok(()));
        }
        receipt.into_iter().for_each(Receipt::given);
        Ok(())
    }

    /// Removes records of its own, which nobody waits for.
    pub fn remove_records(&self, keys: &[Key]) {
        if let (Some(storage), [_, ..]) = (&self.storage, keys) {
            storage::remove(&**storage, keys);
        }
    }

    /// Decides that the client is told why its message is not safe, or nothing where its version has no word for that.
    pub fn withhold(&self, number: PublishNumber, id: u16, qos: QoS, reason: Reason) {
        let state = &mut *self.state.lock();
        match &state.connection {
            Some(connection) if connection.client.version == Version::V311 => {
                state.incoming.withhold(number, id, qos);
            }
            _ => drop(state.incoming.decide(number, id, qos, reason, None)),
        }
        if let Some(connection) = &mut state.connection {
            connection.wake();
        }
    }

    /// Appends to `out` what the connection may send now.
    pub fn fill(
        &self,
        connection_id: u64,
        config: &Config,
        counters: &Counters,
        out: &mut BytesMut,
    ) -> Result<Filled, Evicted> {
        let mut state = self.lock_for(connection_id)?;
        let State { connection: Some(connection), incoming, outbox, backlog, due, releasing, .. } =
            &mut *state
        else {
            return Err(Evicted(Reason::SessionTakenOver));
        };
        connection.awake = false;
        connection.waker = None;
        let to = Encoding { version: connection.client.version, max_packet: connection.max_packet };
        acknowledge(incoming, to.version, counters, out);
        if !due.is_empty() {
            send_due(due, to.version, counters, out);
        }
        let dropped = outbox.fill(to, config.write_buffer, counters, out);
        Ok(Filled {
            pause: Pause(incoming.pending() + releasing.len() > usize::from(config.receive_maximum)),
            retained: !backlog.is_empty() && outbox.has_room_for_retained(config),
            dropped,
        })
    }

    /// Appends to `out` what the client of a connection that ends is still owed: what it has published is acknowledged
    /// as far as that is decided. What waits for it is not sent any more.
    pub fn fill_last(&self, connection_id: u64, counters: &Counters, out: &mut BytesMut) {
        if let Ok(mut state) = self.lock_for(connection_id)
            && let State { connection: Some(connection), incoming, .. } = &mut *state
        {
            acknowledge(incoming, connection.client.version, counters, out);
        }
    }

    /// Ready when something was put here since the last [`fill`](Self::fill).
    pub fn poll_awake(&self, connection_id: u64, cx: &mut Context<'_>) -> Poll<()> {
        let Ok(mut state) = self.lock_for(connection_id) else { return Poll::Ready(()) };
        match &mut state.connection {
            Some(connection) if !connection.awake => {
                if !connection.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    connection.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

fn acknowledge(incoming: &mut Incoming, version: Version, counters: &Counters, out: &mut BytesMut) {
    let mut sent = Tally::default();
    while let Some(Decided { id, qos, reason }) = incoming.next_decided() {
        codec::publish_ack(id, qos, reason, version, out);
        sent.packets(1);
    }
    counters.sent.add(&sent);
}

fn send_due(due: &mut Vec<Due>, version: Version, counters: &Counters, out: &mut BytesMut) {
    for due in std::mem::take(due) {
        match due {
            Due::Release(id) => codec::pubrel(id, Reason::Success, version, out),
            Due::Complete(id, known) => codec::pubcomp(id, Reason::of_identifier(known), version, out),
        }
        counters.sent.packet();
    }
}

impl State {
    /// Queues a message for the client, which is not told yet; with `keep` it is stored, if the session outlives its
    /// connection.
    pub fn offer(
        &mut self,
        publish: OutboundPublish,
        keep: Option<Keep<'_>>,
        config: &Config,
        counters: &Counters,
    ) -> Enqueued {
        match &self.connection {
            Some(connection) => {
                let to = Encoding { version: connection.client.version, max_packet: connection.max_packet };
                // Nearly every packet is far below any limit: its weight is a bound, and cheaper than its
                // size.
                if publish.weight() > to.max_packet && publish.packet_size(to.version) > to.max_packet {
                    return Enqueued::Oversize(to, publish.receipt);
                }
            }
            None if publish.qos == QoS::AtMostOnce => return Enqueued::Absent,
            None => {}
        }
        if self.ended.is_some() {
            return Enqueued::Absent;
        }
        let keep = keep.filter(|_| publish.qos != QoS::AtMostOnce && self.expiry > 0);
        match self.outbox.push(publish, keep, config, counters) {
            Ok(Place::InMemory) => Enqueued::InQueue,
            Ok(Place::Stored) => Enqueued::Stored,
            Ok(Place::Unstored) => Enqueued::Unstored,
            Err(full) => Enqueued::Full(full),
        }
    }

    /// Has the connection, if there is one, send something.
    fn put_due(&mut self, due: Due) {
        if let Some(connection) = &mut self.connection {
            self.due.push(due);
            connection.wake();
        }
    }

    /// It is durable that an identifier is released.
    fn released_durably(&mut self, id: u16) {
        let Some(Releasing { connection_id, again }) = self.releasing.remove(&id) else { return };
        if self.releasing.is_empty() {
            self.releasing = HashMap::new();
        }
        let Some(current) = self.connection.as_ref().map(|connection| connection.id) else { return };
        if current == connection_id {
            self.put_due(Due::Complete(id, true));
        }
        if again == Some(current) {
            // Asked for on two connections, it was known to the client.
            self.put_due(Due::Complete(id, current != connection_id));
        }
    }

    /// A connection begins or has ended: what was due to the former one is not due to another.
    pub fn forget_due(&mut self) {
        self.due = Vec::new();
    }

    /// Has a subscription get retained messages, from the first on.
    pub fn want_retained(&mut self, cursor: Cursor) {
        if let Some(subscribed) = self.subscriptions.get_mut(&cursor.filter) {
            if let Some(former) = subscribed.cursor.take() {
                self.backlog.remove(former);
            }
            subscribed.cursor = Some(self.backlog.add(cursor));
        }
    }

    /// Whether a session without a connection is worth nothing to its client, which would not miss it.
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
            && self.outbox.is_empty()
            && self.incoming.unreleased() == 0
            && self.will.is_none()
    }
}

/// What others need to know of a connection.
pub(crate) struct ConnectionHandle {
    /// Tells connections apart.
    pub id: u64,
    pub client: Arc<ClientInfo>,
    pub max_packet: usize,
    /// Something was put here for the connection to pick up.
    awake: bool,
    /// There only while the connection waits: what it puts here itself would otherwise wake its own task, which then
    /// runs once more for nothing, and for which the runtime wakes another thread.
    waker: Option<Waker>,
}

impl ConnectionHandle {
    /// A connection, which counts as its identity's until this is dropped.
    pub fn new(id: u64, client: Arc<ClientInfo>, max_packet: usize) -> Self {
        client.account.connections.add(1);
        Self { id, client, max_packet, awake: false, waker: None }
    }

    pub fn wake(&mut self) {
        if !self.awake {
            self.awake = true;
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        self.client.account.connections.subtract(1);
    }
}

/// What became of a message offered to a session.
pub(crate) enum Enqueued {
    InQueue,
    /// It is in the queue, and is to be handed over to the storage.
    Stored,
    /// It is in the queue, and only there: its identity has no room in the storage.
    Unstored,
    /// Refused by the bounds of the queue.
    Full(Full),
    /// QoS 0 without a connection, or the session has ended.
    Absent,
    /// Larger than the connection takes. The receipt is for what is sent instead.
    Oversize(Encoding, Option<Receipt>),
}

/// A connection that has lost its session, and why: another one has taken it over, or it has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Evicted(pub Reason);

/// What came of filling the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    pub pause: Pause,
    /// There is room for retained messages that a subscription is still to get.
    pub retained: bool,
    /// Messages that the queue has not taken, if it is empty now.
    pub dropped: u64,
}

/// True if the client should be read from no further until it was sent some acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pause(pub bool);

/// Whether a client of MQTT 5 has left as much unacknowledged as it may. 3.1.1 has no such limit: it is just read
/// from no further while acknowledgements are due to it.
pub(crate) fn over_receive_maximum(incoming: &Incoming, version: Version, config: &Config) -> bool {
    version == Version::V5 && incoming.used() >= usize::from(config.receive_maximum)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        task::Wake,
    };

    use super::*;
    use crate::{message::Message, quotas::account::Accounts, transport::peer::TransportKind};

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    const CONNECTION_ID: u64 = 7;

    fn connected() -> Session {
        let account = Accounts::default().of(None, [127, 0, 0, 1].into());
        let session = Session::new("c".into(), None, account.clone(), 1, None);
        let client = ClientInfo {
            client_id: "c".into(),
            assigned: false,
            user: None,
            credential: 0,
            peer: ([127, 0, 0, 1], 1).into(),
            transport: TransportKind::Tcp,
            version: Version::V5,
            max_packet: usize::MAX,
            account,
            session: std::sync::Weak::new(),
        };
        session.lock().connection = Some(ConnectionHandle::new(CONNECTION_ID, Arc::new(client), usize::MAX));
        session
    }

    #[test]
    fn a_connection_is_woken_once_while_it_waits_and_never_while_it_runs() {
        let session = connected();
        let (config, counters, mut out) = (Config::default(), Counters::default(), BytesMut::new());
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut cx = Context::from_waker(&waker);
        let offer = || {
            let message = Message::new("a", "b", QoS::AtMostOnce);
            let publish = OutboundPublish {
                message,
                qos: QoS::AtMostOnce,
                retain: false,
                subscription_ids: Vec::new(),
                expires: None,
                receipt: None,
            };
            assert!(matches!(
                session.offer(publish, &mut Storing::default(), &config, &counters),
                Enqueued::InQueue
            ));
        };
        let mut waits = 0;
        for _ in 0..3 {
            assert!(session.poll_awake(CONNECTION_ID, &mut cx).is_pending());
            offer();
            offer();
            waits += 1;
            assert_eq!(wakes.0.load(Relaxed), waits);
            assert!(session.poll_awake(CONNECTION_ID, &mut cx).is_ready());
            // It runs: what comes now, from itself above all, is found when it is to wait again.
            session.fill(CONNECTION_ID, &config, &counters, &mut out).unwrap();
            offer();
            assert_eq!(wakes.0.load(Relaxed), waits);
            assert!(session.poll_awake(CONNECTION_ID, &mut cx).is_ready());
            session.fill(CONNECTION_ID, &config, &counters, &mut out).unwrap();

            // It may have been woken by something else, its socket for example.
            assert!(session.poll_awake(CONNECTION_ID, &mut cx).is_pending());
            session.fill(CONNECTION_ID, &config, &counters, &mut out).unwrap();
            session.decide(0, 1, QoS::AtLeastOnce, Reason::Success, None);
            assert_eq!(wakes.0.load(Relaxed), waits);
            session.fill(CONNECTION_ID, &config, &counters, &mut out).unwrap();
        }
    }
}
