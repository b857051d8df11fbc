//! `[mirror]`: requests and their outcome for whoever watches.

use super::ByteSize;
use super::table::table;

table! {
    /// Requests and their outcome as JSON lines under `gateway/<name>/jobs`, for whoever watches. Requests pass no
    /// subscriber, so that `mosquitto_sub -t '#'` shows none of them otherwise.
    pub struct Mirror {
        /// Whether there is a mirror.
        pub enabled: bool = false;
        /// Whether it shows what requests and answers carry, and not only their sizes.
        pub payloads: bool = false;
        /// Bytes of each payload that are shown; the rest is left out.
        pub payload_bytes: ByteSize = ByteSize::kib(4), in ByteSize::new(1)..=ByteSize::mib(1);
        /// Lines that wait for the broker; those that find no room are left out, and counted.
        pub queue: usize = 1_024, in 1..=1_000_000;
    }
}
