//! `[watchdog]`: whether the embedded broker still does its work.

use super::TimeSpan;
use super::table::table;

table! {
    /// The watchdog of the embedded broker: a client that sends itself a message through the whole broker. When the
    /// message does not come back, the process exits with code 70 and logs why, so that its supervisor starts it again:
    /// an unresponsive gateway is worse than one that is gone.
    pub struct Watchdog {
        /// Whether the watchdog runs.
        pub enabled: bool = true;
        /// Time between two messages.
        pub interval: TimeSpan = TimeSpan::secs(10), in TimeSpan::millis(100)..=TimeSpan::secs(3_600);
        /// Longest time that a message may take.
        pub timeout: TimeSpan = TimeSpan::secs(60), in TimeSpan::secs(1)..=TimeSpan::secs(3_600);
    }
}
