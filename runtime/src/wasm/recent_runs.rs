//! Whether a program is known to be short, by how long its last runs took.

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

    /// A run has ended. What it `used` is sure to be short if that was all in its first slice, and sure to be long if it
    /// was not.
    pub fn ended(&self, used: Duration, in_first_slice: bool) {
        let long_runs = match (used <= SHORT, in_first_slice) {
            (true, true) => 0,
            (false, false) => LONG_RUNS,
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
        for (used, in_first_slice, short) in [
            (SHORT, true, true),
            // The kernel ran another thread meanwhile, or a tick ended the first slice early.
            (LONG, true, true),
            (SHORT, true, true),
            (SHORT, false, true),
            (LONG, true, false),
            (SHORT, true, true),
            (LONG, false, false),
            (SHORT, true, true),
        ] {
            runs.ended(used, in_first_slice);
            assert_eq!(runs.are_short(), short, "{used:?} {in_first_slice}");
        }
    }
}
