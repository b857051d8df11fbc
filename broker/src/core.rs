//! The heart of the broker: who is connected, who subscribed to what, and where messages go.
//!
//! Locks are taken in the order sessions, subscriptions, session, then one of deadlines, vacant sessions and retained
//! messages; routing takes them one after the other, never two at once. The application is called under none of them,
//! but for its `confirm`.

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
    task::yield_now,
    time::{Instant, sleep},
};
use tracing::{debug, info, warn};

use crate::{
    application::{Application, Received, Route},
    config::Config,
    message::{Message, QoS},
    packet::{
        connect::Connect,
        outbound_publish::{OutboundPublish, encodable},
        subscribe::{RetainHandling, SubscriptionRequest},
        will::Will,
    },
    quotas::{
        account::{Account, Accounts, Held, Holder},
        connection_limits::ConnectionLimits,
        fair_share::FairShare,
        input_budget::InputBudget,
    },
    reason::{Reason, Refusal},
    registry::{deadlines::Deadlines, empty_sessions::EmptySessions},
    session::{
        ConnectionHandle, Enqueued, Evicted, Session, State,
        acknowledgement::Acknowledgement,
        backlog::{Backlog, Cursor},
        client::{ClientInfo, Identity},
        incoming::Incoming,
        outbox::Full,
    },
    stats::{Counters, Stats, count},
    throttle::{Cause, Throttle, clip},
    topics::{
        fan_out::{self, FanOut, Grant, Recipient, Routed},
        retained::Retained,
        sys::Sys,
        topic,
        trie::{self, Trie},
    },
    transport::peer::Peer,
    version::Version,
};

/// Chooses a replacement for a message that a receiver does not take: gets the receiver's limit in bytes and
/// a function that says how large a message would be for it.
pub type Oversize<'a> = &'a dyn Fn(usize, &dyn Fn(&Message) -> usize) -> Option<Message>;

/// Retained messages on topics that start with `$`: `$SYS/…` has some forty, and the application may add its own.
const MAX_OWN_RETAINED_MESSAGES: usize = 10_000;
/// Bytes of these messages.
const MAX_OWN_RETAINED_BYTES: usize = 16 * 1024 * 1024;
/// Topics of retained messages that are looked at for a subscription before others have their turn: some 25 µs.
const RETAINED_SLICE: usize = 256;
/// Subscriptions of a session that ends that are removed before others may use the tree.
const REMOVED_AT_ONCE: usize = 64;
/// Sessions whose queues are looked through for what has expired before others have their turn.
const SWEPT_AT_ONCE: usize = 64;
/// Receivers of an answer from which on the time that they take is charged to its cause; below, measuring it would cost
/// as much as one of them.
const CHARGED_FROM: usize = 8;

pub(crate) struct Core {
    pub config: Config,
    pub application: Arc<dyn Application>,
    pub counters: Counters,
    /// For log lines about what clients cause.
    pub throttle: Throttle,
    /// Held by the one listener that sweeps for all.
    sweeping: tokio::sync::Mutex<()>,
    /// For connections.
    pub connection_limits: ConnectionLimits,
    /// What each identity makes this broker hold.
    pub accounts: Accounts,
    /// The time of the threads that serve connections.
    pub shares: FairShare,
    /// Memory for packets that have not come completely.
    pub input: Arc<InputBudget>,
    /// From when on `shares` and the rates of accounts count time.
    pub started: Instant,
    sessions: RwLock<HashMap<Arc<str>, Arc<Session>>>,
    subscriptions: RwLock<Trie<Arc<Session>>>,
    /// What all of them cost.
    subscription_bytes: Held,
    retained: RwLock<Retained>,
    /// On topics that start with `$`, which only this process publishes to: whatever clients retain, these have room.
    own_retained: RwLock<Retained>,
    /// What was published of the counters.
    pub sys: Sys,
    deadlines: Deadlines,
    vacant: EmptySessions,
    /// Numbers sessions, connections and assigned client ids.
    last_number: AtomicU64,
    ids: RandomState,
}

/// A connection's place in the broker.
pub(crate) struct Connected {
    pub session: Arc<Session>,
    pub link: u64,
    pub client: Arc<ClientInfo>,
    pub session_present: bool,
    /// Seconds that the session will outlive the connection.
    pub session_expiry: u32,
    /// Bytes of the largest packet that the client takes.
    pub max_packet: usize,
}

/// How a connection ended, as far as the session is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// False after a DISCONNECT that says so, and when the broker shuts down.
    pub publish_will: bool,
    /// Changed by DISCONNECT.
    pub session_expiry: Option<u32>,
}

/// A message that has receivers left.
pub(crate) type Unfinished = (Message, FanOut);

/// What became of a message for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It is in its queue.
    Queued,
    /// The client has no subscription that matches.
    NoSubscription,
    /// The client has one, but not the room, or takes no packet of that size; that is counted.
    NotTaken,
    /// There is no such session any more; that is counted.
    Gone,
}

impl Core {
    pub fn new(config: Config, application: Arc<dyn Application>) -> Self {
        Self {
            application,
            counters: Counters::default(),
            throttle: Throttle::new(),
            sweeping: tokio::sync::Mutex::default(),
            connection_limits: ConnectionLimits::default(),
            accounts: Accounts::default(),
            shares: FairShare::new(),
            input: Arc::new(InputBudget::new(&config)),
            started: Instant::now(),
            sessions: RwLock::default(),
            subscriptions: RwLock::default(),
            subscription_bytes: Held::default(),
            retained: RwLock::new(Retained::new(config.max_retained_messages, config.max_retained_bytes)),
            own_retained: RwLock::new(Retained::new(MAX_OWN_RETAINED_MESSAGES, MAX_OWN_RETAINED_BYTES)),
            sys: Sys::new(),
            deadlines: Deadlines::default(),
            vacant: EmptySessions::default(),
            last_number: AtomicU64::new(0),
            ids: RandomState::new(),
            config,
        }
    }

    pub fn stats(&self) -> Stats {
        let mut stats = self.counters.snapshot();
        stats.input_bytes = self.input.held();
        stats.input_waits = self.input.waits();
        stats.sessions = self.sessions.read().len();
        stats.subscriptions = self.subscriptions.read().len();
        stats.subscription_bytes = self.subscription_bytes.get();
        let retained = self.retained.read();
        stats.retained_messages = retained.len();
        stats.retained_bytes = retained.bytes();
        stats
    }

    // ---- The time of the threads ----

    /// Charges an account the time since `started`, which was spent for it.
    pub fn charge(&self, account: &Account, started: Instant) {
        let now = Instant::now();
        self.shares.charge(&account.usage, now - started, now.duration_since(self.started));
    }

    /// The same for the address of a client that is not known yet.
    pub fn charge_unknown(&self, address: &Account, started: Instant) {
        let now = Instant::now();
        self.shares.charge_unknown(&address.usage, now - started, now.duration_since(self.started));
    }

    /// Until when nothing is to be done for an account, because it has used up its share.
    pub fn over_share(&self, account: &Account, now: Instant) -> Option<Instant> {
        let until = self.shares.held_until(&account.usage, now.duration_since(self.started))?;
        Some(self.started + until)
    }

    // ---- Connections and sessions ----

    /// Gives a connection its session (section 3.1.4): resumed, or new. A connection that had it is thrown out. A
    /// session of another identity is never resumed. It ends if the client id is this user's own name, or if it has no
    /// user: every client without a name could have it as well, and a user has shown who it is. Otherwise it is not
    /// touched.
    pub fn connect(
        &self,
        connect: &mut Connect,
        version: Version,
        peer: &Peer,
        identity: Identity,
    ) -> Result<Connected, Refusal> {
        let assigned = connect.client_id.is_empty();
        if assigned {
            if version == Version::V311 && !connect.clean_start {
                let cause = "a session that is to stay needs a client id"; // [MQTT-3.1.3-8]
                return Err(Refusal::new(Reason::ClientIdentifierNotValid, cause));
            }
            connect.client_id = self.assign_client_id();
        }
        let client_id: Arc<str> = connect.client_id.as_str().into();
        let account = self.accounts.of(identity.user.as_ref(), peer.address.ip());
        let client = |session| ClientInfo {
            client_id: client_id.clone(),
            assigned,
            user: identity.user.clone(),
            credential: identity.credential,
            peer: peer.address,
            transport: peer.transport,
            version,
            account: account.clone(),
            session,
        };
        if let Some(will) = &connect.will {
            self.check_will(will, &client(Weak::new()))?;
        }
        let maximum = self.config.max_session_expiry_seconds();
        let session_expiry = connect.session_expiry.unwrap_or(maximum).min(maximum);

        let mut sessions = self.sessions.write();
        self.application.confirm(&client(Weak::new()))?;
        let former = sessions.get(&client_id).cloned();
        let is_anothers = former.as_ref().is_some_and(|former| former.owner != identity.user);
        // A user's own name is its own, whoever came by it first.
        let gives_way = |former: &Arc<Session>| {
            identity.user.as_ref() == Some(&client_id) || identity.user.is_some() && former.owner.is_none()
        };
        if is_anothers && !former.as_ref().is_some_and(gives_way) {
            let cause = "the client id names a session of another user";
            return Err(Refusal::new(Reason::NotAuthorized, cause));
        }
        let takes_over = !is_anothers && former.as_ref().is_some_and(|former| former.lock().link.is_some());
        if identity.user.is_some()
            && !takes_over
            && account.connections.get() >= self.config.max_connections_per_user
        {
            return Err(quota("the user has max_connections_per_user connections"));
        }
        let lasts = !is_anothers && former.as_ref().is_some_and(|former| former.lock().expiry > 0);
        let session_present = lasts && !connect.clean_start;
        if session_expiry > 0
            && !lasts
            && account.sessions_away.get() >= self.config.max_sessions_away_per_identity
        {
            return Err(quota(
                "its identity has max_sessions_away_per_identity sessions without a connection",
            ));
        }
        let session = match &former {
            Some(former) if session_present => former.clone(),
            None if sessions.len() >= self.config.max_sessions && !self.make_room(&mut sessions) => {
                return Err(quota("there are max_sessions sessions"));
            }
            _ => {
                let (owner, serial) = (identity.user.clone(), self.next_number());
                let session = Arc::new(Session::new(client_id.clone(), owner, account.clone(), serial));
                sessions.insert(client_id.clone(), session.clone());
                session
            }
        };
        let ends = (!session_present).then_some(Reason::SessionTakenOver);
        let thrown_out = former.map(|former| self.throw_out(former, ends));

        let client = Arc::new(client(Arc::downgrade(&session)));
        let link = self.next_number();
        let max_packet = connect.max_packet_size.map_or(usize::MAX, |size| size as usize);
        {
            let state = &mut *session.lock();
            state.link = Some(ConnectionHandle::new(link, client.clone(), max_packet));
            self.counters.client_connected();
            state.outbox.connected(connect.receive_maximum.min(self.config.max_inflight));
            for cursor in state.backlog.iter_mut() {
                // What was published at QoS 0 while it was away, it has not got.
                cursor.until = self.retained(&cursor.filter).read().sequence();
            }
            state.will = connect.will.take().map(Box::new);
            state.expiry = session_expiry;
        }
        drop(sessions);

        if let Some(thrown_out) = thrown_out {
            self.report_taken_over(&client, &thrown_out);
            self.clean_up(thrown_out);
        }
        Ok(Connected { session, link, client, session_present, session_expiry, max_packet })
    }

    /// Two clients that share a client id close each other's connection for ever, which is seen here alone.
    fn report_taken_over(&self, client: &ClientInfo, thrown_out: &Detached) {
        if let (true, Some(former)) = (thrown_out.was_connected, &thrown_out.client)
            && let Some(left_out) = self.throttle.line(Cause::TakenOver)
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

    /// Ends the session that is away with nothing in it for the longest time; false if there is none.
    fn make_room(&self, sessions: &mut HashMap<Arc<str>, Arc<Session>>) -> bool {
        let Some(session) = self.vacant.oldest() else { return false };
        forget(sessions, &session.client_id);
        let thrown_out = self.throw_out(session, Some(Reason::QuotaExceeded));
        debug_assert!(thrown_out.will.is_none() && thrown_out.subscriptions.is_empty());
        true
    }

    /// Takes a session away from its connection, if it has one, and ends it for this reason, if there is one: without,
    /// it is to be resumed.
    fn throw_out(&self, session: Arc<Session>, ends: Option<Reason>) -> Detached {
        let state = &mut *session.lock();
        let mut will = state.will.take();
        state.will_due = None;
        self.no_longer_away(&session, state);
        self.deadlines.set(&session, state);
        let link = state.link.take();
        if ends.is_none() && will.as_ref().is_some_and(|will| link.is_none() || will.delay > 0) {
            will = None; // [MQTT-3.1.3-9]: the client came back before its will was due
        }
        let client = link.as_ref().map(|link| link.client.clone());
        let was_connected = link.is_some();
        if let Some(mut link) = link {
            self.counters.client_disconnected();
            state.incoming.disconnected();
            link.wake();
        }
        let client = client.or_else(|| state.last_client.take());
        let subscriptions = ends.map_or_else(Vec::new, |reason| self.end(state, reason));
        Detached { session: session.clone(), will, client, was_connected, subscriptions }
    }

    /// What is left to do when the locks under which a session was thrown out are released.
    fn clean_up(&self, thrown_out: Detached) {
        let Detached { session, will, client, subscriptions, .. } = thrown_out;
        self.unsubscribe_all(&session, subscriptions);
        if let (Some(will), Some(client)) = (will, client) {
            self.finish(self.publish_will(&client, &session, *will));
        }
    }

    /// A locked session has a connection again, or ends.
    fn no_longer_away(&self, session: &Session, state: &mut State) {
        if state.expires.take().is_some() {
            session.account.sessions_away.subtract(1);
        }
        self.vacant.remove(state);
    }

    /// Marks a locked session as ended; returns the subscriptions to be removed.
    fn end(&self, state: &mut State, reason: Reason) -> Vec<Arc<str>> {
        state.ended = Some(reason);
        state.outbox.clear(&self.counters);
        state.backlog = Backlog::default();
        state.incoming = Incoming::default();
        std::mem::take(&mut state.subscriptions).into_keys().collect()
    }

    /// Throws out the clients that `which` names, and ends their sessions, without their wills; returns how many.
    pub fn evict(&self, which: impl Fn(&ClientInfo) -> bool, reason: Reason) -> usize {
        let sessions: Vec<_> = self.sessions.read().values().cloned().collect();
        let mut evicted = 0;
        for session in sessions {
            if !session.client().is_some_and(|client| which(&client)) {
                continue;
            }
            let thrown_out = {
                let mut sessions = self.sessions.write();
                if sessions.get(&session.client_id) != Some(&session) {
                    continue; // ended or replaced meanwhile
                }
                forget(&mut sessions, &session.client_id);
                self.throw_out(session, Some(reason))
            };
            self.clean_up(Detached { will: None, ..thrown_out });
            evicted += 1;
        }
        evicted
    }

    /// A connection has ended. Returns what is left of its will, if that has many receivers.
    pub fn disconnect(&self, session: &Arc<Session>, link: u64, ending: Ending) -> Option<Unfinished> {
        let (due_will, client, ends) = {
            let mut state = session.lock_for(link).ok()?;
            let state = &mut *state;
            let link = state.link.take()?;
            self.counters.client_disconnected();
            state.incoming.disconnected();
            if let Some(expiry) = ending.session_expiry {
                state.expiry = expiry.min(self.config.max_session_expiry_seconds());
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
                state.last_client = Some(link.client.clone());
                self.deadlines.set(session, state);
                session.account.sessions_away.add(1);
                if state.holds_nothing() {
                    self.vacant.add(session, state);
                }
            }
            (due_will, link.client.clone(), ends)
        };
        if ends {
            self.remove(session);
        }
        due_will.and_then(|will| self.publish_will(&client, session, *will))
    }

    /// Removes a session that has no connection and may end.
    fn remove(&self, session: &Arc<Session>) {
        let mut sessions = self.sessions.write();
        let subscriptions = {
            let state = &mut *session.lock();
            let over = state.expiry == 0 || state.expires.is_some_and(|at| at <= Instant::now());
            if state.link.is_some() || state.ended.is_some() || !over {
                return; // resumed or replaced meanwhile
            }
            self.no_longer_away(session, state);
            // Nobody is connected who could be told why.
            self.end(state, Reason::Success)
        };
        forget(&mut sessions, &session.client_id);
        drop(sessions);
        self.unsubscribe_all(session, subscriptions);
    }

    fn unsubscribe_all(&self, session: &Session, filters: Vec<Arc<str>>) {
        for filters in filters.chunks(REMOVED_AT_ONCE) {
            let mut subscriptions = self.subscriptions.write();
            for filter in filters {
                if subscriptions.remove(filter, session.serial) {
                    self.give_back_subscription(&session.account, filter);
                }
            }
        }
    }

    /// To be called when one that kept deadlines does so no longer, as each listener does.
    pub fn hand_over_deadlines(&self) {
        self.deadlines.hand_over();
    }

    /// Ends sessions and publishes wills as they are due, for ever.
    pub async fn keep_deadlines(&self) -> Infallible {
        loop {
            let session = self.deadlines.next().await;
            if let Some((message, mut fan_out)) = self.expire(&session) {
                while !self.deliver_slice(&message, &mut fan_out, None) {
                    yield_now().await;
                }
            }
            yield_now().await;
        }
    }

    fn expire(&self, session: &Arc<Session>) -> Option<Unfinished> {
        let (will, client, ends) = {
            let state = &mut *session.lock();
            state.deadline = None;
            if state.link.is_some() || state.ended.is_some() {
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
        self.publish_will(&client?, session, *will?)
    }

    fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Relaxed) + 1
    }

    /// Not to be guessed, so that nobody can take the session of a client that does not know its own name.
    fn assign_client_id(&self) -> String {
        let number = self.next_number();
        format!("auto-{:016x}{:016x}", self.ids.hash_one(number), self.ids.hash_one((number, "second half")))
    }

    // ---- Subscriptions ----

    /// Subscribes to a filter (section 3.8.4); what is retained is delivered by
    /// [`deliver_retained`](Self::deliver_retained).
    pub fn subscribe(
        &self,
        session: &Arc<Session>,
        link: u64,
        client: &ClientInfo,
        path: &str,
        SubscriptionRequest { options, retained }: SubscriptionRequest,
    ) -> Result<Result<QoS, Refusal>, Evicted> {
        let refused = |reason, cause| Ok(Err(Refusal::new(reason, cause)));
        if path.starts_with(topic::SHARED) {
            let cause = "shared subscriptions are not offered";
            return refused(Reason::SharedSubscriptionsNotSupported, cause);
        }
        if !topic::valid_filter(path) {
            return refused(Reason::TopicFilterInvalid, "this is no topic filter");
        }
        if let Some(cause) = topic::over_limit(path, &self.config) {
            return refused(Reason::TopicFilterInvalid, cause);
        }
        if !self.application.may_subscribe(client, path) {
            return refused(Reason::NotAuthorized, "the filter is not permitted");
        }
        // Both under the lock of the tree, so that a session that ends meanwhile leaves nothing in it.
        let mut subscriptions = self.subscriptions.write();
        let mut state = session.lock_for(link)?;
        let known = state.subscriptions.get_key_value(path).map(|(filter, _)| filter.clone());
        let new = known.is_none();
        if new {
            if state.subscriptions.len() >= self.config.max_subscriptions {
                return Ok(Err(quota("the session has max_subscriptions subscriptions")));
            }
            if let Err(cause) = self.take_subscription(&session.account, path) {
                return Ok(Err(quota(cause)));
            }
        }
        let filter: Arc<str> = known.unwrap_or_else(|| path.into());
        state.subscriptions.entry(filter.clone()).or_default();
        subscriptions.insert(path, session.serial, session.clone(), options);
        let wanted = match retained {
            RetainHandling::Always => true,
            RetainHandling::IfNew => new,
            RetainHandling::Nobody => false,
        };
        if wanted {
            let store = self.retained(path).read();
            if store.has_any(path) {
                state.want_retained(Cursor { filter, options, until: store.sequence(), after: None });
            }
        }
        Ok(Ok(options.qos))
    }

    /// Accounts a new subscription to an identity, unless it has too many, or holds more of the room for all than is
    /// left: the error is the limit.
    fn take_subscription(&self, account: &Account, filter: &str) -> Result<(), &'static str> {
        let (most, limit) = match account.holder {
            Holder::User(_) => (
                self.config.max_subscriptions_per_user,
                "the user has max_subscriptions_per_user subscriptions",
            ),
            Holder::Source(_) => (
                self.config.max_subscriptions_per_address,
                "clients without a name at its address have max_subscriptions_per_address subscriptions",
            ),
        };
        if account.subscriptions.get() >= most {
            return Err(limit);
        }
        let cost = trie::cost(filter);
        let left = self.config.max_subscription_bytes.saturating_sub(self.subscription_bytes.get());
        if !account.subscription_bytes.try_add(cost, left) {
            return Err(
                "the subscriptions of its identity have as much of max_subscription_bytes as is left",
            );
        }
        account.subscriptions.add(1);
        self.subscription_bytes.add(cost);
        Ok(())
    }

    fn give_back_subscription(&self, account: &Account, filter: &str) {
        let cost = trie::cost(filter);
        account.subscriptions.subtract(1);
        account.subscription_bytes.subtract(cost);
        self.subscription_bytes.subtract(cost);
    }

    /// Where the messages on this topic, or those that this filter matches, are retained: a wildcard matches no first
    /// level that starts with `$`.
    fn retained(&self, topic: &str) -> &RwLock<Retained> {
        if topic.starts_with('$') { &self.own_retained } else { &self.retained }
    }

    /// Puts a slice of the retained messages that a subscription is still to get into the queue of the client whose
    /// connection this is.
    ///
    /// They are looked up and queued under the lock of the session, so that one that is replaced meanwhile never comes
    /// after the one that replaces it [MQTT-4.6.0-5].
    pub fn deliver_retained(&self, session: &Session, link: u64) -> Result<(), Evicted> {
        let mut state = session.lock_for(link)?;
        let state = &mut *state;
        let Some(Cursor { filter, options, until, after }) = state.backlog.first() else { return Ok(()) };
        let (filter, grant, until) = (filter.clone(), Grant::new(options), *until);
        let mut after = after.take();
        let now = Instant::now();
        let mut full: Option<(Full, Message)> = None;
        let store = self.retained(&filter).read();
        let at_end = store.scan(&filter, &mut after, RETAINED_SLICE, |kept| {
            if kept.sequence <= until && !kept.expired(now) {
                let delivery =
                    OutboundPublish { retain: true, ..grant.delivery(&kept.message, kept.expires) };
                match state.offer(delivery, &self.config, &self.counters) {
                    Enqueued::Full(refused) if refused.is_news() => {
                        full = Some((refused, kept.message.clone()))
                    }
                    Enqueued::Full(_) => {}
                    Enqueued::Oversize(_) => count(&self.counters.dropped_oversize),
                    Enqueued::InQueue | Enqueued::Absent => {}
                }
            }
            state.outbox.has_room_for_retained(&self.config)
        });
        drop(store);
        if at_end {
            state.backlog.finish_first();
            if let Some(cursor) = state.subscriptions.get_mut(&filter) {
                *cursor = None;
            }
        } else if let Some(cursor) = state.backlog.first() {
            cursor.after = after;
        }
        if let Some((full, message)) = full {
            self.report_full(session, &message, full);
        }
        Ok(())
    }

    /// Unsubscribes; says whether there was such a subscription.
    pub fn unsubscribe(&self, session: &Session, link: u64, filter: &str) -> Result<bool, Evicted> {
        let mut subscriptions = self.subscriptions.write();
        let mut state = session.lock_for(link)?;
        let Some(cursor) = state.subscriptions.remove(filter) else { return Ok(false) };
        if let Some(cursor) = cursor {
            state.backlog.remove(cursor);
        }
        subscriptions.remove(filter, session.serial);
        self.give_back_subscription(&session.account, filter);
        Ok(true)
    }

    // ---- Messages ----

    /// What becomes of a client's message on this topic, which is a valid name.
    pub fn destination(&self, client: &ClientInfo, topic: &str) -> Destination {
        let not_permitted = |cause| Destination::Refused(Refusal::new(Reason::NotAuthorized, cause));
        if let Some(cause) = topic::over_limit(topic, &self.config) {
            return Destination::Refused(Refusal::new(Reason::TopicNameInvalid, cause));
        }
        if topic.starts_with('$') {
            return match topic::is_bridge_state(topic) {
                // A bridge would not connect without it, and nobody else is shown what a client says of the server.
                true => Destination::Nobody,
                false => not_permitted("topics that start with $ are the server's own"), // [MQTT-4.7.2-1]
            };
        }
        match self.application.route(client, topic) {
            Route::Broker => Destination::Broker,
            Route::Application => Destination::Application,
            Route::Refuse => not_permitted("the topic is not permitted"),
        }
    }

    /// Hands a message of the application's own to every session with a matching subscription, and retains it if it
    /// says so; returns how many sessions have it now.
    pub fn publish(&self, message: &Message, oversize: Option<Oversize<'_>>) -> usize {
        let mut fan_out = self.start(None, message);
        while !self.deliver_slice(message, &mut fan_out, oversize) {}
        fan_out.routed.reached
    }

    /// Hands a message that a client has caused to sessions with a matching subscription, as many of each identity as
    /// it may have; returns how many have it now. The client's identity pays.
    pub fn publish_for(
        &self,
        payer: &ClientInfo,
        message: &Message,
        oversize: Option<Oversize<'_>>,
    ) -> usize {
        let mut fan_out = self.start(None, message);
        let mut receivers = self.receivers(message, &fan_out, usize::MAX);
        if receivers.len() < CHARGED_FROM {
            self.deliver(message, &receivers, &mut fan_out, oversize);
        } else {
            let since = Instant::now();
            let most = self.config.max_receivers_per_identity;
            let sessions = fan_out::limit_per_identity(&mut receivers, most);
            if sessions > 0 {
                self.counters.dropped_too_many_receivers.fetch_add(sessions as u64, Relaxed);
                if let Some(left_out) = self.throttle.line(Cause::Dropped) {
                    let (topic, asked_by) = (clip(&message.topic), clip(&payer.account.name));
                    warn!(
                        topic,
                        asked_by,
                        sessions,
                        left_out,
                        "an answer for more sessions of one identity than may have it"
                    );
                }
            }
            self.deliver(message, &receivers, &mut fan_out, oversize);
            self.charge(&payer.account, since);
        }
        fan_out.routed.reached
    }

    /// Retains the message if it says so; it is still to be delivered. `publisher` is the session it comes from.
    pub fn start(&self, publisher: Option<&Session>, message: &Message) -> FanOut {
        let mut routed = Routed::default();
        let expires = expires(message);
        if message.retain {
            let owner = publisher.map(|session| &session.account);
            let mut store = self.retained(&message.topic).write();
            routed.kept = store.keep(message, expires, owner, Instant::now());
            drop(store);
            if !routed.kept {
                count(&self.counters.dropped_retained_full);
                routed.refused += 1;
                if let Some(left_out) = self.throttle.line(Cause::Dropped) {
                    let (topic, publisher) = (clip(&message.topic), owner.map(|account| clip(&account.name)));
                    let dropped = self.counters.dropped_retained_full.load(Relaxed);
                    warn!(
                        topic,
                        publisher,
                        dropped,
                        left_out,
                        "a message is not retained: max_retained_messages or max_retained_bytes are reached, \
                         of which no identity has more than is left"
                    );
                }
            }
        }
        FanOut { publisher: publisher.map(|session| session.serial), expires, after: 0, routed }
    }

    /// Delivers a message to its next receivers; true if those were the last.
    pub fn deliver_slice(
        &self,
        message: &Message,
        fan_out: &mut FanOut,
        oversize: Option<Oversize<'_>>,
    ) -> bool {
        let receivers = self.receivers(message, fan_out, fan_out::SLICE);
        self.deliver(message, &receivers, fan_out, oversize);
        fan_out.delivered(&receivers)
    }

    fn receivers(&self, message: &Message, fan_out: &FanOut, limit: usize) -> Vec<Recipient> {
        fan_out::receivers(&self.subscriptions, &message.topic, fan_out, limit)
    }

    fn deliver(
        &self,
        message: &Message,
        receivers: &[Recipient],
        FanOut { expires, routed, .. }: &mut FanOut,
        oversize: Option<Oversize<'_>>,
    ) {
        for Recipient { session, grant, .. } in receivers {
            match self.offer(session, grant, message, *expires, oversize) {
                Enqueued::InQueue => routed.reached += 1,
                Enqueued::Full(_) => routed.refused += 1,
                Enqueued::Absent | Enqueued::Oversize(_) => {}
            }
        }
    }

    /// Hands a message to one session only, if one of its subscriptions matches.
    pub fn publish_to(
        &self,
        session: &Session,
        message: &Message,
        oversize: Option<Oversize<'_>>,
    ) -> Receipt {
        let Some(grant) = self.grant_of(session, &message.topic) else {
            return if session.lock().ended.is_some() { self.gone() } else { Receipt::NoSubscription };
        };
        match self.offer(session, &grant, message, expires(message), oversize) {
            Enqueued::InQueue => Receipt::Queued,
            Enqueued::Full(_) | Enqueued::Oversize(_) => Receipt::NotTaken,
            Enqueued::Absent => self.gone(),
        }
    }

    /// A message for one client finds no session.
    pub fn gone(&self) -> Receipt {
        count(&self.counters.dropped_gone);
        Receipt::Gone
    }

    /// What a session's subscriptions say about this topic; `None` if none matches.
    pub fn grant_of(&self, session: &Session, topic: &str) -> Option<Grant> {
        let mut grant: Option<Grant> = None;
        self.subscriptions.read().for_each_match(topic, |list| {
            if let Ok(at) = list.binary_search_by_key(&session.serial, |subscription| subscription.serial) {
                let found = Grant::new(&list[at].options);
                match &mut grant {
                    Some(grant) => grant.add(found),
                    None => grant = Some(found),
                }
            }
        });
        grant
    }

    fn offer(
        &self,
        session: &Session,
        grant: &Grant,
        message: &Message,
        expires: Option<Instant>,
        oversize: Option<Oversize<'_>>,
    ) -> Enqueued {
        let offer = |message| session.offer(grant.delivery(message, expires), &self.config, &self.counters);
        let mut offered = offer(message);
        if let (Enqueued::Oversize(to), Some(oversize)) = (&offered, oversize) {
            let size = |message: &Message| grant.delivery(message, expires).packet_size(to.version);
            if let Some(replacement) = oversize(to.max_packet, &size).filter(encodable) {
                offered = offer(&replacement);
            }
        }
        match offered {
            Enqueued::Full(full) => self.report_full(session, message, full),
            Enqueued::Oversize(_) => count(&self.counters.dropped_oversize),
            Enqueued::InQueue | Enqueued::Absent => {}
        }
        offered
    }

    fn report_full(&self, session: &Session, message: &Message, full: Full) {
        if full.is_news()
            && let Some(left_out) = self.throttle.line(Cause::Dropped)
        {
            let (client_id, topic) = (clip(&session.client_id), clip(&message.topic));
            let (qos, dropped) = (full.qos as u8, full.dropped);
            warn!(client_id, topic, qos, dropped, left_out, "queue full, messages are dropped");
        }
    }

    /// Drops what has expired in the queues of all sessions, at intervals, for ever: it takes the room of others.
    pub async fn keep_sweeping(&self) -> Infallible {
        let _sweeping = self.sweeping.lock().await;
        loop {
            sleep(self.config.expiry_interval).await;
            let sessions: Vec<_> = self.sessions.read().values().cloned().collect();
            for sessions in sessions.chunks(SWEPT_AT_ONCE) {
                let now = Instant::now();
                for session in sessions {
                    session.lock().outbox.drop_expired(now, &self.counters);
                }
                yield_now().await;
            }
        }
    }

    // ---- Wills ----

    /// A will is a publish, and is refused like one; better now than when nobody is there to be told.
    fn check_will(&self, will: &Will, client: &ClientInfo) -> Result<(), Refusal> {
        let topic = &will.message.topic;
        if !topic::valid_name(topic) {
            return Err(Refusal::new(Reason::TopicNameInvalid, "the will's topic is none"));
        }
        match self.destination(client, topic) {
            Destination::Refused(Refusal { reason: reason @ Reason::TopicNameInvalid, .. }) => {
                Err(Refusal::new(reason, "the will's topic exceeds max_topic_length or max_topic_levels"))
            }
            Destination::Refused(Refusal { reason, .. }) => {
                Err(Refusal::new(reason, "the will's topic is not permitted"))
            }
            Destination::Broker | Destination::Application | Destination::Nobody => Ok(()),
        }
    }

    /// Publishes a will; returns what is left if it has many receivers.
    fn publish_will(&self, client: &Arc<ClientInfo>, session: &Session, will: Will) -> Option<Unfinished> {
        let Message { topic, payload, qos, retain, properties } = will.message;
        debug!(client_id = &*client.client_id, topic = clip(&topic), "publishing a will");
        match self.destination(client, &topic) {
            Destination::Refused(_) => count(&self.counters.dropped_refused),
            Destination::Nobody => {}
            Destination::Broker => {
                let message = Message { topic, payload, qos, retain, properties };
                let mut fan_out = self.start(Some(session), &message);
                let all = self.deliver_slice(&message, &mut fan_out, None);
                return (!all).then_some((message, fan_out));
            }
            Destination::Application => {
                self.application.publish(Received {
                    client: client.clone(),
                    topic,
                    payload,
                    properties: properties.map(|properties| Box::new(Arc::unwrap_or_clone(properties))),
                    qos,
                    retain,
                    dup: false,
                    ack: Acknowledgement::pending(None),
                });
                self.application.published();
            }
        }
        None
    }

    /// Delivers what is left of a message on the spot.
    pub fn finish(&self, unfinished: Option<Unfinished>) {
        if let Some((message, mut fan_out)) = unfinished {
            while !self.deliver_slice(&message, &mut fan_out, None) {}
        }
    }
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

fn quota(cause: &'static str) -> Refusal {
    Refusal::new(Reason::QuotaExceeded, cause)
}

/// What becomes of a client's message.
pub(crate) enum Destination {
    /// It goes to subscribers.
    Broker,
    Application,
    /// It is taken and dropped.
    Nobody,
    Refused(Refusal),
}

/// Removes a session, and gives the memory of many back.
fn forget(sessions: &mut HashMap<Arc<str>, Arc<Session>>, client_id: &str) {
    sessions.remove(client_id);
    if sessions.capacity() > 4 * sessions.len().max(64) {
        sessions.shrink_to_fit();
    }
}

/// When a message that is published now expires (section 3.3.2.3.3).
fn expires(message: &Message) -> Option<Instant> {
    let seconds = message.properties.as_ref()?.message_expiry?;
    Some(Instant::now() + Duration::from_secs(seconds.into()))
}
