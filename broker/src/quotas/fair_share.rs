//! How the time of the threads that serve connections is shared among identities.
//!
//! Time is cut into windows. Each identity's account counts the time that the tasks of its connections took in the
//! current one. While the threads are busy, and more than one identity was active of late, an identity that has used
//! more than its share waits until the next window: its connections are not read, handled or filled, however many
//! there are. What it used beyond the share is a debt that the next windows pay, so that one expensive packet costs
//! its sender as much as many cheap ones. An identity that is alone, or on threads that are half idle, is never held.
//!
//! No clock is read here: `now` is the time since any fixed moment.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

/// A fast device asks 50 times a second and is to be answered within 20 ms whatever others do: two windows.
const WINDOW: Duration = Duration::from_millis(10);
/// Nanoseconds of a window.
const WINDOW_NANOS: u32 = WINDOW.as_nanos() as u32;
/// Windows of a period. An identity counts as active in the period in which its connections did something, and in the
/// next: a tenth of a second, so that one that asks five times a second is never taken for absent.
const WINDOWS_PER_PERIOD: u64 = 10;
/// Nobody has less than this of each window, in nanoseconds, however many are active: half of a thread.
const LEAST_SHARE: u32 = WINDOW_NANOS / 2;
/// Nanoseconds of debt that are remembered: nobody waits for more than 20 windows, whatever it did, and whatever of the
/// time that was measured belongs to another process of the machine.
const MOST_DEBT: u32 = 10 * WINDOW_NANOS;
/// Nanoseconds of a window that make whoever is not known yet an identity that is active: a tenth of a thread, some
/// dozens of connections or one with TLS.
const MUCH: u32 = WINDOW_NANOS / 10;
/// The share of an identity that is alone: all that there is.
const EVERYTHING: u32 = u32::MAX;

/// What all have used.
pub(crate) struct FairShare {
    threads: AtomicUsize,
    /// How many identities are active: the number of a period (32 bits), and how many were active in it and in the one
    /// before it (16 bits each).
    active: AtomicU64,
    /// Against half of what the threads have.
    used: Used,
}

impl FairShare {
    pub fn new() -> Self {
        Self { threads: AtomicUsize::new(1), active: AtomicU64::new(0), used: Used::default() }
    }

    /// Says how many threads serve connections.
    pub fn set_threads(&self, threads: usize) {
        self.threads.store(threads.max(1), Relaxed);
    }

    /// Charges time that was spent for this identity and ended now. What it spends while it is alone is not counted.
    pub fn charge(&self, usage: &Usage, spent: Duration, now: Duration) {
        self.is_active(usage, now);
        if self.share(now) != EVERYTHING {
            self.count(usage, spent, now);
        }
    }

    /// Charges time that was spent for somebody who is not known yet. That makes an identity active only if it is
    /// much: the address from which a user connects is no second one beside it.
    pub fn charge_unknown(&self, usage: &Usage, spent: Duration, now: Duration) {
        self.count(usage, spent, now);
        if usage.used.at(window(now), self.share(now)) > MUCH {
            self.is_active(usage, now);
        }
    }

    fn is_active(&self, usage: &Usage, now: Duration) {
        let period = period(now);
        let stamp = period.wrapping_add(1);
        if usage.active.load(Relaxed) != stamp && usage.active.swap(stamp, Relaxed) != stamp {
            let _ = self.active.fetch_update(Relaxed, Relaxed, |active| Some(one_more(active, period)));
        }
    }

    fn count(&self, usage: &Usage, spent: Duration, now: Duration) {
        let (window, spent) = (window(now), u32::try_from(spent.as_nanos()).unwrap_or(u32::MAX));
        usage.used.add(spent, window, self.share(now));
        self.used.add(spent, window, self.half());
    }

    /// Until when this identity has to wait, if it has to.
    pub fn held_until(&self, usage: &Usage, now: Duration) -> Option<Duration> {
        let share = self.share(now);
        if share == EVERYTHING {
            return None;
        }
        let window = window(now);
        let used = usage.used.at(window, share);
        if used <= share || self.used.at(window, self.half()) <= self.half() {
            return None;
        }
        // As many windows' shares have to pass until no more than one is used.
        let windows = u64::from(used.div_ceil(share) - 1);
        Some(Duration::from_nanos((windows_passed(now) + windows) * u64::from(WINDOW_NANOS)))
    }

    /// What each identity may use of a window, in nanoseconds.
    fn share(&self, now: Duration) -> u32 {
        match active(self.active.load(Relaxed), period(now)) {
            0 | 1 => EVERYTHING,
            active => (self.capacity() / active).max(LEAST_SHARE),
        }
    }

    fn half(&self) -> u32 {
        self.capacity() / 2
    }

    /// Nanoseconds that all threads together have in a window.
    fn capacity(&self) -> u32 {
        WINDOW_NANOS.saturating_mul(self.threads.load(Relaxed).try_into().unwrap_or(u32::MAX))
    }
}

/// What one identity has used.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    used: Used,
    /// The period in which it was counted among the active ones last, plus one; 0 is never.
    active: AtomicU32,
}

/// Time used: in the upper half the number of a window, in the lower one the nanoseconds that were used in it, debt
/// from windows before included.
#[derive(Debug, Default)]
struct Used(AtomicU64);

impl Used {
    /// What counts in this window, of which `share` was free for each that has passed since.
    fn at(&self, window: u32, share: u32) -> u32 {
        Self::carried(self.0.load(Relaxed), window, share)
    }

    fn add(&self, spent: u32, window: u32, share: u32) {
        let added = |packed| {
            let used = Self::carried(packed, window, share).saturating_add(spent);
            Some(u64::from(window) << 32 | u64::from(used))
        };
        let _ = self.0.fetch_update(Relaxed, Relaxed, added);
    }

    fn carried(packed: u64, window: u32, share: u32) -> u32 {
        let (then, used) = ((packed >> 32) as u32, packed as u32);
        match window.wrapping_sub(then) {
            0 => used,
            passed => used.saturating_sub(share.saturating_mul(passed)).min(MOST_DEBT),
        }
    }
}

/// Without a division of 128 bits, which would cost more than all else here.
fn windows_passed(now: Duration) -> u64 {
    const PER_SECOND: u64 = 1_000_000_000 / WINDOW_NANOS as u64;
    now.as_secs() * PER_SECOND + u64::from(now.subsec_nanos() / WINDOW_NANOS)
}

fn window(now: Duration) -> u32 {
    windows_passed(now) as u32
}

fn period(now: Duration) -> u32 {
    (windows_passed(now) / WINDOWS_PER_PERIOD) as u32
}

fn unpack(active: u64) -> (u32, u16, u16) {
    ((active >> 32) as u32, (active >> 16) as u16, active as u16)
}

fn one_more(active: u64, period: u32) -> u64 {
    let (then, count, before) = unpack(active);
    let (count, before) = match period.wrapping_sub(then) {
        0 => (count, before),
        1 => (0, count),
        _ => (0, 0),
    };
    u64::from(period) << 32 | u64::from(count.saturating_add(1)) << 16 | u64::from(before)
}

/// How many are active: the more of those in this period and those in the one before it.
fn active(active: u64, period: u32) -> u32 {
    let (then, count, before) = unpack(active);
    match period.wrapping_sub(then) {
        0 => count.max(before).into(),
        1 => count.into(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);
    const PERIOD: Duration = Duration::from_millis(100);

    fn on(threads: usize) -> FairShare {
        let shares = FairShare::new();
        shares.set_threads(threads);
        shares
    }

    #[test]
    fn whoever_is_alone_is_never_held() {
        let (shares, one) = (on(2), Usage::default());
        for at in 0..1_000 {
            let now = MILLI * at;
            shares.charge(&one, MILLI * 2, now);
            assert_eq!(shares.held_until(&one, now), None);
        }
    }

    #[test]
    fn beside_another_it_has_its_share_of_each_window() {
        let (shares, hog, other) = (on(2), Usage::default(), Usage::default());
        let start = WINDOW * 1_000;
        shares.charge(&other, MILLI / 100, start);
        // A thread's worth of the two is its own.
        shares.charge(&hog, MILLI * 10, start);
        assert_eq!(shares.held_until(&hog, start), None);
        shares.charge(&hog, MILLI / 2, start);
        assert_eq!(shares.held_until(&hog, start), Some(start + WINDOW));
        assert_eq!(shares.held_until(&other, start), None);
        // What is over is paid by the next window.
        let next = start + WINDOW;
        assert_eq!(shares.held_until(&hog, next), None);
        shares.charge(&hog, MILLI * 10, next);
        assert_eq!(shares.held_until(&hog, next), Some(next + WINDOW));
    }

    #[test]
    fn a_long_step_is_a_debt_that_has_an_end() {
        let (shares, hog, other) = (on(1), Usage::default(), Usage::default());
        let start = WINDOW * 1_000;
        shares.charge(&other, MILLI, start);
        shares.charge(&hog, MILLI * 23, start);
        // A share of 5 ms: what was used is 4 of them, and a part of the fifth.
        assert_eq!(shares.held_until(&hog, start), Some(start + WINDOW * 4));
        assert!(shares.held_until(&hog, start + WINDOW * 3).is_some());
        shares.charge(&other, MILLI, start + WINDOW * 4);
        assert_eq!(shares.held_until(&hog, start + WINDOW * 4), None);

        shares.charge(&hog, MILLI * 4_000, start + WINDOW * 5);
        shares.charge(&other, MILLI, start + WINDOW * 6);
        let until = shares.held_until(&hog, start + WINDOW * 6).unwrap();
        assert!(until <= start + WINDOW * 26, "{until:?}");
    }

    #[test]
    fn nobody_is_held_while_half_of_the_threads_are_idle() {
        let (shares, busy) = (on(16), Usage::default());
        let others: Vec<_> = (0..40).map(|_| Usage::default()).collect();
        let start = WINDOW * 1_000;
        for other in &others {
            shares.charge(other, MILLI / 100, start);
        }
        shares.charge(&busy, MILLI * 20, start);
        assert_eq!(shares.held_until(&busy, start), None);
        shares.charge(&busy, MILLI * 70, start);
        assert!(shares.held_until(&busy, start).is_some());
    }

    #[test]
    fn however_many_are_active_each_has_half_a_thread() {
        let (shares, one) = (on(2), Usage::default());
        let others: Vec<_> = (0..100).map(|_| Usage::default()).collect();
        let start = WINDOW * 1_000;
        for other in &others {
            shares.charge(other, MILLI, start);
        }
        shares.charge(&one, MILLI * 5, start);
        assert_eq!(shares.held_until(&one, start), None);
        shares.charge(&one, MILLI, start);
        assert!(shares.held_until(&one, start).is_some());
    }

    #[test]
    fn who_asks_five_times_a_second_is_not_absent_and_who_left_is_forgotten() {
        let (shares, hog, seldom) = (on(1), Usage::default(), Usage::default());
        let start = PERIOD * 1_000;
        for at in 0..100 {
            let now = start + MILLI * 10 * at;
            if at % 20 == 0 {
                shares.charge(&seldom, MILLI / 100, now);
            }
            shares.charge(&hog, MILLI * 8, now);
            assert!(shares.held_until(&hog, now).is_some(), "at {now:?}");
        }
        let later = start + PERIOD * 20;
        for at in 0..100 {
            shares.charge(&hog, MILLI * 10, later + MILLI * 10 * at);
            assert_eq!(shares.held_until(&hog, later + MILLI * 10 * at), None);
        }
    }

    #[test]
    fn the_address_of_a_user_is_no_other_identity_unless_much_comes_from_it() {
        let (shares, user, address) = (on(1), Usage::default(), Usage::default());
        let start = WINDOW * 1_000;
        for _ in 0..10 {
            shares.charge_unknown(&address, MILLI / 10, start);
            shares.charge(&user, MILLI, start);
            assert_eq!(shares.held_until(&user, start), None);
        }
        for _ in 0..60 {
            shares.charge_unknown(&address, MILLI / 10, start + WINDOW);
        }
        shares.charge(&user, MILLI, start + WINDOW);
        assert!(shares.held_until(&address, start + WINDOW).is_some());
        assert_eq!(shares.held_until(&user, start + WINDOW), None);
    }

    #[test]
    fn numbers_that_wrap_disturb_nobody() {
        let (shares, hog, other) = (on(1), Usage::default(), Usage::default());
        let start = WINDOW * u32::MAX;
        for at in 0..4 {
            let now = start + WINDOW * at;
            shares.charge(&other, MILLI / 100, now);
            assert_eq!(shares.held_until(&other, now), None);
            shares.charge(&hog, MILLI * 6, now);
            assert_eq!(shares.held_until(&hog, now), Some(now + WINDOW));
            shares.charge(&other, MILLI * 4, now);
            assert_eq!(shares.held_until(&other, now), None);
        }
    }
}
