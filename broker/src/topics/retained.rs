//! Retained messages (section 3.3.1.3), by topic name.
//!
//! A new subscription gets them in slices ([`scan`](Retained::scan)), so that no thread looks at all of them at once.
//! Those of one identity are no more than what is left for the others: alone it may have half of the room.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    ops::Bound,
    sync::{Arc, OnceLock},
};

use tokio::time::Instant;
use tracing::warn;

use crate::{
    context::BrokerContext,
    message::{Message, QoS},
    quotas::account::{Account, Holder},
    session::stored::{self, on_wall_clock},
    storage::{self, Key, NotStored, OnDurable, Record, RetainedRecord, Storage},
    throttle::{Cause, clip},
    topics::topic,
};

pub(crate) struct Retained {
    messages: BTreeMap<Arc<str>, RetainedMessage>,
    bytes: usize,
    /// Of the message that was kept last.
    sequence: u64,
    /// No message expires before.
    next_expiry: Option<Instant>,
    max_messages: usize,
    max_bytes: usize,
    /// Where those that clients publish are stored, if it has a storage.
    context: Option<Arc<BrokerContext>>,
}

/// Whether a message is kept.
pub(crate) enum Kept {
    /// There is no room, or too little for its owner.
    No,
    /// There is none in the storage.
    Unstored,
    /// The storage has failed.
    Failed,
    InMemory,
    /// The storage has it, or has removed what it clears; whether it is durable is told with whatever is handed over
    /// afterwards, and for a long one by this besides.
    Stored(Option<Arc<Written>>),
}

/// Whether a message is durable, once that is known.
pub(crate) type Written = OnceLock<Result<(), NotStored>>;

impl Retained {
    /// Nothing yet, and never more than this.
    pub fn new(max_messages: usize, max_bytes: usize, context: Option<Arc<BrokerContext>>) -> Self {
        Self {
            messages: BTreeMap::new(),
            bytes: 0,
            sequence: 0,
            next_expiry: None,
            max_messages,
            max_bytes,
            context,
        }
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// See [`RetainedMessage::sequence`].
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether a subscription to `filter` may get any, as far as is told at once.
    pub fn has_any(&self, filter: &str) -> bool {
        match filter.find(['+', '#']) {
            Some(_) => !self.messages.is_empty(),
            None => self.messages.contains_key(filter),
        }
    }

    /// Keeps a message instead of its topic's former one, or clears it if the payload is empty; where there is no room,
    /// or too little for its owner, the former one stays. What the application keeps, which has no owner, is not
    /// stored: it can keep it again.
    pub fn keep(
        &mut self,
        message: &Message,
        expires: Option<Instant>,
        owner: Option<&Arc<Account>>,
        now: Instant,
    ) -> Kept {
        let former = self.messages.get(&message.topic).map_or_else(Vec::new, RetainedMessage::records);
        if message.payload.is_empty() {
            self.forget(&message.topic);
            return self.remove_records(&former);
        }
        if !self.fits(message, owner) {
            self.forget_expired(now);
            if !self.fits(message, owner) {
                return Kept::No;
            }
        }
        let is_acknowledged = message.qos != QoS::AtMostOnce;
        match owner.map(|owner| self.store(message, expires, owner, &former)) {
            Some(Ok(Some(StoredAs { record, written }))) => {
                // A long one may turn out not to be written, and the former ones not to be removed.
                let formers = if written.is_some() { former } else { Vec::new() };
                self.insert(
                    message,
                    expires,
                    owner,
                    Records { record: Some(record), formers, written: written.clone() },
                );
                Kept::Stored(written)
            }
            Some(Err(NotStored::Full)) if is_acknowledged => Kept::Unstored,
            Some(Err(NotStored::Failed)) if is_acknowledged => Kept::Failed,
            // It is kept in memory: nobody was promised more.
            Some(Ok(None) | Err(_)) | None => {
                self.insert(message, expires, owner, Records::default());
                self.remove_records(&former)
            }
        }
    }

    /// Takes over a message that an earlier process has stored; false if there is no room. The share of its owner is
    /// counted, and refuses nothing: shares were granted in another order.
    pub fn recover(
        &mut self,
        message: &Message,
        expires: Option<Instant>,
        owner: &Arc<Account>,
        record: Key,
    ) -> bool {
        let fits = !self.messages.contains_key(&message.topic) && self.fits(message, None);
        if fits {
            self.insert(
                message,
                expires,
                Some(owner),
                Records { record: Some(record), ..Records::default() },
            );
        }
        fits
    }

    fn insert(
        &mut self,
        message: &Message,
        expires: Option<Instant>,
        owner: Option<&Arc<Account>>,
        records: Records,
    ) {
        self.forget(&message.topic);
        self.bytes += message.weight();
        if let Some(owner) = owner {
            owner.retained_messages.add(1);
            owner.retained_bytes.add(message.weight());
        }
        self.next_expiry = self.next_expiry.into_iter().chain(expires).min();
        self.sequence += 1;
        let kept = RetainedMessage {
            message: message.clone(),
            expires,
            sequence: self.sequence,
            owner: owner.cloned(),
            records,
        };
        self.messages.insert(message.topic.clone(), kept);
    }

    /// Stores a message instead of the former one, in the order in which they are kept; `None` without a storage.
    fn store(
        &self,
        message: &Message,
        expires: Option<Instant>,
        owner: &Account,
        former: &[Key],
    ) -> Result<Option<StoredAs>, NotStored> {
        let Some((context, storage)) = self.storage() else { return Ok(None) };
        let (user, source) = match &owner.holder {
            Holder::User(user) => (Some(user.clone()), IpAddr::from([0; 4])),
            Holder::Source(source) => (None, *source),
        };
        let expires = expires.map(on_wall_clock);
        let mut batch = storage.batch();
        former.iter().for_each(|former| batch.remove(*former));
        let written = stored::is_long(message.weight()).then(Arc::<Written>::default);
        let on_durable = written.clone().map(|written| {
            let (context, topic) = (context.clone(), message.topic.clone());
            Box::new(move |durable| {
                let _ = written.set(durable);
                if durable == Err(NotStored::Full)
                    && let Some(left_out) = context.throttle.line(Cause::Dropped)
                {
                    warn!(
                        topic = clip(&topic),
                        left_out, "the storage is full: a message is retained in memory alone"
                    );
                }
            }) as OnDurable
        });
        let message = message.clone();
        let record = batch.put(Record::Retained(RetainedRecord { message, expires, user, source }));
        batch.commit(on_durable)?;
        Ok(Some(StoredAs { record, written }))
    }

    fn remove_records(&self, records: &[Key]) -> Kept {
        let (Some((_, storage)), [_, ..]) = (self.storage(), records) else { return Kept::InMemory };
        storage::remove(&**storage, records);
        Kept::Stored(None)
    }

    fn storage(&self) -> Option<(&Arc<BrokerContext>, &Arc<dyn Storage>)> {
        let context = self.context.as_ref()?;
        Some((context, context.storage.as_ref()?))
    }

    /// Calls `found` with the messages that `filter` matches, in the order of their topics from behind `after` on,
    /// until `found` says that it is enough, or `examined` topics were looked at; moves `after` on. True when that was
    /// the last.
    pub fn scan(
        &self,
        filter: &str,
        after: &mut Option<Arc<str>>,
        examined: usize,
        mut found: impl FnMut(&RetainedMessage) -> bool,
    ) -> bool {
        let Some(wildcard) = filter.find(['+', '#']) else {
            if let Some(kept) = self.messages.get(filter) {
                found(kept);
            }
            return true;
        };
        // Topics are in order, so only those that share the filter's literal beginning are looked at. The
        // parent that `a/#` matches too is without the last `/`.
        let literal = &filter[..wildcard];
        let literal = literal.strip_suffix('/').unwrap_or(literal);
        let from = after.as_deref().map_or(Bound::Included(literal), Bound::Excluded);
        let topics = self
            .messages
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(literal));
        let mut last = None;
        for (at, (name, kept)) in topics.enumerate() {
            let enough = at == examined || {
                last = Some(name);
                topic::matches(filter, name) && !found(kept)
            };
            if enough {
                *after = last.cloned();
                return false;
            }
        }
        true
    }

    fn fits(&self, message: &Message, owner: Option<&Arc<Account>>) -> bool {
        let weight = message.weight();
        let former = self.messages.get(&message.topic);
        let replaced = former.map_or(0, |kept| kept.message.weight());
        let (left_messages, left_bytes) = (
            self.max_messages.saturating_sub(self.len() - usize::from(former.is_some())),
            self.max_bytes.saturating_sub(self.bytes - replaced),
        );
        if left_messages == 0 || weight > left_bytes {
            return false;
        }
        let Some(owner) = owner else { return true };
        let own = former.filter(|kept| kept.owner.as_ref().is_some_and(|former| Arc::ptr_eq(former, owner)));
        if own.is_some() && weight <= replaced {
            return true; // it takes no more than before
        }
        let own_bytes = own.map_or(0, |kept| kept.message.weight());
        owner.retained_messages.get() + 1 - usize::from(own.is_some()) <= left_messages
            && owner.retained_bytes.get() + weight - own_bytes <= left_bytes
    }

    fn forget(&mut self, topic: &str) {
        if let Some(former) = self.messages.remove(topic) {
            self.bytes -= give_back(&former);
        }
    }

    /// Looks at all messages, and so only when one may have expired since it did last.
    fn forget_expired(&mut self, now: Instant) {
        if self.next_expiry.is_none_or(|at| at > now) {
            return;
        }
        let (bytes, mut records) = (&mut self.bytes, Vec::new());
        self.messages.retain(|_, kept| {
            let stays = !kept.expired(now);
            if !stays {
                *bytes -= give_back(kept);
                records.extend(kept.records());
            }
            stays
        });
        self.remove_records(&records);
        self.next_expiry = self.messages.values().filter_map(|kept| kept.expires).min();
    }
}

pub(crate) struct RetainedMessage {
    pub message: Message,
    pub expires: Option<Instant>,
    /// Counts what was kept, so that what came after a subscription is told from what was there before.
    pub sequence: u64,
    /// Who pays for it; nobody for what the application publishes.
    owner: Option<Arc<Account>>,
    records: Records,
}

/// Where a message is stored.
#[derive(Default)]
struct Records {
    record: Option<Key>,
    /// Those before it, which are removed unless it turns out not to be written.
    formers: Vec<Key>,
    written: Option<Arc<Written>>,
}

/// What has come of storing one.
struct StoredAs {
    record: Key,
    written: Option<Arc<Written>>,
}

impl RetainedMessage {
    pub fn expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// The records that are to be removed with it.
    fn records(&self) -> Vec<Key> {
        let Records { record, formers, written } = &self.records;
        match written.as_ref().and_then(|written| written.get()) {
            Some(Ok(())) => Vec::from_iter(*record),
            Some(Err(_)) => formers.clone(),
            None => formers.iter().copied().chain(*record).collect(),
        }
    }
}

/// Takes a message off its owner's account; returns its bytes.
fn give_back(kept: &RetainedMessage) -> usize {
    let weight = kept.message.weight();
    if let Some(owner) = &kept.owner {
        owner.retained_messages.subtract(1);
        owner.retained_bytes.subtract(weight);
    }
    weight
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quotas::account::Accounts;

    fn keep_for(retained: &mut Retained, topic: &str, payload: &str, owner: Option<&Arc<Account>>) -> bool {
        let message = Message::new(topic, payload.to_owned(), QoS::AtMostOnce);
        !matches!(retained.keep(&message, None, owner, Instant::now()), Kept::No)
    }

    fn keep(retained: &mut Retained, topic: &str, payload: &str) -> bool {
        keep_for(retained, topic, payload, None)
    }

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        let mut topics = Vec::new();
        let mut after = None;
        assert!(retained.scan(filter, &mut after, usize::MAX, |kept| {
            topics.push(kept.message.topic.to_string());
            true
        }));
        topics
    }

    #[test]
    fn wildcards_find_what_they_match() {
        let mut retained = Retained::new(100, 10_000, None);
        for topic in ["a", "a/", "a/b", "a/b/c", "a0", "b", "$SYS/x"] {
            assert!(keep(&mut retained, topic, "x"));
        }
        assert_eq!(topics(&retained, "a/#"), ["a", "a/", "a/b", "a/b/c"]);
        assert_eq!(topics(&retained, "a/+"), ["a/", "a/b"]);
        assert_eq!(topics(&retained, "+"), ["a", "a0", "b"]);
        assert_eq!(topics(&retained, "#").len(), 6);
        assert_eq!(topics(&retained, "$SYS/#"), ["$SYS/x"]);
        assert_eq!(topics(&retained, "a/"), ["a/"]);
    }

    #[test]
    fn slices_follow_each_other_and_look_at_no_more_than_they_may() {
        let mut retained = Retained::new(100, 100_000, None);
        for at in 0..50 {
            keep(&mut retained, &format!("a/{at:02}/{}", if at % 2 == 0 { "even" } else { "odd" }), "x");
        }
        for filter in ["a/#", "a/+/even", "+/+/odd", "#", "a/49/+", "b/#"] {
            let all = topics(&retained, filter);
            for examined in [1, 7, 49, 50, 51] {
                let (mut found, mut after, mut slices) = (Vec::new(), None, 1);
                let mut take = |kept: &RetainedMessage| {
                    found.push(kept.message.topic.to_string());
                    true
                };
                while !retained.scan(filter, &mut after, examined, &mut take) {
                    slices += 1;
                }
                assert_eq!(found, all, "{filter}");
                assert!(slices <= 50 / examined + 1, "{filter}");
            }
            // Or until it is enough.
            let (mut found, mut after) = (Vec::new(), None);
            while !retained.scan(filter, &mut after, 100, |kept| {
                found.push(kept.message.topic.to_string());
                false
            }) {}
            assert_eq!(found, all, "{filter}");
        }
    }

    #[test]
    fn an_empty_payload_clears() {
        let mut retained = Retained::new(100, 10_000, None);
        keep(&mut retained, "a", "x");
        keep(&mut retained, "a", "");
        assert_eq!((retained.len(), retained.bytes()), (0, 0));
    }

    #[test]
    fn bounds_hold_and_the_former_message_stays() {
        let mut retained = Retained::new(2, 1000, None);
        assert!(keep(&mut retained, "a", "x"));
        assert!(keep(&mut retained, "b", "x"));
        assert!(!keep(&mut retained, "c", "x"));
        assert!(keep(&mut retained, "a", "y"));
        assert!(!keep(&mut retained, "a", &"x".repeat(1000)));
        retained.scan("a", &mut None, 1, |kept| {
            assert_eq!(&kept.message.payload[..], b"y");
            true
        });
    }

    #[test]
    fn one_identity_leaves_half_of_the_room_and_two_a_third() {
        let mut retained = Retained::new(90, 1_000_000, None);
        let accounts = Accounts::default();
        let [first, second, third] = [1, 2, 3].map(|host| accounts.of(None, [192, 0, 2, host].into()));
        let mut fill = |owner: &Arc<Account>| {
            let fits =
                |at: &usize| keep_for(&mut retained, &format!("{}/{at}", owner.name), "x", Some(owner));
            (0..100).take_while(fits).count()
        };
        assert_eq!((fill(&first), fill(&second), fill(&third)), (45, 23, 11));
        assert_eq!(first.retained_messages.get(), 45);
        // It may go on to replace its own, and others may replace them, who then pay.
        assert!(keep_for(&mut retained, &format!("{}/1", first.name), "y", Some(&first)));
        assert!(!keep_for(&mut retained, &format!("{}/1", first.name), "longer", Some(&second)));
        assert!(keep_for(&mut retained, &format!("{}/1", first.name), "", Some(&second)));
        assert!(keep_for(&mut retained, &format!("{}/1", first.name), "z", None));
        assert_eq!(first.retained_messages.get(), 44);
        let held: usize = [&first, &second, &third].map(|account| account.retained_bytes.get()).iter().sum();
        assert!(held > 0 && held < retained.bytes());
    }

    #[test]
    fn one_identity_leaves_half_of_the_bytes() {
        let mut retained = Retained::new(1_000, 100_000, None);
        let hoarder = Accounts::default().of(None, [192, 0, 2, 1].into());
        let payload = "x".repeat(1_000);
        let fits = |at: &usize| keep_for(&mut retained, &at.to_string(), &payload, Some(&hoarder));
        let kept = (0..1_000).take_while(fits).count();
        assert!((40..=50).contains(&kept), "{kept}");
        assert!(keep(&mut retained, "other", &payload));
    }

    #[test]
    fn expired_messages_make_room() {
        let mut retained = Retained::new(1, 1000, None);
        let now = Instant::now();
        let message = Message::new("a", "x", QoS::AtMostOnce);
        assert!(matches!(retained.keep(&message, Some(now), None, now), Kept::InMemory));
        assert!(keep(&mut retained, "b", "x"));
        assert_eq!(topics(&retained, "#"), ["b"]);
    }
}
