//! How long to wait before a lost connection is made again.

use std::time::Duration;

use offload_policy::Backoff;
use tokio::time::Instant;

use crate::options::random;

/// The first pause.
const SHORTEST: Duration = Duration::from_millis(100);

/// No pause is longer, and a connection that held longer is one whose loss starts again with the first.
const LONGEST: Duration = Duration::from_secs(5);

/// Connections in a row that did not hold, after which there is no point in going on: two clients of one id evict each
/// other for ever, and not every broker says why it closes a connection.
const MOST_EVICTIONS: u32 = 5;

/// The pauses of one client: they double with every connection that did not hold.
pub(crate) struct ReconnectPolicy {
    backoff: Backoff,
    connected: Option<Instant>,
    /// Connections in a row that did not hold.
    evictions: u32,
}

impl ReconnectPolicy {
    pub(crate) fn new() -> Self {
        Self { backoff: Backoff::new(SHORTEST, LONGEST), connected: None, evictions: 0 }
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
        Some(self.backoff.wait(random()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_start_again_after_a_connection_that_held() {
        let mut reconnects = ReconnectPolicy::new();
        let now = Instant::now();
        let mut longest = SHORTEST;
        for _ in 0..10 {
            let pause = reconnects.pause(now).unwrap();
            assert!(longest / 2 <= pause && pause <= longest, "{pause:?} of {longest:?}");
            longest = (longest * 2).min(LONGEST);
        }
        assert_eq!(longest, LONGEST);
        reconnects.connected(now);
        assert!(reconnects.pause(now + SHORTEST) >= Some(LONGEST / 2), "a connection that did not hold");
        reconnects.connected(now);
        assert!(reconnects.pause(now + LONGEST * 2) <= Some(SHORTEST));
    }

    #[test]
    fn connections_that_never_hold_are_given_up() {
        let mut reconnects = ReconnectPolicy::new();
        let now = Instant::now();
        for _ in 1..MOST_EVICTIONS {
            reconnects.connected(now);
            assert!(reconnects.pause(now).is_some());
            assert!(reconnects.pause(now).is_some(), "an attempt that failed is no eviction");
        }
        reconnects.connected(now);
        assert_eq!(reconnects.pause(now), None);
    }
}
