//! What waits for its turn: fair between keys, first in, first out within a key.
//!
//! Round robin between the keys that have something waiting, one item a turn (J. Nagle, "On Packet Switches
//! with Infinite Storage", IEEE Transactions on Communications 35(4), 1987). Every item costs the same turn,
//! so the deficit counters of Shreedhar and Varghese ("Efficient Fair Queueing Using Deficit Round Robin",
//! SIGCOMM 1995) would always be nought and are left out; how long an item then runs is for
//! [`RunQueue`](crate::RunQueue) to share out.
//!
//! A key whose turn comes while it may not be served keeps its place, and is served as soon as it may.
//!
//! | operation | cost |
//! | --- | --- |
//! | `push`, `pop_where` without deadline | O(1), plus one step for each key that is passed over |
//! | with deadline, `expire` | O(log n) an item |

use std::collections::BTreeSet;
use std::fmt;
use std::hash::Hash;

use crate::Time;
use crate::key_map::KeyMap;
use crate::linked_slab::{Handle, LinkedSlab, List};

/// How much a [`FairQueue`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Items of one key. Default: 4 096.
    pub per_key: usize,
    /// Items of all keys together. Default: 65 536.
    pub total: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { per_key: crate::DEFAULT_WAITING_PER_KEY, total: crate::DEFAULT_WAITING_TOTAL }
    }
}

/// Which bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The key holds all that one key may.
    Key,
    /// All keys together hold all that there is room for.
    Total,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Key => "too many of this client's requests are waiting",
            Full::Total => "too many requests are waiting",
        })
    }
}

/// An item that there was no room for.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<T> {
    /// The item, given back.
    pub item: T,
    /// The bound that it hit.
    pub reason: Full,
}

#[derive(Debug)]
struct Item<T> {
    value: T,
    lane: Handle,
    /// Its entry in `FairQueue::deadlines`, but for the handle.
    deadline: Option<(Time, u64)>,
}

/// What one key has waiting; exists only while there is something.
#[derive(Debug)]
struct Lane<K> {
    key: K,
    items: List,
    len: usize,
}

/// A bounded queue, fair between keys; see the [module](self) for the algorithm and its costs.
#[derive(Debug)]
pub struct FairQueue<K, T> {
    limits: QueueLimits,
    items: LinkedSlab<Item<T>>,
    lanes: LinkedSlab<Lane<K>>,
    /// The lanes in the order of their turns.
    turns: List,
    lane_of: KeyMap<K, Handle>,
    /// Deadline, then order of arrival.
    deadlines: BTreeSet<(Time, u64, Handle)>,
    /// Numbers the items that have a deadline.
    arrivals: u64,
}

impl<K: Clone + Eq + Hash, T> FairQueue<K, T> {
    /// An empty queue. Memory is taken as items come, not for the limits.
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            items: LinkedSlab::new(),
            lanes: LinkedSlab::new(),
            turns: List::default(),
            lane_of: KeyMap::new(),
            deadlines: BTreeSet::new(),
            arrivals: 0,
        }
    }

    /// Puts an item behind those of its key. At its deadline, if it has one, it becomes due for
    /// [`expire`](Self::expire).
    ///
    /// # Errors
    /// [`Refused`], with the item, when the key or the queue is full. Nothing else makes room: an item that
    /// is past its deadline counts until it is expired.
    pub fn push(&mut self, key: K, item: T, deadline: Option<Time>) -> Result<(), Refused<T>> {
        let known = self.lane_of.get(&key).copied();
        let reason = if known.map_or(0, |lane| self.lanes[lane].len) >= self.limits.per_key {
            Some(Full::Key)
        } else if self.len() >= self.limits.total {
            Some(Full::Total)
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(Refused { item, reason });
        }

        let lane = known.unwrap_or_else(|| {
            let lane = Lane { key: key.clone(), items: List::default(), len: 0 };
            let lane = self.lanes.push_back(&mut self.turns, lane);
            self.lane_of.insert(key, lane);
            lane
        });
        let deadline = deadline.map(|deadline| {
            self.arrivals += 1;
            (deadline, self.arrivals)
        });
        let Lane { items, len, .. } = &mut self.lanes[lane];
        *len += 1;
        let at = self.items.push_back(items, Item { value: item, lane, deadline });
        if let Some((deadline, arrival)) = deadline {
            self.deadlines.insert((deadline, arrival, at));
        }
        Ok(())
    }

    /// Takes the oldest item of the first key in turn where both are `eligible`; the key's next turn comes after
    /// all others'. `None` when no key has one first.
    ///
    /// Each key that is passed over costs a step and a call. With
    /// [`Slots::may_start`](crate::Slots::may_start) as the condition these are few: only so many keys can
    /// hold their full quota of slots at once.
    pub fn pop_where(&mut self, mut eligible: impl FnMut(&K, &T) -> bool) -> Option<(K, T)> {
        let mut turn = self.turns.front();
        while let Some(lane) = turn {
            let first = self.lanes[lane].items.front().expect("a lane exists only with items");
            if eligible(&self.lanes[lane].key, &self.items[first].value) {
                self.lanes.move_to_back(&mut self.turns, lane);
                return Some(self.take(first));
            }
            turn = self.lanes.next(lane);
        }
        None
    }

    /// Takes the items whose deadline is `now` or earlier, earliest first (in order of arrival where equal).
    /// Lazy: what the caller does not draw stays queued, so the work done at once can be bounded with `take`.
    pub fn expire(&mut self, now: Time) -> impl Iterator<Item = (K, T)> {
        std::iter::from_fn(move || {
            let &(deadline, _, at) = self.deadlines.first()?;
            (deadline <= now).then(|| self.take(at))
        })
    }

    /// When [`expire`](Self::expire) next has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|&(deadline, ..)| deadline)
    }

    /// Items waiting.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Items of this key waiting.
    pub fn len_of(&self, key: &K) -> usize {
        self.lane_of.get(key).map_or(0, |&lane| self.lanes[lane].len)
    }

    fn take(&mut self, at: Handle) -> (K, T) {
        let lane = self.items[at].lane;
        let Lane { key, items, len } = &mut self.lanes[lane];
        let key = key.clone();
        *len -= 1;
        let emptied = *len == 0;
        let item = self.items.remove(items, at);
        if let Some((deadline, arrival)) = item.deadline {
            self.deadlines.remove(&(deadline, arrival, at));
        }
        if emptied {
            self.lanes.remove(&mut self.turns, lane);
            self.lane_of.remove(&key);
        }
        (key, item.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, VecDeque};

    fn ms(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    fn drain(queue: &mut FairQueue<char, u32>) -> Vec<(char, u32)> {
        std::iter::from_fn(|| queue.pop_where(|_, _| true)).collect()
    }

    #[test]
    fn keys_take_turns_and_each_is_first_in_first_out() {
        let mut queue = FairQueue::new(QueueLimits::default());
        for (key, item) in [('a', 1), ('a', 2), ('a', 3), ('b', 4), ('c', 5), ('b', 6)] {
            queue.push(key, item, None).unwrap();
        }
        assert_eq!(queue.len_of(&'a'), 3);
        assert_eq!(drain(&mut queue), [('a', 1), ('b', 4), ('c', 5), ('a', 2), ('b', 6), ('a', 3)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_key_passed_over_keeps_its_place() {
        let mut queue = FairQueue::new(QueueLimits::default());
        for (key, item) in [('a', 1), ('b', 2), ('b', 3), ('c', 4)] {
            queue.push(key, item, None).unwrap();
        }
        assert_eq!(queue.pop_where(|&key, _| key != 'a'), Some(('b', 2)));
        assert_eq!(queue.pop_where(|_, _| false), None);
        assert_eq!(drain(&mut queue), [('a', 1), ('c', 4), ('b', 3)]);
    }

    #[test]
    fn the_bound_that_was_hit_is_named_and_the_item_given_back() {
        let mut queue = FairQueue::new(QueueLimits { per_key: 2, total: 3 });
        queue.push('a', 1, None).unwrap();
        queue.push('a', 2, None).unwrap();
        assert_eq!(queue.push('a', 3, None), Err(Refused { item: 3, reason: Full::Key }));
        queue.push('b', 4, None).unwrap();
        assert_eq!(queue.push('b', 5, None), Err(Refused { item: 5, reason: Full::Total }));
        queue.pop_where(|_, _| true).unwrap();
        queue.push('b', 5, None).unwrap();
    }

    #[test]
    fn a_queue_without_room_keeps_no_trace_of_the_refused_key() {
        let mut queue = FairQueue::new(QueueLimits { per_key: 0, total: 1 });
        assert_eq!(queue.push('a', 1, None), Err(Refused { item: 1, reason: Full::Key }));
        assert_eq!((queue.lanes.len(), queue.lane_of.len()), (0, 0));
    }

    #[test]
    fn items_expire_at_their_deadline_in_its_order() {
        let mut queue = FairQueue::new(QueueLimits::default());
        for (key, item, deadline) in
            [('a', 1, Some(30)), ('a', 2, None), ('a', 3, Some(10)), ('b', 4, Some(20)), ('c', 5, Some(10))]
        {
            queue.push(key, item, deadline.map(ms)).unwrap();
        }
        assert_eq!(queue.next_deadline(), Some(ms(10)));
        assert_eq!(queue.expire(ms(9)).count(), 0);
        assert_eq!(queue.expire(ms(20)).take(1).collect::<Vec<_>>(), [('a', 3)]);
        assert_eq!(queue.expire(ms(20)).collect::<Vec<_>>(), [('c', 5), ('b', 4)]);
        assert_eq!(queue.next_deadline(), Some(ms(30)));
        assert_eq!(queue.pop_where(|_, _| true), Some(('a', 1)));
        assert_eq!(queue.next_deadline(), None);
        assert_eq!(drain(&mut queue), [('a', 2)]);
    }

    #[test]
    fn what_idle_keys_held_is_given_back() {
        let mut queue = FairQueue::new(QueueLimits::default());
        for key in 0..20_000u32 {
            queue.push(key, key, Some(ms(1))).unwrap();
        }
        for _ in 0..10_000 {
            queue.pop_where(|_, _| true).unwrap();
        }
        assert_eq!(queue.expire(ms(1)).count(), 10_000);
        assert!(
            queue.items.capacity() <= 64 && queue.lanes.capacity() <= 64 && queue.lane_of.capacity() <= 64
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push {
            key: u8,
            deadline: Option<u64>,
        },
        /// Only the keys whose bit is set are eligible.
        Pop {
            eligible: u8,
        },
        Expire {
            by: u64,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            5 => (0..6u8, prop::option::of(0..50u64)).prop_map(|(key, deadline)| Step::Push { key, deadline }),
            4 => any::<u8>().prop_map(|eligible| Step::Pop { eligible }),
            1 => (0..10u64).prop_map(|by| Step::Expire { by }),
        ];
        prop::collection::vec(step, 0..300)
    }

    proptest! {
        /// Against a plain model: bounds, order within a key, turns between keys, exact expiry, nothing lost
        /// or doubled.
        #[test]
        fn behaves_as_specified(steps in steps()) {
            const LIMITS: QueueLimits = QueueLimits { per_key: 5, total: 16 };
            let mut queue = FairQueue::new(LIMITS);
            let mut model: BTreeMap<u8, VecDeque<(usize, Option<u64>)>> = BTreeMap::new();
            // For each waiting key: how often another was served since it began to wait or was itself served,
            // that could not have been served again before it.
            let mut passed_by: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
            let mut now = 0;
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push { key, deadline } => {
                        let deadline = deadline.map(|after| now + after);
                        let waiting: usize = model.values().map(VecDeque::len).sum();
                        let held = model.get(&key).map_or(0, VecDeque::len);
                        let expected = if held == LIMITS.per_key {
                            Err(Refused { item: number, reason: Full::Key })
                        } else if waiting == LIMITS.total {
                            Err(Refused { item: number, reason: Full::Total })
                        } else {
                            model.entry(key).or_default().push_back((number, deadline));
                            passed_by.entry(key).or_default();
                            Ok(())
                        };
                        prop_assert_eq!(queue.push(key, number, deadline.map(ms)), expected);
                    }
                    Step::Pop { eligible } => {
                        let eligible = |key: &u8| eligible & (1 << key) != 0;
                        let popped = queue.pop_where(|key, _| eligible(key));
                        let Some((key, item)) = popped else {
                            prop_assert!(!model.keys().any(eligible));
                            continue;
                        };
                        prop_assert!(eligible(&key));
                        let lane = model.get_mut(&key).unwrap();
                        prop_assert_eq!(lane.pop_front().unwrap().0, item);
                        if lane.is_empty() {
                            model.remove(&key);
                        }
                        passed_by.remove(&key);
                        let passed = passed_by.iter_mut().filter(|(waiting, _)| eligible(waiting));
                        for (&waiting, served) in passed {
                            prop_assert!(!served.contains(&key), "{} twice while {} waited", key, waiting);
                            served.push(key);
                        }
                        if model.contains_key(&key) {
                            passed_by.insert(key, Vec::new());
                        }
                    }
                    Step::Expire { by } => {
                        now += by;
                        let mut due: Vec<(u64, usize, u8)> = Vec::new();
                        model.retain(|&key, lane| {
                            lane.retain(|&(item, deadline)| match deadline {
                                Some(deadline) if deadline <= now => {
                                    due.push((deadline, item, key));
                                    false
                                }
                                _ => true,
                            });
                            !lane.is_empty()
                        });
                        passed_by.retain(|key, _| model.contains_key(key));
                        due.sort_unstable();
                        let due: Vec<(u8, usize)> = due.into_iter().map(|(_, item, key)| (key, item)).collect();
                        prop_assert_eq!(queue.expire(ms(now)).collect::<Vec<_>>(), due);
                    }
                }
                prop_assert_eq!(queue.len(), model.values().map(VecDeque::len).sum::<usize>());
                for key in 0..6 {
                    prop_assert_eq!(queue.len_of(&key), model.get(&key).map_or(0, VecDeque::len));
                }
                let next = model.values().flatten().filter_map(|&(_, deadline)| deadline).min();
                prop_assert_eq!(queue.next_deadline(), next.map(ms));
                prop_assert_eq!(queue.lanes.len(), model.len());
                prop_assert_eq!(queue.lane_of.len(), model.len());
            }
        }
    }
}
