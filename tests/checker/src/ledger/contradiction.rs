//! What breaks a promise, and what is known of it.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

/// The kinds of contradiction between what was acknowledged and what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// A request that was acknowledged is not answered.
    Lost,
    /// A request that is repeated is not answered, acknowledged or not.
    Unanswered,
    /// What was sent again and again is not acknowledged.
    Unacknowledged,
    /// An `id` was answered with other bytes than before.
    Changed,
    /// A request without an `id` ran more often than repetitions and crashes explain.
    RunTooOften,
    /// An answer reached another client than the one that asked.
    Misdirected,
    /// An answer or a message to what was never sent.
    Unasked,
    /// An answer or a message with other bytes than the right ones.
    Wrong,
    /// An error in place of an output.
    Refused,
    /// A message that was acknowledged did not reach a subscriber.
    Undelivered,
    /// A message at QoS 2 reached a subscriber twice.
    Twice,
    /// A retained value is not the last one that was acknowledged.
    NotRetained,
    /// The broker has forgotten a session.
    SessionLost,
    /// A packet, or the end of a connection, that the standard does not allow there.
    Protocol,
    /// A process, directory, descriptor or slot that nothing needs any more.
    Leak,
    /// A server does not start again, or ends by itself.
    Down,
}

impl Fault {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Lost => "lost",
            Fault::Unanswered => "unanswered",
            Fault::Unacknowledged => "unacknowledged",
            Fault::Changed => "changed",
            Fault::RunTooOften => "run-too-often",
            Fault::Misdirected => "misdirected",
            Fault::Unasked => "unasked",
            Fault::Wrong => "wrong",
            Fault::Refused => "refused",
            Fault::Undelivered => "undelivered",
            Fault::Twice => "twice",
            Fault::NotRetained => "not-retained",
            Fault::SessionLost => "session-lost",
            Fault::Protocol => "protocol",
            Fault::Leak => "leak",
            Fault::Down => "down",
        }
    }
}

/// One broken promise.
#[derive(Clone, Debug)]
pub struct Contradiction {
    /// Which promise.
    pub fault: Fault,
    /// The round in which it was found.
    pub round: u32,
    /// Since the first round began.
    pub at: Duration,
    /// What is wrong, in a sentence.
    pub what: String,
    /// What was sent, acknowledged and killed, and what came, in order.
    pub history: Vec<String>,
}

impl Contradiction {
    /// For reports that programs read.
    pub fn json(&self) -> Value {
        json!({
            "fault": self.fault.name(),
            "round": self.round,
            "at_ms": u64::try_from(self.at.as_millis()).unwrap_or(u64::MAX),
            "what": self.what,
            "history": self.history,
        })
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (round {}, {}): {}", self.fault.name(), self.round, seconds(self.at), self.what)?;
        self.history.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// As histories write times.
pub fn seconds(at: Duration) -> String {
    format!("{:.3} s", at.as_secs_f64())
}
