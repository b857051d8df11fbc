//! Who holds the pool's slots.
//!
//! A started guest holds a slot of its worker until it ends, even while it sleeps, so slots and not threads
//! are what one key can take from the others. A key is held to a share of all slots together rather than to a
//! share of each worker's, so that the quota does not decide where a guest runs.
//!
//! All operations are O(1).

use std::fmt;
use std::hash::Hash;

use crate::key_map::KeyMap;

/// The share of all slots, in percent, that one key may hold by default: with half of them taken by one key's
/// sleeping guests, every other key still finds the other half.
pub const DEFAULT_MAX_SHARE_PERCENT: usize = 50;

/// Why a guest cannot start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// All slots of this worker are taken.
    Worker,
    /// The key holds all the slots that one key may.
    Quota,
}

impl fmt::Display for NoSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoSlot::Worker => "all of the worker's slots are taken",
            NoSlot::Quota => "the client's share of the slots is used up",
        })
    }
}

impl std::error::Error for NoSlot {}

/// The pool slots of all workers, and who holds how many.
#[derive(Debug)]
pub struct Slots<K> {
    free: Vec<usize>,
    per_worker: usize,
    total_free: usize,
    percent: usize,
    quota: usize,
    held: KeyMap<K, usize>,
}

impl<K: Clone + Eq + Hash> Slots<K> {
    /// `workers` with `per_worker` free slots each. One key may hold `max_share_percent` of them all (more
    /// than 100 is as good as 100), rounded down, but always one.
    pub fn new(workers: usize, per_worker: usize, max_share_percent: usize) -> Self {
        let total = workers * per_worker;
        // In two parts, because the product may not fit.
        let percent = max_share_percent.min(100);
        let share = total / 100 * percent + total % 100 * percent / 100;
        Self {
            free: vec![per_worker; workers],
            per_worker,
            total_free: total,
            percent,
            quota: share.max(1),
            held: KeyMap::new(),
        }
    }

    /// Whether the key may start one more guest, on a worker that has a free slot: within its quota, and holding no
    /// larger a part of what is then free than of the whole (dynamic thresholds: A. K. Choudhury and E. L. Hahne,
    /// IEEE/ACM Transactions on Networking 6(2), 1998). So however many keys take all that they may, some is left for
    /// the next; a first slot is never denied while one is free.
    pub fn may_start(&self, key: &K) -> bool {
        self.allows(self.held_by(key))
    }

    fn allows(&self, held: usize) -> bool {
        let free = self.total_free;
        let within =
            |held: usize| held.saturating_mul(100 - self.percent) < free.saturating_mul(self.percent);
        held == 0 || (held < self.quota && within(held))
    }

    /// Takes a slot of this worker for the key.
    ///
    /// # Errors
    /// [`NoSlot`] when the worker has none free or the key has its full quota.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn try_acquire(&mut self, worker: usize, key: &K) -> Result<(), NoSlot> {
        let may = self.may_start(key);
        let free = &mut self.free[worker];
        if *free == 0 {
            return Err(NoSlot::Worker);
        }
        match self.held.get_mut(key) {
            Some(_) if !may => return Err(NoSlot::Quota),
            Some(held) => *held += 1,
            None => self.held.insert(key.clone(), 1),
        }
        *free -= 1;
        self.total_free -= 1;
        Ok(())
    }

    /// Returns a slot that [`try_acquire`](Self::try_acquire) gave.
    ///
    /// # Panics
    /// If the key holds none, or the worker has none out: the driver's books are wrong, and a slot that is
    /// counted twice would be worse.
    pub fn release(&mut self, worker: usize, key: &K) {
        let free = &mut self.free[worker];
        assert!(*free < self.per_worker, "a slot released that worker {worker} did not give");
        let held = self.held.get_mut(key).expect("a slot released by a key that holds none");
        *free += 1;
        self.total_free += 1;
        *held -= 1;
        if *held == 0 {
            self.held.remove(key);
        }
    }

    /// Free slots of this worker.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn free(&self, worker: usize) -> usize {
        self.free[worker]
    }

    /// Slots that the key holds on all workers.
    pub fn held_by(&self, key: &K) -> usize {
        self.held.get(key).copied().unwrap_or(0)
    }

    /// Slots that one key may hold.
    pub fn quota(&self) -> usize {
        self.quota
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
                Slots::<u8>::new(workers, per_worker, percent).quota(),
                quota,
                "{workers} × {per_worker}"
            );
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut slots = Slots::new(2, 2, 75);
        for worker in [0, 0, 1] {
            slots.try_acquire(worker, &'a').unwrap();
        }
        assert!(!slots.may_start(&'a') && slots.may_start(&'b'));
        assert_eq!(slots.try_acquire(1, &'a'), Err(NoSlot::Quota));
        assert_eq!(slots.try_acquire(0, &'b'), Err(NoSlot::Worker));
        slots.release(0, &'a');
        slots.try_acquire(0, &'b').unwrap();
        assert!(slots.may_start(&'a'));
    }

    #[test]
    #[should_panic(expected = "a key that holds none")]
    fn a_slot_cannot_be_released_for_another() {
        let mut slots = Slots::new(1, 2, 100);
        slots.try_acquire(0, &'a').unwrap();
        slots.release(0, &'b');
    }

    #[test]
    fn however_many_keys_take_all_they_may_some_is_left() {
        let mut slots = Slots::new(1, 128, 50);
        let mut held = Vec::new();
        for key in 0..6 {
            while slots.try_acquire(0, &key).is_ok() {}
            held.push(slots.held_by(&key));
        }
        assert_eq!(held, [64, 32, 16, 8, 4, 2]);
        assert_eq!(slots.free(0), 2);
    }

    proptest! {
        #[test]
        fn quota_and_capacity_are_never_exceeded(
            percent in 0..=100usize,
            steps in prop::collection::vec((any::<bool>(), 0..3usize, 0..5u8), 0..200),
        ) {
            const PER_WORKER: usize = 4;
            let mut slots = Slots::new(3, PER_WORKER, percent);
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
            prop_assert_eq!(slots.held.len(), 0, "idle keys are forgotten");
        }
    }
}
