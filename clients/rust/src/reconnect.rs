//! How long to wait before a lost connection is made again.

use std::time::Duration;

use tokio::time::Instant;

use crate::options::random;

/// The first pause.
const SHORTEST: Duration = Duration::from_millis(100);

/// No pause is longer, and a connection that held longer is one whose loss starts again with the first.
const LONGEST: Duration = Duration::from_secs(5);

/// Connections in a row that did not hold, after which there is no point in going on: two clients of one id evict each
/// other for ever, and not every broker says why it closes a connection.
const MOST_EVICTIONS: u32 = 5;

/// Pauses that double with every connection that did not hold, spread so that the clients of a broker that was
/// restarted do not all come at once.
pub(crate) struct Backoff {
    next: Duration,
    connected: Option<Instant>,
    /// Connections in a row that did not hold.
    evictions: u32,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: SHORTEST, connected: None, evictions: 0 }
    }

    /// There is a connection.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    /// There is none, or none could be made: how long to wait. `None` if there is no point in it.
    pub(crate) fn pause(&mut self, now: Instant) -> Option<Duration> {
        match self.connected.take() {
            Some(since) if now - since > LONGEST => *self = Self::new(),
            Some(_) => self.evictions += 1,
            None => {}
        }
        if self.evictions == MOST_EVICTIONS {
            return None;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        // From half to all of it.
        Some(pause / 2 + (pause / 2).mul_f64((random() % 1024) as f64 / 1024.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_start_again_after_a_connection_that_held() {
        let mut backoff = Backoff::new();
        let now = Instant::now();
        let mut longest = SHORTEST;
        for _ in 0..10 {
            let pause = backoff.pause(now).unwrap();
            assert!(longest / 2 <= pause && pause <= longest, "{pause:?} of {longest:?}");
            longest = (longest * 2).min(LONGEST);
        }
        assert_eq!(longest, LONGEST);
        backoff.connected(now);
        assert!(backoff.pause(now + SHORTEST) >= Some(LONGEST / 2), "a connection that did not hold");
        backoff.connected(now);
        assert!(backoff.pause(now + LONGEST * 2) <= Some(SHORTEST));
    }

    #[test]
    fn connections_that_never_hold_are_given_up() {
        let mut backoff = Backoff::new();
        let now = Instant::now();
        for _ in 1..MOST_EVICTIONS {
            backoff.connected(now);
            assert!(backoff.pause(now).is_some());
            assert!(backoff.pause(now).is_some(), "an attempt that failed is no eviction");
        }
        backoff.connected(now);
        assert_eq!(backoff.pause(now), None);
    }
}
