//! One turn of a connection's task: from the moment that the runtime polls it until others have theirs. It ends by what
//! was done, not by a number of packets alone: one packet may cost a thousand times what another does.

use std::time::Duration;

use tokio::time::Instant;

/// Longest turn. A connection with little to do waits for one turn of each other that has much.
const LONGEST: Duration = Duration::from_micros(500);
/// Packets of a turn: their acknowledgements fill a segment or two.
const MOST_PACKETS: usize = 128;
/// Bytes of the packets of a turn.
const MOST_BYTES: usize = 256 * 1024;
/// Units of work between two looks at the clock, a few microseconds: a look costs as much as a tenth of a small packet.
const UNITS_PER_LOOK: usize = 16;
/// Bytes that are as much work as a small packet.
const BYTES_PER_UNIT: usize = 256;

pub(crate) struct WorkBudget {
    pub started: Instant,
    packets: usize,
    bytes: usize,
    /// Units of work since the clock was looked at.
    unseen: usize,
    over: bool,
}

impl WorkBudget {
    pub fn new(now: Instant) -> Self {
        Self { started: now, packets: 0, bytes: 0, unseen: 0, over: false }
    }

    /// Takes note of work beyond a packet's own: of receivers that it was given to, or filters that it holds.
    pub fn work(&mut self, units: usize) {
        self.unseen += units;
    }

    /// A packet of so many bytes was handled.
    pub fn packet(&mut self, size: usize, clock: impl FnOnce() -> Instant) {
        self.packets += 1;
        self.bytes += size;
        self.unseen += 1 + size / BYTES_PER_UNIT;
        if self.packets >= MOST_PACKETS || self.bytes >= MOST_BYTES {
            self.over = true;
        } else if self.unseen >= UNITS_PER_LOOK {
            self.look(clock());
        }
    }

    /// Ends the turn if its time is up.
    pub fn look(&mut self, now: Instant) {
        self.unseen = 0;
        self.over |= now.saturating_duration_since(self.started) >= LONGEST;
    }

    pub fn is_over(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of these packets a turn has room for, each taking so long.
    fn packets(size: usize, work: usize, each: Duration) -> usize {
        let mut now = Instant::now();
        let mut turn = WorkBudget::new(now);
        let mut handled = 0;
        while !turn.is_over() {
            handled += 1;
            now += each;
            turn.work(work);
            turn.packet(size, || now);
        }
        handled
    }

    #[test]
    fn a_turn_ends_by_packets_bytes_and_time() {
        let micros = Duration::from_micros;
        assert_eq!(packets(10, 0, micros(1)), MOST_PACKETS);
        assert_eq!(packets(64 * 1024, 0, micros(1)), 4);
        assert_eq!(packets(16 << 20, 0, micros(1)), 1);
        // Each of many filters or receivers is work, and so the clock is looked at.
        assert_eq!(packets(1_000, 256, micros(10_000)), 1);
        assert_eq!(packets(1_000, 256, micros(300)), 2);
        // What is cheap by its looks and expensive all the same ends at the next look.
        assert_eq!(packets(10, 0, micros(100)), UNITS_PER_LOOK);
    }

    #[test]
    fn the_clock_is_read_once_for_many_small_packets() {
        let now = Instant::now();
        let mut turn = WorkBudget::new(now);
        let mut looks = 0;
        while !turn.is_over() {
            turn.packet(50, || {
                looks += 1;
                now
            });
        }
        assert!(looks <= MOST_PACKETS / UNITS_PER_LOOK, "{looks}");
    }
}
