//! Waits between attempts that fail: truncated binary exponential back-off (R. M. Metcalfe and D. R. Boggs, "Ethernet:
//! Distributed Packet Switching for Local Computer Networks", Communications of the ACM 19(7), 1976), of which a part
//! is random.

use std::time::Duration;

/// Doubles the wait with each failure, up to a bound, and makes it shorter by up to half at random, so that all who
/// lost one broker together do not come back together.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// The first wait is `min`, the longest `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// How long to wait now. `random` is a number of which all 64 bits are.
    pub fn wait(&mut self, random: u64) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.max);
        let half = wait / 2;
        // The upper half of the bits is enough, and fits the type that durations multiply with.
        half + half.mul_f64((random >> 32) as f64 / f64::from(u32::MAX))
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let mut waits = |random| backoff.wait(random).as_millis();
        assert_eq!(
            [waits(u64::MAX), waits(u64::MAX), waits(u64::MAX), waits(u64::MAX)],
            [100, 200, 350, 350]
        );
        assert_eq!(waits(0), 175);
        backoff.reset();
        assert_eq!(backoff.wait(u64::MAX).as_millis(), 100);
    }
}
