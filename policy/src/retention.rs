//! What is remembered for a time: a bounded number of outcomes and bytes, for a bounded time.
//!
//! When there is no room, the account that has the most loses an outcome, and within it the owner that has the most its
//! oldest: longest queue drop (B. Suter, T. V. Lakshman, D. Stiliadis and A. K. Choudhury, "Design considerations for
//! supporting TCP with per-flow queueing", IEEE INFOCOM 1998) on two levels. So of n accounts each is sure of an nth
//! part, however many owners the others invent, and nobody makes the gateway forget what others may ask for again.
//!
//! Strangers choose the owners, so the largest is found without looking at all: each operation is O(log n). Outcomes go
//! by age: asking for one again does not prolong its time. That is what sets this apart from
//! [`FairCache`](crate::FairCache).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::Hash;

use crate::Time;

/// The order in which outcomes came.
type Number = u64;

/// The keys of what is remembered, each at the expense of an account `A` and in it of an owner `O`; see the
/// [module](self). `T` is the time at which an outcome came.
#[derive(Debug)]
pub struct Retention<A, O, K, T = Time> {
    next: Number,
    /// Oldest first.
    all: BTreeMap<Number, Outcome<A, O, K, T>>,
    accounts: HashMap<A, Owners<O>>,
    /// The account that has the most is last.
    by_bytes: BTreeSet<(usize, A)>,
    bytes: usize,
}

#[derive(Debug)]
struct Outcome<A, O, K, T> {
    since: T,
    account: A,
    owner: O,
    key: K,
    bytes: usize,
}

/// The owners of one account.
#[derive(Debug)]
struct Owners<O> {
    owners: HashMap<O, Owned>,
    /// The owner that has the most is last.
    by_bytes: BTreeSet<(usize, O)>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Owned {
    bytes: usize,
    /// Oldest first.
    outcomes: VecDeque<Number>,
}

impl<A: Clone + Hash + Ord, O: Clone + Hash + Ord, K, T: Copy + Ord> Retention<A, O, K, T> {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { next: 0, all: BTreeMap::new(), accounts: HashMap::new(), by_bytes: BTreeSet::new(), bytes: 0 }
    }

    /// Outcomes.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The newest one.
    pub fn push(&mut self, account: A, owner: O, key: K, bytes: usize, since: T) {
        let number = self.next;
        self.next += 1;
        let outcome = Outcome { since, account: account.clone(), owner: owner.clone(), key, bytes };
        self.all.insert(number, outcome);
        self.bytes += bytes;
        self.change(account, owner, |owned| {
            owned.bytes += bytes;
            owned.outcomes.push_back(number);
        });
    }

    /// Takes the oldest of all, if it is from `before` or earlier.
    pub fn pop_before(&mut self, before: T) -> Option<K> {
        let (&number, outcome) = self.all.first_key_value()?;
        if outcome.since > before {
            return None;
        }
        self.take(number)
    }

    /// Takes the oldest of who has the most.
    pub fn pop_of_largest(&mut self) -> Option<K> {
        let (_, account) = self.by_bytes.last()?;
        let number = self.accounts.get(account)?.oldest_of_largest()?;
        self.take(number)
    }

    /// Takes its owner's oldest.
    fn take(&mut self, number: Number) -> Option<K> {
        let Outcome { account, owner, key, bytes, .. } = self.all.remove(&number)?;
        self.bytes -= bytes;
        self.change(account, owner, |owned| {
            owned.bytes -= bytes;
            owned.outcomes.pop_front();
        });
        Some(key)
    }

    fn change(&mut self, account: A, owner: O, change: impl FnOnce(&mut Owned)) {
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

impl<A: Clone + Hash + Ord, O: Clone + Hash + Ord, K, T: Copy + Ord> Default for Retention<A, O, K, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<O: Clone + Hash + Ord> Owners<O> {
    fn change(&mut self, owner: O, change: impl FnOnce(&mut Owned)) {
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

impl<O> Default for Owners<O> {
    fn default() -> Self {
        Self { owners: HashMap::new(), by_bytes: BTreeSet::new(), bytes: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys are an owner and a number.
    type Outcomes = Retention<&'static str, u32, (u32, u32), u64>;

    #[test]
    fn who_has_the_most_loses_its_oldest() {
        let mut outcomes = Outcomes::new();
        for (account, owner, number, bytes) in
            [("b", 2, 1, 5), ("a", 1, 1, 3), ("a", 1, 2, 3), ("a", 1, 3, 3)]
        {
            outcomes.push(account, owner, (owner, number), bytes, 0);
        }
        assert_eq!(outcomes.pop_of_largest(), Some((1, 1)));
        assert_eq!(outcomes.pop_of_largest(), Some((1, 2)));
        assert_eq!(outcomes.pop_of_largest(), Some((2, 1)));
        assert_eq!((outcomes.len(), outcomes.bytes()), (1, 3));
        assert_eq!(outcomes.pop_of_largest(), Some((1, 3)));
        assert_eq!(outcomes.pop_of_largest(), None);
        assert!(outcomes.accounts.is_empty() && outcomes.by_bytes.is_empty());
    }

    #[test]
    fn an_account_with_many_owners_has_no_more_than_one_with_few() {
        let mut outcomes = Outcomes::new();
        outcomes.push("a", 0, (0, 1), 3, 0);
        for owner in 1..6 {
            outcomes.push("b", owner, (owner, 1), 2, 0);
        }
        // Of the largest account, those of its owners in turn; the other's single one is larger than each.
        for _ in 0..4 {
            assert_ne!(outcomes.pop_of_largest(), Some((0, 1)));
        }
        assert_eq!(outcomes.pop_of_largest(), Some((0, 1)));
    }

    #[test]
    fn what_is_old_goes_whoever_has_it() {
        let mut outcomes = Outcomes::new();
        for (second, account, owner) in [(0, "a", 1), (1, "b", 2), (2, "a", 1)] {
            outcomes.push(account, owner, (owner, 1), 1, second);
        }
        assert_eq!(outcomes.pop_before(1), Some((1, 1)));
        assert_eq!(outcomes.pop_before(1), Some((2, 1)));
        assert_eq!(outcomes.pop_before(1), None);
        assert_eq!(outcomes.len(), 1);
    }
}
