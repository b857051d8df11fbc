//! Whose slice is next, on one worker.
//!
//! **The account that has used least, in steps.** Accounts share the worker whatever they have made of their requests:
//! many guests or few, long ones or short. How much an account has used, of all workers, is for [`AccountUse`] to know;
//! among those that have used as little as any, it is the guests that compete, as follows. (Two levels, as in J. C. R.
//! Bennett and H. Zhang, "Hierarchical Packet Fair Queueing Algorithms", IEEE/ACM Transactions on Networking 5(5),
//! 1997.)
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
//! longest waiting is served out of turn, whoever its account is. After a slice for the longest waiting guest, in turn
//! or not, none is given out of turn for [`RunQueue::REST`] times its CPU time: the overdue are sure of a fifth of the
//! CPU, the short keep the rest, and a short one that arrives in such a slice waits for this one alone, however
//! many endless guests there are. With n runnable guests and slices of at most s, each is served within
//! `max_wait + (n + 1) × (REST + 2) × s`.
//!
//! All operations are O(1), or O(levels), but that a choice looks at each account that has a guest in here, of which a
//! worker has as many as slots at the most; in steady state none allocates.
//!
//! [`AccountUse`]: crate::AccountUse

use crate::Time;
use crate::linked_slab::{Handle, LinkedSlab, List};

/// A guest's number on its worker: small, as the number of its slot is, for the run queue keeps a table by it.
pub type GuestId = usize;

/// A number for the account of a guest: small, as that of the guest is.
pub type AccountId = usize;

/// What a worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Take a request from the queue and give it its first slice. If another worker was faster, or there is none of
    /// these accounts, ask again.
    StartNew {
        /// Of an account whose use is at this step at the most.
        up_to: u32,
    },
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
    account: AccountId,
    level: usize,
    since: Time,
    /// Its place in the order in which all have become runnable.
    aged: Handle,
}

/// The runnable guests of one account.
#[derive(Debug)]
struct Share {
    account: AccountId,
    /// Each in the order in which its guests became runnable.
    levels: [List; LEVELS],
    /// A bit for each level, set where it has guests: most have none.
    occupied: u16,
}

/// The runnable guests of one worker; see the [module](self) for how it chooses.
#[derive(Debug)]
pub struct RunQueue {
    max_wait: Time,
    runnable: LinkedSlab<Runnable>,
    /// Of accounts that have runnable guests, in no order.
    shares: Vec<Share>,
    /// Where in `shares` an account's is.
    by_account: Vec<Option<usize>>,
    /// In the order in which they became runnable.
    ages: LinkedSlab<GuestId>,
    oldest: List,
    by_id: Vec<Option<Handle>>,
    /// Which is next where starting and resuming alternate.
    started_last: bool,
    /// When the slice began that the last choice gave to the guest that had waited longest.
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

    /// A guest that has used this much, 12.8 ms, takes equal turns with all others of its account that have.
    pub const LONG: Time = Time::from_micros(100 << (LEVELS - 2));

    /// How many times the length of the longest waiting guest's slice passes before one is served out of
    /// turn.
    pub const REST: u32 = 4;

    /// A run queue without guests, in which one is overdue after `max_wait`.
    pub fn new(max_wait: Time) -> Self {
        Self {
            max_wait,
            runnable: LinkedSlab::new(),
            shares: Vec::new(),
            by_account: Vec::new(),
            ages: LinkedSlab::new(),
            oldest: List::default(),
            by_id: Vec::new(),
            started_last: false,
            longest_began: None,
            rest_until: Time::ZERO,
        }
    }

    /// A guest is runnable: it woke, or its slice ended before it was done. `used` is the CPU time of all its
    /// slices, host calls and polling included. If it is in the run queue already it keeps its place.
    pub fn insert(&mut self, id: GuestId, account: AccountId, used: Time, now: Time) {
        if id >= self.by_id.len() {
            self.by_id.resize(id + 1, None);
        }
        if self.by_id[id].is_some() {
            return;
        }
        let level = level_of(used);
        let share = self.share_of(account);
        let Self { runnable, shares, ages, oldest, .. } = self;
        let share = &mut shares[share];
        let aged = ages.push_back(oldest, id);
        let of = Runnable { id, account, level, since: now, aged };
        let at = runnable.push_back(&mut share.levels[level], of);
        share.occupied |= 1 << level;
        self.by_id[id] = Some(at);
    }

    /// The guest is not to run any more; says whether it was in the run queue.
    #[inline]
    pub fn remove(&mut self, id: GuestId) -> bool {
        let at = self.by_id.get(id).copied().flatten();
        at.map(|at| self.take(at)).is_some()
    }

    /// The slice that was chosen last has ended, after so much CPU time.
    #[inline]
    pub fn slice_took(&mut self, time: Time) {
        if let Some(began) = self.longest_began.take() {
            self.rest_until = began.saturating_add(time.saturating_mul(1 + Self::REST));
        }
    }

    /// What to do next. `can_start` says that a request waits that may start, and that the worker has a slot
    /// for it; `step_of`, at which step an account's use is.
    #[inline]
    pub fn choose(&mut self, now: Time, can_start: bool, step_of: impl Fn(AccountId) -> u32) -> Choice {
        self.longest_began = None;
        match self.longest_waiting() {
            Some(longest) => self.choose_beside(longest, now, can_start, step_of),
            None if can_start => Choice::StartNew { up_to: u32::MAX },
            None => Choice::Idle,
        }
    }

    /// What to do next where guests are runnable, this one for longest.
    fn choose_beside(
        &mut self,
        longest: Handle,
        now: Time,
        can_start: bool,
        step_of: impl Fn(AccountId) -> u32,
    ) -> Choice {
        let (step, level, _, first) = self.first(step_of).expect("a runnable guest is in a share");
        let since = self.runnable[longest].since;
        let out_of_turn = now >= self.rest_until && now.saturating_sub(since) >= self.max_wait;
        // Beside equals starting and resuming alternate. An account that has used less starts in any case.
        let up_to = if level > LOWEST || !self.started_last { Some(step) } else { step.checked_sub(1) };
        let start = up_to.filter(|_| can_start && !out_of_turn);
        self.started_last = start.is_some();
        if let Some(up_to) = start {
            return Choice::StartNew { up_to };
        }
        let next = if out_of_turn { longest } else { first };
        self.longest_began = (next == longest).then_some(now);
        Choice::Resume(self.take(next))
    }

    /// The guest whose slice is next where there is nothing to start.
    pub fn next(&mut self, now: Time, step_of: impl Fn(AccountId) -> u32) -> Option<GuestId> {
        match self.choose(now, false, step_of) {
            Choice::Resume(id) => Some(id),
            Choice::StartNew { .. } | Choice::Idle => None,
        }
    }

    /// Runnable guests.
    pub fn len(&self) -> usize {
        self.runnable.len()
    }

    /// Whether no guest is runnable.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where in `shares` this account's is, which is made where there is none.
    fn share_of(&mut self, account: AccountId) -> usize {
        if account >= self.by_account.len() {
            self.by_account.resize(account + 1, None);
        }
        *self.by_account[account].get_or_insert_with(|| {
            self.shares.push(Share { account, levels: Default::default(), occupied: 0 });
            self.shares.len() - 1
        })
    }

    /// The guest that is next in turn, after the step of its account, its level, and since when it is runnable.
    fn first(&self, step_of: impl Fn(AccountId) -> u32) -> Option<(u32, usize, Time, Handle)> {
        let of = |share: &Share| {
            let level = share.occupied.trailing_zeros() as usize;
            let front = share.levels.get(level)?.front()?;
            Some((step_of(share.account), level, self.runnable[front].since, front))
        };
        self.shares.iter().filter_map(of).min()
    }

    #[inline]
    fn longest_waiting(&self) -> Option<Handle> {
        self.by_id[self.ages[self.oldest.front()?]]
    }

    fn take(&mut self, at: Handle) -> GuestId {
        let Runnable { account, level, aged, .. } = self.runnable[at];
        let index = self.by_account[account].expect("an account with a runnable guest has a share");
        let share = &mut self.shares[index];
        let Runnable { id, .. } = self.runnable.remove(&mut share.levels[level], at);
        if share.levels[level].front().is_none() {
            share.occupied &= !(1 << level);
        }
        if share.occupied == 0 {
            self.shares.swap_remove(index);
            self.by_account[account] = None;
            if let Some(moved) = self.shares.get(index) {
                self.by_account[moved.account] = Some(index);
            }
        }
        self.ages.remove(&mut self.oldest, aged);
        self.by_id[id] = None;
        id
    }
}

fn level_of(used: Time) -> usize {
    let shorts = used.as_nanos() / RunQueue::SHORT.as_nanos();
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

    /// Where there is one account.
    const ONE: AccountId = 0;

    /// All accounts have used as little.
    fn equal(_: AccountId) -> u32 {
        0
    }

    const START: Choice = Choice::StartNew { up_to: 0 };

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
            queue.insert(id, ONE, used, ms(1));
        }
        assert_eq!(queue.len(), 6);
        let order: Vec<GuestId> = std::iter::from_fn(|| queue.next(ms(2), equal)).collect();
        assert_eq!(order, [4, 2, 3, 1, 7, 0]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_new_request_goes_before_whoever_has_computed() {
        let mut queue = queue();
        assert_eq!(queue.choose(ms(0), false, equal), Choice::Idle);
        assert_eq!(queue.choose(ms(0), true, equal), Choice::StartNew { up_to: u32::MAX });
        queue.insert(0, ONE, ms(1), ms(1));
        assert_eq!(queue.choose(ms(1), true, equal), START);
        assert_eq!(queue.choose(ms(1), true, equal), START);
        assert_eq!(queue.choose(ms(1), false, equal), Choice::Resume(0));
    }

    #[test]
    fn starting_alternates_with_resuming_the_short() {
        let mut queue = queue();
        for id in 0..3 {
            queue.insert(id, ONE, us(5), ms(0));
        }
        let choices: Vec<Choice> = (0..6).map(|_| queue.choose(ms(0), true, equal)).collect();
        use Choice::Resume;
        let expected = [START, Resume(0), START, Resume(1), START, Resume(2)];
        assert_eq!(choices, expected);
    }

    #[test]
    fn a_guest_woken_twice_is_there_once_and_a_removed_one_not_at_all() {
        let mut queue = queue();
        queue.insert(5, ONE, ms(0), ms(0));
        queue.insert(6, ONE, ms(0), ms(0));
        queue.insert(5, ONE, ms(9), ms(1));
        assert!(queue.remove(6) && !queue.remove(6) && !queue.remove(99));
        assert_eq!(queue.next(ms(1), equal), Some(5));
        assert_eq!(queue.next(ms(1), equal), None);
    }

    #[test]
    fn an_overdue_guest_goes_first_but_not_at_once_again() {
        let mut queue = queue();
        queue.insert(0, ONE, ms(100), ms(0));
        queue.insert(1, ONE, ms(100), ms(1));
        assert_eq!(queue.choose(ms(19), true, equal), START);
        assert_eq!(queue.choose(ms(21), true, equal), Choice::Resume(0));
        queue.slice_took(ms(2));
        // The other one is overdue too, and waits 8 ms more.
        assert_eq!(queue.choose(ms(23), true, equal), START);
        assert_eq!(queue.choose(ms(30), true, equal), START);
        assert_eq!(queue.choose(ms(31), true, equal), Choice::Resume(1));
    }

    #[test]
    fn the_rest_after_a_slice_is_as_long_whenever_the_next_one_is_chosen() {
        let mut queue = queue();
        queue.insert(0, ONE, ms(100), ms(0));
        assert_eq!(queue.choose(ms(0), false, equal), Choice::Resume(0));
        queue.slice_took(ms(2));
        // It has ended, and nothing is asked of the worker for a minute.
        queue.insert(0, ONE, ms(100), ms(60_000));
        assert_eq!(queue.choose(ms(60_019), true, equal), START);
        assert_eq!(queue.choose(ms(60_020), true, equal), Choice::Resume(0));
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
                queue.insert(id, ONE, used, Time::ZERO);
            }
            Self { queue, now: Time::ZERO, used, slice }
        }

        fn resume(&mut self, id: GuestId) {
            self.now += self.slice;
            self.used[id] += self.slice;
            self.queue.slice_took(self.slice);
            self.queue.insert(id, ONE, self.used[id], self.now);
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
                match worker.queue.choose(worker.now, true, equal) {
                    Choice::StartNew { .. } => worker.now += us(25),
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
                match worker.queue.choose(worker.now, !waiting.is_empty(), equal) {
                    Choice::StartNew { .. } => {
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
        worker.queue.insert(4, ONE, Time::ZERO, Time::ZERO);
        while worker.now < ms(500) {
            let id = worker.queue.next(worker.now, equal).unwrap();
            worker.resume(id);
        }
        let newcomer = worker.used[4];
        assert!(newcomer >= ms(100) && newcomer <= ms(115), "a fifth, and its first 13 ms: {newcomer:?}");
    }

    #[test]
    fn accounts_that_have_used_less_go_first_whatever_their_guests_have() {
        let mut queue = queue();
        let (busy, calm) = (0, 1);
        let steps = |account| if account == busy { 3 } else { 1 };
        queue.insert(0, busy, us(0), ms(0));
        queue.insert(1, calm, ms(900), ms(1));
        queue.insert(2, calm, ms(5), ms(1));
        // A request of the busy account waits; that of the calm one may start beside its guests.
        assert_eq!(queue.choose(ms(2), true, steps), Choice::StartNew { up_to: 1 });
        assert_eq!(queue.choose(ms(2), false, steps), Choice::Resume(2));
        assert_eq!(queue.choose(ms(2), false, steps), Choice::Resume(1));
        assert_eq!(queue.choose(ms(2), true, steps), Choice::StartNew { up_to: 3 });
        // In the lowest level starting alternates with resuming, but for who has used less.
        assert_eq!(queue.choose(ms(2), true, steps), Choice::StartNew { up_to: 2 });
        assert_eq!(queue.next(ms(2), steps), Some(0));
        assert!(queue.is_empty());
    }

    #[test]
    fn an_overdue_guest_goes_first_whoever_its_account_is() {
        let mut queue = queue();
        let steps = |account: AccountId| account as u32;
        queue.insert(0, 7, ms(100), ms(0));
        queue.insert(1, 0, ms(1), ms(1));
        assert_eq!(queue.choose(ms(20), true, steps), Choice::Resume(0));
        assert_eq!(queue.choose(ms(21), false, steps), Choice::Resume(1));
    }

    proptest! {
        /// Each runnable guest gets a slice within the documented bound, whatever else wants the worker
        /// and whatever its account has used, and what is given out of turn leaves its share to the others.
        #[test]
        fn every_guest_is_served_in_time(
            steps in prop::collection::vec(0..3u32, 3),
            used in prop::collection::vec(0..30_000u64, 1..20),
            slices in prop::collection::vec((1..=1000u64, 0..100u8), 1..3000),
        ) {
            const SLICE: Time = Time::from_micros(1000);
            let mut queue = queue();
            let account = |id: GuestId| id % 3;
            let step_of = |account: AccountId| steps[account];
            let mut used: Vec<Option<Time>> = used.into_iter().map(|used| Some(us(used))).collect();
            let mut since = vec![Some(Time::ZERO); used.len()];
            for (id, used) in used.iter().enumerate() {
                queue.insert(id, account(id), used.unwrap(), Time::ZERO);
            }
            let slots = used.len();
            let bound = RunQueue::DEFAULT_MAX_WAIT + SLICE * (slots as u32 + 1) * (RunQueue::REST + 2);
            let mut now = Time::ZERO;
            let mut out_of_turn = Time::ZERO;
            for (length, fate) in slices {
                // New requests wait all the time; every other one needs a slot of its own for more than one
                // slice.
                let free = used.iter().position(Option::is_none);
                let choice = queue.choose(now, true, step_of);
                let length = us(length);
                let began = now;
                now += length;
                match choice {
                    Choice::StartNew { .. } => {
                        if let Some(id) = free.filter(|_| fate % 2 == 0) {
                            used[id] = Some(length);
                            since[id] = Some(now);
                            queue.insert(id, account(id), length, now);
                        }
                    }
                    Choice::Resume(id) => {
                        let waited = began - since[id].take().expect("only runnable guests are resumed");
                        prop_assert!(waited <= bound, "{:?} of {:?}", waited, bound);
                        // New requests wait, so it is not the turn of any but the short.
                        if used[id].unwrap() >= RunQueue::SHORT {
                            out_of_turn += length;
                        }
                        queue.slice_took(length);
                        // A few end, the others go on.
                        used[id] = used[id].filter(|_| fate >= 5).map(|used| used + length);
                        if let Some(used) = used[id] {
                            since[id] = Some(now);
                            queue.insert(id, account(id), used, now);
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

        /// Against a plain list: nothing lost or doubled, the account that has used least first unless a guest is
        /// overdue, then the lowest level, first in first out within a level.
        #[test]
        fn chooses_as_specified(
            steps in prop::collection::vec(
                (0..5u8, 0..12usize, 0..20_000u64, 0..4000u64, any::<bool>()),
                0..300,
            ),
        ) {
            let mut queue = queue();
            let mut model: Vec<(GuestId, usize, Time)> = Vec::new();
            let mut accounts = [0, 0, 2];
            let mut now = Time::ZERO;
            for (step, id, used, wait, can_start) in steps {
                now += us(wait);
                let known = model.iter().position(|guest| guest.0 == id);
                let step_of = |account: AccountId| accounts[account];
                let rank = |guest: &(GuestId, usize, Time)| (step_of(guest.0 % 3), guest.1, guest.2);
                match step {
                    0 | 1 => {
                        queue.insert(id, id % 3, us(used), now);
                        if known.is_none() {
                            model.push((id, level_of(us(used)), now));
                        }
                    }
                    3 => accounts[id % 3] = used as u32 % 4,
                    2 => prop_assert_eq!(queue.remove(id), known.map(|at| model.remove(at)).is_some()),
                    _ => {
                        let first = model.iter().map(rank).min();
                        match queue.choose(now, can_start, step_of) {
                            Choice::Idle => prop_assert!(model.is_empty() && !can_start),
                            Choice::StartNew { up_to } => {
                                prop_assert!(can_start && first.is_none_or(|first| up_to <= first.0));
                            }
                            Choice::Resume(id) => {
                                let at = model.iter().position(|guest| guest.0 == id).unwrap();
                                let guest = model.remove(at);
                                let overdue = at == 0 && now - guest.2 >= RunQueue::DEFAULT_MAX_WAIT;
                                prop_assert!(overdue || Some(rank(&guest)) == first);
                                let is_equal = guest.1 == LOWEST && rank(&guest).0 == 0;
                                prop_assert!(overdue || !can_start || is_equal);
                            }
                        }
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}
