//! `[watchdog]`: whether the embedded broker still does its work.

use super::TimeSpan;
use super::table::table;

table! {
    /// The watchdog of the embedded broker: a client that sends itself a message through all of it. When that does not
    /// come back the process exits with code 70 and says why, so that whoever supervises it starts it again: a gateway
    /// that is unresponsive is worse than one that is gone.
    pub struct Watchdog {
        /// Whether there is one.
        pub enabled: bool = true;
        /// Time between two messages.
        pub interval: TimeSpan = TimeSpan::secs(10), in TimeSpan::millis(100)..=TimeSpan::secs(3_600);
        /// Longest time that a message may take.
        pub timeout: TimeSpan = TimeSpan::secs(60), in TimeSpan::secs(1)..=TimeSpan::secs(3_600);
    }
}
