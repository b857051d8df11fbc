//! Log lines that strangers can cause are bounded in rate: a few a second, then only a count.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Instant,
};

/// Lines of one kind within a second.
const LINES_PER_SECOND: u32 = 10;

pub(crate) struct Throttle {
    started: Instant,
    second: AtomicU64,
    lines: AtomicU32,
}

impl Throttle {
    pub fn new() -> Self {
        Self { started: Instant::now(), second: AtomicU64::new(0), lines: AtomicU32::new(0) }
    }

    /// `Some` if a line may be written, with how many were left out since the last one. Threads that race at the
    /// turn of a second may write a line more.
    pub fn line(&self) -> Option<u32> {
        self.line_in(self.started.elapsed().as_secs())
    }

    fn line_in(&self, second: u64) -> Option<u32> {
        let left_out = if self.second.swap(second, Relaxed) == second {
            0
        } else {
            self.lines.swap(0, Relaxed).saturating_sub(LINES_PER_SECOND)
        };
        (self.lines.fetch_add(1, Relaxed) < LINES_PER_SECOND).then_some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_counted() {
        let throttle = Throttle::new();
        assert_eq!((0..100).filter_map(|_| throttle.line_in(0)).count(), 10);
        assert_eq!(throttle.line_in(1), Some(90));
        assert_eq!(throttle.line_in(1), Some(0));
    }
}
