//! What is remembered of requests that have been run: so many outcomes, so many bytes, for so long.
//!
//! When there is no room, the account that has the most loses an outcome, and within it the owner that has the most its
//! oldest: longest queue drop (B. Suter, T. V. Lakshman, D. Stiliadis and A. K. Choudhury, "Design considerations for
//! supporting TCP with per-flow queueing", IEEE INFOCOM 1998) on two levels. So of n accounts each is sure of an nth
//! part, however many reply ids the others invent, and nobody makes the gateway forget what others may ask for again.

use super::{Key, ReplyTo};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// Whose an outcome is: what a request is known by, but its `id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Owner {
    Principal(Arc<str>),
    Unnamed(ReplyTo),
}

impl Owner {
    fn of(key: &Key) -> Owner {
        match &key.principal {
            Some(principal) => Owner::Principal(principal.clone()),
            None => Owner::Unnamed(key.reply_to.clone()),
        }
    }
}

/// The order in which outcomes came.
type Number = u64;

/// The keys of what is remembered.
#[derive(Default)]
pub struct Retained {
    next: Number,
    /// Oldest first.
    all: BTreeMap<Number, Outcome>,
    accounts: HashMap<Account, Owners>,
    /// The account that has the most is last.
    by_bytes: BTreeSet<(usize, Account)>,
    bytes: usize,
}

struct Outcome {
    since: Instant,
    account: Account,
    key: Key,
    bytes: usize,
}

/// Who pays.
type Account = Arc<str>;

/// The owners of one account.
#[derive(Default)]
struct Owners {
    owners: HashMap<Owner, Owned>,
    /// The owner that has the most is last.
    by_bytes: BTreeSet<(usize, Owner)>,
    bytes: usize,
}

#[derive(Default)]
struct Owned {
    bytes: usize,
    /// Oldest first.
    outcomes: VecDeque<Number>,
}

impl Owners {
    fn change(&mut self, owner: Owner, change: impl FnOnce(&mut Owned)) {
        let owned = self.owners.entry(owner.clone()).or_default();
        self.by_bytes.remove(&(owned.bytes, owner.clone()));
        self.bytes -= owned.bytes;
        change(owned);
        self.bytes += owned.bytes;
        if owned.outcomes.is_empty() {
            self.owners.remove(&owner);
        } else {
            self.by_bytes.insert((owned.bytes, owner));
        }
    }

    /// The oldest outcome of the owner that has the most.
    fn oldest_of_largest(&self) -> Option<Number> {
        let (_, owner) = self.by_bytes.last()?;
        self.owners.get(owner)?.outcomes.front().copied()
    }
}

impl Retained {
    /// Outcomes.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The newest one.
    pub fn push(&mut self, account: Account, key: Key, bytes: usize, since: Instant) {
        let owner = Owner::of(&key);
        let number = self.next;
        self.next += 1;
        self.all.insert(number, Outcome { since, account: account.clone(), key, bytes });
        self.bytes += bytes;
        self.change(account, owner, |owned| {
            owned.bytes += bytes;
            owned.outcomes.push_back(number);
        });
    }

    /// Takes the oldest of all, if it is from `before` or earlier.
    pub fn pop_before(&mut self, before: Instant) -> Option<Key> {
        let (&number, outcome) = self.all.first_key_value()?;
        if outcome.since > before {
            return None;
        }
        self.take(number)
    }

    /// Takes the oldest of who has the most.
    pub fn pop_of_largest(&mut self) -> Option<Key> {
        let (_, account) = self.by_bytes.last()?;
        let number = self.accounts.get(account)?.oldest_of_largest()?;
        self.take(number)
    }

    /// Takes its owner's oldest.
    fn take(&mut self, number: Number) -> Option<Key> {
        let Outcome { account, key, bytes, .. } = self.all.remove(&number)?;
        self.bytes -= bytes;
        self.change(account, Owner::of(&key), |owned| {
            owned.bytes -= bytes;
            owned.outcomes.pop_front();
        });
        Some(key)
    }

    fn change(&mut self, account: Account, owner: Owner, change: impl FnOnce(&mut Owned)) {
        let owners = self.accounts.entry(account.clone()).or_default();
        self.by_bytes.remove(&(owners.bytes, account.clone()));
        owners.change(owner, change);
        if owners.owners.is_empty() {
            self.accounts.remove(&account);
        } else {
            self.by_bytes.insert((owners.bytes, account));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offload_protocol::request::RequestId;
    use std::time::Duration;

    fn key(principal: &str, id: &str) -> Key {
        let reply_to = ReplyTo::Id("device".into());
        Key { principal: Some(principal.into()), reply_to, id: RequestId::try_from(id).unwrap() }
    }

    #[test]
    fn who_has_the_most_loses_his_oldest() {
        let mut retained = Retained::default();
        let now = Instant::now();
        for (principal, id, bytes) in [("b", "1", 5), ("a", "1", 3), ("a", "2", 3), ("a", "3", 3)] {
            retained.push(principal.into(), key(principal, id), bytes, now);
        }
        assert_eq!(retained.pop_of_largest(), Some(key("a", "1")));
        assert_eq!(retained.pop_of_largest(), Some(key("a", "2")));
        assert_eq!(retained.pop_of_largest(), Some(key("b", "1")));
        assert_eq!((retained.len(), retained.bytes()), (1, 3));
        assert_eq!(retained.pop_of_largest(), Some(key("a", "3")));
        assert_eq!(retained.pop_of_largest(), None);
        assert!(retained.accounts.is_empty() && retained.by_bytes.is_empty());
    }

    #[test]
    fn an_account_with_many_reply_ids_has_no_more_than_one_with_few() {
        let mut retained = Retained::default();
        let now = Instant::now();
        let unnamed =
            |reply_id: &str| Key { principal: None, reply_to: ReplyTo::Id(reply_id.into()), ..key("", "1") };
        retained.push("address a".into(), unnamed("victim"), 3, now);
        for number in 0..5 {
            retained.push("address b".into(), unnamed(&format!("b{number}")), 2, now);
        }
        // Of the largest account, those of its owners in turn; the other's single one is larger than each.
        for _ in 0..4 {
            assert_ne!(retained.pop_of_largest(), Some(unnamed("victim")));
        }
        assert_eq!(retained.pop_of_largest(), Some(unnamed("victim")));
    }

    #[test]
    fn what_is_old_goes_whoever_has_it() {
        let mut retained = Retained::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (second, principal) in [(0, "a"), (1, "b"), (2, "a")] {
            retained.push(principal.into(), key(principal, "1"), 1, at(second));
        }
        assert_eq!(retained.pop_before(at(1)), Some(key("a", "1")));
        assert_eq!(retained.pop_before(at(1)), Some(key("b", "1")));
        assert_eq!(retained.pop_before(at(1)), None);
        assert_eq!(retained.len(), 1);
    }
}
