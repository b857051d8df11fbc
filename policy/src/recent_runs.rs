//! What is known of a program by its last runs: whether it is short, and whether it holds up a worker.
//!
//! Nobody says beforehand how long a guest will compute, and the programs are few beside the requests for them. So the
//! next run is expected to take what the last ones took, as processors predict a branch (J. E. Smith, "A Study of
//! Branch Prediction Strategies", ISCA 1981): one surprise does not change the expectation, two in a row do.

use std::hash::Hash;

use crate::Time;
use crate::fair_cache::FairCache;

/// What a slice took of the CPU. How well that is measured is the driver's to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceTime {
    /// CPU time, which the guest is charged with.
    Charged(Time),
    /// CPU time, which the guest is charged with, of a slice that went on although it was told to end.
    Overrun(Time),
    /// Wall-clock time of a slice that the guest is not charged with: a short first slice, which is not worth the
    /// reading of the CPU clock, or one in which the kernel ran others.
    Free(Time),
}

impl SliceTime {
    /// The longest first slice that a guest is not charged with, in CPU time.
    pub const FREE: Time = Time::from_millis(2);

    /// What the guest is charged with.
    #[inline]
    pub fn charged(self) -> Time {
        match self {
            SliceTime::Charged(time) | SliceTime::Overrun(time) => time,
            SliceTime::Free(_) => Time::ZERO,
        }
    }

    /// What the guest's account is charged with: short guests are not free where they are many.
    #[inline]
    pub fn used(self) -> Time {
        match self {
            SliceTime::Charged(time) | SliceTime::Overrun(time) => time,
            // More of it was not CPU time.
            SliceTime::Free(time) => time.min(Self::FREE),
        }
    }
}

/// The last runs of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecentRuns {
    /// Runs in a row that were not short, up to [`LONG_RUNS`](Self::LONG_RUNS).
    long: u8,
    /// Whether a slice held up its worker.
    hold_up: bool,
    /// Slices since then that did not.
    calm: u16,
}

impl RecentRuns {
    /// Nothing is known, so the program is not short.
    pub const UNKNOWN: Self = Self { long: Self::LONG_RUNS, hold_up: false, calm: 0 };

    /// A run that takes longer is not to be on the thread of an ingress, which other clients need.
    pub const SHORT: Time = Time::from_micros(200);

    /// How many runs in a row have to be long before their program counts as long: one may have been the kernel's
    /// doing, or the ticker's.
    pub const LONG_RUNS: u8 = 2;

    /// A program holds up its worker when one of its slices goes on for this much CPU time, ten times a slice by
    /// default, although it was told to end. Filling 64 MB of memory is one instruction of 25 ms.
    pub const HOLD_UP: Time = Time::from_millis(5);

    /// A program that has held up its worker is trusted again after this many slices that did not: half a second of CPU
    /// time by default. One that holds it up as rarely takes a few percent of it.
    pub const CALM_SLICES: u16 = 1_000;

    /// Whether the program is known to be short.
    pub fn are_short(self) -> bool {
        self.long < Self::LONG_RUNS
    }

    /// Whether a slice of it took so long that nothing else could run on its worker. A program that did so may do so
    /// again, until [`CALM_SLICES`](Self::CALM_SLICES) have passed.
    pub fn hold_up(self) -> bool {
        self.hold_up
    }

    /// A slice has ended.
    #[inline]
    pub fn slice_took(&mut self, took: SliceTime) {
        match took {
            SliceTime::Overrun(time) if time >= Self::HOLD_UP => (self.hold_up, self.calm) = (true, 0),
            SliceTime::Charged(_) | SliceTime::Overrun(_) if self.hold_up => {
                self.calm += 1;
                self.hold_up = self.calm < Self::CALM_SLICES;
            }
            SliceTime::Charged(_) | SliceTime::Overrun(_) | SliceTime::Free(_) => {}
        }
    }

    /// A run has ended. What it took is sure to be short if it was free, all in a first slice, and sure to be long if
    /// it was charged.
    #[inline]
    pub fn ended(&mut self, took: SliceTime) {
        self.long = match took {
            SliceTime::Free(time) if time <= Self::SHORT => 0,
            SliceTime::Charged(time) | SliceTime::Overrun(time) if time > Self::SHORT => Self::LONG_RUNS,
            _ => Self::LONG_RUNS.min(self.long + 1),
        };
    }
}

/// The last runs of the programs that ran last. What is forgotten of a program is learned by its next run.
#[derive(Debug)]
pub struct RunHistory<P> {
    programs: FairCache<(), P, RecentRuns, ()>,
    /// How many of them hold up workers.
    holding_up: usize,
}

impl<P: Clone + Eq + Hash> RunHistory<P> {
    /// Programs that something is known of, at most: more than a gateway keeps loaded, and less than 1 MiB.
    pub const MAX_PROGRAMS: usize = 4096;

    /// Of no program yet.
    pub fn new() -> Self {
        Self { programs: FairCache::new(), holding_up: 0 }
    }

    /// What is known of this program.
    #[inline]
    pub fn of(&self, program: &P) -> RecentRuns {
        self.programs.peek(program).copied().unwrap_or(RecentRuns::UNKNOWN)
    }

    /// Whether any program is known to [hold up](RecentRuns::hold_up) workers.
    #[inline]
    pub fn some_hold_up(&self) -> bool {
        self.holding_up > 0
    }

    /// Whether this one is: where none does, it is not looked up.
    #[inline]
    pub fn holds_up(&self, program: &P) -> bool {
        self.some_hold_up() && self.of(program).hold_up()
    }

    /// The program has run. That which ran longest ago makes room.
    #[inline]
    pub fn update(&mut self, program: &P, change: impl FnOnce(&mut RecentRuns)) {
        let runs = self.programs.get_or_insert_with(program, (), || (RecentRuns::UNKNOWN, (), 1));
        let before = usize::from(runs.hold_up);
        change(runs);
        self.holding_up = self.holding_up + usize::from(runs.hold_up) - before;
        if self.programs.len() > Self::MAX_PROGRAMS
            && let Some((_, runs)) = self.programs.evict_for(&(), 0, |_| true)
        {
            self.holding_up -= usize::from(runs.hold_up);
        }
    }
}

impl<P: Clone + Eq + Hash> Default for RunHistory<P> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_that_overruns_is_remembered_for_a_time() {
        const HOLD_UP: Time = RecentRuns::HOLD_UP;
        let mut runs = RecentRuns::UNKNOWN;
        // The kernel may have run others in a slice that is free, and the tick that ends one may have come late.
        runs.slice_took(SliceTime::Free(HOLD_UP * 4));
        runs.slice_took(SliceTime::Charged(HOLD_UP * 4));
        runs.slice_took(SliceTime::Overrun(HOLD_UP / 2));
        assert!(!runs.hold_up());
        for _ in 0..2 {
            runs.slice_took(SliceTime::Overrun(HOLD_UP));
            for _ in 1..RecentRuns::CALM_SLICES {
                runs.slice_took(SliceTime::Charged(HOLD_UP / 2));
            }
            assert!(runs.hold_up());
        }
        runs.slice_took(SliceTime::Charged(HOLD_UP / 2));
        assert!(!runs.hold_up());
    }

    #[test]
    fn a_program_is_short_until_that_is_in_doubt_twice() {
        const LONG: Time = Time::from_millis(3);
        const SHORT: Time = RecentRuns::SHORT;
        let mut runs = RecentRuns::UNKNOWN;
        assert!(!runs.are_short());
        for (took, short) in [
            (SliceTime::Free(SHORT), true),
            // The kernel ran another thread meanwhile, or a tick ended the first slice early.
            (SliceTime::Free(LONG), true),
            (SliceTime::Free(SHORT), true),
            (SliceTime::Charged(SHORT), true),
            (SliceTime::Free(LONG), false),
            (SliceTime::Free(SHORT), true),
            (SliceTime::Charged(LONG), false),
            (SliceTime::Free(SHORT), true),
        ] {
            runs.ended(took);
            assert_eq!(runs.are_short(), short, "{took:?}");
        }
    }

    #[test]
    fn the_program_that_ran_longest_ago_is_forgotten() {
        let mut history = RunHistory::new();
        for program in 0..=RunHistory::<usize>::MAX_PROGRAMS {
            history.update(&program, |runs| runs.ended(SliceTime::Free(Time::ZERO)));
            history.update(&0, |_| ());
            if program == 1 {
                history.update(&1, |runs| runs.slice_took(SliceTime::Overrun(RecentRuns::HOLD_UP)));
                assert!(history.holds_up(&1) && !history.holds_up(&0));
            }
        }
        assert!(history.of(&0).are_short() && history.of(&2).are_short());
        assert_eq!((history.of(&1), history.holding_up), (RecentRuns::UNKNOWN, 0));
    }
}
