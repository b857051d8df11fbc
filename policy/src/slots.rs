//! Who holds the pool's slots.
//!
//! A started guest holds a slot of its worker until it ends, even while it sleeps, so slots and not threads
//! are what one client can take from the others. Flows and accounts are held to a share of all slots together rather
//! than to a share of each worker's, so that the quota does not decide where a guest runs.
//!
//! Both shares are dynamic thresholds (A. K. Choudhury and E. L. Hahne, "Dynamic Queue Length Thresholds for
//! Shared-Memory Packet Switches", IEEE/ACM Transactions on Networking 6(2), 1998): nobody holds a larger part of what
//! is then free than its share is of the whole. So however many take all that they may, some is left for the next.
//!
//! All operations are O(1).

use std::fmt;

use crate::table::{Counted, Table};

/// Parts of a whole, in percent; more than 100 is as good as 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// What one flow may hold. Default: 50. With half of it taken by one flow, the account's others still find some.
    pub flow: usize,
    /// What one account may hold, all its flows together. Default: 75. With three quarters taken by all clients of one
    /// address, every other account still finds a quarter.
    pub account: usize,
}

impl Default for Shares {
    fn default() -> Self {
        Self { flow: 50, account: crate::DEFAULT_ACCOUNT_SHARE }
    }
}

/// Why a guest cannot start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// All slots of this worker are taken.
    Worker,
    /// The flow holds all the slots that one flow may.
    Flow,
    /// The account holds all the slots that one account may.
    Account,
}

impl fmt::Display for NoSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoSlot::Worker => "all of the worker's slots are taken",
            NoSlot::Flow => "the client's share of the slots is used up",
            NoSlot::Account => "the share of the client's user or address is used up",
        })
    }
}

impl std::error::Error for NoSlot {}

/// What one flow or one account may hold.
#[derive(Clone, Copy, Debug)]
struct Quota {
    percent: usize,
    slots: usize,
}

impl Quota {
    /// This part of `total`, rounded down, but always one.
    fn of_flow(total: usize, percent: usize) -> Self {
        let percent = percent.min(100);
        Self { percent, slots: part_of(total, percent).max(1) }
    }

    /// All of `total` but the rest to this part, rounded down: two slots are both used where there is one account.
    fn of_account(total: usize, percent: usize) -> Self {
        let percent = percent.min(100);
        Self { percent, slots: total - part_of(total, 100 - percent) }
    }

    /// Whether who holds this many may have one more while `free` are free. A first slot is never denied while one is
    /// free.
    #[inline]
    fn allows(self, held: usize, free: usize) -> bool {
        let within = || held.saturating_mul(100 - self.percent) < free.saturating_mul(self.percent);
        held == 0 || (held < self.slots && within())
    }
}

fn part_of(total: usize, percent: usize) -> usize {
    // In two parts, because the product may not fit.
    total / 100 * percent + total % 100 * percent / 100
}

/// The pool slots of all workers, and who holds how many.
#[derive(Debug)]
pub struct Slots<K: Counted> {
    free: Vec<usize>,
    per_worker: usize,
    total_free: usize,
    flow_quota: Quota,
    account_quota: Quota,
    of_flow: K::Flows<usize>,
    of_account: K::Accounts<usize>,
}

impl<K: Counted> Slots<K> {
    /// `workers` with `per_worker` free slots each.
    pub fn new(workers: usize, per_worker: usize, shares: Shares) -> Self {
        let total = workers * per_worker;
        Self {
            free: vec![per_worker; workers],
            per_worker,
            total_free: total,
            flow_quota: Quota::of_flow(total, shares.flow),
            account_quota: Quota::of_account(total, shares.account),
            of_flow: Default::default(),
            of_account: Default::default(),
        }
    }

    /// Whether the flow may start one more guest, on a worker that has a free slot: within its own share, and within
    /// that of its account.
    pub fn may_start(&self, key: &K) -> bool {
        self.account_may_start(key.paid_by()) && self.flow_may_start(key)
    }

    /// The half of [`may_start`](Self::may_start) that is the account's.
    #[inline]
    pub fn account_may_start(&self, account: &K::Account) -> bool {
        self.account_quota.allows(self.held_by_account(account), self.total_free)
    }

    /// The half of [`may_start`](Self::may_start) that is the flow's.
    #[inline]
    pub fn flow_may_start(&self, key: &K) -> bool {
        self.flow_quota.allows(self.held_by(key), self.total_free)
    }

    /// Takes a slot of this worker for the flow.
    ///
    /// # Errors
    /// [`NoSlot`] when the worker has none free, or the flow or its account holds all that it may.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn try_acquire(&mut self, worker: usize, key: &K) -> Result<(), NoSlot> {
        if self.free[worker] == 0 {
            return Err(NoSlot::Worker);
        }
        if !self.account_may_start(key.paid_by()) {
            return Err(NoSlot::Account);
        }
        if !self.flow_may_start(key) {
            return Err(NoSlot::Flow);
        }
        self.acquire(worker, key);
        Ok(())
    }

    /// Takes a slot of this worker, which has one free, for a flow that [may start](Self::may_start).
    #[inline]
    pub(crate) fn acquire(&mut self, worker: usize, key: &K) {
        debug_assert!(self.may_start(key), "a slot within the shares");
        self.of_flow.change(key, |held| *held += 1);
        self.of_account.change(key.paid_by(), |held| *held += 1);
        self.free[worker] -= 1;
        self.total_free -= 1;
    }

    /// Returns a slot that [`try_acquire`](Self::try_acquire) gave.
    ///
    /// # Panics
    /// If the flow holds none, or the worker has none out: the driver's books are wrong, and a slot that is
    /// counted twice would be worse.
    #[inline(always)]
    pub fn release(&mut self, worker: usize, key: &K) {
        let free = &mut self.free[worker];
        assert!(*free < self.per_worker, "a slot released that worker {worker} did not give");
        *free += 1;
        self.total_free += 1;
        self.of_flow.change(key, |held| {
            *held = held.checked_sub(1).expect("a slot released by a key that holds none");
        });
        self.of_account.change(key.paid_by(), |held| *held -= 1);
    }

    /// Free slots of this worker.
    ///
    /// # Panics
    /// If there is no such worker.
    #[inline]
    pub fn free(&self, worker: usize) -> usize {
        self.free[worker]
    }

    /// Slots that the flow holds on all workers.
    #[inline]
    pub fn held_by(&self, key: &K) -> usize {
        self.of_flow.get(key)
    }

    /// Slots that the account holds, all its flows together.
    #[inline]
    pub fn held_by_account(&self, account: &K::Account) -> usize {
        self.of_account.get(account)
    }

    /// Slots that one flow may hold.
    pub fn quota(&self) -> usize {
        self.flow_quota.slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flow_share(flow: usize) -> Shares {
        Shares { flow, account: 100 }
    }

    #[test]
    fn the_quota_is_a_share_of_all_slots_and_at_least_one() {
        for (workers, per_worker, percent, quota) in [
            (2, 100, 50, 100),
            (4, 25, 33, 33),
            (1, 3, 50, 1),
            (1, 1, 50, 1),
            (1, 0, 50, 1),
            (2, 10, 0, 1),
            (2, 10, 100, 20),
            (2, 10, 900, 20),
            (1, usize::MAX, 100, usize::MAX),
        ] {
            assert_eq!(
                Slots::<u8>::new(workers, per_worker, flow_share(percent)).quota(),
                quota,
                "{workers} × {per_worker}"
            );
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut slots = Slots::new(2, 2, flow_share(75));
        for worker in [0, 0, 1] {
            slots.try_acquire(worker, &'a').unwrap();
        }
        assert!(!slots.may_start(&'a') && slots.may_start(&'b'));
        assert_eq!(slots.try_acquire(1, &'a'), Err(NoSlot::Flow));
        assert_eq!(slots.try_acquire(0, &'b'), Err(NoSlot::Worker));
        slots.release(0, &'a');
        slots.try_acquire(0, &'b').unwrap();
        assert!(slots.may_start(&'a'));
    }

    #[test]
    #[should_panic(expected = "a key that holds none")]
    fn a_slot_cannot_be_released_for_another() {
        let mut slots = Slots::new(1, 2, flow_share(100));
        slots.try_acquire(0, &'a').unwrap();
        slots.release(0, &'b');
    }

    #[test]
    fn however_many_keys_take_all_they_may_some_is_left() {
        let mut slots = Slots::new(1, 128, flow_share(50));
        let mut held = Vec::new();
        for key in 0..6 {
            while slots.try_acquire(0, &key).is_ok() {}
            held.push(slots.held_by(&key));
        }
        assert_eq!(held, [64, 32, 16, 8, 4, 2]);
        assert_eq!(slots.free(0), 2);
    }

    #[test]
    fn however_many_flows_an_account_has_it_leaves_some_for_the_next() {
        let mut slots = Slots::new(1, 128, Shares::default());
        // A thousand names, each with as many sleepers as it can start.
        let mut take_all = |account: char| {
            for flow in 0..1000 {
                while slots.try_acquire(0, &(account, flow)).is_ok() {}
            }
            assert_eq!(slots.try_acquire(0, &(account, 1000)), Err(NoSlot::Account));
            slots.held_by_account(&account)
        };
        assert_eq!(['a', 'b', 'c'].map(&mut take_all), [96, 24, 6]);
        slots.try_acquire(0, &('d', 0)).unwrap();
    }

    #[test]
    fn of_few_slots_one_account_may_have_all() {
        for (slots, held) in [(1, 1), (2, 2), (3, 3), (4, 3), (8, 6)] {
            let mut few = Slots::new(1, slots, Shares::default());
            let taken = (0..10).filter(|flow| few.try_acquire(0, &('a', *flow)).is_ok()).count();
            assert_eq!(taken, held, "of {slots}");
        }
    }

    #[test]
    fn a_flow_leaves_some_for_the_next_one_of_its_account() {
        let mut slots = Slots::new(1, 128, Shares::default());
        while slots.try_acquire(0, &('a', 0)).is_ok() {}
        assert_eq!(slots.try_acquire(0, &('a', 0)), Err(NoSlot::Flow));
        while slots.try_acquire(0, &('a', 1)).is_ok() {}
        assert_eq!([0, 1].map(|flow| slots.held_by(&('a', flow))), [64, 32]);
    }

    proptest! {
        #[test]
        fn quota_and_capacity_are_never_exceeded(
            percent in 0..=100usize,
            steps in prop::collection::vec((any::<bool>(), 0..3usize, 0..5u8), 0..200),
        ) {
            const PER_WORKER: usize = 4;
            let mut slots = Slots::new(3, PER_WORKER, flow_share(percent));
            let mut out: Vec<(usize, u8)> = Vec::new();
            for (acquire, worker, key) in steps {
                let of_worker = out.iter().filter(|slot| slot.0 == worker).count();
                let of_key = out.iter().filter(|slot| slot.1 == key).count();
                let free = 3 * PER_WORKER - out.len();
                let may = of_key == 0 || (of_key < slots.quota() && of_key * (100 - percent) < free * percent);
                prop_assert_eq!(slots.may_start(&key), may);
                if acquire {
                    let granted = slots.try_acquire(worker, &key).is_ok();
                    prop_assert_eq!(granted, of_worker < PER_WORKER && may);
                    out.extend(granted.then_some((worker, key)));
                } else if let Some(at) = out.iter().position(|&slot| slot == (worker, key)) {
                    out.swap_remove(at);
                    slots.release(worker, &key);
                }
                for worker in 0..3 {
                    let taken = out.iter().filter(|slot| slot.0 == worker).count();
                    prop_assert_eq!(slots.free(worker), PER_WORKER - taken);
                }
            }
            for (worker, key) in out {
                slots.release(worker, &key);
            }
            prop_assert!(slots.of_flow.is_empty() && slots.of_account.is_empty(), "idle keys are forgotten");
        }
    }
}
