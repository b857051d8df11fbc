//! The kinds of records in the journal, by their owners. They are on disk: a number is never used for something else.

use std::ops::RangeInclusive;

/// A request that was accepted and has no answer yet.
pub const REQUEST: u8 = 1;
/// The outcome of a request with an `id`.
pub const OUTCOME: u8 = 2;
/// The outcome of a sealed request.
pub const SEALED_OUTCOME: u8 = 3;

/// The kinds of what the broker keeps.
pub const BROKER: RangeInclusive<u8> = 16..=31;
/// A session that outlives its connection.
pub const SESSION: u8 = 16;
/// A subscription of one.
pub const SUBSCRIPTION: u8 = 17;
/// A message for some.
pub const MESSAGE: u8 = 18;
/// The place of a message in the queue of one.
pub const DELIVERY: u8 = 19;
/// A message at QoS 2 to one, whose PUBCOMP has not come.
pub const RELEASED: u8 = 20;
/// A message at QoS 2 from one, whose PUBREL has not come.
pub const RECEIVED: u8 = 21;
/// A retained message.
pub const RETAINED: u8 = 22;

/// What records of a kind are called, for people.
pub fn name(kind: u8) -> &'static str {
    match kind {
        REQUEST => "request",
        OUTCOME => "outcome",
        SEALED_OUTCOME => "sealed outcome",
        SESSION => "session",
        SUBSCRIPTION => "subscription",
        MESSAGE => "message",
        DELIVERY => "delivery",
        RELEASED => "released identifier",
        RECEIVED => "received identifier",
        RETAINED => "retained message",
        _ => "unknown",
    }
}
