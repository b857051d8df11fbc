//! The limits of a broker. Every one has a default that suits a small machine with 4 GB.

use std::time::Duration;

use crate::error::Error;

/// Largest packet in either direction, in bytes: a request with a module of some megabytes fits.
pub const DEFAULT_MAX_PACKET_SIZE: usize = 16 * 1024 * 1024;
/// Largest CONNECT, in bytes: a will of 64 KiB with topic, ids and properties fits.
pub const DEFAULT_MAX_CONNECT_SIZE: usize = 256 * 1024;
/// Largest property section of a packet, in bytes: decoded properties take several times their size.
pub const DEFAULT_MAX_PROPERTIES_SIZE: usize = 256 * 1024;
/// User properties of a PUBLISH, SUBSCRIBE or UNSUBSCRIBE: as many arguments of a program.
pub const DEFAULT_MAX_USER_PROPERTIES: usize = 1_024;
/// User properties of a CONNECT, and of its will: whoever sends them is not known yet.
pub const DEFAULT_MAX_CONNECT_USER_PROPERTIES: usize = 64;
/// Bytes set aside for packets that have not come completely, for all connections together.
pub const DEFAULT_MAX_INPUT_BYTES: usize = 128 * 1024 * 1024;
/// Bytes set aside for packets of one identity that have not come completely: two of the largest.
pub const DEFAULT_MAX_INPUT_BYTES_PER_IDENTITY: usize = 32 * 1024 * 1024;
/// Bytes a second that a packet must bring once it has begun: a tenth of what a link of 20 kbit/s carries.
pub const DEFAULT_MIN_INPUT_RATE: u64 = 256;
/// Time over which that rate is looked at: a link that is lost for some seconds is no reason to close.
pub const DEFAULT_INPUT_RATE_WINDOW: Duration = Duration::from_secs(30);
/// Bytes that the kernel receives ahead for a connection. With 64 KiB a link with a round trip of 100 ms carries 5
/// Mbit/s; with megabytes, as Linux would take, a few senders fill a core's queue of packets, and all others wait
/// behind them.
pub const DEFAULT_RECEIVE_BUFFER: usize = 64 * 1024;
/// TCP connections at a time.
pub const DEFAULT_MAX_CONNECTIONS: usize = 16_384;
/// TCP connections at a time from one address: a workshop behind one router fits, and no host takes more than a
/// sixteenth of all connections.
pub const DEFAULT_MAX_CONNECTIONS_PER_ADDRESS: usize = 1_024;
/// Connections at a time of one user, from whatever addresses.
pub const DEFAULT_MAX_CONNECTIONS_PER_USER: usize = 1_024;
/// Sessions at a time, connected or not.
pub const DEFAULT_MAX_SESSIONS: usize = 32_768;
/// Sessions of one identity without a connection: a fleet of a thousand devices that are all away fits.
pub const DEFAULT_MAX_SESSIONS_AWAY_PER_IDENTITY: usize = 1_024;
/// Subscriptions of one session: as many as one user may have. A panel for a whole plant has some thousand.
pub const DEFAULT_MAX_SUBSCRIPTIONS: usize = 8_192;
/// Subscriptions of all sessions of one user: what a message can match at most, and with it what it costs to find its
/// receivers (some 20 ns for each).
pub const DEFAULT_MAX_SUBSCRIPTIONS_PER_USER: usize = 8_192;
/// Subscriptions of all clients without a name at one address: three for each of ten thousand devices behind a proxy or
/// on loopback.
pub const DEFAULT_MAX_SUBSCRIPTIONS_PER_ADDRESS: usize = 32_768;
/// Bytes of all subscriptions together: some hundred thousand with filters of usual length.
pub const DEFAULT_MAX_SUBSCRIPTION_BYTES: usize = 64 * 1024 * 1024;
/// Sessions of one identity that get one answer: some programs that watch, beside who asked.
pub const DEFAULT_MAX_RECEIVERS_PER_IDENTITY: usize = 64;
/// Messages that wait for one session, beyond those in flight.
pub const DEFAULT_SESSION_QUEUE_MESSAGES: usize = 4_096;
/// Bytes of messages waiting or in flight for one session.
pub const DEFAULT_SESSION_QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of messages waiting or in flight for all sessions together.
pub const DEFAULT_MAX_QUEUED_BYTES: usize = 256 * 1024 * 1024;
/// Bytes of the storage that messages waiting or in flight take, for all sessions together.
pub const DEFAULT_MAX_STORED_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of messages that one session may hold however much all others hold: some dozens of small messages, and with
/// all sessions that there may be no more than `max_queued_bytes` again.
pub const DEFAULT_SESSION_RESERVE_BYTES: usize = 8 * 1024;
/// Unacknowledged QoS 1 and 2 messages that one client may have sent.
pub const DEFAULT_RECEIVE_MAXIMUM: u16 = 1_024;
/// Bytes of the identifiers of QoS 2 messages that all sessions of one identity have sent and not released, 96 for
/// each: more than two sessions can have.
pub const DEFAULT_MAX_UNRELEASED_BYTES_PER_IDENTITY: usize = 16 * 1024 * 1024;
/// Unacknowledged QoS 1 and 2 messages on the way to one client.
pub const DEFAULT_MAX_INFLIGHT: u16 = 1_024;
/// Topic aliases of one client (MQTT 5, towards the broker).
pub const DEFAULT_TOPIC_ALIAS_MAXIMUM: u16 = 16;
/// Retained messages: one identity alone may have half of them, a bridge that brings a plant's for example.
pub const DEFAULT_MAX_RETAINED_MESSAGES: usize = 20_000;
/// Bytes of retained messages.
pub const DEFAULT_MAX_RETAINED_BYTES: usize = 64 * 1024 * 1024;
/// Longest time that a session outlives its connection.
pub const DEFAULT_MAX_SESSION_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);
/// Time from accepting a connection to its whole CONNECT.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time without progress after which a client that does not read is dropped.
pub const DEFAULT_WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest keepalive in seconds; 0 leaves it to the client, who may choose none.
pub const DEFAULT_MAX_KEEP_ALIVE: u16 = 0;
/// Longest topic name or filter, in bytes.
pub const DEFAULT_MAX_TOPIC_LENGTH: usize = 1_024;
/// Most levels of a topic name or filter.
pub const DEFAULT_MAX_TOPIC_LEVELS: usize = 64;
/// Longest client identifier, in bytes.
pub const DEFAULT_MAX_CLIENT_ID_LENGTH: usize = 256;
/// Bytes collected for one write; a connection with more than this unsent is not read from.
pub const DEFAULT_WRITE_BUFFER: usize = 64 * 1024;
/// Messages a second from one identity; 0 is no limit. None by default: what one client can do to others is bounded
/// without it, since whoever publishes faster than receivers take is refused or waits for acknowledgements, and how
/// much is too much depends on what the clients are there for. A bridge may rightly bring a whole plant's messages.
pub const DEFAULT_MAX_MESSAGE_RATE: u64 = 0;
/// Bytes a second from one identity; 0 is no limit. None by default, as for messages.
pub const DEFAULT_MAX_BYTE_RATE: u64 = 0;
/// What may come at once after a pause, in time at the full rate.
pub const DEFAULT_RATE_BURST: Duration = Duration::from_secs(1);
/// How often messages that have expired are looked for in all queues.
pub const DEFAULT_EXPIRY_INTERVAL: Duration = Duration::from_secs(10);
/// How often what has changed of the counters is published under `$SYS/broker/…`, as in Mosquitto; 0 is never.
pub const DEFAULT_SYS_INTERVAL: Duration = Duration::from_secs(10);

/// The deepest tree of topics that [`Config::max_topic_levels`] may allow: what is removed is found by recursion.
const MOST_TOPIC_LEVELS: usize = 256;
/// The largest packet that a remaining length can express (section 1.5.5), fixed header included.
const LARGEST_PACKET: usize = 268_435_455 + 5;

/// The limits of a [`Broker`](crate::Broker). Each field's default is the constant of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// See [`DEFAULT_MAX_PACKET_SIZE`]. Told to MQTT 5 clients; a larger packet ends the connection (0x95), and so
    /// does a larger WebSocket frame (1009), though packets may be divided among frames.
    pub max_packet_size: usize,
    /// See [`DEFAULT_MAX_CONNECT_SIZE`].
    pub max_connect_size: usize,
    /// See [`DEFAULT_MAX_PROPERTIES_SIZE`]. More ends the connection (0x97).
    pub max_properties_size: usize,
    /// See [`DEFAULT_MAX_USER_PROPERTIES`]. More end the connection (0x97).
    pub max_user_properties: usize,
    /// See [`DEFAULT_MAX_CONNECT_USER_PROPERTIES`]. With more the client is refused (0x97).
    pub max_connect_user_properties: usize,
    /// See [`DEFAULT_MAX_INPUT_BYTES`]. At least `max_packet_size`. Every connection may hold 16 KiB beyond it; a
    /// packet that is larger is not read until there is room for all of it.
    pub max_input_bytes: usize,
    /// See [`DEFAULT_MAX_INPUT_BYTES_PER_IDENTITY`]. One packet is always possible, and no more than what is then
    /// left for all others.
    pub max_input_bytes_per_identity: usize,
    /// See [`DEFAULT_MIN_INPUT_RATE`]; 0 asks for none. A connection that falls below it within a packet is closed,
    /// counted and logged; time in which it was not read from does not count. While a packet comes as fast as that,
    /// the keepalive does not run out.
    pub min_input_rate: u64,
    /// See [`DEFAULT_INPUT_RATE_WINDOW`].
    pub input_rate_window: Duration,
    /// See [`DEFAULT_RECEIVE_BUFFER`]. The kernel has its own least and most (`net.core.rmem_max`), and doubles it for
    /// its bookkeeping.
    pub receive_buffer: usize,
    /// See [`DEFAULT_MAX_CONNECTIONS`]. One more is refused in CONNACK (only on plain TCP, where that is cheap), many
    /// more are just closed.
    pub max_connections: usize,
    /// See [`DEFAULT_MAX_CONNECTIONS_PER_ADDRESS`]. Counted from accept to close, for a network of 64 bits in IPv6.
    /// Loopback addresses have no such limit: a proxy, or a whole fleet under test, may be behind one. One more is
    /// refused as one over `max_connections`.
    pub max_connections_per_address: usize,
    /// See [`DEFAULT_MAX_CONNECTIONS_PER_USER`]. One more is refused in CONNACK, unless it takes over a session that is
    /// connected. Clients without a name are bounded by their address instead.
    pub max_connections_per_user: usize,
    /// See [`DEFAULT_MAX_SESSIONS`]. One more ends the one that has been away longest with neither
    /// subscriptions nor messages in it, and is refused in CONNACK if there is none.
    pub max_sessions: usize,
    /// See [`DEFAULT_MAX_SESSIONS_AWAY_PER_IDENTITY`]. An identity that has as many may resume them and begin sessions
    /// that end with their connection; one that would stay is refused in CONNACK.
    pub max_sessions_away_per_identity: usize,
    /// See [`DEFAULT_MAX_SUBSCRIPTIONS`]. One more is refused in SUBACK.
    pub max_subscriptions: usize,
    /// See [`DEFAULT_MAX_SUBSCRIPTIONS_PER_USER`]. One more is refused in SUBACK.
    pub max_subscriptions_per_user: usize,
    /// See [`DEFAULT_MAX_SUBSCRIPTIONS_PER_ADDRESS`]. One more is refused in SUBACK.
    pub max_subscriptions_per_address: usize,
    /// See [`DEFAULT_MAX_SUBSCRIPTION_BYTES`]: what tree and sessions hold for them, text and nodes. No identity may
    /// hold more than is left, so that one alone has half of it and two a third each; beyond that, one is refused in
    /// SUBACK.
    pub max_subscription_bytes: usize,
    /// See [`DEFAULT_MAX_RECEIVERS_PER_IDENTITY`]. For messages that the application publishes for a client
    /// ([`Broker::publish_for`](crate::Broker::publish_for)): the oldest sessions get them, the others do not, and that
    /// is counted and logged.
    pub max_receivers_per_identity: usize,
    /// See [`DEFAULT_SESSION_QUEUE_MESSAGES`]. The newest is dropped, and QoS 0 at half of it already; what has expired
    /// makes room first. Every drop is counted; the first since the queue was empty is logged, with its topic, and so
    /// are the tenth, the hundredth and so on. A publisher at QoS 1 or 2 is told (0x97) when no receiver had room, if
    /// it speaks MQTT 5. 3.1.1 has only a plain acknowledgement, and what was acknowledged so is logged.
    pub session_queue_messages: usize,
    /// See [`DEFAULT_SESSION_QUEUE_BYTES`]. At least `max_packet_size`.
    pub session_queue_bytes: usize,
    /// See [`DEFAULT_MAX_QUEUED_BYTES`]. No identity ever holds more than is left of it, in however many sessions, so
    /// that one alone has half of it, and those that hoard messages leave room for the others.
    pub max_queued_bytes: usize,
    /// See [`DEFAULT_MAX_STORED_BYTES`]: the message, of which 64 KiB count at most, and 512 bytes for its records. For
    /// sessions that are stored. No identity holds more than is left of it.
    pub max_stored_bytes: usize,
    /// See [`DEFAULT_SESSION_RESERVE_BYTES`]. What sessions hold below it may exceed `max_queued_bytes`.
    pub session_reserve_bytes: usize,
    /// See [`DEFAULT_RECEIVE_MAXIMUM`]. More end an MQTT 5 connection (0x93); a 3.1.1 client is read from
    /// no further until some are acknowledged. Of QoS 2 messages that are not released, those of former connections of
    /// the session count too: a further one is refused in PUBREC (0x97).
    pub receive_maximum: u16,
    /// See [`DEFAULT_MAX_UNRELEASED_BYTES_PER_IDENTITY`]. One more is refused in PUBREC (0x97); 3.1.1, which has no
    /// code for it and no Receive Maximum either, is closed.
    pub max_unreleased_bytes_per_identity: usize,
    /// See [`DEFAULT_MAX_INFLIGHT`]. The lower of this and the client's Receive Maximum counts.
    pub max_inflight: u16,
    /// See [`DEFAULT_TOPIC_ALIAS_MAXIMUM`]; 0 offers none.
    pub topic_alias_maximum: u16,
    /// See [`DEFAULT_MAX_RETAINED_MESSAGES`]. One more is routed but not retained, and refused to its
    /// publisher. So it is if its publisher's identity had more than is left then: alone it may have half.
    pub max_retained_messages: usize,
    /// See [`DEFAULT_MAX_RETAINED_BYTES`]. Shared among identities as their number is.
    pub max_retained_bytes: usize,
    /// See [`DEFAULT_MAX_SESSION_EXPIRY`]; whole seconds. Also that of persistent 3.1.1 sessions.
    pub max_session_expiry: Duration,
    /// See [`DEFAULT_CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// See [`DEFAULT_WRITE_TIMEOUT`]. Such a connection is closed without DISCONNECT, which it would not read; that is
    /// counted and logged. Its session stays as it would otherwise.
    pub write_timeout: Duration,
    /// See [`DEFAULT_MAX_KEEP_ALIVE`]; told to MQTT 5 clients as Server Keep Alive, 3.1.1 cannot be told.
    pub max_keep_alive: u16,
    /// See [`DEFAULT_MAX_TOPIC_LENGTH`]. A publish to a longer topic is refused (0x90), as one that the application
    /// refuses; a subscription in SUBACK (0x8F), a will in CONNACK (0x90).
    pub max_topic_length: usize,
    /// See [`DEFAULT_MAX_TOPIC_LEVELS`]. Refused as what is too long; 256 at most.
    pub max_topic_levels: usize,
    /// See [`DEFAULT_MAX_CLIENT_ID_LENGTH`].
    pub max_client_id_length: usize,
    /// See [`DEFAULT_WRITE_BUFFER`]; a single larger message is still sent.
    pub write_buffer: usize,
    /// See [`DEFAULT_MAX_MESSAGE_RATE`]. Every packet that a client sends after its CONNECT counts as a message, but
    /// for acknowledgements.
    ///
    /// All connections of an identity have one rate together. While it is over this or `max_byte_rate`, none of them
    /// is read from until it is within both again. Nothing is lost and nobody is disconnected: the network pushes
    /// back, and the client's own writes wait. Its keepalive does not run out meanwhile, but its PINGREQ is behind
    /// all that it has sent before. That a connection has to wait is counted each time, and logged the first time.
    pub max_message_rate: u64,
    /// See [`DEFAULT_MAX_BYTE_RATE`]. What MQTT's packets have is counted, as it is read; TLS and WebSocket add more.
    /// Otherwise as `max_message_rate`.
    pub max_byte_rate: u64,
    /// See [`DEFAULT_RATE_BURST`]. Every identity begins with this much.
    pub rate_burst: Duration,
    /// See [`DEFAULT_EXPIRY_INTERVAL`]. A queue that is full looks for them at once; this is for the room that all
    /// queues share.
    pub expiry_interval: Duration,
    /// See [`DEFAULT_SYS_INTERVAL`]. The messages are retained, at QoS 0. Who may read them is for the application to
    /// say, as with every other subscription; a filter that starts with a wildcard does not match them.
    pub sys_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_packet_size: DEFAULT_MAX_PACKET_SIZE,
            max_connect_size: DEFAULT_MAX_CONNECT_SIZE,
            max_properties_size: DEFAULT_MAX_PROPERTIES_SIZE,
            max_user_properties: DEFAULT_MAX_USER_PROPERTIES,
            max_connect_user_properties: DEFAULT_MAX_CONNECT_USER_PROPERTIES,
            max_input_bytes: DEFAULT_MAX_INPUT_BYTES,
            max_input_bytes_per_identity: DEFAULT_MAX_INPUT_BYTES_PER_IDENTITY,
            min_input_rate: DEFAULT_MIN_INPUT_RATE,
            input_rate_window: DEFAULT_INPUT_RATE_WINDOW,
            receive_buffer: DEFAULT_RECEIVE_BUFFER,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_connections_per_address: DEFAULT_MAX_CONNECTIONS_PER_ADDRESS,
            max_connections_per_user: DEFAULT_MAX_CONNECTIONS_PER_USER,
            max_sessions: DEFAULT_MAX_SESSIONS,
            max_sessions_away_per_identity: DEFAULT_MAX_SESSIONS_AWAY_PER_IDENTITY,
            max_subscriptions: DEFAULT_MAX_SUBSCRIPTIONS,
            max_subscriptions_per_user: DEFAULT_MAX_SUBSCRIPTIONS_PER_USER,
            max_subscriptions_per_address: DEFAULT_MAX_SUBSCRIPTIONS_PER_ADDRESS,
            max_subscription_bytes: DEFAULT_MAX_SUBSCRIPTION_BYTES,
            max_receivers_per_identity: DEFAULT_MAX_RECEIVERS_PER_IDENTITY,
            session_queue_messages: DEFAULT_SESSION_QUEUE_MESSAGES,
            session_queue_bytes: DEFAULT_SESSION_QUEUE_BYTES,
            max_queued_bytes: DEFAULT_MAX_QUEUED_BYTES,
            max_stored_bytes: DEFAULT_MAX_STORED_BYTES,
            session_reserve_bytes: DEFAULT_SESSION_RESERVE_BYTES,
            receive_maximum: DEFAULT_RECEIVE_MAXIMUM,
            max_unreleased_bytes_per_identity: DEFAULT_MAX_UNRELEASED_BYTES_PER_IDENTITY,
            max_inflight: DEFAULT_MAX_INFLIGHT,
            topic_alias_maximum: DEFAULT_TOPIC_ALIAS_MAXIMUM,
            max_retained_messages: DEFAULT_MAX_RETAINED_MESSAGES,
            max_retained_bytes: DEFAULT_MAX_RETAINED_BYTES,
            max_session_expiry: DEFAULT_MAX_SESSION_EXPIRY,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            write_timeout: DEFAULT_WRITE_TIMEOUT,
            max_keep_alive: DEFAULT_MAX_KEEP_ALIVE,
            max_topic_length: DEFAULT_MAX_TOPIC_LENGTH,
            max_topic_levels: DEFAULT_MAX_TOPIC_LEVELS,
            max_client_id_length: DEFAULT_MAX_CLIENT_ID_LENGTH,
            write_buffer: DEFAULT_WRITE_BUFFER,
            max_message_rate: DEFAULT_MAX_MESSAGE_RATE,
            max_byte_rate: DEFAULT_MAX_BYTE_RATE,
            rate_burst: DEFAULT_RATE_BURST,
            expiry_interval: DEFAULT_EXPIRY_INTERVAL,
            sys_interval: DEFAULT_SYS_INTERVAL,
        }
    }
}

impl Config {
    /// Limits that no broker could keep. Checked when the broker starts to serve.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = if self.receive_maximum == 0 {
            "receive_maximum must be 1 or more"
        } else if self.max_inflight == 0 {
            "max_inflight must be 1 or more"
        } else if self.max_packet_size > LARGEST_PACKET {
            "max_packet_size is more than MQTT can express (268435460)"
        } else if self.session_queue_bytes < self.max_packet_size {
            "session_queue_bytes is less than max_packet_size: the largest message could never be delivered"
        } else if self.max_input_bytes < self.max_packet_size.max(self.max_connect_size) {
            "max_input_bytes is less than max_packet_size or max_connect_size: the largest packet could never be read"
        } else if self.max_queued_bytes < self.session_queue_bytes {
            "max_queued_bytes is less than session_queue_bytes"
        } else if self.max_topic_levels > MOST_TOPIC_LEVELS {
            "max_topic_levels must be 256 or less"
        } else if self.expiry_interval.is_zero() {
            "expiry_interval must be more than zero"
        } else {
            return Ok(());
        };
        Err(Error::Config(wrong))
    }

    /// [`Config::max_session_expiry`] in seconds, below the value that means never (section 3.1.2.11.2).
    pub(crate) fn max_session_expiry_seconds(&self) -> u32 {
        u32::try_from(self.max_session_expiry.as_secs()).unwrap_or(u32::MAX).min(u32::MAX - 1)
    }
}
