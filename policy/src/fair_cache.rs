//! What is kept until there is no room: least recently used first, fair between the accounts that had it made.
//!
//! By recency alone one account could put out what all others use. So room is made at the expense of the account that
//! holds most (longest queue drop: B. Suter, T. V. Lakshman, D. Stiliadis and A. K. Choudhury, "Design Considerations
//! for Supporting TCP with Per-Flow Queueing", IEEE INFOCOM 1998), and in it of what was used least recently (LRU: R.
//! L. Mattson et al., "Evaluation Techniques for Storage Hierarchies", IBM Systems Journal 9(2), 1970). An account that
//! holds less than the newcomer's would, loses nothing: so of n accounts each is sure of an nth part of the room.
//!
//! With one account, `()`, this is plain LRU. The runtime's modules and whatever is made once by digest are kept in
//! here, and what the [`Dispatcher`](crate::Dispatcher) knows of programs.
//!
//! Two relatives differ and stay apart. [`Retention`](crate::Retention) keeps outcomes, which go by age and not by use,
//! fairly on two levels and among more owners than could be looked at one by one. What the runtime keeps on disk (its
//! library of modules and its store of artifacts) is ordered by the files' times, and shared between owners.
//!
//! | operation | cost |
//! | --- | --- |
//! | `get`, `peek`, `insert`, `remove` | O(1) |
//! | `evict_for`, `least_recently_used` | O(accounts), plus one step for each entry that must stay |

use std::cmp::Reverse;
use std::hash::Hash;

use crate::Time;
use crate::key_map::KeyMap;
use crate::linked_slab::{Handle, LinkedSlab, List};

/// Entries with a weight, each on an account; see the [module](self). `T` is the time of a use, or whatever else tells
/// an earlier one from a later one.
#[derive(Debug)]
pub struct FairCache<A, K, V, T = Time> {
    entries: LinkedSlab<Entry<K, V, T>>,
    entry_of: KeyMap<K, Handle>,
    /// The entry that was used last, which often is the one that is used next: that takes no hashing.
    latest: Option<Handle>,
    accounts: LinkedSlab<Account<A>>,
    /// All accounts, in the order in which they came.
    order: List,
    account_of: KeyMap<A, Handle>,
    weight: usize,
}

#[derive(Debug)]
struct Entry<K, V, T> {
    key: K,
    value: V,
    account: Handle,
    weight: usize,
    last_use: T,
}

/// What one account holds; exists only while it holds something.
#[derive(Debug)]
struct Account<A> {
    name: A,
    weight: usize,
    /// The least recently used first.
    entries: List,
}

impl<A: Clone + Eq + Hash, K: Clone + Eq + Hash, V, T: Copy + Ord> FairCache<A, K, V, T> {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            entries: LinkedSlab::new(),
            entry_of: KeyMap::new(),
            latest: None,
            accounts: LinkedSlab::new(),
            order: List::default(),
            account_of: KeyMap::new(),
            weight: 0,
        }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What all entries weigh together.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// What the entries of this account weigh.
    pub fn weight_of(&self, account: &A) -> usize {
        self.account_of.get(account).map_or(0, |&at| self.accounts[at].weight)
    }

    /// An entry that is there; from now on it is the most recently used.
    pub fn get(&mut self, key: &K, now: T) -> Option<&mut V> {
        let at = self.find(key)?;
        Some(self.touch(at, now))
    }

    /// An entry, which is made of a value, an account and a weight if it is not there; from now on it is the most
    /// recently used.
    #[inline]
    pub fn get_or_insert_with(&mut self, key: &K, now: T, make: impl FnOnce() -> (V, A, usize)) -> &mut V {
        let at = self.find(key).unwrap_or_else(|| {
            let (value, account, weight) = make();
            self.push(key.clone(), value, account, weight, now)
        });
        self.touch(at, now)
    }

    /// An entry that is there, without this being a use of it.
    #[inline]
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.find(key).map(|at| &self.entries[at].value)
    }

    /// The same, to be changed.
    pub fn peek_mut(&mut self, key: &K) -> Option<&mut V> {
        self.find(key).map(|at| &mut self.entries[at].value)
    }

    /// Keeps an entry at the account's expense, and returns the one that it replaces. Makes no room for it: that is
    /// [`evict_for`](Self::evict_for)'s.
    pub fn insert(&mut self, key: K, value: V, account: A, weight: usize, now: T) -> Option<V> {
        let replaced = self.remove(&key);
        self.push(key, value, account, weight, now);
        replaced
    }

    /// From now on an entry, if it is there, weighs this much.
    pub fn reweigh(&mut self, key: &K, weight: usize) {
        let Some(at) = self.find(key) else { return };
        let entry = &mut self.entries[at];
        let before = std::mem::replace(&mut entry.weight, weight);
        for held in [&mut self.weight, &mut self.accounts[entry.account].weight] {
            *held = *held - before + weight;
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(key)?;
        Some(self.take(at).1)
    }

    /// Takes out the entry that goes first where one of this weight is to come at this account's expense, of those that
    /// `may_go`. `None` if none of them is to go for it.
    pub fn evict_for(
        &mut self,
        account: &A,
        weight: usize,
        mut may_go: impl FnMut(&V) -> bool,
    ) -> Option<(K, V)> {
        let would_hold = |of: &Account<A>| of.weight + if of.name == *account { weight } else { 0 };
        let least = self.weight_of(account) + weight;
        let (_, at) = self
            .accounts()
            .filter(|of| would_hold(of) >= least)
            .filter_map(|of| Some((would_hold(of), self.first_of(of, &mut may_go)?)))
            .max_by_key(|&(held, at)| (held, Reverse(self.entries[at].last_use)))?;
        Some(self.take(at))
    }

    /// Of those that `may_go` the entry that was used least recently, whoever holds it, and when that was.
    pub fn least_recently_used(&self, mut may_go: impl FnMut(&V) -> bool) -> Option<(&K, T)> {
        let first = self.accounts().filter_map(|of| self.first_of(of, &mut may_go));
        first.map(|at| (&self.entries[at].key, self.entries[at].last_use)).min_by_key(|&(_, used)| used)
    }

    #[inline]
    fn find(&self, key: &K) -> Option<Handle> {
        let latest = self.latest.filter(|&at| self.entries[at].key == *key);
        latest.or_else(|| self.entry_of.get(key).copied())
    }

    #[inline(always)]
    fn touch(&mut self, at: Handle, now: T) -> &mut V {
        // The latest is the last one of its account already.
        if self.latest != Some(at) {
            self.move_up(at);
        }
        let entry = &mut self.entries[at];
        entry.last_use = now;
        &mut entry.value
    }

    fn move_up(&mut self, at: Handle) {
        self.latest = Some(at);
        let account = self.entries[at].account;
        self.entries.move_to_back(&mut self.accounts[account].entries, at);
    }

    /// Puts in an entry that is not there.
    fn push(&mut self, key: K, value: V, account: A, weight: usize, now: T) -> Handle {
        let known = self.account_of.get(&account).copied();
        let at = known.unwrap_or_else(|| {
            let new = Account { name: account.clone(), weight: 0, entries: List::default() };
            let at = self.accounts.push_back(&mut self.order, new);
            self.account_of.insert(account, at);
            at
        });
        let Account { weight: held, entries, .. } = &mut self.accounts[at];
        *held += weight;
        self.weight += weight;
        let entry = Entry { key: key.clone(), value, account: at, weight, last_use: now };
        let at = self.entries.push_back(entries, entry);
        self.entry_of.insert(key, at);
        self.latest = Some(at);
        at
    }

    fn accounts(&self) -> impl Iterator<Item = &Account<A>> {
        std::iter::successors(self.order.front(), |&at| self.accounts.next(at)).map(|at| &self.accounts[at])
    }

    /// The least recently used entry of an account that may go.
    fn first_of(&self, account: &Account<A>, mut may_go: impl FnMut(&V) -> bool) -> Option<Handle> {
        std::iter::successors(account.entries.front(), |&at| self.entries.next(at))
            .find(|&at| may_go(&self.entries[at].value))
    }

    fn take(&mut self, at: Handle) -> (K, V) {
        let account = self.entries[at].account;
        let of = &mut self.accounts[account];
        let Entry { key, value, weight, .. } = self.entries.remove(&mut of.entries, at);
        of.weight -= weight;
        self.weight -= weight;
        self.entry_of.remove(&key);
        self.latest.take_if(|latest| *latest == at);
        if of.entries.front().is_none() {
            let Account { name, .. } = self.accounts.remove(&mut self.order, account);
            self.account_of.remove(&name);
        }
        (key, value)
    }
}

impl<A: Clone + Eq + Hash, K: Clone + Eq + Hash, V, T: Copy + Ord> Default for FairCache<A, K, V, T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Cache = FairCache<char, u32, bool, u64>;

    /// Entries of weight 1 that may go, in this order.
    fn cache(entries: &[(char, u32)]) -> Cache {
        let mut cache = Cache::new();
        for (now, &(account, key)) in (0..).zip(entries) {
            assert!(cache.insert(key, true, account, 1, now).is_none());
        }
        cache
    }

    fn evict(cache: &mut Cache, account: char, weight: usize) -> Option<u32> {
        cache.evict_for(&account, weight, |may_go| *may_go).map(|(key, _)| key)
    }

    #[test]
    fn of_one_account_the_least_recently_used_goes_first() {
        let mut cache = cache(&[('a', 1), ('a', 2), ('a', 3)]);
        cache.get(&1, 9);
        assert_eq!(cache.least_recently_used(|_| true), Some((&2, 1)));
        let order: Vec<_> = std::iter::from_fn(|| evict(&mut cache, 'a', 1)).collect();
        assert_eq!(order, [2, 3, 1]);
        assert!(cache.is_empty() && cache.accounts.len() == 0 && cache.account_of.len() == 0);
    }

    #[test]
    fn whoever_holds_most_makes_room_and_nobody_who_holds_less_than_the_newcomer_would() {
        let mut cache = cache(&[('a', 1), ('b', 2), ('b', 3), ('c', 4)]);
        assert_eq!(evict(&mut cache, 'd', 1), Some(2));
        // All hold one: of equals the one whose entry was used least recently.
        assert_eq!(evict(&mut cache, 'd', 1), Some(1));
        assert_eq!(evict(&mut cache, 'd', 2), None, "it would hold more than any");
        assert_eq!(evict(&mut cache, 'b', 2), Some(3), "its own makes room");
    }

    #[test]
    fn what_must_stay_is_passed_over() {
        let mut cache = cache(&[('a', 1), ('a', 2), ('b', 3)]);
        *cache.peek_mut(&1).unwrap() = false;
        assert_eq!(evict(&mut cache, 'b', 1), Some(2));
        assert_eq!(evict(&mut cache, 'a', 0), Some(3));
        assert_eq!((evict(&mut cache, 'a', 9), cache.peek(&1)), (None, Some(&false)));
    }

    #[test]
    fn an_entry_can_be_weighed_again_and_replaced() {
        let mut cache = cache(&[('a', 1), ('b', 2)]);
        cache.reweigh(&1, 5);
        assert_eq!((cache.weight(), cache.weight_of(&'a')), (6, 5));
        assert_eq!(cache.insert(1, true, 'b', 2, 9), Some(true));
        assert_eq!((cache.weight(), cache.weight_of(&'a'), cache.weight_of(&'b')), (3, 0, 3));
    }

    proptest! {
        /// Against a plain list: the weights are exact, nothing is lost, and what goes is what is documented.
        #[test]
        fn behaves_as_specified(
            steps in prop::collection::vec((0..4u8, 0..4usize, 0..20u32, 1..5usize, any::<bool>()), 0..200),
        ) {
            let mut cache = Cache::new();
            // Account, key, weight, may go; the least recently used first.
            let mut model: Vec<(char, u32, usize, bool)> = Vec::new();
            for (now, (step, account, key, weight, may_go)) in (0..).zip(steps) {
                let account = ['a', 'b', 'c', 'd'][account];
                let at = model.iter().position(|entry| entry.1 == key);
                match step {
                    0 | 1 => {
                        let replaced = at.map(|at| model.remove(at).3);
                        prop_assert_eq!(cache.insert(key, may_go, account, weight, now), replaced);
                        model.push((account, key, weight, may_go));
                    }
                    2 => {
                        prop_assert_eq!(cache.get(&key, now).is_some(), at.is_some());
                        if let Some(at) = at {
                            let entry = model.remove(at);
                            model.push(entry);
                        }
                    }
                    _ => {
                        let holds = |of: char| {
                            let more = if of == account { weight } else { 0 };
                            model.iter().filter(|entry| entry.0 == of).map(|entry| entry.2).sum::<usize>() + more
                        };
                        let candidates = model.iter().rev().filter(|entry| entry.3 && holds(entry.0) >= holds(account));
                        // The last of equals is the least recently used.
                        let expected = candidates.max_by_key(|entry| holds(entry.0)).map(|entry| entry.1);
                        prop_assert_eq!(evict(&mut cache, account, weight), expected);
                        model.retain(|entry| Some(entry.1) != expected);
                    }
                }
                prop_assert_eq!(cache.len(), model.len());
                prop_assert_eq!(cache.weight(), model.iter().map(|entry| entry.2).sum::<usize>());
                let oldest = model.iter().find(|entry| entry.3).map(|entry| entry.1);
                prop_assert_eq!(cache.least_recently_used(|may_go| *may_go).map(|(key, _)| *key), oldest);
            }
        }
    }
}
