//! Tells a lost connection from another gateway that uses the same client id.
//!
//! A broker has one connection for a client id: the newer one ends the older. Two gateways that both reconnect at
//! once would do so for ever, each taking the other's requests in flight with it.

use std::time::Duration;

use super::link::Failure;

/// A connection that ends sooner than this may have been ended by another one.
const SHORT: Duration = Duration::from_secs(10);
/// So many short connections in a row are no accident. MQTT 3.1.1 has no other sign, and Mosquitto 2.0 gives none.
const SHORT_IN_A_ROW: u32 = 4;

/// Watches how connections end.
#[derive(Debug, Default)]
pub(super) struct ClientIdConflict {
    short_in_a_row: u32,
}

impl ClientIdConflict {
    /// An attempt to connect has failed (`lasted` is none), or its connection has ended after `lasted`. True when it
    /// looks as if another client had our id.
    pub fn ended(&mut self, failure: &Failure, lasted: Option<Duration>) -> bool {
        let short = lasted.is_some_and(|lasted| lasted < SHORT);
        self.short_in_a_row = if short && *failure == Failure::Closed { self.short_in_a_row + 1 } else { 0 };
        *failure == Failure::TakenOver || self.short_in_a_row >= SHORT_IN_A_ROW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Option<Duration> = Some(Duration::from_secs(1));

    #[test]
    fn a_take_over_is_a_clash_at_once() {
        assert!(ClientIdConflict::default().ended(&Failure::TakenOver, Some(Duration::from_secs(3600))));
    }

    #[test]
    fn closing_soon_is_a_clash_when_it_happens_again_and_again() {
        let mut conflict = ClientIdConflict::default();
        let ends: Vec<bool> = (0..5).map(|_| conflict.ended(&Failure::Closed, SECOND)).collect();
        assert_eq!(ends, [false, false, false, true, true]);
    }

    #[test]
    fn a_long_connection_another_reason_or_a_broker_that_is_away_end_the_row() {
        let lost = || Failure::Lost("timeout".to_owned());
        for (failure, lasted) in [(Failure::Closed, Some(SHORT)), (lost(), SECOND), (lost(), None)] {
            let mut conflict = ClientIdConflict::default();
            for _ in 1..SHORT_IN_A_ROW {
                assert!(!conflict.ended(&Failure::Closed, SECOND));
            }
            assert!(!conflict.ended(&failure, lasted), "{failure}");
            assert!(!conflict.ended(&Failure::Closed, SECOND), "{failure}");
        }
    }
}
