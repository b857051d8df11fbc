//! What waits to be started: fair between accounts, in each between its flows, first in, first out within a flow.
//!
//! Round robin between the accounts that have something waiting, one item a round, and in an account's round, round
//! robin between its flows (J. Nagle, "On Packet Switches with Infinite Storage", IEEE Transactions on Communications
//! 35(4), 1987; on two levels as in J. C. R. Bennett and H. Zhang, "Hierarchical Packet Fair Queueing Algorithms",
//! IEEE/ACM Transactions on Networking 5(5), 1997). Every item costs the same turn, so the deficit counters of
//! Shreedhar and Varghese ("Efficient Fair Queueing Using Deficit Round Robin", SIGCOMM 1995) would always be zero and
//! are left out; how long an item then runs is for [`RunQueue`](crate::RunQueue) to share out.
//!
//! An account or a flow whose turn comes while it may not be served keeps its place, and is served as soon as it may.
//! With n accounts waiting, one that may be served is served at the latest after n − 1 items of others; within it, one
//! of its m flows after m − 1 items of the account's others.
//!
//! An item that waits alone needs no turns: it is kept beside the lists until a second one comes. So what a queue costs
//! is paid where there is one.
//!
//! | operation | cost |
//! | --- | --- |
//! | `push`, `pop_where` without deadline | O(1), plus one step for each account and flow that is passed over |
//! | with deadline, `expire` | O(log n) an item |

use std::collections::BTreeSet;
use std::fmt;

use crate::Time;
use crate::linked_slab::{Handle, LinkedSlab, List};
use crate::table::{Counted, Table};

/// How much a [`FairQueue`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Items of one flow. Default: 4 096.
    pub per_flow: usize,
    /// Items of all flows together. Default: 16 384.
    pub total: usize,
}

impl QueueLimits {
    /// For a queue whose items are counted elsewhere.
    pub const NONE: Self = Self { per_flow: usize::MAX, total: usize::MAX };
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { per_flow: crate::DEFAULT_WAITING_PER_FLOW, total: crate::DEFAULT_WAITING_TOTAL }
    }
}

/// Which bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The flow holds all that one flow may.
    Flow,
    /// The account holds all that one account may.
    Account,
    /// All accounts together hold all that there is room for.
    Total,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Flow => "too many of this client's requests are waiting",
            Full::Account => "too many requests from this client's user or address are waiting",
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

/// An item while it is the only one.
#[derive(Debug)]
struct Single<K, T> {
    key: K,
    value: T,
    deadline: Option<Time>,
}

#[derive(Debug)]
struct Item<T> {
    value: T,
    lane: Handle,
    /// Its entry in `FairQueue::deadlines`, but for the handle.
    deadline: Option<(Time, u64)>,
}

/// What one flow has waiting; exists only while there is something.
#[derive(Debug)]
struct Lane<K> {
    key: K,
    account: Handle,
    items: List,
    len: usize,
}

/// A bounded queue, fair between accounts and between the flows of each; see the [module](self) for the algorithm and
/// its costs.
#[derive(Debug)]
pub struct FairQueue<K: Counted, T> {
    limits: QueueLimits,
    len: usize,
    /// The only item. Where there are several, all are in the lists.
    single: Option<Single<K, T>>,
    items: LinkedSlab<Item<T>>,
    lanes: LinkedSlab<Lane<K>>,
    /// Of each account that has something waiting its lanes, in the order of their turns.
    accounts: LinkedSlab<List>,
    /// The accounts in the order of their turns.
    turns: List,
    lane_of: K::Flows<Option<Handle>>,
    account_of: K::Accounts<Option<Handle>>,
    /// Deadline, then order of arrival.
    deadlines: BTreeSet<(Time, u64, Handle)>,
    /// Numbers the items that have a deadline.
    arrivals: u64,
}

impl<K: Counted, T> FairQueue<K, T> {
    /// An empty queue. Memory is taken as items come, not for the limits.
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            len: 0,
            single: None,
            items: LinkedSlab::new(),
            lanes: LinkedSlab::new(),
            accounts: LinkedSlab::new(),
            turns: List::default(),
            lane_of: Default::default(),
            account_of: Default::default(),
            deadlines: BTreeSet::new(),
            arrivals: 0,
        }
    }

    /// Puts an item behind those of its flow. At its deadline, if it has one, it becomes due for
    /// [`expire`](Self::expire).
    ///
    /// # Errors
    /// [`Refused`], with the item, when the flow or the queue is full. Nothing else makes room: an item that
    /// is past its deadline counts until it is expired.
    #[inline]
    pub fn push(&mut self, key: K, item: T, deadline: Option<Time>) -> Result<(), Refused<T>> {
        let reason = if self.limits.per_flow != usize::MAX && self.len_of(&key) >= self.limits.per_flow {
            Some(Full::Flow)
        } else if self.len() >= self.limits.total {
            Some(Full::Total)
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(Refused { item, reason });
        }

        let item = Single { key, value: item, deadline };
        self.len += 1;
        if self.len == 1 {
            self.single = Some(item);
        } else {
            if let Some(first) = self.single.take() {
                self.line_up(first);
            }
            self.line_up(item);
        }
        Ok(())
    }

    /// Takes the oldest item of the first flow in turn where account, flow and item are eligible; the next turns of its
    /// flow and of its account come after all others'. `None` when there is no such flow.
    ///
    /// Each account and flow that is passed over costs a step and a call; of an account that is not eligible no flow is
    /// looked at. With [`Slots::may_start`](crate::Slots::may_start) and its half for
    /// [accounts](crate::Slots::account_may_start) as conditions these are few: what is passed over holds a slot, and a
    /// flow holds one only while it has a guest.
    #[inline]
    pub fn pop_where(
        &mut self,
        mut account_eligible: impl FnMut(&K::Account) -> bool,
        mut eligible: impl FnMut(&K, &T) -> bool,
    ) -> Option<(K, T)> {
        if let Some(Single { key, value, .. }) = &self.single {
            let is_eligible = account_eligible(key.paid_by()) && eligible(key, value);
            return if is_eligible { self.take_single() } else { None };
        }
        self.pop_turn(account_eligible, eligible)
    }

    /// Does what [`pop_where`](Self::pop_where) does, where all items are in the lists.
    fn pop_turn(
        &mut self,
        mut account_eligible: impl FnMut(&K::Account) -> bool,
        mut eligible: impl FnMut(&K, &T) -> bool,
    ) -> Option<(K, T)> {
        let mut turn = self.turns.front();
        while let Some(account) = turn {
            let mut first = self.accounts[account].front();
            debug_assert!(first.is_some(), "an account is here only with lanes");
            if first.is_some_and(|lane| !account_eligible(self.lanes[lane].key.paid_by())) {
                first = None;
            }
            while let Some(lane) = first {
                let item = self.lanes[lane].items.front().expect("a lane exists only with items");
                if eligible(&self.lanes[lane].key, &self.items[item].value) {
                    self.accounts.move_to_back(&mut self.turns, account);
                    self.lanes.move_to_back(&mut self.accounts[account], lane);
                    return Some(self.take(item));
                }
                first = self.lanes.next(lane);
            }
            turn = self.accounts.next(account);
        }
        None
    }

    /// Takes the oldest item of the first flow in turn.
    pub fn pop(&mut self) -> Option<(K, T)> {
        self.pop_where(|_| true, |_, _| true)
    }

    /// Takes the items whose deadline is `now` or earlier, earliest first (in order of arrival where equal).
    /// Lazy: what the caller does not draw stays queued, so the work done at once can be bounded with `take`.
    pub fn expire(&mut self, now: Time) -> impl Iterator<Item = (K, T)> {
        std::iter::from_fn(move || {
            if let Some(Single { deadline, .. }) = &self.single {
                let is_due = deadline.is_some_and(|deadline| deadline <= now);
                return if is_due { self.take_single() } else { None };
            }
            let &(deadline, _, at) = self.deadlines.first()?;
            (deadline <= now).then(|| self.take(at))
        })
    }

    /// Takes the first item of a flow that is wanted out of turn; looks at those of the flow before it.
    pub fn take_where(&mut self, key: &K, mut is_it: impl FnMut(&T) -> bool) -> Option<T> {
        if let Some(single) = &self.single {
            let is_wanted = single.key == *key && is_it(&single.value);
            return if is_wanted { self.take_single().map(|(_, value)| value) } else { None };
        }
        let mut item = self.lanes[self.lane_of.get(key)?].items.front();
        while let Some(at) = item {
            if is_it(&self.items[at].value) {
                return Some(self.take(at).1);
            }
            item = self.items.next(at);
        }
        None
    }

    /// Drops what is not worth keeping; looks at every item.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        if self.single.as_ref().is_some_and(|single| !keep(&single.value)) {
            self.take_single();
        }
        let mut dropped = Vec::new();
        let mut turn = self.turns.front();
        while let Some(account) = turn {
            let mut lane = self.accounts[account].front();
            while let Some(of_lane) = lane {
                let mut item = self.lanes[of_lane].items.front();
                while let Some(at) = item {
                    if !keep(&self.items[at].value) {
                        dropped.push(at);
                    }
                    item = self.items.next(at);
                }
                lane = self.lanes.next(of_lane);
            }
            turn = self.accounts.next(account);
        }
        for at in dropped {
            self.take(at);
        }
    }

    /// When [`expire`](Self::expire) next has something to do.
    #[inline]
    pub fn next_deadline(&self) -> Option<Time> {
        let single = self.single.as_ref().and_then(|single| single.deadline);
        single.or_else(|| self.deadlines.first().map(|&(deadline, ..)| deadline))
    }

    /// Items waiting.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Items of this flow waiting.
    pub fn len_of(&self, key: &K) -> usize {
        match &self.single {
            Some(single) => usize::from(single.key == *key),
            None => self.lane_of.get(key).map_or(0, |lane| self.lanes[lane].len),
        }
    }

    /// Puts an item behind those of its flow.
    fn line_up(&mut self, item: Single<K, T>) {
        let Single { key, value, deadline } = item;
        let lane = self.lane_of.get(&key).unwrap_or_else(|| self.open_lane(key));
        let deadline = deadline.map(|deadline| {
            self.arrivals += 1;
            (deadline, self.arrivals)
        });
        let Lane { items, len, .. } = &mut self.lanes[lane];
        *len += 1;
        let at = self.items.push_back(items, Item { value, lane, deadline });
        if let Some((deadline, arrival)) = deadline {
            self.deadlines.insert((deadline, arrival, at));
        }
    }

    fn take_single(&mut self) -> Option<(K, T)> {
        let Single { key, value, .. } = self.single.take()?;
        self.len -= 1;
        Some((key, value))
    }

    fn open_lane(&mut self, key: K) -> Handle {
        let account = self.account_of.get(key.paid_by()).unwrap_or_else(|| {
            let account = self.accounts.push_back(&mut self.turns, List::default());
            self.account_of.set(key.paid_by(), Some(account));
            account
        });
        let lane = Lane { key: key.clone(), account, items: List::default(), len: 0 };
        let lane = self.lanes.push_back(&mut self.accounts[account], lane);
        self.lane_of.set(&key, Some(lane));
        lane
    }

    fn take(&mut self, at: Handle) -> (K, T) {
        let lane = self.items[at].lane;
        let Lane { key, account, items, len } = &mut self.lanes[lane];
        let (key, account) = (key.clone(), *account);
        *len -= 1;
        let emptied = *len == 0;
        let item = self.items.remove(items, at);
        self.len -= 1;
        if let Some((deadline, arrival)) = item.deadline {
            self.deadlines.remove(&(deadline, arrival, at));
        }
        if emptied {
            self.lanes.remove(&mut self.accounts[account], lane);
            self.lane_of.set(&key, None);
            if self.accounts[account].front().is_none() {
                self.accounts.remove(&mut self.turns, account);
                self.account_of.set(key.paid_by(), None);
            }
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
        std::iter::from_fn(|| queue.pop()).collect()
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
        assert_eq!(queue.pop_where(|_| true, |&key, _| key != 'a'), Some(('b', 2)));
        assert_eq!(queue.pop_where(|_| true, |_, _| false), None);
        assert_eq!(drain(&mut queue), [('a', 1), ('c', 4), ('b', 3)]);
    }

    #[test]
    fn what_nobody_wants_any_more_leaves_out_of_turn() {
        let mut queue = FairQueue::new(QueueLimits::default());
        for (key, item) in [('a', 1), ('a', 2), ('b', 3), ('a', 4)] {
            queue.push(key, item, Some(ms(u64::from(item)))).unwrap();
        }
        assert_eq!(queue.take_where(&'a', |&item| item == 2), Some(2));
        assert_eq!(queue.take_where(&'a', |&item| item == 3), None, "another flow's");
        assert_eq!(queue.take_where(&'b', |_| true), Some(3));
        assert_eq!(queue.take_where(&'c', |_| true), None);
        assert_eq!(queue.next_deadline(), Some(ms(1)));
        assert_eq!(drain(&mut queue), [('a', 1), ('a', 4)]);
    }

    #[test]
    fn accounts_take_turns_and_within_each_its_flows() {
        let mut queue = FairQueue::new(QueueLimits::default());
        // A thousand names of one account beside one name of another.
        for flow in 0..1000 {
            queue.push(("many", flow), flow, None).unwrap();
        }
        for item in [1, 2] {
            queue.push(("many", 0), 1000 + item, None).unwrap();
        }
        for item in 0..3 {
            queue.push(("one", 0), item, None).unwrap();
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let of_one =
            |(at, ((account, _), _)): (usize, &((&str, u32), u32))| (*account == "one").then_some(at);
        assert_eq!(order.iter().enumerate().filter_map(of_one).collect::<Vec<_>>(), [1, 3, 5]);
        let of_many: Vec<u32> =
            order.iter().filter(|((account, _), _)| *account == "many").map(|(_, item)| *item).collect();
        assert_eq!(of_many, (0..1000).chain([1001, 1002]).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_not_kept_is_forgotten_and_the_rest_keeps_its_order() {
        let mut queue = FairQueue::new(QueueLimits::default());
        for (key, item) in [('a', 1), ('a', 2), ('b', 3), ('c', 4), ('a', 5)] {
            queue.push(key, item, Some(ms(1))).unwrap();
        }
        queue.retain(|item| item % 2 == 1);
        assert_eq!((queue.len(), queue.accounts.len(), queue.deadlines.len()), (3, 2, 3));
        assert_eq!(drain(&mut queue), [('a', 1), ('b', 3), ('a', 5)]);
    }

    #[test]
    fn of_an_account_that_may_not_be_served_no_flow_is_looked_at() {
        let mut queue = FairQueue::new(QueueLimits::default());
        for flow in 0..1000 {
            queue.push(('a', flow), flow, None).unwrap();
        }
        queue.push(('b', 0), 0, None).unwrap();
        let mut looked_at = 0;
        let popped = queue.pop_where(
            |&account| account != 'a',
            |_, _| {
                looked_at += 1;
                true
            },
        );
        assert_eq!((popped, looked_at), (Some((('b', 0), 0)), 1));
    }

    #[test]
    fn the_bound_that_was_hit_is_named_and_the_item_given_back() {
        let mut queue = FairQueue::new(QueueLimits { per_flow: 2, total: 3 });
        queue.push('a', 1, None).unwrap();
        queue.push('a', 2, None).unwrap();
        assert_eq!(queue.push('a', 3, None), Err(Refused { item: 3, reason: Full::Flow }));
        queue.push('b', 4, None).unwrap();
        assert_eq!(queue.push('b', 5, None), Err(Refused { item: 5, reason: Full::Total }));
        queue.pop().unwrap();
        queue.push('b', 5, None).unwrap();
    }

    #[test]
    fn a_queue_without_room_keeps_no_trace_of_the_refused_key() {
        let mut queue = FairQueue::new(QueueLimits { per_flow: 0, total: 1 });
        assert_eq!(queue.push('a', 1, None), Err(Refused { item: 1, reason: Full::Flow }));
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
        assert_eq!(queue.pop(), Some(('a', 1)));
        assert_eq!(queue.next_deadline(), None);
        assert_eq!(drain(&mut queue), [('a', 2)]);
    }

    #[test]
    fn what_idle_keys_held_is_given_back() {
        let mut queue = FairQueue::new(QueueLimits::NONE);
        for key in 0..20_000u32 {
            queue.push(key, key, Some(ms(1))).unwrap();
        }
        for _ in 0..10_000 {
            queue.pop().unwrap();
        }
        assert_eq!(queue.expire(ms(1)).count(), 10_000);
        assert!(
            queue.items.capacity() <= 64
                && queue.lanes.capacity() <= 64
                && queue.accounts.capacity() <= 64
                && queue.lane_of.capacity() <= 64
                && queue.account_of.capacity() <= 64
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
            const LIMITS: QueueLimits = QueueLimits { per_flow: 5, total: 16 };
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
                        let expected = if held == LIMITS.per_flow {
                            Err(Refused { item: number, reason: Full::Flow })
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
                        let popped = queue.pop_where(|_| true, |key, _| eligible(key));
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
                let lanes = model.len() - usize::from(queue.single.is_some());
                prop_assert_eq!((queue.lanes.len(), queue.lane_of.len()), (lanes, lanes));
            }
        }

        /// While an account waits, no other is served twice; the same holds for the flows of an account.
        #[test]
        fn both_levels_take_turns(
            pushes in prop::collection::vec((0..4u8, 0..4u8), 1..60),
            served in prop::collection::vec(any::<bool>(), 0..120),
        ) {
            let mut queue = FairQueue::new(QueueLimits::NONE);
            let mut pushes = pushes.into_iter().enumerate();
            let mut waiting: BTreeMap<(u8, u8), usize> = BTreeMap::new();
            let mut accounts_passed: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
            let mut flows_passed: BTreeMap<(u8, u8), Vec<u8>> = BTreeMap::new();
            for pop in served {
                if !pop {
                    if let Some((number, key)) = pushes.next() {
                        queue.push(key, number, None).unwrap();
                        *waiting.entry(key).or_default() += 1;
                        accounts_passed.entry(key.0).or_default();
                        flows_passed.entry(key).or_default();
                    }
                    continue;
                }
                let Some((key, _)) = queue.pop() else {
                    prop_assert!(waiting.is_empty());
                    continue;
                };
                let left = waiting.get_mut(&key).unwrap();
                *left -= 1;
                if *left == 0 {
                    waiting.remove(&key);
                }
                accounts_passed.remove(&key.0);
                flows_passed.remove(&key);
                for (account, passed) in &mut accounts_passed {
                    prop_assert!(!passed.contains(&key.0), "{} twice while {} waited", key.0, account);
                    passed.push(key.0);
                }
                for ((account, flow), passed) in &mut flows_passed {
                    if *account == key.0 {
                        prop_assert!(!passed.contains(&key.1), "{} twice while {} waited", key.1, flow);
                        passed.push(key.1);
                    }
                }
                if waiting.keys().any(|waiting| waiting.0 == key.0) {
                    accounts_passed.insert(key.0, Vec::new());
                }
                if waiting.contains_key(&key) {
                    flows_passed.insert(key, Vec::new());
                }
                prop_assert_eq!(queue.len(), waiting.values().sum::<usize>());
                prop_assert_eq!(queue.accounts.len(), queue.account_of.len());
            }
        }
    }
}
