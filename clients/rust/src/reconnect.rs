//! How long to wait before a lost connection is made again.

use std::time::Duration;

use tokio::time::Instant;

use crate::options::random;

/// The first pause.
const SHORTEST: Duration = Duration::from_millis(100);

/// No pause is longer, and a connection that held longer is one whose loss starts again with the first.
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses that double with every connection that did not hold, spread so that the clients of a broker that was
/// restarted do not all come at once.
pub(crate) struct Backoff {
    next: Duration,
    connected: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: SHORTEST, connected: None }
    }

    /// There is a connection.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    /// There is none, or none could be made: how long to wait.
    pub(crate) fn pause(&mut self, now: Instant) -> Duration {
        if self.connected.take().is_some_and(|since| now - since > LONGEST) {
            self.next = SHORTEST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        // From half to all of it.
        pause / 2 + (pause / 2).mul_f64((random() % 1024) as f64 / 1024.0)
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
            let pause = backoff.pause(now);
            assert!(longest / 2 <= pause && pause <= longest, "{pause:?} of {longest:?}");
            longest = (longest * 2).min(LONGEST);
        }
        assert_eq!(longest, LONGEST);
        backoff.connected(now);
        assert!(backoff.pause(now + SHORTEST) >= LONGEST / 2, "a connection that did not hold");
        backoff.connected(now);
        assert!(backoff.pause(now + LONGEST * 2) <= SHORTEST);
    }
}
