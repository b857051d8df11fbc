//! What is remembered of requests that have been run: so many outcomes, so many bytes, for so long.
//!
//! When there is no room, who has the most loses his oldest: longest queue drop (B. Suter, T. V. Lakshman, D. Stiliadis and
//! A. K. Choudhury, "Design considerations for supporting TCP with per-flow queueing", IEEE INFOCOM 1998). So of n owners
//! each is sure of an nth part, and nobody makes the gateway forget what others may ask for again.

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
    owners: HashMap<Owner, Owned>,
    /// Who has the most is last.
    by_bytes: BTreeSet<(usize, Owner)>,
    bytes: usize,
}

struct Outcome {
    since: Instant,
    key: Key,
    bytes: usize,
}

#[derive(Default)]
struct Owned {
    bytes: usize,
    /// Oldest first.
    outcomes: VecDeque<Number>,
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
    pub fn push(&mut self, key: Key, bytes: usize, since: Instant) {
        let owner = Owner::of(&key);
        let number = self.next;
        self.next += 1;
        self.all.insert(number, Outcome { since, key, bytes });
        self.bytes += bytes;
        self.change(owner, |owned| {
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
        let owner = Owner::of(&outcome.key);
        self.take(number, owner)
    }

    /// Takes the oldest of who has the most.
    pub fn pop_of_largest(&mut self) -> Option<Key> {
        let (_, owner) = self.by_bytes.last()?.clone();
        let number = *self.owners.get(&owner)?.outcomes.front()?;
        self.take(number, owner)
    }

    /// Takes its owner's oldest.
    fn take(&mut self, number: Number, owner: Owner) -> Option<Key> {
        let Outcome { key, bytes, .. } = self.all.remove(&number)?;
        self.bytes -= bytes;
        self.change(owner, |owned| {
            owned.bytes -= bytes;
            owned.outcomes.pop_front();
        });
        Some(key)
    }

    fn change(&mut self, owner: Owner, change: impl FnOnce(&mut Owned)) {
        let owned = self.owners.entry(owner.clone()).or_default();
        self.by_bytes.remove(&(owned.bytes, owner.clone()));
        change(owned);
        if owned.outcomes.is_empty() {
            self.owners.remove(&owner);
        } else {
            self.by_bytes.insert((owned.bytes, owner));
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
            retained.push(key(principal, id), bytes, now);
        }
        assert_eq!(retained.pop_of_largest(), Some(key("a", "1")));
        assert_eq!(retained.pop_of_largest(), Some(key("a", "2")));
        assert_eq!(retained.pop_of_largest(), Some(key("b", "1")));
        assert_eq!((retained.len(), retained.bytes()), (1, 3));
        assert_eq!(retained.pop_of_largest(), Some(key("a", "3")));
        assert_eq!(retained.pop_of_largest(), None);
        assert!(retained.owners.is_empty() && retained.by_bytes.is_empty());
    }

    #[test]
    fn what_is_old_goes_whoever_has_it() {
        let mut retained = Retained::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (second, principal) in [(0, "a"), (1, "b"), (2, "a")] {
            retained.push(key(principal, "1"), 1, at(second));
        }
        assert_eq!(retained.pop_before(at(1)), Some(key("a", "1")));
        assert_eq!(retained.pop_before(at(1)), Some(key("b", "1")));
        assert_eq!(retained.pop_before(at(1)), None);
        assert_eq!(retained.len(), 1);
    }
}
