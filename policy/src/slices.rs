//! Whose slice is next, on one worker.
//!
//! **Least used first, to a factor of two.** How long a guest will run is unknown, but who has used little
//! CPU so far is likely to be done soon. Guests are put into levels by the CPU time they have used, each
//! level twice as wide as the one before; the lowest level goes first, and within a level who has been
//! runnable longest. This is the multilevel feedback queue of CTSS (F. J. Corbató et al., "An Experimental
//! Time-Sharing System", AFIPS SJCC 1962), an approximation of foreground-background scheduling (L.
//! Kleinrock, Queueing Systems II, 1976, chapter 4). A request that has not started yet has used nothing
//! and belongs to the lowest level, where starting and resuming alternate: neither a crowd of newcomers nor
//! guests that wake all the time hold the other up.
//!
//! **Equal turns for the endless.** Past [`RunQueue::LONG`] all are in the last level, whatever they have
//! used, and go round. Were they ordered by use as well, a newcomer would keep older ones waiting until it
//! had caught up with them: minutes.
//!
//! **No starvation.** A guest that has been runnable for `max_wait` without a slice is overdue, and the
//! longest waiting is served out of turn. After a slice for the longest waiting guest, in turn or not, none
//! is given out of turn for [`RunQueue::REST`] times its length: the overdue are sure of a fifth of the CPU,
//! the short keep the rest, and a short one that arrives in such a slice waits for this one alone, however
//! many endless guests there are. With n runnable guests and slices of at most s, each is served within
//! `max_wait + (n + 1) × (REST + 2) × s`.
//!
//! All operations are O(1), or O(levels); in steady state none allocates.

use crate::Time;
use crate::linked_slab::{Handle, LinkedSlab, List};

/// A guest's number on its worker: small, as the number of its slot is, for the run queue keeps a table by it.
pub type GuestId = usize;

/// What a worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Take a request from the queue and give it its first slice. If another worker was faster, ask again.
    StartNew,
    /// Give this guest a slice. It is no longer in the run queue.
    Resume(GuestId),
    /// Nothing to do until a request arrives or a guest wakes.
    Idle,
}

/// The level of those that have used less than [`RunQueue::SHORT`].
const LOWEST: usize = 0;
/// 100 µs doubled seven times is `LONG`; beyond is the last level.
const LEVELS: usize = 9;

#[derive(Debug)]
struct Runnable {
    id: GuestId,
    level: usize,
    since: Time,
}

/// The runnable guests of one worker; see the [module](self) for how it chooses.
#[derive(Debug)]
pub struct RunQueue {
    max_wait: Time,
    runnable: LinkedSlab<Runnable>,
    /// Each in the order in which its guests became runnable.
    levels: [List; LEVELS],
    /// A bit for each level, set where it has guests: most have none.
    occupied: u16,
    by_id: Vec<Option<Handle>>,
    /// Which is next where starting and resuming alternate.
    started_last: bool,
    /// When the slice of the guest that had waited longest began, while it lasts.
    longest_began: Option<Time>,
    /// No slice is given out of turn before.
    rest_until: Time,
}

impl RunQueue {
    /// How long a guest may be runnable without a slice before it is overdue, by default. Well above the few
    /// milliseconds that a burst of short requests takes, and well below what a computation would notice.
    pub const DEFAULT_MAX_WAIT: Time = Time::from_millis(20);

    /// A guest that has used less than this shares the lowest level with requests that have not started.
    pub const SHORT: Time = Time::from_micros(100);

    /// A guest that has used this much, 12.8 ms, takes equal turns with all others that have.
    pub const LONG: Time = Time::from_micros(100 << (LEVELS - 2));

    /// How many times the length of the longest waiting guest's slice passes before one is served out of
    /// turn.
    pub const REST: u32 = 4;

    /// A run queue without guests, in which one is overdue after `max_wait`.
    pub fn new(max_wait: Time) -> Self {
        Self {
            max_wait,
            runnable: LinkedSlab::new(),
            levels: [List::default(); LEVELS],
            occupied: 0,
            by_id: Vec::new(),
            started_last: false,
            longest_began: None,
            rest_until: Time::ZERO,
        }
    }

    /// A guest is runnable: it woke, or its slice ended before it was done. `used` is the CPU time of all its
    /// slices, host calls and polling included. If it is in the run queue already it keeps its place.
    pub fn insert(&mut self, id: GuestId, used: Time, now: Time) {
        if id >= self.by_id.len() {
            self.by_id.resize(id + 1, None);
        }
        if self.by_id[id].is_none() {
            let level = level_of(used);
            let runnable = Runnable { id, level, since: now };
            self.by_id[id] = Some(self.runnable.push_back(&mut self.levels[level], runnable));
            self.occupied |= 1 << level;
        }
    }

    /// The guest is not to run any more; says whether it was in the run queue.
    pub fn remove(&mut self, id: GuestId) -> bool {
        let at = self.by_id.get(id).copied().flatten();
        at.map(|at| self.take(at)).is_some()
    }

    /// What to do next. `can_start` says that a request waits that may start, and that the worker has a slot
    /// for it.
    ///
    /// To be called when the slice before has ended: the time between two calls is what the first one's
    /// choice cost.
    pub fn choose(&mut self, now: Time, can_start: bool) -> Choice {
        if let Some(began) = self.longest_began.take() {
            self.rest_until = now + now.saturating_sub(began) * Self::REST;
        }
        let (Some((level, first)), Some((since, longest))) = (self.fronts().next(), self.longest_waiting())
        else {
            return if can_start { Choice::StartNew } else { Choice::Idle };
        };
        let start = can_start && (level > LOWEST || !self.started_last);
        let out_of_turn = now >= self.rest_until && now.saturating_sub(since) >= self.max_wait;
        self.started_last = start && !out_of_turn;
        if self.started_last {
            return Choice::StartNew;
        }
        let next = if out_of_turn { longest } else { first };
        self.longest_began = (next == longest).then_some(now);
        Choice::Resume(self.take(next))
    }

    /// The guest whose slice is next where there is nothing to start.
    pub fn next(&mut self, now: Time) -> Option<GuestId> {
        match self.choose(now, false) {
            Choice::Resume(id) => Some(id),
            Choice::StartNew | Choice::Idle => None,
        }
    }

    /// Runnable guests.
    pub fn len(&self) -> usize {
        self.runnable.len()
    }

    /// Whether no guest is runnable.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The longest runnable guest of each level that has one, lowest level first.
    fn fronts(&self) -> impl Iterator<Item = (usize, Handle)> {
        let mut left = self.occupied;
        std::iter::from_fn(move || {
            let level = left.trailing_zeros() as usize;
            let front = self.levels.get(level)?.front()?;
            left &= left - 1;
            Some((level, front))
        })
    }

    fn longest_waiting(&self) -> Option<(Time, Handle)> {
        self.fronts().map(|(_, at)| (self.runnable[at].since, at)).min()
    }

    fn take(&mut self, at: Handle) -> GuestId {
        let level = self.runnable[at].level;
        let Runnable { id, .. } = self.runnable.remove(&mut self.levels[level], at);
        if self.levels[level].front().is_none() {
            self.occupied &= !(1 << level);
        }
        self.by_id[id] = None;
        id
    }
}

fn level_of(used: Time) -> usize {
    // Microseconds overflow 64 bits after half a million years.
    let shorts = used.as_micros() as u64 / RunQueue::SHORT.as_micros() as u64;
    ((u64::BITS - shorts.leading_zeros()) as usize).min(LEVELS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn us(us: u64) -> Time {
        Time::from_micros(us)
    }

    fn ms(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    fn queue() -> RunQueue {
        RunQueue::new(RunQueue::DEFAULT_MAX_WAIT)
    }

    #[test]
    fn levels_double_and_end() {
        for (used, level) in [
            (0, 0),
            (99, 0),
            (100, 1),
            (199, 1),
            (200, 2),
            (800, 4),
            (12_799, 7),
            (12_800, 8),
            (60_000_000, 8),
        ] {
            assert_eq!(level_of(us(used)), level, "{used} µs");
        }
        assert_eq!(level_of(RunQueue::LONG), LEVELS - 1);
        assert_eq!(level_of(RunQueue::LONG - us(1)), LEVELS - 2);
        assert_eq!(level_of(Time::from_secs(1 << 40)), LEVELS - 1);
    }

    #[test]
    fn least_used_goes_first_and_equals_in_order() {
        let mut queue = queue();
        for (id, used) in [(7, ms(500)), (3, ms(2)), (4, us(10)), (1, ms(3)), (0, ms(300)), (2, us(50))] {
            queue.insert(id, used, ms(1));
        }
        assert_eq!(queue.len(), 6);
        let order: Vec<GuestId> = std::iter::from_fn(|| queue.next(ms(2))).collect();
        assert_eq!(order, [4, 2, 3, 1, 7, 0]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_new_request_goes_before_whoever_has_computed() {
        let mut queue = queue();
        assert_eq!(queue.choose(ms(0), false), Choice::Idle);
        assert_eq!(queue.choose(ms(0), true), Choice::StartNew);
        queue.insert(0, ms(1), ms(1));
        assert_eq!(queue.choose(ms(1), true), Choice::StartNew);
        assert_eq!(queue.choose(ms(1), true), Choice::StartNew);
        assert_eq!(queue.choose(ms(1), false), Choice::Resume(0));
    }

    #[test]
    fn starting_alternates_with_resuming_the_short() {
        let mut queue = queue();
        for id in 0..3 {
            queue.insert(id, us(5), ms(0));
        }
        let choices: Vec<Choice> = (0..6).map(|_| queue.choose(ms(0), true)).collect();
        use Choice::{Resume, StartNew};
        assert_eq!(choices, [StartNew, Resume(0), StartNew, Resume(1), StartNew, Resume(2)]);
    }

    #[test]
    fn a_guest_woken_twice_is_there_once_and_a_removed_one_not_at_all() {
        let mut queue = queue();
        queue.insert(5, ms(0), ms(0));
        queue.insert(6, ms(0), ms(0));
        queue.insert(5, ms(9), ms(1));
        assert!(queue.remove(6) && !queue.remove(6) && !queue.remove(99));
        assert_eq!(queue.next(ms(1)), Some(5));
        assert_eq!(queue.next(ms(1)), None);
    }

    #[test]
    fn an_overdue_guest_goes_first_but_not_at_once_again() {
        let mut queue = queue();
        queue.insert(0, ms(100), ms(0));
        queue.insert(1, ms(100), ms(1));
        assert_eq!(queue.choose(ms(19), true), Choice::StartNew);
        assert_eq!(queue.choose(ms(21), true), Choice::Resume(0));
        // It took 2 ms; the other one is overdue too, and waits 8 more.
        assert_eq!(queue.choose(ms(23), true), Choice::StartNew);
        assert_eq!(queue.choose(ms(30), true), Choice::StartNew);
        assert_eq!(queue.choose(ms(31), true), Choice::Resume(1));
    }

    /// A worker in virtual time.
    struct Worker {
        queue: RunQueue,
        now: Time,
        used: Vec<Time>,
        slice: Time,
    }

    impl Worker {
        fn with_endless(guests: usize, slice: Time) -> Self {
            let mut queue = queue();
            let used = vec![ms(100); guests];
            for (id, &used) in used.iter().enumerate() {
                queue.insert(id, used, Time::ZERO);
            }
            Self { queue, now: Time::ZERO, used, slice }
        }

        fn resume(&mut self, id: GuestId) {
            self.now += self.slice;
            self.used[id] += self.slice;
            self.queue.insert(id, self.used[id], self.now);
        }

        /// What the endless guests got, and the difference between the one with most and the one with least.
        fn endless(&self) -> (Time, Time) {
            let total = self.used.iter().map(|&used| used - ms(100)).sum();
            (total, *self.used.iter().max().unwrap() - *self.used.iter().min().unwrap())
        }
    }

    #[test]
    fn endless_guests_survive_a_flood_that_would_take_all() {
        for endless in [1, 8, 32] {
            let mut worker = Worker::with_endless(endless, ms(1));
            while worker.now < ms(10_000) {
                match worker.queue.choose(worker.now, true) {
                    Choice::StartNew => worker.now += us(25),
                    Choice::Resume(id) => worker.resume(id),
                    Choice::Idle => unreachable!(),
                }
            }
            let (total, difference) = worker.endless();
            let percent = total.as_millis() / 100;
            // A single one is overdue only every 20 ms.
            let expected = if endless == 1 { 4..=5 } else { 19..=20 };
            assert!(expected.contains(&percent), "{endless} endless: {percent} %");
            assert!(difference <= ms(1), "{endless} endless: {difference:?} apart");
        }
    }

    #[test]
    fn short_requests_hardly_notice_endless_guests() {
        for (endless, every, slice) in
            [(1, 500, 1000), (8, 50, 1000), (32, 500, 1000), (32, 50, 1000), (200, 50, 250)]
        {
            let mut worker = Worker::with_endless(endless, us(slice));
            let mut arrivals = (1..).map(|number| us(every * number)).peekable();
            let mut waiting = VecDeque::new();
            let mut longest = Time::ZERO;
            while worker.now < ms(5000) {
                waiting.extend(std::iter::from_fn(|| arrivals.next_if(|&due| due <= worker.now)));
                match worker.queue.choose(worker.now, !waiting.is_empty()) {
                    Choice::StartNew => {
                        worker.now += us(10);
                        longest = longest.max(worker.now - waiting.pop_front().unwrap());
                    }
                    Choice::Resume(id) => worker.resume(id),
                    Choice::Idle => unreachable!(),
                }
            }
            // One slice that was running, and those that arrived meanwhile.
            assert!(longest <= us(slice) * 3 / 2, "{endless} endless, one every {every} µs: {longest:?}");
            let (total, difference) = worker.endless();
            assert!(total >= ms(5000) * 7 / 10, "{endless} endless: {total:?}");
            assert!(difference <= us(2 * slice), "{endless} endless: {difference:?} apart");
        }
    }

    #[test]
    fn a_newcomer_does_not_keep_older_guests_waiting_until_it_has_caught_up() {
        let mut worker = Worker::with_endless(4, ms(1));
        worker.used.push(Time::ZERO);
        worker.queue.insert(4, Time::ZERO, Time::ZERO);
        while worker.now < ms(500) {
            let id = worker.queue.next(worker.now).unwrap();
            worker.resume(id);
        }
        let newcomer = worker.used[4];
        assert!(newcomer >= ms(100) && newcomer <= ms(115), "a fifth, and its first 13 ms: {newcomer:?}");
    }

    proptest! {
        /// Each runnable guest gets a slice within the documented bound, whatever else wants the worker, and
        /// what is given out of turn leaves its share to the others.
        #[test]
        fn every_guest_is_served_in_time(
            used in prop::collection::vec(0..30_000u64, 1..20),
            slices in prop::collection::vec((1..=1000u64, 0..100u8), 1..3000),
        ) {
            const SLICE: Time = Time::from_micros(1000);
            let mut queue = queue();
            let mut used: Vec<Option<Time>> = used.into_iter().map(|used| Some(us(used))).collect();
            let mut since = vec![Some(Time::ZERO); used.len()];
            for (id, used) in used.iter().enumerate() {
                queue.insert(id, used.unwrap(), Time::ZERO);
            }
            let slots = used.len();
            let bound = RunQueue::DEFAULT_MAX_WAIT + SLICE * (slots as u32 + 1) * (RunQueue::REST + 2);
            let mut now = Time::ZERO;
            let mut out_of_turn = Time::ZERO;
            for (length, fate) in slices {
                // New requests wait all the time; every other one needs a slot of its own for more than one
                // slice.
                let free = used.iter().position(Option::is_none);
                let choice = queue.choose(now, true);
                let length = us(length);
                let began = now;
                now += length;
                match choice {
                    Choice::StartNew => {
                        if let Some(id) = free.filter(|_| fate % 2 == 0) {
                            used[id] = Some(length);
                            since[id] = Some(now);
                            queue.insert(id, length, now);
                        }
                    }
                    Choice::Resume(id) => {
                        let waited = began - since[id].take().expect("only runnable guests are resumed");
                        prop_assert!(waited <= bound, "{:?} of {:?}", waited, bound);
                        // New requests wait, so it is not the turn of any but the short.
                        if used[id].unwrap() >= RunQueue::SHORT {
                            out_of_turn += length;
                        }
                        // A few end, the others go on.
                        used[id] = used[id].filter(|_| fate >= 5).map(|used| used + length);
                        if let Some(used) = used[id] {
                            since[id] = Some(now);
                            queue.insert(id, used, now);
                        }
                    }
                    Choice::Idle => prop_assert!(false, "idle while requests wait"),
                }
                let longest = since.iter().flatten().map(|&since| now - since).max().unwrap_or_default();
                prop_assert!(longest <= bound + SLICE, "{:?} of {:?}", longest, bound);
                prop_assert_eq!(queue.len(), since.iter().flatten().count());
                prop_assert!(out_of_turn <= now / (RunQueue::REST + 1) + SLICE);
            }
        }

        /// Against a plain list: nothing lost or doubled, the lowest level first unless one is overdue, first
        /// in first out within a level.
        #[test]
        fn chooses_as_specified(
            steps in prop::collection::vec(
                (0..4u8, 0..12usize, 0..20_000u64, 0..4000u64, any::<bool>()),
                0..300,
            ),
        ) {
            let mut queue = queue();
            let mut model: Vec<(GuestId, usize, Time)> = Vec::new();
            let mut now = Time::ZERO;
            for (step, id, used, wait, can_start) in steps {
                now += us(wait);
                let known = model.iter().position(|guest| guest.0 == id);
                match step {
                    0 | 1 => {
                        queue.insert(id, us(used), now);
                        if known.is_none() {
                            model.push((id, level_of(us(used)), now));
                        }
                    }
                    2 => prop_assert_eq!(queue.remove(id), known.map(|at| model.remove(at)).is_some()),
                    _ => {
                        let lowest = model.iter().min_by_key(|guest| guest.1).copied();
                        match queue.choose(now, can_start) {
                            Choice::Idle => prop_assert!(model.is_empty() && !can_start),
                            Choice::StartNew => prop_assert!(can_start),
                            Choice::Resume(id) => {
                                let at = model.iter().position(|guest| guest.0 == id).unwrap();
                                let guest = model.remove(at);
                                let overdue = at == 0 && now - guest.2 >= RunQueue::DEFAULT_MAX_WAIT;
                                prop_assert!(overdue || Some(guest) == lowest);
                                prop_assert!(overdue || !can_start || guest.1 == LOWEST);
                            }
                        }
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}
