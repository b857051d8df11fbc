//! Who gets a message, and how far it has come on its way to them.
//!
//! A message with many recipients is delivered in slices, in the order of the sessions' serials, so that no other
//! connection waits for all of them and nothing has to be held for each. Subscriptions are collected under the lock of
//! the tree, and merged outside of it.

use std::{collections::HashMap, mem::take, sync::Arc};

use parking_lot::RwLock;
use tokio::time::Instant;

use crate::{
    message::{Message, QoS},
    packet::{outbound_publish::OutboundPublish, subscribe::SubscriptionOptions},
    quotas::account::Account,
    session::{
        Session,
        receipt::Receipts,
        stored::{Storing, WithoutRoom},
    },
    topics::{retained::Written, trie::Trie},
};

/// Recipients of one slice: some 50 to 100 µs.
pub(crate) const SLICE: usize = 64;

/// A message's way to its recipients.
pub(crate) struct FanOut {
    /// The session that it comes from, for No Local.
    pub publisher: Option<u64>,
    pub expires: Option<Instant>,
    /// The serial of the last session that it was delivered to.
    pub after: u64,
    pub routed: Routed,
    /// If anybody wants to know when all have acknowledged it.
    pub receipts: Option<Receipts>,
    pub stores: Stores,
    /// What was handed over of a long message before the last of its sessions, and may turn out to find no room.
    pub parts: Vec<Arc<Written>>,
    /// It was to be retained, and the storage has failed: nothing of it is acknowledged.
    pub has_failed: bool,
}

impl FanOut {
    /// On its way to nobody yet. Without a publisher, who would be told, it waits in memory where the storage has no
    /// room for it.
    pub fn new(publisher: Option<u64>, expires: Option<Instant>, routed: Routed) -> Self {
        let without_room = if publisher.is_some() { WithoutRoom::Refused } else { WithoutRoom::InMemory };
        Self {
            publisher,
            expires,
            after: 0,
            routed,
            receipts: None,
            stores: Stores::new(without_room),
            parts: Vec::new(),
            has_failed: false,
        }
    }
}

/// What a message puts into the storage: nothing, unless it is for sessions that are stored.
#[derive(Default)]
pub(crate) struct Stores {
    pub storing: Storing,
    /// The sessions that have it in their queue, and send it when it is handed over.
    pub sessions: Vec<Arc<Session>>,
    /// Something of it is handed over already: it is retained, or many sessions have it.
    pub handed_over: bool,
}

impl Stores {
    pub fn new(without_room: WithoutRoom) -> Self {
        Self { storing: Storing::new(without_room), ..Self::default() }
    }
}

/// Where a message went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routed {
    /// Sessions that have it now.
    pub reached: usize,
    /// Sessions whose queue, or the store of retained messages, was full.
    pub refused: usize,
    /// Those among both for which the storage had no room.
    pub unstored: usize,
    /// It is retained, or has cleared what was: later subscribers find what it says.
    pub kept: bool,
}

/// What a session's subscriptions, taken together, want of a message.
#[derive(Default)]
pub(crate) struct Grant {
    qos: QoS,
    retain_as_published: bool,
    ids: Vec<u32>,
}

impl Grant {
    pub fn new(options: &SubscriptionOptions) -> Self {
        Self {
            qos: options.qos,
            retain_as_published: options.retain_as_published,
            ids: options.id.into_iter().collect(),
        }
    }

    /// Overlapping subscriptions deliver once, at the highest QoS, with all identifiers (section 3.3.4).
    pub fn add(&mut self, other: Self) {
        self.qos = self.qos.max(other.qos);
        self.retain_as_published |= other.retain_as_published;
        self.ids.extend(other.ids);
    }

    /// At which a message is delivered.
    pub fn qos(&self, message: &Message) -> QoS {
        self.qos.min(message.qos)
    }

    pub fn outbound(&self, message: &Message, expires: Option<Instant>) -> OutboundPublish {
        OutboundPublish {
            qos: self.qos(message),
            retain: self.retain_as_published && message.retain,
            subscription_ids: self.ids.clone(),
            expires,
            receipt: None,
            message: message.clone(),
        }
    }
}

/// A session that gets a message.
pub(crate) struct Recipient {
    serial: u64,
    pub session: Arc<Session>,
    pub grant: Grant,
}

/// The first sessions with a subscription to `topic` whose serials come after `after`, as many as `limit` at most.
pub(crate) fn recipients(
    subscriptions: &RwLock<Trie<Arc<Session>>>,
    topic: &str,
    FanOut { publisher, after, .. }: &FanOut,
    limit: usize,
) -> Vec<Recipient> {
    let mut recipients = Vec::new();
    // A session that is among the first of all is among the first of each list that has it, so no more of one is looked
    // at.
    subscriptions.read().for_each_match(topic, |list| {
        let from = list.partition_point(|subscription| subscription.serial <= *after);
        let own = |serial| *publisher == Some(serial);
        let wanted = list[from..]
            .iter()
            .filter(|subscription| !(subscription.options.no_local && own(subscription.serial)))
            .take(limit);
        recipients.extend(wanted.map(|subscription| Recipient {
            serial: subscription.serial,
            session: subscription.subscriber.clone(),
            grant: Grant::new(&subscription.options),
        }));
    });
    if recipients.len() > 1 {
        recipients.sort_unstable_by_key(|recipient| recipient.serial);
        recipients.dedup_by(|next, first| {
            let same = next.serial == first.serial;
            if same {
                first.grant.add(take(&mut next.grant));
            }
            same
        });
    }
    recipients.truncate(limit);
    recipients
}

impl FanOut {
    /// After a slice; true if it was the last.
    pub fn delivered(&mut self, slice: &[Recipient]) -> bool {
        self.after = slice.last().map_or(self.after, |recipient| recipient.serial);
        slice.len() < SLICE
    }
}

/// Leaves at most `limit` recipients of each identity; returns how many are left out.
pub(crate) fn limit_per_identity(recipients: &mut Vec<Recipient>, limit: usize) -> usize {
    let all = recipients.len();
    if all > limit {
        let mut counts: HashMap<*const Account, usize> = HashMap::new();
        recipients.retain(|recipient| {
            let count = counts.entry(Arc::as_ptr(&recipient.session.account)).or_default();
            *count += 1;
            *count <= limit
        });
    }
    all - recipients.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quotas::account::Accounts;

    fn session(serial: u64, account: &Arc<Account>) -> Arc<Session> {
        Arc::new(Session::new(serial.to_string().into(), None, account.clone(), serial, None))
    }

    fn account(host: u8) -> Arc<Account> {
        Accounts::default().of(None, [192, 0, 2, host].into())
    }

    fn fan_out(publisher: Option<u64>) -> FanOut {
        FanOut::new(publisher, None, Routed::default())
    }

    fn serials(recipients: &[Recipient]) -> Vec<u64> {
        recipients.iter().map(|recipient| recipient.serial).collect()
    }

    /// The subscriptions of `0..sessions`, numbered from 1, to each of these filters, in any order.
    fn subscribed(
        sessions: u64,
        filters: &[&str],
        options: SubscriptionOptions,
    ) -> RwLock<Trie<Arc<Session>>> {
        let account = account(1);
        let mut trie = Trie::default();
        for filter in filters {
            for serial in (1..=sessions).rev() {
                trie.insert(filter, serial, session(serial, &account), options);
            }
        }
        RwLock::new(trie)
    }

    #[test]
    fn slices_reach_every_session_once_in_order_and_none_is_longer_than_one_may_be() {
        let filters = ["a/b", "a/+", "+/b", "#"];
        for sessions in [0, 1, 63, 64, 65, 128, 200] {
            let subscriptions = subscribed(
                sessions,
                &filters,
                SubscriptionOptions { id: Some(7), ..SubscriptionOptions::default() },
            );
            let mut fan_out = fan_out(None);
            let (mut reached, mut slices) = (Vec::new(), 0);
            loop {
                let slice = recipients(&subscriptions, "a/b", &fan_out, SLICE);
                assert!(slice.len() <= SLICE);
                assert!(slice.iter().all(|recipient| recipient.grant.ids == [7; 4]));
                reached.extend(serials(&slice));
                slices += 1;
                if fan_out.delivered(&slice) {
                    break;
                }
            }
            assert_eq!(reached, (1..=sessions).collect::<Vec<_>>());
            assert_eq!(slices, sessions as usize / SLICE + 1);
        }
    }

    #[test]
    fn overlapping_subscriptions_are_merged() {
        let subscriptions = RwLock::new(Trie::default());
        let session = session(3, &account(1));
        let options = [
            SubscriptionOptions {
                qos: QoS::AtMostOnce,
                retain_as_published: true,
                ..SubscriptionOptions::default()
            },
            SubscriptionOptions { qos: QoS::ExactlyOnce, id: Some(2), ..SubscriptionOptions::default() },
            SubscriptionOptions { qos: QoS::AtLeastOnce, id: Some(1), ..SubscriptionOptions::default() },
        ];
        for (filter, options) in ["t", "+", "#"].into_iter().zip(options) {
            subscriptions.write().insert(filter, 3, session.clone(), options);
        }
        let found = recipients(&subscriptions, "t", &fan_out(None), SLICE);
        let [Recipient { grant, .. }] = &found[..] else { panic!("{} recipients", found.len()) };
        assert_eq!((grant.qos, grant.retain_as_published), (QoS::ExactlyOnce, true));
        assert!(grant.ids == [1, 2] || grant.ids == [2, 1]);
    }

    #[test]
    fn no_local_leaves_out_the_publisher_and_nobody_else() {
        let no_local = SubscriptionOptions { no_local: true, ..SubscriptionOptions::default() };
        let subscriptions = subscribed(3, &["t"], no_local);
        assert_eq!(serials(&recipients(&subscriptions, "t", &fan_out(Some(2)), SLICE)), [1, 3]);
        assert_eq!(serials(&recipients(&subscriptions, "t", &fan_out(None), SLICE)), [1, 2, 3]);
        assert_eq!(serials(&recipients(&subscriptions, "t", &fan_out(Some(2)), 1)), [1]);
    }

    #[test]
    fn each_identity_has_as_many_recipients_as_one_may_have() {
        let (many, few) = (account(1), account(2));
        let recipient = |serial: u64| Recipient {
            serial,
            session: session(serial, if serial.is_multiple_of(10) { &few } else { &many }),
            grant: Grant::default(),
        };
        let mut recipients: Vec<_> = (1..=30).map(recipient).collect();
        assert_eq!(limit_per_identity(&mut recipients, 30), 0);
        assert_eq!(limit_per_identity(&mut recipients, 4), 27 - 4);
        assert_eq!(serials(&recipients), [1, 2, 3, 4, 10, 20, 30]);
    }
}
