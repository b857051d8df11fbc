//! `[listen]`: the embedded broker.

use super::table::table;
use super::{ByteSize, HostPort, TimeSpan};

table! {
    /// The embedded MQTT broker. Not used when there is a `[broker]`.
    pub struct Listen {
        /// Where to listen; port 0 picks a free one. Another address than loopback needs clients that say who they are,
        /// by `access.passwords` or `tls.client_ca`, or `access.anonymous = true`.
        pub address: HostPort = HostPort::new("127.0.0.1", 1883);
        /// Largest MQTT packet that is taken; a longer one ends its connection.
        pub max_packet: ByteSize = ByteSize::mib(32), in ByteSize::kib(1)..=ByteSize::mib(256);
        /// Open connections; more are turned away.
        pub max_connections: usize = 10_000, in 1..=1_000_000;
        /// Open connections from one source address (in IPv6 from one network of 64 bits); loopback has no such limit.
        pub max_connections_per_address: usize = 1_024, in 1..=1_000_000;
        /// Open connections of one user, from whatever addresses.
        pub max_connections_per_user: usize = 1_024, in 1..=1_000_000;
        /// Sessions that one user, or all without a name at one address, may leave behind without a connection, each
        /// for seven days. Who has so many may come back to them; one more that would stay is refused.
        pub max_sessions_away_per_identity: usize = 1_024, in 1..=1_000_000;
        /// Subscriptions of all sessions of one user; one more is refused.
        pub max_subscriptions_per_user: usize = 8_192, in 1..=1_000_000;
        /// Subscriptions of all clients without a name at one address; one more is refused.
        pub max_subscriptions_per_address: usize = 32_768, in 1..=1_000_000;
        /// Memory of all subscriptions. No user, or address of those without a name, holds more than is left: one alone
        /// has half of it.
        pub max_subscription_bytes: ByteSize = ByteSize::mib(64), in ByteSize::kib(64)..=ByteSize::gib(16);
        /// Connections and sessions of one user, or of those without a name at one address, that get one and the same
        /// answer, if so many have subscribed to it; the others are left out.
        pub max_answer_receivers: usize = 64, in 1..=1_000_000;
        /// Memory for packets over 16KiB that have not come completely, for all connections together; at least
        /// `max_packet` is taken. A packet for which there is no room is read later.
        pub max_input: ByteSize = ByteSize::mib(128), in ByteSize::mib(1)..=ByteSize::gib(64);
        /// The same for one user, or for all clients without a name at one address. One packet is always possible.
        pub max_input_per_user: ByteSize = ByteSize::mib(32), in ByteSize::kib(64)..=ByteSize::gib(64);
        /// Bytes a second that a packet must bring once it has begun, looked at every 30 seconds; 0 asks for none. A
        /// connection on which less comes is closed.
        pub min_input_rate: ByteSize = ByteSize::new(256), in ByteSize::new(0)..=ByteSize::mib(1);
        /// Messages a second that one user may send, or all clients without a name at one address, over all of its
        /// connections; 0 is no limit. Who sends more is read more slowly.
        pub max_message_rate: u64 = 0, in 0..=1_000_000_000;
        /// Bytes a second that one user may send, counted in the same way; 0 is no limit. Who sends more is read more
        /// slowly.
        pub max_byte_rate: ByteSize = ByteSize::new(0), in ByteSize::new(0)..=ByteSize::gib(64);
        /// Messages that wait for one client that is slow or away; what is more is dropped, counted and logged. Twice as
        /// many as `queue.per_principal`, by default, so that as many answers have room as requests are taken.
        pub session_queue: usize = 8_192, in 1..=1_000_000;
        /// Bytes of those messages; at least `max_packet`, so that each message can be delivered.
        pub session_queue_bytes: ByteSize = ByteSize::mib(16), in ByteSize::kib(1)..=ByteSize::gib(16);
        /// Time between two looks at the counters under `$SYS/broker/`, of which what has changed is published; zero
        /// publishes none.
        pub sys_interval: TimeSpan = TimeSpan::secs(10), in TimeSpan::ZERO..=TimeSpan::secs(3_600);
    }
}
