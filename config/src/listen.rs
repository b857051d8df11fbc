//! `[listen]`: the embedded broker.

use super::table::table;
use super::{ByteSize, HostPort, Refusal, TimeSpan, Watchdog};
use offload_broker::config::DEFAULT_MAX_QUEUED_BYTES;

/// The largest packet that MQTT can express has a little more (MQTT 5, section 1.5.5).
pub(super) const MAX_PACKET: ByteSize = ByteSize::mib(256);
/// Most messages that may wait for one client.
pub(super) const MAX_SESSION_QUEUE: usize = 1_000_000;

/// The least rate that is one: with less a connection takes longer than clients wait for it, the watchdog among them.
const LEAST_BYTE_RATE: ByteSize = ByteSize::kib(1);

table! {
    /// The embedded MQTT broker. Not used when there is a `[broker]`.
    pub struct Listen {
        /// Where to listen; port 0 picks a free one. Another address than loopback needs clients that identify
        /// themselves, by `access.passwords` or `tls.client_ca`, or `access.anonymous = true`.
        pub address: HostPort = HostPort::new("127.0.0.1", 1883);
        /// Largest MQTT packet that is taken; a longer one ends its connection. Default: 32MiB, or what `[limits]`
        /// allows a request or its answer if that is more, but no more than `max_input` and `session_queue_bytes`.
        pub max_packet: ByteSize = ByteSize::mib(32), in ByteSize::kib(1)..=MAX_PACKET;
        /// Open connections, without the watchdog's; more are refused.
        pub max_connections: usize = 10_000, in 1..=1_000_000;
        /// Open connections from one source address (in IPv6 from one network of 64 bits); loopback has no such limit.
        pub max_connections_per_address: usize = 1_024, in 1..=1_000_000;
        /// Open connections of one user, from whatever addresses.
        pub max_connections_per_user: usize = 1_024, in 1..=1_000_000;
        /// Sessions without a connection that one user, or all anonymous clients of one address, may have; each is kept
        /// for seven days. At the limit a client can still resume a session of its own; one that would leave another
        /// session behind is refused.
        pub max_sessions_away_per_identity: usize = 1_024, in 1..=1_000_000;
        /// Subscriptions of one session; one more is refused.
        pub max_subscriptions: usize = 8_192, in 1..=1_000_000;
        /// Subscriptions of all sessions of one user; one more is refused.
        pub max_subscriptions_per_user: usize = 8_192, in 1..=1_000_000;
        /// Subscriptions of all anonymous clients of one address; one more is refused.
        pub max_subscriptions_per_address: usize = 32_768, in 1..=1_000_000;
        /// Memory of all subscriptions. One user, or all anonymous clients of one address, holds at most as much as is
        /// left: alone half of it.
        pub max_subscription_bytes: ByteSize = ByteSize::mib(64), in ByteSize::kib(64)..=ByteSize::gib(16);
        /// Connections and sessions of one user, or of the anonymous clients of one address, that receive the same
        /// answer; further subscribers of it are left out.
        pub max_answer_receivers: usize = 64, in 1..=1_000_000;
        /// Memory for packets over 16KiB that are still arriving, for all connections together; at least `max_packet`.
        /// A packet without room is read later. Default: 128MiB, or `max_packet` if that is more.
        pub max_input: ByteSize = ByteSize::mib(128), in ByteSize::mib(1)..=ByteSize::gib(64);
        /// The same for one user, or for all anonymous clients of one address; at most `max_input`. One packet is
        /// always possible.
        pub max_input_per_user: ByteSize = ByteSize::mib(32), in ByteSize::kib(64)..=ByteSize::gib(64);
        /// Bytes a second that a packet must bring once it has begun, checked every 30 seconds; a slower connection is
        /// closed. 0 is no minimum.
        pub min_input_rate: ByteSize = ByteSize::new(256), in ByteSize::new(0)..=ByteSize::mib(1);
        /// Bytes that the kernel receives ahead for a connection: with 64KiB a link with a round trip of 100 ms carries
        /// 5 Mbit/s. A larger buffer takes memory, and delays other clients when many send much.
        pub receive_buffer: ByteSize = ByteSize::kib(64), in ByteSize::kib(4)..=ByteSize::mib(64);
        /// Messages a second of one user, or of all anonymous clients of one address, over all connections; what comes
        /// faster is read more slowly. 0 is no limit.
        pub max_message_rate: u64 = 0, in 0..=1_000_000_000;
        /// Bytes a second of one user, counted in the same way, at least 1KiB. 0 is no limit.
        pub max_byte_rate: ByteSize = ByteSize::new(0), in ByteSize::new(0)..=ByteSize::gib(64);
        /// Messages that wait for one client that is slow or away; further ones are dropped, counted and logged.
        /// Default: 8192, or twice `queue.per_principal` if that is more, so that there is room for the answers to as
        /// many requests as a client may have.
        pub session_queue: usize = 8_192, in 2..=MAX_SESSION_QUEUE;
        /// Bytes of those messages, `max_packet` at least. Default: 32MiB, or `max_packet` if that is more.
        pub session_queue_bytes: ByteSize = ByteSize::mib(32), in ByteSize::kib(1)..=ByteSize::gib(16);
        /// Retained messages; one more is delivered and not retained. One user, or all anonymous clients of one
        /// address, has at most as many as are left: alone half of them.
        pub max_retained_messages: usize = 20_000, in 1..=10_000_000;
        /// Memory of retained messages, shared in the same way.
        pub max_retained_bytes: ByteSize = ByteSize::mib(64), in ByteSize::kib(64)..=ByteSize::gib(64);
        /// Longest topic or filter, in bytes; a longer one is refused in publishes and in subscriptions.
        pub max_topic_length: usize = 1_024, in 128..=65_535;
        /// Most levels of a topic or filter; more are refused in the same way.
        pub max_topic_levels: usize = 64, in 8..=256;
        /// Time between two publications of the counters under `$SYS/broker/`; only what has changed is published. Zero
        /// is never.
        pub sys_interval: TimeSpan = TimeSpan::secs(10), in TimeSpan::ZERO..=TimeSpan::secs(3_600);
    }
}

impl Listen {
    pub(super) fn check(&self, refusals: &mut Vec<Refusal>) {
        let rate = self.max_byte_rate;
        if rate.bytes() != 0 && rate < LEAST_BYTE_RATE {
            let refusal =
                Refusal::new("listen.max_byte_rate", format!("{rate} a second is too slow for a connection"));
            refusals.push(refusal.accepting(format!("0 for no limit, or {LEAST_BYTE_RATE} or more")));
        }
    }

    /// The broker's limits: what the configuration says, and what follows from that.
    pub fn broker_config(&self, watchdog: &Watchdog) -> offload_broker::Config {
        let session_queue_bytes = self.session_queue_bytes.as_usize();
        offload_broker::Config {
            max_packet_size: self.max_packet.as_usize(),
            // The watchdog's own takes nobody's place.
            max_connections: self.max_connections + usize::from(watchdog.enabled),
            max_connections_per_address: self.max_connections_per_address,
            max_sessions_away_per_identity: self.max_sessions_away_per_identity,
            max_subscriptions: self.max_subscriptions,
            max_subscriptions_per_user: self.max_subscriptions_per_user,
            max_subscriptions_per_address: self.max_subscriptions_per_address,
            max_subscription_bytes: self.max_subscription_bytes.as_usize(),
            max_receivers_per_identity: self.max_answer_receivers,
            max_connections_per_user: self.max_connections_per_user,
            max_input_bytes: self.max_input.as_usize(),
            max_input_bytes_per_identity: self.max_input_per_user.as_usize(),
            receive_buffer: self.receive_buffer.as_usize(),
            min_input_rate: self.min_input_rate.bytes(),
            sys_interval: self.sys_interval.duration(),
            max_message_rate: self.max_message_rate,
            max_byte_rate: self.max_byte_rate.bytes(),
            session_queue_messages: self.session_queue,
            session_queue_bytes,
            // One identity alone may have half of it: enough for the queue of one session.
            max_queued_bytes: DEFAULT_MAX_QUEUED_BYTES.max(session_queue_bytes.saturating_mul(2)),
            max_retained_messages: self.max_retained_messages,
            max_retained_bytes: self.max_retained_bytes.as_usize(),
            max_topic_length: self.max_topic_length,
            max_topic_levels: self.max_topic_levels,
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_the_configuration_are_the_brokers() {
        let listen = Listen {
            max_subscriptions: 2,
            max_retained_messages: 3,
            max_retained_bytes: ByteSize::kib(64),
            max_topic_length: 200,
            max_topic_levels: 8,
            ..Listen::default()
        };
        let config = listen.broker_config(&Watchdog::default());
        assert!(config.check().is_ok());
        let limits = (config.max_subscriptions, config.max_retained_messages, config.max_retained_bytes);
        assert_eq!(limits, (2, 3, 64 * 1024));
        assert_eq!((config.max_topic_length, config.max_topic_levels), (200, 8));
        // What is said of the defaults in both places is the same.
        let (ours, theirs) =
            (Listen::default().broker_config(&Watchdog::default()), offload_broker::Config::default());
        assert!(ours.check().is_ok());
        let limits = |config: &offload_broker::Config| {
            let topics = (config.max_topic_length, config.max_topic_levels);
            (config.max_subscriptions, config.max_retained_messages, config.max_retained_bytes, topics)
        };
        assert_eq!(limits(&ours), limits(&theirs));
    }
}
