//! Tells a lost connection from another gateway that uses the same client id.
//!
//! A broker has one connection for a client id: the newer one ends the older. Two gateways that both reconnect at
//! once would do so for ever, each taking the other's requests in flight with it.

use std::time::Duration;

use offload_mqtt::ConnectionError;

/// A connection that ends sooner than this may have been ended by another one.
const SHORT: Duration = Duration::from_secs(10);
/// This many short connections in a row are no accident. MQTT 3.1.1 has no other sign, and Mosquitto 2.0 gives none.
const SHORT_IN_A_ROW: u32 = 4;

/// Watches how connections end.
#[derive(Debug, Default)]
pub(super) struct ClientIdConflict {
    short_in_a_row: u32,
}

impl ClientIdConflict {
    /// An attempt to connect has failed (`lasted` is none), or its connection has ended after `lasted`, by this error
    /// or by our own doing. True when it looks as if another client had our id.
    pub fn ended(&mut self, error: Option<&ConnectionError>, lasted: Option<Duration>) -> bool {
        let short = lasted.is_some_and(|lasted| lasted < SHORT);
        let closed = error.is_some_and(ConnectionError::is_closed);
        self.short_in_a_row = if short && closed { self.short_in_a_row + 1 } else { 0 };
        error.is_some_and(ConnectionError::is_taken_over) || self.short_in_a_row >= SHORT_IN_A_ROW
    }
}

#[cfg(test)]
mod tests {
    use offload_mqtt::ReasonCode;

    use super::*;

    const SECOND: Option<Duration> = Some(Duration::from_secs(1));
    const CLOSED: Option<&ConnectionError> = Some(&ConnectionError::Closed);

    #[test]
    fn a_take_over_is_a_clash_at_once() {
        let taken_over = ConnectionError::Disconnected(ReasonCode::SessionTakenOver.into());
        let hour = Some(Duration::from_secs(3600));
        assert!(ClientIdConflict::default().ended(Some(&taken_over), hour));
    }

    #[test]
    fn closing_soon_is_a_clash_when_it_happens_again_and_again() {
        let mut conflict = ClientIdConflict::default();
        let ends: Vec<bool> = (0..5).map(|_| conflict.ended(CLOSED, SECOND)).collect();
        assert_eq!(ends, [false, false, false, true, true]);
    }

    #[test]
    fn a_long_connection_another_reason_or_a_broker_that_is_away_end_the_row() {
        let timed_out = Some(&ConnectionError::TimedOut);
        for (error, lasted) in
            [(CLOSED, Some(SHORT)), (CLOSED, None), (timed_out, SECOND), (timed_out, None), (None, SECOND)]
        {
            let mut conflict = ClientIdConflict::default();
            for _ in 1..SHORT_IN_A_ROW {
                assert!(!conflict.ended(CLOSED, SECOND));
            }
            assert!(!conflict.ended(error, lasted), "{error:?}");
            assert!(!conflict.ended(CLOSED, SECOND), "{error:?}");
        }
    }
}
