//! Subscriptions: made, kept in the tree and accounted, and the retained messages that a new one gets.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    message::{Message, QoS},
    packet::{
        outbound_publish::OutboundPublish,
        subscribe::{RetainHandling, SubscriptionOptions, SubscriptionRequest},
    },
    quotas::account::{Account, Holder},
    reason::{Reason, Refusal},
    session::{
        Enqueued, Evicted, Session, Subscribed,
        backlog::Cursor,
        outbox::Full,
        stored::{Storing, WithoutRoom},
    },
    stats::count,
    storage::{Key, NotStored, Record, SubscriptionRecord},
    topics::{
        Topics,
        fan_out::{Grant, Stores},
        topic, trie,
    },
};

/// Topics of retained messages that are looked at for a subscription in one slice: some 25 µs.
const RETAINED_SLICE: usize = 256;
/// Subscriptions of a session that ends that are removed before others may use the tree.
const REMOVED_AT_ONCE: usize = 64;

impl Topics {
    /// Why a filter cannot be subscribed to, by whatever client.
    pub fn check_filter(&self, filter: &str) -> Result<(), Refusal> {
        let refused = |reason, cause| Err(Refusal::new(reason, cause));
        if filter.starts_with(topic::SHARED) {
            let cause = "shared subscriptions are not offered";
            return refused(Reason::SharedSubscriptionsNotSupported, cause);
        }
        if !topic::valid_filter(filter) {
            return refused(Reason::TopicFilterInvalid, "this is no topic filter");
        }
        match topic::over_limit(filter, &self.context.config) {
            Some(cause) => refused(Reason::TopicFilterInvalid, cause),
            None => Ok(()),
        }
    }

    /// Subscribes to a filter that was checked (section 3.8.4); what is retained is delivered by
    /// [`deliver_retained`](Self::deliver_retained).
    pub fn subscribe(
        &self,
        session: &Arc<Session>,
        connection_id: u64,
        filter: &str,
        SubscriptionRequest { options, retain_handling }: SubscriptionRequest,
    ) -> Result<Result<QoS, Refusal>, Evicted> {
        // Both under the lock of the tree, so that a session that ends meanwhile leaves nothing in it.
        let mut subscriptions = self.subscriptions.write();
        let mut state = session.lock_for(connection_id)?;
        let known = state.subscriptions.get_key_value(filter).map(|(filter, _)| filter.clone());
        let new = known.is_none();
        if new {
            if state.subscriptions.len() >= self.context.config.max_subscriptions {
                return Ok(Err(Refusal::quota("the session has max_subscriptions subscriptions")));
            }
            if let Err(cause) = self.take_subscription(&session.account, filter) {
                return Ok(Err(Refusal::quota(cause)));
            }
        }
        let filter: Arc<str> = known.unwrap_or_else(|| filter.into());
        let former = state.subscriptions.get(&filter).and_then(|subscribed| subscribed.record);
        let record = match store(session, &filter, &options, former) {
            Ok(record) => record,
            Err(NotStored::Full) => {
                if new {
                    self.give_back_subscription(&session.account, &filter);
                }
                return Ok(Err(Refusal::quota("the storage is full")));
            }
            // Its SUBACK never comes.
            Err(NotStored::Failed) => former,
        };
        state.subscriptions.entry(filter.clone()).or_default().record = record;
        subscriptions.insert(&filter, session.serial, session.clone(), options);
        let gets_retained = match retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => new,
            RetainHandling::Never => false,
        };
        if gets_retained {
            let store = self.retained(&filter).read();
            if store.has_any(&filter) {
                state.want_retained(Cursor { filter, options, until: store.sequence(), after: None });
            }
        }
        Ok(Ok(options.qos))
    }

    /// Unsubscribes; says whether there was such a subscription.
    pub fn unsubscribe(&self, session: &Session, connection_id: u64, filter: &str) -> Result<bool, Evicted> {
        let mut subscriptions = self.subscriptions.write();
        let mut state = session.lock_for(connection_id)?;
        let Some(Subscribed { cursor, record }) = state.subscriptions.remove(filter) else {
            return Ok(false);
        };
        if let Some(cursor) = cursor {
            state.backlog.remove(cursor);
        }
        session.remove_records(record.as_slice());
        subscriptions.remove(filter, session.serial);
        self.give_back_subscription(&session.account, filter);
        Ok(true)
    }

    /// Takes over a subscription of an earlier process, which is stored, if it is within the limits.
    pub fn recover_subscription(
        &self,
        session: &Arc<Session>,
        filter: Arc<str>,
        options: SubscriptionOptions,
        record: Key,
    ) -> bool {
        let mut subscriptions = self.subscriptions.write();
        let mut state = session.lock();
        if state.subscriptions.len() >= self.context.config.max_subscriptions
            || state.subscriptions.contains_key(&filter)
            || !self.take_recovered(&session.account, &filter)
        {
            return false;
        }
        subscriptions.insert(&filter, session.serial, session.clone(), options);
        state.subscriptions.insert(filter, Subscribed { cursor: None, record: Some(record) });
        true
    }

    /// Removes the subscriptions of a session that has ended.
    pub fn unsubscribe_all(&self, session: &Session, filters: Vec<Arc<str>>) {
        for filters in filters.chunks(REMOVED_AT_ONCE) {
            let mut subscriptions = self.subscriptions.write();
            for filter in filters {
                if subscriptions.remove(filter, session.serial) {
                    self.give_back_subscription(&session.account, filter);
                }
            }
        }
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

    /// Puts a slice of the retained messages that a subscription is still to get into the queue of the client whose
    /// connection this is.
    ///
    /// They are looked up and queued under the lock of the session, so that one that is replaced meanwhile never comes
    /// after the one that replaces it [MQTT-4.6.0-5].
    pub fn deliver_retained(&self, session: &Arc<Session>, connection_id: u64) -> Result<(), Evicted> {
        let mut guard = session.lock_for(connection_id)?;
        let state = &mut *guard;
        let Some(Cursor { filter, options, until, after }) = state.backlog.first() else { return Ok(()) };
        let (filter, grant, until) = (filter.clone(), Grant::new(options), *until);
        let mut after = after.take();
        let now = Instant::now();
        let mut full: Option<(Full, Message)> = None;
        let mut stored: Vec<(Message, Storing)> = Vec::new();
        let store = self.retained(&filter).read();
        let at_end = store.scan(&filter, &mut after, RETAINED_SLICE, |kept| {
            if kept.sequence <= until && !kept.expired(now) {
                let publish = OutboundPublish { retain: true, ..grant.outbound(&kept.message, kept.expires) };
                let mut storing = Storing::new(WithoutRoom::InMemory);
                let keep = session.keep(&mut storing);
                match state.offer(publish, keep, &self.context.config, &self.context.counters) {
                    Enqueued::Full(refused) if refused.is_news() => {
                        full = Some((refused, kept.message.clone()))
                    }
                    Enqueued::Full(_) => {}
                    Enqueued::Oversize(..) => count(&self.context.counters.dropped_oversize),
                    Enqueued::Stored => stored.push((kept.message.clone(), storing)),
                    Enqueued::InQueue | Enqueued::Unstored | Enqueued::Absent => {}
                }
            }
            state.outbox.has_room_for_retained(&self.context.config)
        });
        drop(store);
        if at_end {
            state.backlog.finish_first();
            if let Some(subscribed) = state.subscriptions.get_mut(&filter) {
                subscribed.cursor = None;
            }
        } else if let Some(cursor) = state.backlog.first() {
            cursor.after = after;
        }
        drop(guard);
        for (message, storing) in stored {
            let stores = Stores { storing, sessions: vec![session.clone()], handed_over: false };
            // It stays retained, whatever becomes of it here.
            let _ = self.hand_over(&message, stores, None);
        }
        if let Some((full, message)) = full {
            self.report_full(session, &message, full);
        }
        Ok(())
    }

    /// Accounts a new subscription to an identity, unless it has too many, or holds more of the room for all than is
    /// left: the error is the limit.
    fn take_subscription(&self, account: &Account, filter: &str) -> Result<(), &'static str> {
        let (most, limit) = self.most_subscriptions(account);
        if account.subscriptions.get() >= most {
            return Err(limit);
        }
        let cost = trie::cost(filter);
        let left = self.context.config.max_subscription_bytes.saturating_sub(self.subscription_bytes.get());
        if !account.subscription_bytes.try_add(cost, left) {
            return Err(
                "the subscriptions of its identity have as much of max_subscription_bytes as is left",
            );
        }
        account.subscriptions.add(1);
        self.subscription_bytes.add(cost);
        Ok(())
    }

    /// The same for one of an earlier process: one that had room before has it again, whatever the others have by now.
    fn take_recovered(&self, account: &Account, filter: &str) -> bool {
        let cost = trie::cost(filter);
        let most = self.most_subscriptions(account).0;
        if account.subscriptions.get() >= most
            || !self.subscription_bytes.try_add(cost, self.context.config.max_subscription_bytes)
        {
            return false;
        }
        account.subscriptions.add(1);
        account.subscription_bytes.add(cost);
        true
    }

    /// The most subscriptions of an identity, and what the limit is called.
    fn most_subscriptions(&self, account: &Account) -> (usize, &'static str) {
        match account.holder {
            Holder::User(_) => (
                self.context.config.max_subscriptions_per_user,
                "the user has max_subscriptions_per_user subscriptions",
            ),
            Holder::Source(_) => (
                self.context.config.max_subscriptions_per_address,
                "clients without a name at its address have max_subscriptions_per_address subscriptions",
            ),
        }
    }

    fn give_back_subscription(&self, account: &Account, filter: &str) {
        let cost = trie::cost(filter);
        account.subscriptions.subtract(1);
        account.subscription_bytes.subtract(cost);
        self.subscription_bytes.subtract(cost);
    }
}

/// Stores a subscription in place of the former one, if the session is stored; returns its record.
fn store(
    session: &Session,
    filter: &Arc<str>,
    options: &SubscriptionOptions,
    former: Option<Key>,
) -> Result<Option<Key>, NotStored> {
    let Some(storage) = &session.storage else { return Ok(None) };
    let SubscriptionOptions { qos, no_local, retain_as_published, id } = *options;
    let record = SubscriptionRecord {
        session: session.serial,
        filter: filter.clone(),
        qos,
        no_local,
        retain_as_published,
        id,
    };
    let mut batch = storage.batch();
    former.into_iter().for_each(|former| batch.remove(former));
    let record = batch.put(Record::Subscription(record));
    batch.commit(None)?;
    Ok(Some(record))
}
