//! Who is let in: the books of what waits, from arrival to the first slice.
//!
//! A request is counted once, whichever queue it is in and while it is being compiled;
//! [`FairQueue`](crate::FairQueue)'s own bounds only back this up. Payloads are held in memory while they
//! wait, so bytes are bounded as well as requests.
//!
//! The total is shared by dynamic thresholds (A. K. Choudhury, E. L. Hahne, "Dynamic Queue Length Thresholds
//! for Shared-Memory Packet Switches", IEEE/ACM Transactions on Networking 6(2), 1998), on two levels:
//!
//! - An account may come to hold α times what is then free, with α = share / (100 − share). With the default share of
//!   three quarters, one account that takes all it can get leaves a quarter of the total, two leave a seventh, and so
//!   on: some is always left for whoever comes next.
//! - A flow may come to hold no more than is then free, nor than its account may still take. So n flows of one account
//!   that take all they can get leave as much to the account's next one as each of them has.
//!
//! Who is refused is told when to come back, from Little's law (J. D. C. Little, "A Proof for the Queuing Formula L =
//! λW", Operations Research 9(3), 1961): L waiting requests that are served at a rate λ are gone after L / λ. Since
//! accounts take turns, and so do the flows of each, an account's backlog of l is gone after l × accounts / λ, a flow's
//! after l × flows of its account × accounts / λ, and never later than all of L. λ is an exponentially weighted mean
//! over the time in which something waited: an idle hour says nothing about how fast the gateway is.
//!
//! All operations are O(1).

use std::fmt;
use std::time::Duration;

use crate::Time;
use crate::fair_queue::Full;
use crate::table::{Counted, Table};

/// An amount of waiting requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How many.
    pub requests: usize,
    /// What they hold in memory, in bytes.
    pub bytes: usize,
}

impl Load {
    #[inline]
    fn fits(self, more: Load, limit: Load) -> bool {
        let within =
            |held: usize, more: usize, limit: usize| held.checked_add(more).is_some_and(|sum| sum <= limit);
        within(self.requests, more.requests, limit.requests) && within(self.bytes, more.bytes, limit.bytes)
    }

    /// Whether an account that holds this leaves room for `more` of a flow that holds `flow`, of a whole of which
    /// `free` is free. The account may hold no more than the [threshold](Self::threshold), the flow no more than its
    /// account may still take. Says so without a division.
    #[inline]
    fn leaves_room(self, flow: Load, more: Load, percent: usize, free: Load) -> bool {
        let percent = percent.min(100);
        let fits = |account: usize, flow: usize, more: usize, free: usize| {
            (account + flow + more).saturating_mul(100 - percent) <= free.saturating_mul(percent)
        };
        fits(self.requests, flow.requests, more.requests, free.requests)
            && fits(self.bytes, flow.bytes, more.bytes, free.bytes)
    }

    /// What an account may hold of a whole of which this is free: α times as much, with α = percent / (100 − percent).
    fn threshold(self, percent: usize) -> Load {
        let rest = 100 - percent.min(100);
        let of = |free: usize| free.saturating_mul(percent.min(100)).checked_div(rest).unwrap_or(usize::MAX);
        Load { requests: of(self.requests), bytes: of(self.bytes) }
    }

    #[inline]
    fn add(&mut self, more: Load) {
        self.requests += more.requests;
        self.bytes += more.bytes;
    }

    #[inline]
    fn subtract(&mut self, less: Load) {
        let subtract = |held: usize, less: usize| held.checked_sub(less).expect("more left than was let in");
        self.requests = subtract(self.requests, less.requests);
        self.bytes = subtract(self.bytes, less.bytes);
    }

    #[inline]
    fn left_of(self, limit: Load) -> Load {
        Load {
            requests: limit.requests.saturating_sub(self.requests),
            bytes: limit.bytes.saturating_sub(self.bytes),
        }
    }
}

/// How much may wait. `bytes` below the size of one request lets that request never in: choose it well above
/// the largest payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// For one flow. Default: 4 096 requests, 64 MiB.
    pub per_flow: Load,
    /// For all together. Default: 16 384 requests, 256 MiB (a sixteenth of a small gateway's 4 GB). A
    /// single flow gets at most half of it.
    pub total: Load,
    /// The part of the total that one account gets at most, in percent. Default: 75.
    pub account_share: usize,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            per_flow: Load { requests: crate::DEFAULT_WAITING_PER_FLOW, bytes: 64 << 20 },
            total: Load { requests: crate::DEFAULT_WAITING_TOTAL, bytes: 256 << 20 },
            account_share: crate::DEFAULT_ACCOUNT_SHARE,
        }
    }
}

impl AdmissionLimits {
    /// What a single request may be to get in at all, which it can where nothing else waits.
    pub fn largest(&self) -> Load {
        let threshold = self.total.threshold(self.account_share);
        let least = |of: fn(&Load) -> usize| of(&self.per_flow).min(of(&self.total)).min(of(&threshold));
        Load { requests: least(|load| load.requests), bytes: least(|load| load.bytes) }
    }
}

/// A request that was not let in, and not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// After how long what stands in the way should be done; between [`Busy::MIN_RETRY_AFTER`] and
    /// [`Busy::MAX_RETRY_AFTER`].
    pub retry_after: Time,
    /// The bound that was reached.
    pub reason: Full,
}

impl Busy {
    /// Short enough that no device notices it, long enough that a refused flood does not come straight back.
    pub const MIN_RETRY_AFTER: Time = Time::from_millis(50);
    /// Also the answer where nothing has been served yet. A device that waits longer has been forgotten.
    pub const MAX_RETRY_AFTER: Time = Time::from_secs(30);
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, try again after {} ms", self.reason, self.retry_after.as_millis())
    }
}

impl std::error::Error for Busy {}

/// Counts what waits, and refuses what would be too much.
#[derive(Debug)]
pub struct Admission<K: Counted> {
    limits: AdmissionLimits,
    total: Load,
    of_flow: K::Flows<Load>,
    of_account: K::Accounts<Account>,
    /// How many accounts have something waiting.
    accounts: usize,
    rate: ServiceRate,
}

/// What one account has waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    load: Load,
    /// How many of its flows have something waiting.
    flows: usize,
}

impl<K: Counted> Admission<K> {
    /// Nothing waits yet.
    pub fn new(limits: AdmissionLimits) -> Self {
        Self {
            limits,
            total: Load::default(),
            of_flow: Default::default(),
            of_account: Default::default(),
            accounts: 0,
            rate: ServiceRate::default(),
        }
    }

    /// How much may wait.
    pub fn limits(&self) -> &AdmissionLimits {
        &self.limits
    }

    /// Counts a request as waiting.
    ///
    /// # Errors
    /// [`Busy`] when the flow would have more waiting than one flow may, or the flow or its account more than is left
    /// to them of the total.
    #[inline]
    pub fn admit(&mut self, key: &K, load: Load, now: Time) -> Result<(), Busy> {
        self.rate.advance(now, self.total.requests > 0);
        let free = self.total.left_of(self.limits.total);
        let flow = self.of_flow.get(key);
        let account = self.of_account.get(key.paid_by()).load;
        let reason = if !flow.fits(load, self.limits.per_flow) {
            Full::Flow
        } else if !flow.fits(load, free) {
            Full::Total
        } else if !account.leaves_room(flow, load, self.limits.account_share, free) {
            Full::Account
        } else {
            self.change(key, |held| held.add(load));
            return Ok(());
        };
        Err(self.refuse(key, reason))
    }

    /// A request that was let in before waits again: whatever else waits by now, it is not refused.
    pub fn readmit(&mut self, key: &K, load: Load, now: Time) {
        self.rate.advance(now, self.total.requests > 0);
        self.change(key, |held| held.add(load));
    }

    /// The request got its slot and waits no longer. `load` is what it was admitted with.
    ///
    /// # Panics
    /// If the flow does not have that much waiting: the driver's books are wrong.
    #[inline]
    pub fn started(&mut self, key: &K, load: Load, now: Time) {
        // Before the time is: it ends at this request, which belongs to it.
        self.rate.served += load.requests;
        self.leave(key, load, now);
    }

    /// The request leaves without having run: it expired, could not be compiled, or nobody waits for it any
    /// more. It is not counted as served. `load` is what it was admitted with.
    ///
    /// # Panics
    /// If the flow does not have that much waiting: the driver's books are wrong.
    pub fn withdrawn(&mut self, key: &K, load: Load, now: Time) {
        self.leave(key, load, now);
    }

    /// What is said to who is refused.
    #[cold]
    fn refuse(&self, key: &K, reason: Full) -> Busy {
        let account = self.of_account.get(key.paid_by());
        let ahead = match reason {
            Full::Flow => {
                let flow = self.of_flow.get(key);
                flow.requests.saturating_mul(account.flows).saturating_mul(self.accounts)
            }
            Full::Account => account.load.requests.saturating_mul(self.accounts),
            Full::Total => self.total.requests,
        };
        Busy { retry_after: self.rate.time_for(ahead.min(self.total.requests)), reason }
    }

    /// What all together have waiting.
    pub fn waiting(&self) -> Load {
        self.total
    }

    /// What this flow has waiting.
    pub fn waiting_of(&self, key: &K) -> Load {
        self.of_flow.get(key)
    }

    /// What this account has waiting, all its flows together.
    pub fn waiting_of_account(&self, account: &K::Account) -> Load {
        self.of_account.get(account).load
    }

    #[inline]
    fn leave(&mut self, key: &K, load: Load, now: Time) {
        self.rate.advance(now, true);
        self.change(key, |held| held.subtract(load));
    }

    /// The same change for a flow, its account, and all together.
    #[inline(always)]
    fn change(&mut self, key: &K, change: impl Fn(&mut Load)) {
        let count = |flow: &Load| usize::from(flow.requests > 0);
        let (before, after) = self.of_flow.change(key, |flow| {
            let before = count(flow);
            change(flow);
            (before, count(flow))
        });
        self.of_account.change(key.paid_by(), |account| {
            change(&mut account.load);
            self.accounts -= usize::from(account.flows > 0);
            account.flows = account.flows + after - before;
            self.accounts += usize::from(account.flows > 0);
        });
        change(&mut self.total);
    }
}

/// Requests served a second, over the time in which any waited.
#[derive(Debug, Default)]
struct ServiceRate {
    /// None until the first sample is complete.
    mean: Option<f64>,
    /// Since the last sample.
    served: usize,
    /// Time since the last sample in which something waited.
    busy: Time,
    advanced_to: Time,
}

impl ServiceRate {
    /// A sample is taken after this much busy time: enough requests to mean something.
    const SAMPLE: Time = Time::from_millis(100);
    /// How long a change of the rate takes to be believed (the time constant of the mean).
    const MEMORY: Time = Time::from_secs(2);

    /// Accounts for the time since the last call, in which something `waited` or did not.
    #[inline(always)]
    fn advance(&mut self, now: Time, waited: bool) {
        if waited && now > self.advanced_to {
            self.busy += now - self.advanced_to;
            if self.busy >= Self::SAMPLE {
                self.sample();
            }
        }
        self.advanced_to = self.advanced_to.max(now);
    }

    fn sample(&mut self) {
        let seconds = self.busy.as_secs_f64();
        let sample = self.served as f64 / seconds;
        self.mean = Some(match self.mean {
            Some(mean) => sample + (mean - sample) * (-seconds / Self::MEMORY.as_secs_f64()).exp(),
            None => sample,
        });
        self.served = 0;
        self.busy = Time::ZERO;
    }

    /// How long that many requests take, between the bounds of [`Busy::retry_after`].
    fn time_for(&self, requests: usize) -> Time {
        // Before the first sample is complete, as much of it as there is.
        let rate = self.mean.unwrap_or_else(|| self.served as f64 / self.busy.as_secs_f64());
        // No rate (0) and no time (0 / 0) both end at the upper bound.
        Duration::try_from_secs_f64(requests as f64 / rate)
            .map_or(Time::MAX, Time::from)
            .clamp(Busy::MIN_RETRY_AFTER, Busy::MAX_RETRY_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: Load = Load { requests: 1, bytes: 10 };

    fn ms(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    fn admission<K: Counted>(per_flow: usize, total: usize) -> Admission<K> {
        let limit = |requests| Load { requests, bytes: 10 * requests };
        Admission::new(AdmissionLimits { per_flow: limit(per_flow), total: limit(total), account_share: 75 })
    }

    #[test]
    fn the_bound_that_was_reached_is_named() {
        let mut admission = admission(2, 5);
        for key in ['a', 'a', 'b', 'b', 'c'] {
            admission.admit(&key, ONE, ms(0)).unwrap();
        }
        assert_eq!(admission.waiting(), Load { requests: 5, bytes: 50 });
        assert_eq!(admission.waiting_of(&'b'), Load { requests: 2, bytes: 20 });
        for (key, reason) in [('a', Full::Flow), ('c', Full::Total), ('d', Full::Total)] {
            assert_eq!(admission.admit(&key, ONE, ms(0)).unwrap_err().reason, reason, "{key}");
        }
        admission.withdrawn(&'a', ONE, ms(0));
        assert_eq!(admission.admit(&'c', ONE, ms(0)).unwrap_err().reason, Full::Total, "more than is free");
        admission.admit(&'d', ONE, ms(0)).unwrap();
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut admission = admission(2, 3);
        let big = Load { requests: 1, bytes: 20 };
        admission.admit(&'a', big, ms(0)).unwrap();
        assert_eq!(
            admission.admit(&'a', Load { requests: 1, bytes: 1 }, ms(0)).unwrap_err().reason,
            Full::Flow
        );
        assert_eq!(admission.admit(&'b', big, ms(0)).unwrap_err().reason, Full::Total);
        let overflowing = Load { requests: 1, bytes: usize::MAX };
        assert_eq!(admission.admit(&'a', overflowing, ms(0)).unwrap_err().reason, Full::Flow);
    }

    #[test]
    fn those_that_take_all_they_can_get_leave_room_for_the_next() {
        let mut books = admission(100, 90);
        let greedy = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
        let refill = |books: &mut Admission<char>| {
            for key in greedy {
                while books.admit(&key, ONE, ms(0)).is_ok() {}
            }
        };
        refill(&mut books);
        for key in greedy.iter().cycle().take(1000) {
            if books.waiting_of(key) != Load::default() {
                books.started(key, ONE, ms(0));
                refill(&mut books);
            }
        }
        for key in greedy {
            let held = books.waiting_of(&key).requests;
            assert!((9..=11).contains(&held), "{key} holds {held}");
        }
        for newcomer in ['w', 'x', 'y'] {
            books.admit(&newcomer, ONE, ms(0)).unwrap();
        }
    }

    #[test]
    fn an_account_with_many_names_leaves_room_for_the_next() {
        let mut books = admission(100, 1000);
        for flow in 0..1000 {
            while books.admit(&('a', flow), ONE, ms(0)).is_ok() {}
        }
        assert_eq!(books.waiting_of_account(&'a').requests, 750);
        assert_eq!(books.admit(&('a', 1000), ONE, ms(0)).unwrap_err().reason, Full::Account);
        while books.admit(&('b', 0), ONE, ms(0)).is_ok() {}
        assert_eq!(books.waiting_of(&('b', 0)).requests, 100, "its flow's own limit");
        books.admit(&('c', 0), ONE, ms(0)).unwrap();
    }

    #[test]
    fn flows_that_take_all_they_can_get_leave_room_for_the_next_one_of_their_account() {
        let mut books = admission(1000, 1300);
        let refill = |books: &mut Admission<(char, u32)>| {
            for flow in 0..3 {
                while books.admit(&('a', flow), ONE, ms(0)).is_ok() {}
            }
        };
        refill(&mut books);
        for turn in 0..3000 {
            books.started(&('a', turn % 3), ONE, ms(0));
            refill(&mut books);
        }
        for flow in 0..3 {
            let held = books.waiting_of(&('a', flow)).requests;
            assert!((297..=303).contains(&held), "{flow} holds {held}");
        }
        for _ in 0..50 {
            books.admit(&('a', 3), ONE, ms(0)).unwrap();
        }
    }

    /// Lets `count` in at once, and serves the first `served` of them evenly over `over`; returns when it is.
    fn serve(
        admission: &mut Admission<char>,
        key: char,
        count: u64,
        served: u64,
        over: Time,
        start: Time,
    ) -> Time {
        for _ in 0..count {
            admission.admit(&key, ONE, start).unwrap();
        }
        for number in 1..=served {
            admission.started(&key, ONE, start + over * number as u32 / served as u32);
        }
        start + over
    }

    #[test]
    fn retry_after_is_the_time_that_the_backlog_takes() {
        // 200 let in, 100 of them served in a second: the other hundred take another second.
        let mut books = admission(100, 1000);
        for _ in 0..100 {
            books.admit(&'a', ONE, ms(0)).unwrap();
        }
        let now = serve(&mut books, 'b', 100, 100, ms(1000), ms(0));
        let busy = books.admit(&'a', ONE, now).unwrap_err();
        assert_eq!(busy.reason, Full::Flow);
        let error = busy.retry_after.abs_diff(ms(1000));
        assert!(error < ms(20), "{busy:?}");
        assert!(
            busy.to_string().starts_with("too many of this client's requests are waiting, try again after ")
        );
    }

    #[test]
    fn a_key_waits_for_its_turns_between_others() {
        let mut books = admission(10, 1000);
        let now = serve(&mut books, 'z', 10, 9, ms(90), ms(0)) + ms(10);
        books.started(&'z', ONE, now);
        // At 100 a second; three keys take turns, and none has more than ten.
        for key in ['a', 'b', 'c'] {
            serve(&mut books, key, if key == 'c' { 4 } else { 10 }, 0, ms(0), now);
        }
        let busy = books.admit(&'a', ONE, now).unwrap_err();
        assert!(busy.retry_after.abs_diff(ms(240)) < ms(15), "24 wait, 10 × 3 turns is more: {busy:?}");
    }

    #[test]
    fn idle_time_does_not_slow_the_estimate_and_a_standstill_does() {
        let mut books = admission(100, 1000);
        let now = serve(&mut books, 'a', 100, 100, ms(1000), ms(0));
        let now = serve(&mut books, 'a', 100, 0, ms(0), now + ms(3_600_000));
        let busy = books.admit(&'a', ONE, now).unwrap_err();
        assert!(busy.retry_after.abs_diff(ms(1000)) < ms(20), "{busy:?}");
        // Nothing is served for a minute.
        assert_eq!(books.admit(&'a', ONE, now + ms(60_000)).unwrap_err().retry_after, Busy::MAX_RETRY_AFTER);
    }

    #[test]
    fn retry_after_is_bounded_where_nothing_is_known_or_all_is_fast() {
        let mut books = admission(1, 1);
        books.admit(&'a', ONE, ms(0)).unwrap();
        assert_eq!(books.admit(&'a', ONE, ms(0)).unwrap_err().retry_after, Busy::MAX_RETRY_AFTER);
        for at in 1..1000 {
            books.started(&'a', ONE, ms(at));
            books.admit(&'a', ONE, ms(at)).unwrap();
        }
        assert_eq!(books.admit(&'a', ONE, ms(1000)).unwrap_err().retry_after, Busy::MIN_RETRY_AFTER);
    }

    #[test]
    #[should_panic(expected = "more left than was let in")]
    fn what_was_not_let_in_cannot_leave() {
        admission::<char>(1, 1).started(&'a', ONE, ms(0));
    }

    proptest! {
        #[test]
        fn the_books_are_exact_and_no_bound_is_exceeded(
            steps in prop::collection::vec((0..3u8, 0..4u8, 0..40usize, 0..200u64), 0..300),
        ) {
            let limits = AdmissionLimits {
                per_flow: Load { requests: 5, bytes: 100 },
                total: Load { requests: 12, bytes: 200 },
                account_share: 75,
            };
            let mut books = Admission::new(limits);
            let mut inside: Vec<(u8, Load)> = Vec::new();
            let mut now = Time::ZERO;
            let sum = |of: &[(u8, Load)], key: Option<u8>| {
                let counted = of.iter().filter(|(owner, _)| key.is_none_or(|key| key == *owner));
                counted.fold(Load::default(), |mut sum, (_, load)| {
                    sum.add(*load);
                    sum
                })
            };
            for (step, key, bytes, wait) in steps {
                now += ms(wait);
                let leaving = inside.iter().position(|(owner, _)| *owner == key);
                match (step, leaving) {
                    (1, Some(at)) => books.started(&key, inside.remove(at).1, now),
                    (2, Some(at)) => books.withdrawn(&key, inside.remove(at).1, now),
                    _ => {
                        let load = Load { requests: 1, bytes };
                        let held = sum(&inside, Some(key));
                        let expected = if !held.fits(load, limits.per_flow) {
                            Err(Full::Flow)
                        } else if !held.fits(load, sum(&inside, None).left_of(limits.total)) {
                            Err(Full::Total)
                        } else {
                            inside.push((key, load));
                            Ok(())
                        };
                        let answer = books.admit(&key, load, now);
                        if let Err(busy) = answer {
                            prop_assert!(busy.retry_after >= Busy::MIN_RETRY_AFTER);
                            prop_assert!(busy.retry_after <= Busy::MAX_RETRY_AFTER);
                        }
                        prop_assert_eq!(answer.map_err(|busy| busy.reason), expected);
                    }
                }
                prop_assert_eq!(books.waiting(), sum(&inside, None));
                prop_assert!(Load::default().fits(books.waiting(), limits.total));
                for key in 0..4 {
                    prop_assert_eq!(books.waiting_of(&key), sum(&inside, Some(key)));
                }
            }
            for (key, load) in inside {
                books.withdrawn(&key, load, now);
            }
            prop_assert!(books.of_flow.is_empty() && books.of_account.is_empty(), "idle keys are forgotten");
            prop_assert_eq!(books.accounts, 0);
        }
    }
}
