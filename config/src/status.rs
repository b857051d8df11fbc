//! `[status]`: what the gateway says of itself.

use super::TimeSpan;
use super::table::table;

table! {
    /// The retained topic `gateway/<name>/status`.
    pub struct Status {
        /// Time between two looks at the load; the status is published when it has changed.
        pub interval: TimeSpan = TimeSpan::secs(10), in TimeSpan::millis(100)..=TimeSpan::secs(3600);
    }
}
