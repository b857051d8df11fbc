//! `[mirror]`: requests and their outcome for monitoring.

use super::ByteSize;
use super::table::table;

table! {
    /// Requests and their outcome as JSON lines under `gateway/<name>/jobs`, for monitoring. Requests reach no
    /// subscriber otherwise: `mosquitto_sub -t '#'` shows none of them.
    pub struct Mirror {
        /// Whether requests are shown there.
        pub enabled: bool = false;
        /// Whether the payloads of requests and answers are shown, and not only their sizes.
        pub payloads: bool = false;
        /// Bytes of each payload that are shown; the rest is left out.
        pub payload_bytes: ByteSize = ByteSize::kib(4), in ByteSize::new(1)..=ByteSize::mib(1);
        /// Lines that wait for the broker; further ones are left out and counted.
        pub queue: usize = 1_024, in 1..=1_000_000;
    }
}
