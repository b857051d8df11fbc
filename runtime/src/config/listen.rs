//! `[listen]`: the embedded broker.

use super::table::table;
use super::{ByteSize, HostPort};

table! {
    /// The embedded MQTT broker. Not used when there is a `[broker]`.
    pub struct Listen {
        /// Where to listen; port 0 picks a free one. Only loopback addresses for now.
        pub address: HostPort = HostPort::new("127.0.0.1", 1883);
        /// Largest MQTT packet that is taken; a longer one ends its connection.
        pub max_packet: ByteSize = ByteSize::mib(16), in ByteSize::kib(1)..=ByteSize::mib(256);
        /// Open connections; more are turned away.
        pub max_connections: usize = 10_000, in 1..=1_000_000;
        /// Messages that wait for one client that is slow or away.
        pub session_queue: usize = 1_024, in 1..=1_000_000;
        /// Bytes of those messages.
        pub session_queue_bytes: ByteSize = ByteSize::mib(16), in ByteSize::kib(1)..=ByteSize::gib(16);
    }
}
