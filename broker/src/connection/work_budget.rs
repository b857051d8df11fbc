//! The work that a connection's task may do in one poll, before others of the thread have theirs. It is spent by what
//! was done, not by a number of packets alone: one packet may cost a thousand times what another does.

use std::time::Duration;

use tokio::time::Instant;

/// Longest time of a budget. A connection with little to do waits this long for each other that has much.
const MAX_TIME: Duration = Duration::from_micros(500);
/// Packets of a budget: their acknowledgements fill a segment or two.
const MAX_PACKETS: usize = 128;
/// Bytes of the packets of a budget.
const MAX_BYTES: usize = 256 * 1024;
/// Units of work between two checks of the clock, a few microseconds: a check costs as much as a tenth of a small
/// packet.
const UNITS_PER_CHECK: usize = 16;
/// Bytes that are as much work as a small packet.
const BYTES_PER_UNIT: usize = 256;

pub(crate) struct WorkBudget {
    pub started: Instant,
    packets: usize,
    bytes: usize,
    /// Units of work since the clock was read.
    unchecked: usize,
    spent: bool,
}

impl WorkBudget {
    pub fn new(now: Instant) -> Self {
        Self { started: now, packets: 0, bytes: 0, unchecked: 0, spent: false }
    }

    /// Takes note of work beyond a packet's own: of receivers that it was given to, or filters that it holds.
    pub fn work(&mut self, units: usize) {
        self.unchecked += units;
    }

    /// A packet of `size` bytes was handled.
    pub fn packet(&mut self, size: usize, clock: impl FnOnce() -> Instant) {
        self.packets += 1;
        self.bytes += size;
        self.unchecked += 1 + size / BYTES_PER_UNIT;
        if self.packets >= MAX_PACKETS || self.bytes >= MAX_BYTES {
            self.spent = true;
        } else if self.unchecked >= UNITS_PER_CHECK {
            self.check_time(clock());
        }
    }

    /// Reads the clock: the budget is spent if its time is up.
    pub fn check_time(&mut self, now: Instant) {
        self.unchecked = 0;
        self.spent |= now.saturating_duration_since(self.started) >= MAX_TIME;
    }

    pub fn is_spent(&self) -> bool {
        self.spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of these packets a budget allows, if each takes this long.
    fn packets(size: usize, work: usize, each: Duration) -> usize {
        let mut now = Instant::now();
        let mut budget = WorkBudget::new(now);
        let mut handled = 0;
        while !budget.is_spent() {
            handled += 1;
            now += each;
            budget.work(work);
            budget.packet(size, || now);
        }
        handled
    }

    #[test]
    fn a_budget_is_spent_by_packets_bytes_and_time() {
        let micros = Duration::from_micros;
        assert_eq!(packets(10, 0, micros(1)), MAX_PACKETS);
        assert_eq!(packets(64 * 1024, 0, micros(1)), 4);
        assert_eq!(packets(16 << 20, 0, micros(1)), 1);
        // Each of many filters or receivers is work, and so the clock is read.
        assert_eq!(packets(1_000, 256, micros(10_000)), 1);
        assert_eq!(packets(1_000, 256, micros(300)), 2);
        // What is cheap by its size and expensive all the same ends at the next check.
        assert_eq!(packets(10, 0, micros(100)), UNITS_PER_CHECK);
    }

    #[test]
    fn the_clock_is_read_once_for_many_small_packets() {
        let now = Instant::now();
        let mut budget = WorkBudget::new(now);
        let mut checks = 0;
        while !budget.is_spent() {
            budget.packet(50, || {
                checks += 1;
                now
            });
        }
        assert!(checks <= MAX_PACKETS / UNITS_PER_CHECK, "{checks}");
    }
}
