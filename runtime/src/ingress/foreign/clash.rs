//! Tells a lost connection from another gateway that uses the same client id.
//!
//! A broker has one connection for a client id: the newer one ends the older. Two gateways that both reconnect at
//! once would do so for ever, each taking the other's requests in flight with it.

use std::time::Duration;

use super::link::Failure;

/// A connection that ends sooner than this may have been ended by another one.
const SHORT: Duration = Duration::from_secs(10);
/// So many short connections in a row are no accident. MQTT 3.1.1 has no other sign.
const SHORT_IN_A_ROW: u32 = 4;

/// Watches how connections end.
#[derive(Debug, Default)]
pub(super) struct Clash {
    short_in_a_row: u32,
}

impl Clash {
    /// A connection that was established has ended after `lasted`. True when another client has our id.
    pub fn ended(&mut self, failure: &Failure, lasted: Duration) -> bool {
        match failure {
            Failure::TakenOver => return true,
            Failure::Closed if lasted < SHORT => self.short_in_a_row += 1,
            _ => self.short_in_a_row = 0,
        }
        self.short_in_a_row >= SHORT_IN_A_ROW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_take_over_is_a_clash_at_once() {
        assert!(Clash::default().ended(&Failure::TakenOver, Duration::from_secs(3600)));
    }

    #[test]
    fn closing_soon_is_a_clash_when_it_happens_again_and_again() {
        let second = Duration::from_secs(1);
        let mut clash = Clash::default();
        let ends: Vec<bool> = (0..5).map(|_| clash.ended(&Failure::Closed, second)).collect();
        assert_eq!(ends, [false, false, false, true, true]);
        assert!(!clash.ended(&Failure::Closed, SHORT), "a long connection ends the row");
        assert!(!clash.ended(&Failure::Closed, second));
        assert!(!clash.ended(&Failure::Lost("timeout".to_owned()), second), "so does another reason");
    }
}
