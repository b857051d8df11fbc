//! A broker that begins with what an earlier process has stored.
//!
//! What is whole, permitted and within the limits is as it was when that process ended, which counts as the end of its
//! connections. What is not is removed from the storage, and counted in one line of the log.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    broker::Broker,
    message::{Message, QoS},
    packet::{outbound_publish::OutboundPublish, subscribe::SubscriptionOptions},
    registry::NotRecovered,
    session::{
        Session,
        client::ClientInfo,
        incoming::Bounds,
        stored::{Stored, StoredMessage},
    },
    storage::{
        self, DeliveryRecord, Key, MessageRecord, Record, RetainedRecord, SessionRecord, Storage,
        SubscriptionRecord,
    },
    topics::topic,
};

impl Broker {
    /// Takes over the records that a storage has, in the order of their keys.
    pub(super) fn recover(&self, storage: &Arc<dyn Storage>, records: Vec<(Key, Record)>) {
        if records.is_empty() {
            return;
        }
        let Found { mut sessions, mut contents, messages, retained } = Found::of(records);
        let messages = Messages::of(messages, storage);
        let mut outcome = Outcome::default();
        // Of those with one client id the last one counts.
        sessions.sort_by_key(|(_, record)| Reverse(record.number));
        for (key, record) in sessions {
            let contents = contents.remove(&record.number).unwrap_or_default();
            self.recover_session(key, &record, contents, &messages, &mut outcome);
        }
        contents.into_values().for_each(|contents| contents.into_keys(&mut outcome.gone));
        messages.take_unused(&mut outcome.gone);
        // Of those on one topic, too.
        for (key, record) in retained.into_iter().rev() {
            self.recover_retained(key, &record, &mut outcome);
        }
        storage::remove(&**storage, &outcome.gone);
        outcome.report();
    }

    fn recover_session(
        &self,
        key: Key,
        record: &SessionRecord,
        contents: Contents,
        messages: &Messages,
        outcome: &mut Outcome,
    ) {
        let keeps = |client: &ClientInfo| self.application().keeps_session(client);
        let session = match self.registry().recover(key, record, keeps) {
            Ok(session) => session,
            Err(why) => {
                outcome.session_gone(why);
                outcome.gone.push(key);
                return contents.into_keys(&mut outcome.gone);
            }
        };
        outcome.sessions += 1;
        let Contents { subscriptions, deliveries, released, received } = contents;
        let filters = self.recover_subscriptions(&session, subscriptions, outcome);
        let mut releases = recover_releases(&session, released, &deliveries, outcome);
        for (delivery_key, delivery) in deliveries {
            let release = match delivery.qos {
                QoS::ExactlyOnce => releases.remove(&delivery.packet_id),
                _ => None,
            };
            // What was queued after its connection had ended was not sent.
            let may_be_sent = record.disconnected.is_none() || delivery_key < key;
            let queued = messages.queued(delivery_key, release, delivery, &filters);
            match queued.and_then(|(publish, stored)| self.requeue(&session, publish, stored, may_be_sent)) {
                Ok(()) => outcome.messages += 1,
                Err((why, keys)) => {
                    outcome.message_gone(why);
                    outcome.gone.extend(keys);
                }
            }
        }
        outcome.gone.extend(releases.into_values());
        self.recover_received(&session, received, outcome);
        self.registry().recovered(&session);
    }

    /// Takes over the subscriptions that are still permitted; returns what its messages have to match.
    fn recover_subscriptions(
        &self,
        session: &Arc<Session>,
        subscriptions: Vec<(Key, SubscriptionRecord)>,
        outcome: &mut Outcome,
    ) -> Filters {
        let Some(client) = session.client() else { return Filters::Any };
        let (mut permitted, mut lost) = (Vec::new(), false);
        for (key, SubscriptionRecord { filter, qos, no_local, retain_as_published, id, .. }) in subscriptions
        {
            let options = SubscriptionOptions { qos, no_local, retain_as_published, id };
            if self.check_subscription(&client, &filter).is_ok()
                && self.topics().recover_subscription(session, filter.clone(), options, key)
            {
                permitted.push(filter);
            } else {
                lost = true;
                outcome.subscriptions_gone += 1;
                outcome.gone.push(key);
            }
        }
        if lost { Filters::These(permitted) } else { Filters::Any }
    }

    /// Puts a message into the queue of its session again.
    fn requeue(
        &self,
        session: &Session,
        publish: OutboundPublish,
        stored: Stored,
        may_be_sent: bool,
    ) -> Result<(), Gone> {
        let (config, window) = (self.config(), self.config().max_inflight);
        let outbox = &mut session.lock().outbox;
        outbox
            .recover(publish, stored, may_be_sent, window, config, self.counters())
            .map_err(|keys| (Why::NoRoom, keys))
    }

    fn recover_received(&self, session: &Session, received: Vec<(Key, u16)>, outcome: &mut Outcome) {
        let bounds = Bounds { account: &session.account, session: usize::MAX, account_bytes: usize::MAX };
        for (key, packet_id) in received {
            if !session.lock().incoming.recover(packet_id, key, &bounds) {
                outcome.gone.push(key);
            }
        }
    }

    fn recover_retained(&self, key: Key, record: &RetainedRecord, outcome: &mut Outcome) {
        let RetainedRecord { message, expires, user, source } = record;
        let recovered = match expiry(message, *expires) {
            Expiry::Over => false,
            Expiry::At(expires) => {
                let owner = self.quotas().accounts.of(user.as_ref(), *source);
                self.topics().recover_retained(message, expires, &owner, key)
            }
        };
        if recovered {
            outcome.retained += 1;
        } else {
            outcome.gone.push(key);
        }
    }
}

/// Takes over those PUBRELs whose PUBCOMP has not come; returns the records of messages that have no PUBREC yet.
fn recover_releases(
    session: &Session,
    released: Vec<(Key, u16)>,
    deliveries: &[(Key, DeliveryRecord)],
    outcome: &mut Outcome,
) -> HashMap<u16, Key> {
    let exactly_once = deliveries.iter().filter(|(_, delivery)| delivery.qos == QoS::ExactlyOnce);
    let unreceived: HashSet<u16> = exactly_once.map(|(_, delivery)| delivery.packet_id).collect();
    let mut releases = HashMap::new();
    for (key, packet_id) in released {
        if unreceived.contains(&packet_id) {
            outcome.gone.extend(releases.insert(packet_id, key));
        } else if !session.lock().outbox.recover_release(packet_id, key) {
            outcome.gone.push(key);
        }
    }
    releases
}

/// Records by what they are, those of sessions by session.
#[derive(Default)]
struct Found {
    sessions: Vec<(Key, SessionRecord)>,
    contents: HashMap<u64, Contents>,
    messages: Vec<(Key, MessageRecord)>,
    retained: Vec<(Key, RetainedRecord)>,
}

/// What a session has, in the order of the keys.
#[derive(Default)]
struct Contents {
    subscriptions: Vec<(Key, SubscriptionRecord)>,
    deliveries: Vec<(Key, DeliveryRecord)>,
    released: Vec<(Key, u16)>,
    received: Vec<(Key, u16)>,
}

impl Found {
    fn of(records: Vec<(Key, Record)>) -> Self {
        let mut found = Self::default();
        for (key, record) in records {
            match record {
                Record::Session(record) => found.sessions.push((key, record)),
                Record::Subscription(record) => {
                    found.contents_of(record.session).subscriptions.push((key, record))
                }
                Record::Message(record) => found.messages.push((key, record)),
                Record::Delivery(record) => found.contents_of(record.session).deliveries.push((key, record)),
                Record::Released { session, packet_id } => {
                    found.contents_of(session).released.push((key, packet_id))
                }
                Record::Received { session, packet_id } => {
                    found.contents_of(session).received.push((key, packet_id))
                }
                Record::Retained(record) => found.retained.push((key, record)),
            }
        }
        found
    }

    fn contents_of(&mut self, session: u64) -> &mut Contents {
        self.contents.entry(session).or_default()
    }
}

impl Contents {
    fn into_keys(self, keys: &mut Vec<Key>) {
        let Self { subscriptions, deliveries, released, received } = self;
        keys.extend(subscriptions.into_iter().map(|(key, _)| key));
        keys.extend(deliveries.into_iter().map(|(key, _)| key));
        keys.extend(released.into_iter().chain(received).map(|(key, _)| key));
    }
}

/// The messages that deliveries name.
struct Messages(HashMap<Key, Recovered>);

struct Recovered {
    message: Message,
    expiry: Expiry,
    stored: Arc<StoredMessage>,
}

impl Messages {
    fn of(records: Vec<(Key, MessageRecord)>, storage: &Arc<dyn Storage>) -> Self {
        let recovered = records.into_iter().map(|(key, MessageRecord { message, expires })| {
            let stored = Arc::new(StoredMessage::recovered(key, storage.clone()));
            (key, Recovered { expiry: expiry(&message, expires), message, stored })
        });
        Self(recovered.collect())
    }

    /// A delivery as it was queued.
    fn queued(
        &self,
        key: Key,
        release: Option<Key>,
        delivery: DeliveryRecord,
        filters: &Filters,
    ) -> Result<(OutboundPublish, Stored), Gone> {
        let gone = |why| (why, [key].into_iter().chain(release).collect());
        let Some(Recovered { message, expiry, stored }) = self.0.get(&delivery.message) else {
            return Err(gone(Why::Damaged));
        };
        let expires = match expiry {
            Expiry::Over => return Err(gone(Why::Expired)),
            Expiry::At(expires) => *expires,
        };
        if !filters.permit(&message.topic) {
            return Err(gone(Why::NotPermitted));
        }
        let DeliveryRecord { qos, retain, packet_id, subscription_ids, .. } = delivery;
        let publish = OutboundPublish {
            message: message.clone(),
            qos,
            retain,
            subscription_ids,
            expires,
            receipt: None,
        };
        let stored = Stored::recovered(key, release, packet_id, stored.clone());
        Ok((publish, stored))
    }

    /// Adds the keys of those that no session has queued.
    fn take_unused(self, keys: &mut Vec<Key>) {
        self.0.into_values().for_each(|recovered| {
            recovered.stored.settle([], keys);
        });
    }
}

/// What the queued messages of a session have to match.
enum Filters {
    Any,
    /// A subscription that is not permitted any more may have brought them: one of these has to have done, too.
    These(Vec<Arc<str>>),
}

impl Filters {
    fn permit(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(filters) => filters.iter().any(|filter| topic::matches(filter, name)),
        }
    }
}

/// Why a message is not queued again, and its records.
type Gone = (Why, Vec<Key>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Expired,
    NoRoom,
    NotPermitted,
    /// Its message is missing.
    Damaged,
}

/// When a message expires, in this process.
#[derive(Clone, Copy)]
enum Expiry {
    Over,
    At(Option<Instant>),
}

/// However the clock was set meanwhile, no message lives longer from now on than its publisher has said.
fn expiry(message: &Message, expires: Option<SystemTime>) -> Expiry {
    let Some(expires) = expires else { return Expiry::At(None) };
    let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
    let seconds = message.properties.as_ref().and_then(|properties| properties.message_expiry);
    let left = seconds.map_or(left, |seconds| left.min(Duration::from_secs(seconds.into())));
    if left.is_zero() { Expiry::Over } else { Expiry::At(Some(Instant::now() + left)) }
}

/// What became of the records.
#[derive(Debug, Default)]
struct Outcome {
    sessions: usize,
    messages: usize,
    retained: usize,
    /// Sessions and messages whose time was over.
    expired: usize,
    /// Those for which there is no room any more.
    no_room: usize,
    /// Those whose clients may not have them any more.
    not_permitted: usize,
    damaged: usize,
    subscriptions_gone: usize,
    /// Records to be removed.
    gone: Vec<Key>,
}

impl Outcome {
    fn session_gone(&mut self, why: NotRecovered) {
        match why {
            NotRecovered::Expired => self.expired += 1,
            NotRecovered::NoRoom => self.no_room += 1,
            NotRecovered::NotPermitted => self.not_permitted += 1,
            NotRecovered::Replaced => {}
        }
    }

    fn message_gone(&mut self, why: Why) {
        match why {
            Why::Expired => self.expired += 1,
            Why::NoRoom => self.no_room += 1,
            Why::NotPermitted => self.not_permitted += 1,
            Why::Damaged => self.damaged += 1,
        }
    }

    fn report(&self) {
        let Self { sessions, messages, retained, expired, .. } = *self;
        info!(sessions, messages, retained, expired, "sessions and retained messages are there again");
        let Self { no_room, not_permitted, damaged, subscriptions_gone, .. } = *self;
        if no_room + not_permitted + damaged + subscriptions_gone > 0 {
            warn!(
                no_room,
                not_permitted,
                damaged,
                subscriptions_gone,
                "not all that was stored is there again: limits or rules have changed, or the storage was damaged"
            );
        }
    }
}
