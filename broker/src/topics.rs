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
    quotas::account::Held,
    session::{
        Enqueued, Session,
        client::ClientInfo,
        outbox::Full,
        receipt::{OnAcknowledged, Receipts},
    },
    stats::{Stats, count},
    throttle::{Cause, clip},
    topics::{
        fan_out::{FanOut, Grant, Recipient, Routed},
        retained::Retained,
        trie::Trie,
    },
};

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
            retained: RwLock::new(Retained::new(config.max_retained_messages, config.max_retained_bytes)),
            own_retained: RwLock::new(Retained::new(MAX_OWN_RETAINED_MESSAGES, MAX_OWN_RETAINED_BYTES)),
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
    ) -> usize {
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
        fan_out.routed.reached
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
        let mut receipts = on_acknowledged.map(Receipts::new);
        match self.offer(&session, &grant, message, expires(message), oversize, receipts.as_mut()) {
            Enqueued::InQueue => Placed::Queued,
            Enqueued::Full(_) | Enqueued::Oversize(..) => Placed::Dropped,
            Enqueued::Absent => self.no_session(),
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
        if message.retain {
            let owner = publisher.map(|session| &session.account);
            let mut store = self.retained(&message.topic).write();
            routed.kept = store.keep(message, expires, owner, Instant::now());
            drop(store);
            if !routed.kept {
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
        }
        FanOut {
            publisher: publisher.map(|session| session.serial),
            expires,
            after: 0,
            routed,
            receipts: None,
        }
    }

    /// Delivers a message to its next recipients; true if those were the last.
    pub fn deliver_slice(
        &self,
        message: &Message,
        fan_out: &mut FanOut,
        oversize: Option<Oversize<'_>>,
    ) -> bool {
        let recipients = self.recipients(message, fan_out, fan_out::SLICE);
        self.deliver(message, &recipients, fan_out, oversize);
        fan_out.delivered(&recipients)
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
            let receipts = fan_out.receipts.as_mut();
            match self.offer(session, grant, message, fan_out.expires, oversize, receipts) {
                Enqueued::InQueue => fan_out.routed.reached += 1,
                Enqueued::Full(_) => fan_out.routed.refused += 1,
                Enqueued::Absent | Enqueued::Oversize(..) => {}
            }
        }
    }

    fn offer(
        &self,
        session: &Session,
        grant: &Grant,
        message: &Message,
        expires: Option<Instant>,
        oversize: Option<Oversize<'_>>,
        receipts: Option<&mut Receipts>,
    ) -> Enqueued {
        let offer = |message, receipt| {
            let publish = OutboundPublish { receipt, ..grant.outbound(message, expires) };
            session.offer(publish, &self.context.config, &self.context.counters)
        };
        let receipt = receipts.and_then(|receipts| match grant.qos(message) {
            QoS::AtMostOnce => receipts.miss(),
            QoS::AtLeastOnce | QoS::ExactlyOnce => Some(receipts.expect()),
        });
        let mut offered = offer(message, receipt);
        if let (Enqueued::Oversize(to, receipt), Some(oversize)) = (&mut offered, oversize) {
            let size = |message: &Message| grant.outbound(message, expires).packet_size(to.version);
            if let Some(replacement) = oversize(to.max_packet, &size).filter(encodable) {
                offered = offer(&replacement, receipt.take());
            }
        }
        match offered {
            Enqueued::Full(full) => self.report_full(session, message, full),
            Enqueued::Oversize(..) => count(&self.context.counters.dropped_oversize),
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

/// When a message that is published now expires (section 3.3.2.3.3).
fn expires(message: &Message) -> Option<Instant> {
    let seconds = message.properties.as_ref()?.message_expiry?;
    Some(Instant::now() + Duration::from_secs(seconds.into()))
}

/// Chooses a replacement for a message that a receiver does not take: gets the receiver's limit in bytes and
/// a function that says how large a message would be for it.
pub type Oversize<'a> = &'a dyn Fn(usize, &dyn Fn(&Message) -> usize) -> Option<Message>;

/// What became of a message for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is in its queue.
    Queued,
    /// The client has no subscription that matches.
    NoSubscription,
    /// The client has one, but its queue is full, or it takes no packet of that size; that is counted.
    Dropped,
    /// The client's session has ended; that is counted.
    NoSession,
}
