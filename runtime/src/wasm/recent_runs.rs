//! Whether a program is known to be short, by how long its last runs took.

use super::slice_clock::SliceTime;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// A run that took longer is not to be on an ingress's thread, which other clients need.
const SHORT: Duration = Duration::from_micros(200);

/// So many runs in a row count as long before their program does: one may have been the kernel's doing, or the ticker's.
const LONG_RUNS: u8 = 2;

/// Runs in a row that were not short, up to [`LONG_RUNS`].
pub struct RecentRuns(AtomicU8);

impl RecentRuns {
    /// Of a program that has not run yet: nothing is known, so it is not short.
    pub fn none() -> RecentRuns {
        RecentRuns(AtomicU8::new(LONG_RUNS))
    }

    /// Whether the program is known to be short.
    pub fn are_short(&self) -> bool {
        self.0.load(Ordering::Relaxed) < LONG_RUNS
    }

    /// A run has ended. What it took is sure to be short if it was free, all in a first slice, and sure to be long if
    /// it was charged.
    pub fn ended(&self, took: SliceTime) {
        let long_runs = match took {
            SliceTime::Free(time) if time <= SHORT => 0,
            SliceTime::Charged(time) if time > SHORT => LONG_RUNS,
            _ => LONG_RUNS.min(self.0.load(Ordering::Relaxed) + 1),
        };
        self.0.store(long_runs, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
