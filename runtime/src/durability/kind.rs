//! The kinds of records in the journal, by their owners. They are on disk: a number is never used for something else.

/// A request that was accepted and has no answer yet.
pub const REQUEST: u8 = 1;
/// The outcome of a request with an `id`.
pub const OUTCOME: u8 = 2;

/// What records of a kind are called, for people.
pub fn name(kind: u8) -> &'static str {
    match kind {
        REQUEST => "request",
        OUTCOME => "outcome",
        BROKER.. => "message or session",
        _ => "unknown",
    }
}

/// The first kind of what the broker keeps: sessions, their messages, retained messages.
pub const BROKER: u8 = 16;
