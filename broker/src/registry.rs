//! The registry of sessions: who is connected, whose session waits for it, and when that ends.
//!
//! Locks are taken in the order sessions, session, then one of deadlines, empty sessions and retained messages. What
//! ends is taken off the tree of subscriptions when they are released. A will that becomes due is handed to whoever
//! called, to be published.

pub(crate) mod deadlines;
pub(crate) mod empty_sessions;

use std::{
    collections::HashMap,
    convert::Infallible,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::RwLock;
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{Instant, sleep},
};
use tracing::{debug, info};

use crate::{
    context::BrokerContext,
    packet::{connect::Connect, will::Will},
    quotas::account::Holder,
    reason::{Reason, Refusal},
    registry::{deadlines::Deadlines, empty_sessions::EmptySessions},
    session::{
        ConnectionHandle, Session, State,
        backlog::Backlog,
        client::{ClientInfo, Identity},
        incoming::Incoming,
    },
    storage::{Key, NotStored, OnDurable, Record, SessionRecord},
    throttle::{Cause, clip},
    topics::Topics,
    transport::peer::Peer,
    version::Version,
};

/// Sessions whose queues are looked through for what has expired in one slice.
const SWEPT_AT_ONCE: usize = 64;

/// The sessions of a broker.
pub(crate) struct SessionRegistry {
    context: Arc<BrokerContext>,
    topics: Arc<Topics>,
    sessions: RwLock<HashMap<Arc<str>, Arc<Session>>>,
    deadlines: Deadlines,
    empty_sessions: EmptySessions,
    /// Numbers sessions, connections and assigned client ids.
    last_number: AtomicU64,
    ids: RandomState,
    /// Held by the one listener that sweeps for all.
    sweeping: tokio::sync::Mutex<()>,
}

impl SessionRegistry {
    pub fn new(context: Arc<BrokerContext>, topics: Arc<Topics>) -> Self {
        Self {
            context,
            topics,
            sessions: RwLock::default(),
            deadlines: Deadlines::default(),
            empty_sessions: EmptySessions::default(),
            last_number: AtomicU64::new(0),
            ids: RandomState::new(),
            sweeping: tokio::sync::Mutex::default(),
        }
    }

    /// Sessions now.
    pub fn len(&self) -> usize {
        self.sessions.read().len()
    }

    /// The session of this client id.
    pub fn session(&self, client_id: &str) -> Option<Arc<Session>> {
        self.sessions.read().get(client_id).cloned()
    }

    /// A client that asks to connect, as it will be known; its session is still to be found. One without a client id
    /// gets one here.
    pub fn client(
        &self,
        connect: &mut Connect,
        version: Version,
        peer: &Peer,
        identity: Identity,
    ) -> Result<ClientInfo, Refusal> {
        let assigned = connect.client_id.is_empty();
        if assigned {
            if version == Version::V311 && !connect.clean_start {
                let cause = "a session that is to stay needs a client id"; // [MQTT-3.1.3-8]
                return Err(Refusal::new(Reason::ClientIdentifierNotValid, cause));
            }
            connect.client_id = self.assign_client_id();
        }
        let account = self.context.quotas.accounts.of(identity.user.as_ref(), peer.address.ip());
        Ok(ClientInfo {
            client_id: connect.client_id.as_str().into(),
            assigned,
            user: identity.user,
            credential: identity.credential,
            peer: peer.address,
            transport: peer.transport,
            version,
            max_packet: connect.max_packet_size.map_or(usize::MAX, |size| size as usize),
            account,
            session: Weak::new(),
        })
    }

    /// Gives a client its session (section 3.1.4): resumed, or new. A connection that had it is detached, and its will
    /// may be due. A session of another identity is never resumed. It ends if the client id is this user's own name, or
    /// if it has no user: every client without a name could have it as well, and a user has shown who it is. Otherwise
    /// it is not touched.
    ///
    /// `confirm` is asked under the lock that [`evict`](Self::evict) takes too.
    pub fn connect(
        &self,
        connect: Connect,
        client: ClientInfo,
        confirm: impl FnOnce(&ClientInfo) -> Result<(), Refusal>,
    ) -> Result<(Connected, Option<DueWill>), Refusal> {
        let config = &self.context.config;
        let maximum = config.max_session_expiry_seconds();
        let session_expiry = connect.session_expiry.unwrap_or(maximum).min(maximum);

        let mut sessions = self.sessions.write();
        confirm(&client)?;
        let former = sessions.get(&client.client_id).cloned();
        let is_anothers = former.as_ref().is_some_and(|former| former.owner != client.user);
        // A user's own name is its own, whoever came by it first.
        let gives_way = |former: &Arc<Session>| {
            client.user.as_ref() == Some(&client.client_id) || client.user.is_some() && former.owner.is_none()
        };
        if is_anothers && !former.as_ref().is_some_and(gives_way) {
            let cause = "the client id names a session of another user";
            return Err(Refusal::new(Reason::NotAuthorized, cause));
        }
        let takes_over =
            !is_anothers && former.as_ref().is_some_and(|former| former.lock().connection.is_some());
        if client.user.is_some()
            && !takes_over
            && client.account.connections.get() >= config.max_connections_per_user
        {
            return Err(Refusal::quota("the user has max_connections_per_user connections"));
        }
        let lasts = !is_anothers && former.as_ref().is_some_and(|former| former.lock().expiry > 0);
        let session_present = lasts && !connect.clean_start;
        if session_expiry > 0
            && !lasts
            && client.account.sessions_away.get() >= config.max_sessions_away_per_identity
        {
            return Err(Refusal::quota(
                "its identity has max_sessions_away_per_identity sessions without a connection",
            ));
        }
        let mut stored = None;
        let session = match &former {
            Some(former) if session_present => {
                let mut state = former.lock();
                let (on_stored, signal) = stored_signal();
                match self.store(
                    former,
                    &client,
                    session_expiry,
                    Connection::There,
                    state.record,
                    Some(on_stored),
                ) {
                    Ok(record) => {
                        state.record = record;
                        stored = record.map(|_| signal);
                    }
                    // The record that there is stays, so that what fills the storage can be fetched.
                    Err(NotStored::Full) => {}
                    Err(NotStored::Failed) => return Err(storage_failed()),
                }
                drop(state);
                former.clone()
            }
            None if sessions.len() >= config.max_sessions && !self.make_room(&mut sessions) => {
                return Err(Refusal::quota("there are max_sessions sessions"));
            }
            _ => {
                let ClientInfo { client_id, user, account, .. } = &client;
                let serial = self.next_number();
                let storage = self.context.storage.clone().filter(|_| session_expiry > 0);
                let session = Session::new(client_id.clone(), user.clone(), account.clone(), serial, storage);
                let session = Arc::new(session);
                let (on_stored, signal) = stored_signal();
                match self.store(&session, &client, session_expiry, Connection::There, None, Some(on_stored))
                {
                    Ok(record) => {
                        session.lock().record = record;
                        stored = record.map(|_| signal);
                    }
                    Err(NotStored::Full) => {
                        return Err(Refusal::quota("the storage is full, and the session is to stay"));
                    }
                    Err(NotStored::Failed) => return Err(storage_failed()),
                }
                sessions.insert(client_id.clone(), session.clone());
                session
            }
        };
        let ends = (!session_present).then_some(Reason::SessionTakenOver);
        let was_stored = former.as_ref().is_some_and(|former| former.lock().record.is_some());
        let detached = former.map(|former| self.detach(former, ends));
        if let (true, Some(_), Some(storage)) = (was_stored, ends, &self.context.storage) {
            // A crash does not bring it back: its removal is durable before CONNACK says that it is gone.
            let (on_stored, signal) = stored_signal();
            // One that has failed drops the signal, and there is no CONNACK.
            let _ = storage.batch().commit(Some(on_stored));
            stored = Some(signal);
        }

        let client = Arc::new(ClientInfo { session: Arc::downgrade(&session), ..client });
        let connection_id = self.next_number();
        let max_packet = client.max_packet;
        {
            let state = &mut *session.lock();
            state.connection = Some(ConnectionHandle::new(connection_id, client.clone(), max_packet));
            state.forget_due();
            self.context.counters.client_connected();
            state.outbox.connected(connect.receive_maximum.min(config.max_inflight));
            for cursor in state.backlog.iter_mut() {
                // What was published at QoS 0 while it was away, it has not got.
                cursor.until = self.topics.last_retained(&cursor.filter);
            }
            state.will = connect.will.map(Box::new);
            state.expiry = session_expiry;
        }
        drop(sessions);

        let due_will = detached.and_then(|detached| {
            self.report_taken_over(&client, &detached);
            self.clean_up(detached)
        });
        let connected =
            Connected { session, connection_id, client, session_present, session_expiry, max_packet, stored };
        Ok((connected, due_will))
    }

    /// Stores what is known of a session, if it is stored at all, in place of its former record; returns the new one.
    fn store(
        &self,
        session: &Session,
        client: &ClientInfo,
        expiry: u32,
        connection: Connection,
        former: Option<Key>,
        on_durable: Option<OnDurable>,
    ) -> Result<Option<Key>, NotStored> {
        let Some(storage) = &session.storage else { return Ok(None) };
        let mut batch = storage.batch();
        former.into_iter().for_each(|former| batch.remove(former));
        let record = batch.put(Record::Session(SessionRecord {
            number: session.serial,
            client_id: session.client_id.clone(),
            assigned: client.assigned,
            user: session.owner.clone(),
            source: match &session.account.holder {
                Holder::Source(source) => *source,
                Holder::User(_) => client.peer.ip(),
            },
            peer: client.peer,
            transport: client.transport,
            version: client.version,
            expiry,
            disconnected: (connection == Connection::Ended).then(|| storage.now()),
        }));
        batch.commit(on_durable)?;
        Ok(Some(record))
    }

    /// A connection has ended; returns its will, if that is due.
    pub fn disconnect(&self, session: &Arc<Session>, connection_id: u64, ending: Ending) -> Option<DueWill> {
        let (due_will, client, ends) = {
            let mut state = session.lock_for(connection_id).ok()?;
            let state = &mut *state;
            let connection = state.connection.take()?;
            self.context.counters.client_disconnected();
            state.incoming.disconnected();
            state.forget_due();
            if let Some(expiry) = ending.session_expiry {
                state.expiry = expiry.min(self.context.config.max_session_expiry_seconds());
            }
            if !ending.publish_will {
                state.will = None;
            }
            let ends = state.expiry == 0;
            let now = Instant::now();
            let delay = state.will.as_ref().map(|will| will.delay);
            let due_will = if ends || delay == Some(0) { state.will.take() } else { None };
            if !ends {
                state.expires = Some(now + Duration::from_secs(state.expiry.into()));
                state.will_due = state.will.as_ref().map(|will| now + Duration::from_secs(will.delay.into()));
                state.last_client = Some(connection.client.clone());
                let former = state.record;
                // Without room the record that there is stays: a crash counts as the disconnect then.
                match self.store(session, &connection.client, state.expiry, Connection::Ended, former, None) {
                    Ok(record) => state.record = record,
                    Err(NotStored::Full | NotStored::Failed) => {}
                }
                self.deadlines.set(session, state);
                session.account.sessions_away.add(1);
                if state.is_empty() {
                    self.empty_sessions.add(session, state);
                }
            }
            (due_will, connection.client.clone(), ends)
        };
        if ends {
            self.remove(session);
        }
        Some(DueWill { client, session: session.clone(), will: *due_will? })
    }

    /// Throws out the clients that `which` names, and ends their sessions, without their wills; returns how many.
    pub fn evict(&self, which: impl Fn(&ClientInfo) -> bool, reason: Reason) -> usize {
        let sessions: Vec<_> = self.sessions.read().values().cloned().collect();
        let mut evicted = 0;
        for session in sessions {
            if !session.client().is_some_and(|client| which(&client)) {
                continue;
            }
            let detached = {
                let mut sessions = self.sessions.write();
                if sessions.get(&session.client_id) != Some(&session) {
                    continue; // ended or replaced meanwhile
                }
                forget(&mut sessions, &session.client_id);
                self.detach(session, Some(reason))
            };
            self.clean_up(Detached { will: None, ..detached });
            evicted += 1;
        }
        evicted
    }

    /// Takes over a session of an earlier process, which is without a connection now. Those that come later have larger
    /// numbers.
    ///
    /// # Errors
    ///
    /// Why there is none any more.
    pub fn recover(
        &self,
        key: Key,
        record: &SessionRecord,
        keeps: impl FnOnce(&ClientInfo) -> bool,
    ) -> Result<Arc<Session>, NotRecovered> {
        self.last_number.fetch_max(record.number, Relaxed);
        let config = &self.context.config;
        let expiry = record.expiry.min(config.max_session_expiry_seconds());
        let age = |at| self.context.storage.as_ref().map_or(Duration::ZERO, |storage| storage.age(at));
        let away = record.disconnected.map_or(Duration::ZERO, age);
        let left = Duration::from_secs(expiry.into()).saturating_sub(away);
        if left.is_zero() {
            return Err(NotRecovered::Expired);
        }
        let accounts = &self.context.quotas.accounts;
        let SessionRecord { number, client_id, assigned, user, source, peer, transport, version, .. } =
            record;
        let account = accounts.of(user.as_ref(), *source);
        let mut sessions = self.sessions.write();
        if sessions.contains_key(client_id) {
            return Err(NotRecovered::Replaced);
        }
        // Whoever was connected is away now, too: those are counted, and refuse nobody that was there.
        if sessions.len() >= config.max_sessions {
            return Err(NotRecovered::NoRoom);
        }
        let storage = self.context.storage.clone();
        let session = Arc::new(Session::new(client_id.clone(), user.clone(), account, *number, storage));
        let client = ClientInfo {
            client_id: client_id.clone(),
            assigned: *assigned,
            user: user.clone(),
            credential: 0,
            peer: *peer,
            transport: *transport,
            version: *version,
            max_packet: usize::MAX,
            account: accounts.of(user.as_ref(), peer.ip()),
            session: Arc::downgrade(&session),
        };
        if !keeps(&client) {
            return Err(NotRecovered::NotPermitted);
        }
        {
            let state = &mut *session.lock();
            state.record = Some(key);
            state.expiry = expiry;
            state.expires = Some(Instant::now() + left);
            state.last_client = Some(Arc::new(client));
            session.account.sessions_away.add(1);
            self.deadlines.set(&session, state);
        }
        sessions.insert(client_id.clone(), session.clone());
        Ok(session)
    }

    /// All of a session is taken over.
    pub fn recovered(&self, session: &Arc<Session>) {
        let state = &mut *session.lock();
        if state.is_empty() {
            self.empty_sessions.add(session, state);
        }
    }

    /// Waits for the next session without a connection whose will is due or which ends, for ever if there is none.
    pub async fn next_due(&self) -> Arc<Session> {
        self.deadlines.next().await
    }

    /// Does what is due for a session without a connection; returns its will, if it is that.
    pub fn expire(&self, session: &Arc<Session>) -> Option<DueWill> {
        let (will, client, ends) = {
            let state = &mut *session.lock();
            state.deadline = None;
            if state.connection.is_some() || state.ended.is_some() {
                return None;
            }
            let now = Instant::now();
            let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            let ends = due(state.expires);
            let (mut will, mut client) = (None, None);
            if ends || due(state.will_due) {
                will = state.will.take();
                client = state.last_client.clone();
                state.will_due = None;
            }
            if !ends {
                self.deadlines.set(session, state);
            }
            (will, client, ends)
        };
        if ends {
            debug!(client_id = &*session.client_id, "session expired");
            self.remove(session);
        }
        Some(DueWill { client: client?, session: session.clone(), will: *will? })
    }

    /// Drops what has expired in the queues of all sessions, at intervals, for ever: it takes the room of others.
    pub async fn keep_sweeping(&self) -> Infallible {
        let _sweeping = self.sweeping.lock().await;
        loop {
            sleep(self.context.config.expiry_interval).await;
            let sessions: Vec<_> = self.sessions.read().values().cloned().collect();
            for sessions in sessions.chunks(SWEPT_AT_ONCE) {
                let now = Instant::now();
                for session in sessions {
                    session.lock().outbox.drop_expired(now, &self.context.counters);
                }
                yield_now().await;
            }
        }
    }

    /// To be called when one that kept deadlines does so no longer, as each listener does.
    pub fn hand_over_deadlines(&self) {
        self.deadlines.hand_over();
    }

    /// Ends the session that is away with nothing in it for the longest time; false if there is none.
    fn make_room(&self, sessions: &mut HashMap<Arc<str>, Arc<Session>>) -> bool {
        let Some(session) = self.empty_sessions.oldest() else { return false };
        forget(sessions, &session.client_id);
        let detached = self.detach(session, Some(Reason::QuotaExceeded));
        debug_assert!(detached.will.is_none() && detached.subscriptions.is_empty());
        true
    }

    /// Takes a session away from its connection, if it has one, and ends it for this reason, if there is one: without,
    /// it is to be resumed.
    fn detach(&self, session: Arc<Session>, ends: Option<Reason>) -> Detached {
        let state = &mut *session.lock();
        let mut will = state.will.take();
        state.will_due = None;
        self.no_longer_away(&session, state);
        self.deadlines.set(&session, state);
        let connection = state.connection.take();
        if ends.is_none() && will.as_ref().is_some_and(|will| connection.is_none() || will.delay > 0) {
            will = None; // [MQTT-3.1.3-9]: the client came back before its will was due
        }
        let client = connection.as_ref().map(|connection| connection.client.clone());
        let was_connected = connection.is_some();
        if let Some(mut connection) = connection {
            self.context.counters.client_disconnected();
            state.incoming.disconnected();
            connection.wake();
        }
        let client = client.or_else(|| state.last_client.take());
        let subscriptions = ends.map_or_else(Vec::new, |reason| self.end(&session, state, reason));
        Detached { session: session.clone(), will, client, was_connected, subscriptions }
    }

    /// What is left to do when the locks under which a session was detached are released; returns its will, which is
    /// due.
    fn clean_up(&self, detached: Detached) -> Option<DueWill> {
        let Detached { session, will, client, subscriptions, .. } = detached;
        self.topics.unsubscribe_all(&session, subscriptions);
        Some(DueWill { client: client?, session, will: *will? })
    }

    /// A locked session has a connection again, or ends.
    fn no_longer_away(&self, session: &Session, state: &mut State) {
        if state.expires.take().is_some() {
            session.account.sessions_away.subtract(1);
        }
        self.empty_sessions.remove(state);
    }

    /// Marks a locked session as ended, and removes all that is stored of it; returns the subscriptions to be removed.
    fn end(&self, session: &Session, state: &mut State, reason: Reason) -> Vec<Arc<str>> {
        state.ended = Some(reason);
        // First of all its own record: without it the others are nobody's.
        let mut records = Vec::from_iter(state.record.take());
        state.outbox.clear(&mut records, &self.context.counters);
        state.incoming.keys(&mut records);
        state.backlog = Backlog::default();
        state.incoming = Incoming::default();
        let subscriptions = std::mem::take(&mut state.subscriptions);
        records.extend(subscriptions.values().filter_map(|subscribed| subscribed.record));
        session.remove_records(&records);
        subscriptions.into_keys().collect()
    }

    /// Removes a session that has no connection and may end.
    fn remove(&self, session: &Arc<Session>) {
        let mut sessions = self.sessions.write();
        let subscriptions = {
            let state = &mut *session.lock();
            let over = state.expiry == 0 || state.expires.is_some_and(|at| at <= Instant::now());
            if state.connection.is_some() || state.ended.is_some() || !over {
                return; // resumed or replaced meanwhile
            }
            self.no_longer_away(session, state);
            // Nobody is connected who could be told why.
            self.end(session, state, Reason::Success)
        };
        forget(&mut sessions, &session.client_id);
        drop(sessions);
        self.topics.unsubscribe_all(session, subscriptions);
    }

    /// Two clients that share a client id close each other's connection for ever, which is seen here alone.
    fn report_taken_over(&self, client: &ClientInfo, detached: &Detached) {
        if let (true, Some(former)) = (detached.was_connected, &detached.client)
            && let Some(left_out) = self.context.throttle.line(Cause::TakenOver)
        {
            let (client_id, user) = (clip(&client.client_id), client.user.as_deref().map(clip));
            info!(
                client_id,
                user,
                peer = %client.peer,
                former_peer = %former.peer,
                left_out,
                "a second connection with this client id, the first is closed"
            );
        }
    }

    /// Not to be guessed, so that nobody can take the session of a client that does not know its own name.
    fn assign_client_id(&self) -> String {
        let number = self.next_number();
        format!("auto-{:016x}{:016x}", self.ids.hash_one(number), self.ids.hash_one((number, "second half")))
    }

    fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Relaxed) + 1
    }
}

/// A client that is connected: its session, and what was agreed.
pub(crate) struct Connected {
    pub session: Arc<Session>,
    pub connection_id: u64,
    pub client: Arc<ClientInfo>,
    pub session_present: bool,
    /// Seconds that the session will outlive the connection.
    pub session_expiry: u32,
    /// Bytes of the largest packet that the client takes.
    pub max_packet: usize,
    /// Comes when it is durable that there is such a session, if it is stored; an error when it never will be.
    pub stored: Option<oneshot::Receiver<()>>,
}

/// Whether a session has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    There,
    Ended,
}

/// Why a session of an earlier process is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotRecovered {
    Expired,
    /// A later one has its client id.
    Replaced,
    /// A limit of the configuration.
    NoRoom,
    /// The application no longer lets its client in.
    NotPermitted,
}

/// How a connection ended, as far as the session is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// False after a DISCONNECT that says so, and when the broker shuts down.
    pub publish_will: bool,
    /// Changed by DISCONNECT.
    pub session_expiry: Option<u32>,
}

/// A will that is to be published now, and whose it is.
pub(crate) struct DueWill {
    pub client: Arc<ClientInfo>,
    pub session: Arc<Session>,
    pub will: Will,
}

/// A session that was taken away from its connection.
struct Detached {
    session: Arc<Session>,
    will: Option<Box<Will>>,
    /// Who is connected, or was last.
    client: Option<Arc<ClientInfo>>,
    was_connected: bool,
    subscriptions: Vec<Arc<str>>,
}

/// Tells whoever waits that a batch is durable.
fn stored_signal() -> (OnDurable, oneshot::Receiver<()>) {
    let (done, stored) = oneshot::channel();
    let on_durable = move |durable: Result<(), NotStored>| {
        if durable.is_ok() {
            let _ = done.send(());
        }
    };
    (Box::new(on_durable), stored)
}

fn storage_failed() -> Refusal {
    Refusal::new(Reason::ServerUnavailable, "the storage has failed, and the session is to stay")
}

/// Removes a session, and gives the memory of many back.
fn forget(sessions: &mut HashMap<Arc<str>, Arc<Session>>, client_id: &str) {
    sessions.remove(client_id);
    if sessions.capacity() > 4 * sessions.len().max(64) {
        sessions.shrink_to_fit();
    }
}
