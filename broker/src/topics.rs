//! Topics: who subscribes to what, what is retained, and the way of a message to its subscribers.
//!
//! There is no router task. Whoever publishes looks the topic up in the tree of subscriptions and puts the message into
//! the queue of each session that matches, under that session's mutex. A message with many recipients is delivered in
//! slices ([`fan_out`]).
//!
//! Locks are taken in the order subscriptions, session, retained messages; delivering takes them one after the other,
//! never two at once.

pub(crate) mod fan_out;
pub(crate) mod retained;
pub(crate) mod subscriptions;
pub(crate) mod sys;
pub(crate) mod topic;
pub(crate) mod trie;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use parking_lot::RwLock;
use tokio::time::Instant;
use tracing::warn;

use crate::{
    context::BrokerContext,
    message::{Message, QoS},
    packet::outbound_publish::{OutboundPublish, encodable},
    quotas::account::{Account, Held},
    session::{
        Enqueued, Session,
        client::ClientInfo,
        outbox::Full,
        receipt::{OnAcknowledged, Receipt, Receipts},
        stored::{self, StoredMessage, Storing, WithoutRoom},
    },
    stats::{Stats, count},
    storage::{Key, NotStored, OnDurable},
    throttle::{Cause, clip},
    topics::{
        fan_out::{FanOut, Grant, Recipient, Routed, Stores},
        retained::{Kept, Retained, Written},
        trie::Trie,
    },
};

/// Bytes, about, of sessions' places for one message that are handed over to the storage together, for some 250 of
/// them: all of them or none after a crash. A batch of the smallest journal has room for twice as much. With more,
/// those who publish again what was not acknowledged may reach some twice, at QoS 2 too.
const STORED_AT_ONCE: usize = 128 * 1024;
/// Retained messages on topics that start with `$`: `$SYS/…` has some forty, and the application may add its own.
const MAX_OWN_RETAINED_MESSAGES: usize = 10_000;
/// Bytes of these messages.
const MAX_OWN_RETAINED_BYTES: usize = 16 * 1024 * 1024;
/// Recipients of an answer from which on the time that they take is charged to the client that caused it; below,
/// measuring it would cost as much as one of them.
const CHARGED_FROM: usize = 8;

/// All topics of a broker.
pub(crate) struct Topics {
    context: Arc<BrokerContext>,
    subscriptions: RwLock<Trie<Arc<Session>>>,
    /// What all of them cost.
    subscription_bytes: Held,
    retained: RwLock<Retained>,
    /// On topics that start with `$`, which only this process publishes to: whatever clients retain, these have room.
    own_retained: RwLock<Retained>,
}

impl Topics {
    pub fn new(context: Arc<BrokerContext>) -> Self {
        let config = &context.config;
        Self {
            subscriptions: RwLock::default(),
            subscription_bytes: Held::default(),
            retained: RwLock::new(Retained::new(
                config.max_retained_messages,
                config.max_retained_bytes,
                Some(context.clone()),
            )),
            own_retained: RwLock::new(Retained::new(MAX_OWN_RETAINED_MESSAGES, MAX_OWN_RETAINED_BYTES, None)),
            context,
        }
    }

    /// Adds what is counted here.
    pub fn count_into(&self, stats: &mut Stats) {
        stats.subscriptions = self.subscriptions.read().len();
        stats.subscription_bytes = self.subscription_bytes.get();
        let retained = self.retained.read();
        stats.retained_messages = retained.len();
        stats.retained_bytes = retained.bytes();
    }

    /// Hands a message of the application's own to every session with a matching subscription, and retains it if it
    /// says so; returns how many sessions have it now.
    pub fn publish(&self, message: &Message, oversize: Option<Oversize<'_>>) -> usize {
        let mut fan_out = self.start(None, message);
        while !self.deliver_slice(message, &mut fan_out, oversize) {}
        self.finish(message, &mut fan_out);
        fan_out.routed.reached
    }

    /// Whether a message of the application's own can be published. What comes from clients always can.
    pub fn is_publishable(&self, message: &Message) -> bool {
        let topic = &message.topic;
        let publishable = topic::valid_name(topic)
            && topic::over_limit(topic, &self.context.config).is_none()
            && encodable(message);
        if !publishable && let Some(left_out) = self.context.throttle.line(Cause::Fault) {
            warn!(topic = clip(topic), left_out, "the application published what cannot be encoded");
        }
        publishable
    }

    /// Hands a message that a client has caused to sessions with a matching subscription, as many of each identity as
    /// it may have; returns how many have it now. The identity of this name pays.
    pub fn publish_for(
        &self,
        payer: &str,
        message: &Message,
        oversize: Option<Oversize<'_>>,
        on_acknowledged: Option<OnAcknowledged>,
    ) -> Published {
        let mut fan_out = self.start(None, message);
        fan_out.receipts = on_acknowledged.map(Receipts::new);
        let mut recipients = self.recipients(message, &fan_out, usize::MAX);
        if recipients.len() < CHARGED_FROM {
            self.deliver(message, &recipients, &mut fan_out, oversize);
        } else {
            let since = Instant::now();
            let most = self.context.config.max_receivers_per_identity;
            let sessions = fan_out::limit_per_identity(&mut recipients, most);
            if sessions > 0 {
                self.context.counters.dropped_too_many_receivers.fetch_add(sessions as u64, Relaxed);
                if let Some(left_out) = self.context.throttle.line(Cause::Dropped) {
                    let (topic, asked_by) = (clip(&message.topic), clip(payer));
                    warn!(
                        topic,
                        asked_by,
                        sessions,
                        left_out,
                        "an answer for more sessions of one identity than may have it"
                    );
                }
            }
            self.deliver(message, &recipients, &mut fan_out, oversize);
            if let Some(payer) = self.context.quotas.accounts.named(payer) {
                self.context.quotas.charge(&payer, since);
            }
        }
        self.finish(message, &mut fan_out);
        let Routed { reached, unstored, .. } = fan_out.routed;
        Published { reached, unstored }
    }

    /// Hands a message to the session of one client only, if one of its subscriptions matches.
    pub fn publish_to(
        &self,
        client: &ClientInfo,
        message: &Message,
        oversize: Option<Oversize<'_>>,
        on_acknowledged: Option<OnAcknowledged>,
    ) -> Placed {
        let Some(session) = client.session.upgrade() else { return self.no_session() };
        let Some(grant) = self.grant_of(&session, &message.topic) else {
            return if session.lock().ended.is_some() { self.no_session() } else { Placed::NoSubscription };
        };
        let mut fan_out = FanOut::new(None, expires(message), Routed::default());
        fan_out.receipts = on_acknowledged.map(Receipts::new);
        match self.offer(&session, &grant, message, oversize, &mut fan_out) {
            Enqueued::InQueue => Placed::Queued,
            Enqueued::Stored => match self.hand_over(message, fan_out.stores, None) {
                Ok(()) => Placed::Queued,
                Err(_) => Placed::Unstored,
            },
            Enqueued::Unstored => Placed::Unstored,
            Enqueued::Full(_) | Enqueued::Oversize(..) => Placed::Dropped,
            Enqueued::Absent => self.no_session(),
        }
    }

    /// Hands a message that nobody misses to sessions, or to that of one client, that are connected and have room.
    pub fn publish_if_room(&self, message: &Message, client: Option<&ClientInfo>) {
        let offer = |session: &Session, grant: &Grant| {
            session.offer_if_room(
                grant.outbound(message, None),
                &self.context.config,
                &self.context.counters,
            );
        };
        match client {
            Some(client) => {
                let session = client.session.upgrade();
                let found =
                    session.and_then(|session| Some((self.grant_of(&session, &message.topic)?, session)));
                if let Some((grant, session)) = found {
                    offer(&session, &grant);
                }
            }
            None => {
                let fan_out = FanOut::new(None, None, Routed::default());
                for Recipient { session, grant, .. } in self.recipients(message, &fan_out, CHARGED_FROM) {
                    offer(&session, &grant);
                }
            }
        }
    }

    /// Whether one of a client's own subscriptions matches a topic; false if its session has ended.
    pub fn is_subscribed(&self, client: &ClientInfo, topic: &str) -> bool {
        let session = client.session.upgrade();
        session.is_some_and(|session| self.grant_of(&session, topic).is_some())
    }

    /// Retains the message if it says so; it is still to be delivered. `publisher` is the session it comes from.
    pub fn start(&self, publisher: Option<&Session>, message: &Message) -> FanOut {
        let mut routed = Routed::default();
        let expires = expires(message);
        let mut retained = None;
        let mut has_failed = false;
        if message.retain {
            let owner = publisher.map(|session| &session.account);
            let mut store = self.retained(&message.topic).write();
            let kept = store.keep(message, expires, owner, Instant::now());
            drop(store);
            routed.kept = matches!(kept, Kept::InMemory | Kept::Stored(_));
            has_failed = matches!(kept, Kept::Failed);
            if let Kept::Unstored = kept {
                routed.refused += 1;
                routed.unstored += 1;
                report_not_retained(&self.context, &message.topic);
            }
            if let Kept::No = kept {
                count(&self.context.counters.dropped_retained_full);
                routed.refused += 1;
                if let Some(left_out) = self.context.throttle.line(Cause::Dropped) {
                    let (topic, publisher) = (clip(&message.topic), owner.map(|account| clip(&account.name)));
                    let dropped = self.context.counters.dropped_retained_full.load(Relaxed);
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
            if let Kept::Stored(written) = kept {
                retained = Some(written);
            }
        }
        let mut fan_out = FanOut::new(publisher.map(|session| session.serial), expires, routed);
        fan_out.stores.handed_over = retained.is_some();
        fan_out.parts.extend(retained.flatten());
        fan_out.has_failed = has_failed;
        fan_out
    }

    /// Takes over a message that an earlier process has retained and stored; false if there is no room.
    pub fn recover_retained(
        &self,
        message: &Message,
        expires: Option<Instant>,
        owner: &Arc<Account>,
        record: Key,
    ) -> bool {
        self.retained.write().recover(message, expires, owner, record)
    }

    /// Delivers a message to its next recipients; true if those were the last, and [`store`](Self::store) or
    /// [`finish`](Self::finish) is to follow.
    pub fn deliver_slice(
        &self,
        message: &Message,
        fan_out: &mut FanOut,
        oversize: Option<Oversize<'_>>,
    ) -> bool {
        let recipients = self.recipients(message, fan_out, fan_out::SLICE);
        self.deliver(message, &recipients, fan_out, oversize);
        if fan_out.stores.storing.bytes() >= STORED_AT_ONCE {
            let part = stored::is_long(message.weight()).then(Arc::<Written>::default);
            let on_durable = part.clone().map(|part| {
                Box::new(move |durable| {
                    let _ = part.set(durable);
                }) as OnDurable
            });
            // One that has failed keeps nothing, and nothing is acknowledged that waits for it.
            let _ = self.store(message, fan_out, on_durable);
            fan_out.parts.extend(part);
            fan_out.stores.handed_over = true;
        }
        fan_out.delivered(&recipients)
    }

    /// Hands over to the storage what a message has put there, and lets it be sent. Nobody waits for it to be durable.
    pub fn finish(&self, message: &Message, fan_out: &mut FanOut) {
        // One that has failed keeps nothing, and nothing is acknowledged that waits for it.
        let _ = self.store(message, fan_out, None);
    }

    /// The same; `on_durable` is told when it is durable, with whatever else is put. [`NotStored::Full`] is counted in
    /// `fan_out`: the sessions do not get it.
    pub fn store(
        &self,
        message: &Message,
        fan_out: &mut FanOut,
        on_durable: Option<OnDurable>,
    ) -> Result<(), NotStored> {
        let without_room = fan_out.stores.storing.without_room();
        let stores = std::mem::replace(&mut fan_out.stores, Stores::new(without_room));
        let sessions = stores.sessions.len();
        let handed_over = self.hand_over(message, stores, on_durable);
        if handed_over.is_err() {
            fan_out.routed.unstored += sessions;
        }
        if handed_over == Err(NotStored::Full) && without_room == WithoutRoom::Refused {
            fan_out.routed.reached -= sessions;
            fan_out.routed.refused += sessions;
        }
        handed_over
    }

    fn hand_over(
        &self,
        message: &Message,
        Stores { storing, sessions, handed_over: more }: Stores,
        on_durable: Option<OnDurable>,
    ) -> Result<(), NotStored> {
        if storing.is_empty() {
            // All that is handed over before a batch is durable when the batch is.
            let (true, Some(storage), Some(_)) = (more, &self.context.storage, &on_durable) else {
                return Ok(());
            };
            return storage.batch().commit(on_durable).map(drop);
        }
        let Some(stored) = storing.message().cloned() else { return storing.commit(on_durable, more) };
        let without_room = storing.without_room();
        let on_durable = self.when_stored(message, &stored, &sessions, without_room, on_durable);
        let handed_over = storing.commit(on_durable, more);
        match handed_over {
            Ok(()) => {}
            Err(NotStored::Failed) if message.qos != QoS::ExactlyOnce => stored.set_in_memory(),
            Err(why) => not_stored(&self.context, message, &stored, &sessions, without_room, why),
        }
        sessions.iter().for_each(|session| session.wake());
        handed_over
    }

    /// What follows when a message is stored, or turns out not to be: one at QoS 2 waits for that, and for a long one
    /// the disk may be full when its turn comes.
    fn when_stored(
        &self,
        message: &Message,
        stored: &Arc<StoredMessage>,
        sessions: &[Arc<Session>],
        without_room: WithoutRoom,
        on_durable: Option<OnDurable>,
    ) -> Option<OnDurable> {
        if message.qos != QoS::ExactlyOnce && !stored::is_long(message.weight()) {
            return on_durable;
        }
        // The sessions keep it.
        let stored = Arc::downgrade(stored);
        let (context, message, sessions) = (self.context.clone(), message.clone(), sessions.to_vec());
        Some(Box::new(move |durable| {
            if let Some(stored) = stored.upgrade() {
                match durable {
                    Ok(()) => stored.set_durable(),
                    Err(why) => not_stored(&context, &message, &stored, &sessions, without_room, why),
                }
            }
            sessions.iter().for_each(|session| session.wake());
            if let Some(on_durable) = on_durable {
                on_durable(durable);
            }
        }))
    }

    fn recipients(&self, message: &Message, fan_out: &FanOut, limit: usize) -> Vec<Recipient> {
        fan_out::recipients(&self.subscriptions, &message.topic, fan_out, limit)
    }

    fn deliver(
        &self,
        message: &Message,
        recipients: &[Recipient],
        fan_out: &mut FanOut,
        oversize: Option<Oversize<'_>>,
    ) {
        for Recipient { session, grant, .. } in recipients {
            match self.offer(session, grant, message, oversize, fan_out) {
                Enqueued::InQueue | Enqueued::Stored => fan_out.routed.reached += 1,
                Enqueued::Unstored => {
                    fan_out.routed.reached += 1;
                    fan_out.routed.unstored += 1;
                }
                Enqueued::Full(Full { unstored, .. }) => {
                    fan_out.routed.refused += 1;
                    fan_out.routed.unstored += usize::from(unstored);
                }
                Enqueued::Absent | Enqueued::Oversize(..) => {}
            }
        }
    }

    fn offer(
        &self,
        session: &Arc<Session>,
        grant: &Grant,
        message: &Message,
        oversize: Option<Oversize<'_>>,
        FanOut { expires, receipts, stores, .. }: &mut FanOut,
    ) -> Enqueued {
        let expires = *expires;
        let offer = |message, receipt: Option<Receipt>, storing: &mut Storing| {
            let publish = OutboundPublish { receipt, ..grant.outbound(message, expires) };
            session.offer(publish, storing, &self.context.config, &self.context.counters)
        };
        let receipt = receipts.as_mut().and_then(|receipts| match grant.qos(message) {
            QoS::AtMostOnce => receipts.miss(),
            QoS::AtLeastOnce | QoS::ExactlyOnce => Some(receipts.expect()),
        });
        let mut offered = offer(message, receipt, &mut stores.storing);
        if let (Enqueued::Oversize(to, receipt), Some(oversize)) = (&mut offered, oversize) {
            let size = |message: &Message| grant.outbound(message, expires).packet_size(to.version);
            if let Some(replacement) = oversize(to.max_packet, &size).filter(encodable) {
                // It is a message of its own, for this session alone.
                let mut own = Stores::new(stores.storing.without_room());
                offered = offer(&replacement, receipt.take(), &mut own.storing);
                if let Enqueued::Stored = offered {
                    own.sessions.push(session.clone());
                    return match self.hand_over(&replacement, own, None) {
                        Ok(()) => Enqueued::InQueue,
                        Err(_) => Enqueued::Unstored,
                    };
                }
            }
        }
        match offered {
            Enqueued::Full(full) => self.report_full(session, message, full),
            Enqueued::Oversize(..) => count(&self.context.counters.dropped_oversize),
            Enqueued::Stored => stores.sessions.push(session.clone()),
            Enqueued::Unstored => {
                report_storage_full(&self.context, &message.topic, 1, stores.storing.without_room())
            }
            Enqueued::InQueue | Enqueued::Absent => {}
        }
        offered
    }

    fn report_full(&self, session: &Session, message: &Message, full: Full) {
        if full.is_news()
            && let Some(left_out) = self.context.throttle.line(Cause::Dropped)
        {
            let (client_id, topic) = (clip(&session.client_id), clip(&message.topic));
            let (qos, dropped) = (full.qos as u8, full.dropped);
            warn!(client_id, topic, qos, dropped, left_out, "queue full, messages are dropped");
        }
    }

    /// A message for one client finds no session.
    fn no_session(&self) -> Placed {
        count(&self.context.counters.dropped_gone);
        Placed::NoSession
    }

    /// The sequence number of the message that was retained last, among those that this filter may match.
    pub fn last_retained(&self, filter: &str) -> u64 {
        self.retained(filter).read().sequence()
    }

    /// Where the messages on this topic, or those that this filter matches, are retained: a wildcard matches no first
    /// level that starts with `$`.
    fn retained(&self, topic: &str) -> &RwLock<Retained> {
        if topic.starts_with('$') { &self.own_retained } else { &self.retained }
    }
}

/// The storage has not taken a message: its sessions do not get it, or have it in memory alone.
fn not_stored(
    context: &BrokerContext,
    message: &Message,
    stored: &Arc<StoredMessage>,
    sessions: &[Arc<Session>],
    without_room: WithoutRoom,
    why: NotStored,
) {
    match without_room {
        WithoutRoom::InMemory => stored.set_in_memory(),
        WithoutRoom::Refused => {
            sessions.iter().for_each(|session| session.take_back(stored, &context.counters))
        }
    }
    if why == NotStored::Full {
        report_storage_full(context, &message.topic, sessions.len(), without_room);
    }
}

fn report_not_retained(context: &BrokerContext, topic: &str) {
    count(&context.counters.dropped_retained_full);
    if let Some(left_out) = context.throttle.line(Cause::Dropped) {
        warn!(topic = clip(topic), left_out, "the storage is full: a message is not retained");
    }
}

fn report_storage_full(context: &BrokerContext, topic: &str, sessions: usize, without_room: WithoutRoom) {
    let Some(left_out) = context.throttle.line(Cause::Dropped) else { return };
    let topic = clip(topic);
    match without_room {
        WithoutRoom::Refused => {
            warn!(
                topic,
                sessions, left_out, "the storage is full: a message is not queued for sessions that stay"
            );
        }
        WithoutRoom::InMemory => {
            warn!(topic, sessions, left_out, "the storage is full: a message is queued in memory alone");
        }
    }
}

/// When a message that is published now expires (section 3.3.2.3.3).
fn expires(message: &Message) -> Option<Instant> {
    let seconds = message.properties.as_ref()?.message_expiry?;
    Some(Instant::now() + Duration::from_secs(seconds.into()))
}

/// Chooses a replacement for a message that a receiver does not take: gets the receiver's limit in bytes and
/// a function that says how large a message would be for it.
pub type Oversize<'a> = &'a dyn Fn(usize, &dyn Fn(&Message) -> usize) -> Option<Message>;

/// Where a message of the application's went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Sessions that have it now.
    pub reached: usize,
    /// Those of them that are to outlive a crash and have it in memory alone, since the storage has no room or has
    /// failed: after a crash they have not got it.
    pub unstored: usize,
}

/// What became of a message for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is in its queue.
    Queued,
    /// It is in its queue, in memory alone: the session is to outlive a crash, and the storage has no room or has
    /// failed.
    Unstored,
    /// The client has no subscription that matches.
    NoSubscription,
    /// The client has one, but its queue is full, or it takes no packet of that size; that is counted.
    Dropped,
    /// The client's session has ended; that is counted.
    NoSession,
}
