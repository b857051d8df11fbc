//! The heart of the broker: who is connected, who subscribed to what, and where messages go.
//!
//! Locks are taken in the order sessions, subscriptions, session, deadlines; routing takes them one after the
//! other, never two at once. The application is called under none of them, but for its `confirm`.

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
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::{
    account::{Account, Accounts},
    acknowledgement::Acknowledgement,
    application::{Application, ClientInfo, Identity, Received, Route, Version},
    codec::{Filter, RetainedFor},
    config::Config,
    connect::Connect,
    deadlines::Deadlines,
    delivery::{Delivery, encodable},
    fair_share::FairShare,
    incoming::Incoming,
    input_budget::InputBudget,
    message::{Message, QoS},
    outbox::Full,
    places::Places,
    reason::Reason,
    retained::Retained,
    session::{Evicted, Link, Offered, Session, State},
    stats::{Counters, Stats, count},
    sys::Sys,
    throttle::{Cause, Throttle},
    topic,
    transport::Peer,
    trie::{Options, Trie},
    will::Will,
};

/// Chooses a replacement for a message that a receiver does not take: gets the receiver's limit in bytes and
/// a function that says how large a message would be for it.
pub type Oversize<'a> = &'a dyn Fn(usize, &dyn Fn(&Message) -> usize) -> Option<Message>;

/// Retained messages on topics that start with `$`: `$SYS/…` has some forty, and the application may add its own.
const MAX_OWN_RETAINED_MESSAGES: usize = 10_000;
/// Bytes of these messages.
const MAX_OWN_RETAINED_BYTES: usize = 16 * 1024 * 1024;

pub(crate) struct Core {
    pub config: Config,
    pub application: Arc<dyn Application>,
    pub counters: Counters,
    /// For log lines about what clients cause.
    pub throttle: Throttle,
    /// For connections.
    pub places: Places,
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
    retained: RwLock<Retained>,
    /// On topics that start with `$`, which only this process publishes to: whatever clients retain, these have room.
    own_retained: RwLock<Retained>,
    /// What was published of the counters.
    pub sys: Sys,
    deadlines: Deadlines,
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

/// Where a message went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routed {
    /// Sessions that have it now.
    pub reached: usize,
    /// Sessions whose queue, or the store of retained messages, was full.
    pub refused: usize,
    /// It is retained, or has cleared what was: later subscribers find what it says.
    pub kept: bool,
}

/// What a session's subscriptions, taken together, want of a message.
struct Grant {
    qos: QoS,
    retain_as_published: bool,
    ids: Vec<u32>,
}

impl Grant {
    fn new(options: &Options) -> Self {
        Self {
            qos: options.qos,
            retain_as_published: options.retain_as_published,
            ids: options.id.into_iter().collect(),
        }
    }

    /// Overlapping subscriptions deliver once, at the highest QoS, with all identifiers (section 3.3.4).
    fn add(&mut self, options: &Options) {
        self.qos = self.qos.max(options.qos);
        self.retain_as_published |= options.retain_as_published;
        self.ids.extend(options.id);
    }

    fn delivery(&self, message: &Message, expires: Option<Instant>) -> Delivery {
        Delivery {
            qos: self.qos.min(message.qos),
            retain: self.retain_as_published && message.retain,
            subscription_ids: self.ids.clone(),
            expires,
            message: message.clone(),
        }
    }
}

impl Core {
    pub fn new(config: Config, application: Arc<dyn Application>) -> Self {
        Self {
            application,
            counters: Counters::default(),
            throttle: Throttle::new(),
            places: Places::default(),
            accounts: Accounts::default(),
            shares: FairShare::new(),
            input: Arc::new(InputBudget::new(&config)),
            started: Instant::now(),
            sessions: RwLock::default(),
            subscriptions: RwLock::default(),
            retained: RwLock::new(Retained::new(config.max_retained_messages, config.max_retained_bytes)),
            own_retained: RwLock::new(Retained::new(MAX_OWN_RETAINED_MESSAGES, MAX_OWN_RETAINED_BYTES)),
            sys: Sys::new(),
            deadlines: Deadlines::default(),
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

    /// Gives a connection its session (section 3.1.4): resumed, or new. A connection that had it is thrown
    /// out, but a session of another identity is not touched.
    pub fn connect(
        &self,
        connect: &mut Connect,
        version: Version,
        peer: &Peer,
        identity: Identity,
    ) -> Result<Connected, Reason> {
        let assigned = connect.client_id.is_empty();
        if assigned {
            if version == Version::V311 && !connect.clean_start {
                return Err(Reason::ClientIdentifierNotValid); // [MQTT-3.1.3-8]
            }
            connect.client_id = self.assign_client_id();
        } else if connect.client_id.len() > self.config.max_client_id_length {
            return Err(Reason::ClientIdentifierNotValid);
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
        if former.as_ref().is_some_and(|former| former.owner != identity.user) {
            return Err(Reason::NotAuthorized);
        }
        let takes_over = former.as_ref().is_some_and(|former| former.lock().link.is_some());
        if identity.user.is_some()
            && !takes_over
            && account.connections.get() >= self.config.max_connections_per_user
        {
            return Err(Reason::QuotaExceeded);
        }
        let resumes = |former: &Session| !connect.clean_start && former.lock().expiry > 0;
        let session_present = former.as_deref().is_some_and(resumes);
        let session = match &former {
            Some(former) if session_present => former.clone(),
            None if sessions.len() >= self.config.max_sessions => return Err(Reason::QuotaExceeded),
            _ => {
                let session =
                    Arc::new(Session::new(client_id.clone(), identity.user.clone(), self.next_number()));
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
            state.link = Some(Link::new(link, client.clone(), max_packet));
            self.counters.client_connected();
            state.outbox.connected(connect.receive_maximum.min(self.config.max_inflight));
            state.will = connect.will.take().map(Box::new);
            state.expiry = session_expiry;
        }
        drop(sessions);

        if let Some(thrown_out) = thrown_out {
            self.clean_up(thrown_out);
        }
        Ok(Connected { session, link, client, session_present, session_expiry, max_packet })
    }

    /// Takes a session away from its connection, if it has one, and ends it for this reason, if there is one: without,
    /// it is to be resumed.
    fn throw_out(&self, session: Arc<Session>, ends: Option<Reason>) -> ThrownOut {
        let state = &mut *session.lock();
        let mut will = state.will.take();
        state.will_due = None;
        state.expires = None;
        self.deadlines.set(&session, state);
        let link = state.link.take();
        if ends.is_none() && will.as_ref().is_some_and(|will| link.is_none() || will.delay > 0) {
            will = None; // [MQTT-3.1.3-9]: the client came back before its will was due
        }
        let client = link.as_ref().map(|link| link.client.clone());
        if let Some(mut link) = link {
            self.counters.client_disconnected();
            state.incoming.disconnected();
            link.wake();
        }
        let client = client.or_else(|| state.last_client.take());
        let subscriptions = ends.map_or_else(Vec::new, |reason| self.end(state, reason));
        ThrownOut { session: session.clone(), will, client, subscriptions }
    }

    /// What is left to do when the locks under which a session was thrown out are released.
    fn clean_up(&self, thrown_out: ThrownOut) {
        let ThrownOut { session, will, client, subscriptions } = thrown_out;
        self.unsubscribe_all(&session, subscriptions);
        if let (Some(will), Some(client)) = (will, client) {
            self.publish_will(&client, &session, *will);
        }
    }

    /// Marks a locked session as ended; returns the subscriptions to be removed.
    fn end(&self, state: &mut State, reason: Reason) -> Vec<Box<str>> {
        state.ended = Some(reason);
        state.outbox.clear(&self.counters);
        state.incoming = Incoming::default();
        std::mem::take(&mut state.subscriptions).into_keys().collect()
    }

    /// Throws out the clients that `which` names, and ends their sessions; returns how many.
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
            self.clean_up(thrown_out);
            evicted += 1;
        }
        evicted
    }

    /// A connection has ended.
    pub fn disconnect(&self, session: &Arc<Session>, link: u64, ending: Ending) {
        let (due_will, client, ends) = {
            let Ok(mut state) = session.lock_for(link) else { return };
            let state = &mut *state;
            let Some(link) = state.link.take() else { return };
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
            }
            (due_will, link.client.clone(), ends)
        };
        if ends {
            self.remove(session);
        }
        if let Some(will) = due_will {
            self.publish_will(&client, session, *will);
        }
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
            // Nobody is connected who could be told why.
            self.end(state, Reason::Success)
        };
        forget(&mut sessions, &session.client_id);
        drop(sessions);
        self.unsubscribe_all(session, subscriptions);
    }

    fn unsubscribe_all(&self, session: &Arc<Session>, filters: Vec<Box<str>>) {
        if !filters.is_empty() {
            let mut subscriptions = self.subscriptions.write();
            for filter in filters {
                subscriptions.remove(&filter, session);
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
            self.expire(&session);
        }
    }

    fn expire(&self, session: &Arc<Session>) {
        let (will, client, ends) = {
            let state = &mut *session.lock();
            state.deadline = None;
            if state.link.is_some() || state.ended.is_some() {
                return;
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
        if let (Some(will), Some(client)) = (will, client) {
            self.publish_will(&client, session, *will);
        }
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

    /// Subscribes (section 3.8.4); what is retained goes into the session's queue.
    pub fn subscribe(
        &self,
        session: &Arc<Session>,
        link: u64,
        client: &ClientInfo,
        filters: &[Filter<'_>],
    ) -> Result<Vec<Result<QoS, Reason>>, Evicted> {
        let mut granted = Vec::with_capacity(filters.len());
        for filter in filters {
            let new = match self.subscribe_one(session, link, client, filter)? {
                Ok(new) => new,
                Err(reason) => {
                    granted.push(Err(reason));
                    continue;
                }
            };
            granted.push(Ok(filter.options.qos));
            match filter.retained {
                RetainedFor::EverySubscribe => self.offer_retained(session, filter),
                RetainedFor::NewSubscription if new => self.offer_retained(session, filter),
                _ => {}
            }
        }
        Ok(granted)
    }

    fn subscribe_one(
        &self,
        session: &Arc<Session>,
        link: u64,
        client: &ClientInfo,
        filter: &Filter<'_>,
    ) -> Result<Result<bool, Reason>, Evicted> {
        if filter.path.starts_with(topic::SHARED) {
            return Ok(Err(Reason::SharedSubscriptionsNotSupported));
        }
        if !topic::valid_filter(filter.path, &self.config) {
            return Ok(Err(Reason::TopicFilterInvalid));
        }
        if !self.application.may_subscribe(client, filter.path) {
            return Ok(Err(Reason::NotAuthorized));
        }
        // Both under the lock of the tree, so that a session that ends meanwhile leaves nothing in it.
        let mut subscriptions = self.subscriptions.write();
        let mut state = session.lock_for(link)?;
        let known = state.subscriptions.contains_key(filter.path);
        if !known && state.subscriptions.len() >= self.config.max_subscriptions {
            return Ok(Err(Reason::QuotaExceeded));
        }
        state.subscriptions.insert(filter.path.into(), filter.options);
        Ok(Ok(subscriptions.insert(filter.path, session.clone(), filter.options)))
    }

    /// Where the messages on this topic, or those that this filter matches, are retained: a wildcard matches no first
    /// level that starts with `$`.
    fn retained(&self, topic: &str) -> &RwLock<Retained> {
        if topic.starts_with('$') { &self.own_retained } else { &self.retained }
    }

    fn offer_retained(&self, session: &Arc<Session>, filter: &Filter<'_>) {
        let kept = self.retained(filter.path).read().matching(filter.path, Instant::now());
        let grant = Grant::new(&filter.options);
        for kept in kept {
            let delivery = Delivery { retain: true, ..grant.delivery(&kept.message, kept.expires) };
            match session.offer(delivery, true, &self.config, &self.counters) {
                Offered::Full(full) => self.report_full(session, full),
                Offered::Oversize(_) => count(&self.counters.dropped_oversize),
                Offered::Queued | Offered::Absent => {}
            }
        }
    }

    /// Unsubscribes; says for each filter whether there was such a subscription.
    pub fn unsubscribe(
        &self,
        session: &Arc<Session>,
        link: u64,
        filters: &[&str],
    ) -> Result<Vec<bool>, Evicted> {
        let mut subscriptions = self.subscriptions.write();
        let mut state = session.lock_for(link)?;
        let remove = |filter: &str| {
            state.subscriptions.remove(filter);
            subscriptions.remove(filter, session)
        };
        Ok(filters.iter().copied().map(remove).collect())
    }

    // ---- Messages ----

    /// Whether a client's message goes to subscribers, the application, or nowhere.
    pub fn route(&self, client: &ClientInfo, topic: &str) -> Route {
        // The server's own topics [MQTT-4.7.2-1].
        if topic.starts_with('$') { Route::Refuse } else { self.application.route(client, topic) }
    }

    /// Retains the message if it says so and hands it to every session with a matching subscription.
    /// `publisher` is the session it comes from, for No Local.
    pub fn publish(
        &self,
        publisher: Option<&Session>,
        message: &Message,
        oversize: Option<Oversize<'_>>,
    ) -> Routed {
        let mut routed = Routed::default();
        let expires = expires(message);
        if message.retain {
            let now = Instant::now();
            routed.kept = self.retained(&message.topic).write().keep(message, expires, now);
            if !routed.kept {
                count(&self.counters.dropped_retained_full);
                routed.refused += 1;
                if let Some(left_out) = self.throttle.line(Cause::Dropped) {
                    warn!(topic = clip(&message.topic), left_out, "no room to retain a message");
                }
            }
        }
        for (session, grant) in self.receivers(publisher, &message.topic) {
            match self.offer(&session, &grant, message, expires, oversize) {
                Offered::Queued => routed.reached += 1,
                Offered::Full(_) => routed.refused += 1,
                Offered::Absent | Offered::Oversize(_) => {}
            }
        }
        routed
    }

    fn receivers(&self, publisher: Option<&Session>, topic: &str) -> Vec<(Arc<Session>, Grant)> {
        let mut matches: Vec<(&Arc<Session>, &Options)> = Vec::new();
        let subscriptions = self.subscriptions.read();
        subscriptions.for_each_match(topic, |session, options| {
            if !(options.no_local && publisher.is_some_and(|publisher| *publisher == **session)) {
                matches.push((session, options));
            }
        });
        if matches.len() > 1 {
            matches.sort_by_key(|(session, _)| session.serial);
        }
        let mut receivers: Vec<(Arc<Session>, Grant)> = Vec::with_capacity(matches.len());
        for (session, options) in matches {
            match receivers.last_mut() {
                Some((last, grant)) if last == session => grant.add(options),
                _ => receivers.push((session.clone(), Grant::new(options))),
            }
        }
        receivers
    }

    /// Hands a message to one session only, if one of its subscriptions matches.
    pub fn publish_to(&self, session: &Session, message: &Message, oversize: Option<Oversize<'_>>) -> bool {
        let mut grant: Option<Grant> = None;
        for (filter, options) in &session.lock().subscriptions {
            if topic::matches(filter, &message.topic) {
                match &mut grant {
                    Some(grant) => grant.add(options),
                    None => grant = Some(Grant::new(options)),
                }
            }
        }
        let Some(grant) = grant else { return false };
        matches!(self.offer(session, &grant, message, expires(message), oversize), Offered::Queued)
    }

    fn offer(
        &self,
        session: &Session,
        grant: &Grant,
        message: &Message,
        expires: Option<Instant>,
        oversize: Option<Oversize<'_>>,
    ) -> Offered {
        let offer =
            |message| session.offer(grant.delivery(message, expires), false, &self.config, &self.counters);
        let mut offered = offer(message);
        if let (Offered::Oversize(to), Some(oversize)) = (&offered, oversize) {
            let size = |message: &Message| grant.delivery(message, expires).packet_size(to.version);
            if let Some(replacement) = oversize(to.max_packet, &size).filter(encodable) {
                offered = offer(&replacement);
            }
        }
        match offered {
            Offered::Full(full) => self.report_full(session, full),
            Offered::Oversize(_) => count(&self.counters.dropped_oversize),
            Offered::Queued | Offered::Absent => {}
        }
        offered
    }

    fn report_full(&self, session: &Session, full: Full) {
        if full.first
            && let Some(left_out) = self.throttle.line(Cause::Dropped)
        {
            warn!(client_id = &*session.client_id, left_out, "queue full, messages are dropped");
        }
    }

    // ---- Wills ----

    /// A will is a publish, and is refused like one; better now than when nobody is there to be told.
    fn check_will(&self, will: &Will, client: &ClientInfo) -> Result<(), Reason> {
        let topic = &will.message.topic;
        if !topic::valid_name(topic, &self.config) {
            return Err(Reason::TopicNameInvalid);
        }
        match self.route(client, topic) {
            Route::Refuse => Err(Reason::NotAuthorized),
            Route::Broker | Route::Application => Ok(()),
        }
    }

    fn publish_will(&self, client: &Arc<ClientInfo>, session: &Session, will: Will) {
        let Message { topic, payload, qos, retain, properties } = will.message;
        debug!(client_id = &*client.client_id, topic = clip(&topic), "publishing a will");
        match self.route(client, &topic) {
            Route::Refuse => count(&self.counters.dropped_refused),
            Route::Broker => {
                self.publish(Some(session), &Message { topic, payload, qos, retain, properties }, None);
            }
            Route::Application => {
                self.application.publish(Received {
                    client: client.clone(),
                    topic,
                    payload,
                    properties: properties.map(|properties| Box::new(Arc::unwrap_or_clone(properties))),
                    qos,
                    retain,
                    dup: false,
                    ack: Acknowledgement::owed(None),
                });
                self.application.published();
            }
        }
    }
}

/// A session that was taken away from its connection.
struct ThrownOut {
    session: Arc<Session>,
    will: Option<Box<Will>>,
    client: Option<Arc<ClientInfo>>,
    subscriptions: Vec<Box<str>>,
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

/// What of a text from a stranger goes into a log line.
pub(crate) fn clip(text: &str) -> &str {
    const LONGEST: usize = 100;
    &text[..text.floor_char_boundary(LONGEST)]
}
