//! What everyone here who is an MQTT client needs beside rumqttc.
//!
//! [`EventLoop`] is the connection in MQTT 5, on rumqttc's packets and its state of what is in flight. rumqttc's own
//! loses what a broker says when it ends a connection: a DISCONNECT in its short form, and the Reason String of a
//! refusal. [`identify`] tells what answers where a broker should, when no connection comes about.

mod codec;
mod event_loop;
mod peer;
mod stream;

use std::fmt::Debug;

pub use event_loop::{ConnectionError, EventLoop, connect};
pub use peer::{Peer, identify};

/// The longest text of a broker that is repeated, in characters.
const MAX_TEXT: usize = 200;

/// What a broker says of a refusal: its reason code, and its Reason String where it gives one. For people: bounded, and
/// without control characters.
pub fn because(code: impl Debug, reason_string: Option<&str>) -> String {
    match reason_string.filter(|text| !text.is_empty()) {
        Some(text) => format!("{code:?}: {}", one_line(text)),
        None => format!("{code:?}"),
    }
}

/// Another's text as it can stand in a line: bounded, without control characters.
pub fn one_line(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_bounded_line() {
        assert_eq!(because("Banned", None), "\"Banned\"");
        assert_eq!(because(7, Some("")), "7");
        assert_eq!(because(7, Some("not\nyou\u{1b}")), "7: not you ");
        assert!(because(7, Some(&"x".repeat(100_000))).len() < 2 * MAX_TEXT);
    }
}
