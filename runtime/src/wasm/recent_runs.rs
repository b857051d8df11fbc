//! What is known of a program by its last runs: whether it is short, and whether it holds up a worker.

use super::slice_clock::SliceTime;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

/// A run that took longer is not to be on an ingress's thread, which other clients need.
const SHORT: Duration = Duration::from_micros(200);

/// So many runs in a row count as long before their program does: one may have been the kernel's doing, or the
/// ticker's.
const LONG_RUNS: u8 = 2;

/// CPU time of one slice from which on a program holds up its worker: ten times what a tick leaves it by default, so no
/// tick ended it. Filling 64 MB of memory is one instruction of 25 ms.
const HOLD_UP: Duration = Duration::from_millis(5);

/// The last runs of a program.
pub struct RecentRuns {
    /// Runs in a row that were not short, up to [`LONG_RUNS`].
    long: AtomicU8,
    /// Whether any slice held up its worker.
    holds_up: AtomicBool,
}

impl RecentRuns {
    /// Of a program that has not run yet: nothing is known, so it is not short.
    pub fn none() -> RecentRuns {
        RecentRuns { long: AtomicU8::new(LONG_RUNS), holds_up: AtomicBool::new(false) }
    }

    /// Whether the program is known to be short.
    pub fn are_short(&self) -> bool {
        self.long.load(Ordering::Relaxed) < LONG_RUNS
    }

    /// Whether a slice of it took so long that nothing else could run on its worker. One that did so once may do so
    /// again.
    pub fn hold_up(&self) -> bool {
        self.holds_up.load(Ordering::Relaxed)
    }

    /// A slice has ended.
    pub fn slice_took(&self, took: SliceTime) {
        if took.charged() >= HOLD_UP {
            self.holds_up.store(true, Ordering::Relaxed);
        }
    }

    /// A run has ended. What it took is sure to be short if it was free, all in a first slice, and sure to be long if
    /// it was charged.
    pub fn ended(&self, took: SliceTime) {
        let long_runs = match took {
            SliceTime::Free(time) if time <= SHORT => 0,
            SliceTime::Charged(time) if time > SHORT => LONG_RUNS,
            _ => LONG_RUNS.min(self.long.load(Ordering::Relaxed) + 1),
        };
        self.long.store(long_runs, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_long_slice_is_remembered() {
        let runs = RecentRuns::none();
        // The kernel may have run others in a slice that is free.
        runs.slice_took(SliceTime::Free(4 * HOLD_UP));
        runs.slice_took(SliceTime::Charged(HOLD_UP / 2));
        assert!(!runs.hold_up());
        runs.slice_took(SliceTime::Charged(HOLD_UP));
        runs.slice_took(SliceTime::Charged(HOLD_UP / 2));
        assert!(runs.hold_up());
    }

    #[test]
    fn a_program_is_short_until_that_is_in_doubt_twice() {
        const LONG: Duration = Duration::from_millis(3);
        let runs = RecentRuns::none();
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
}
