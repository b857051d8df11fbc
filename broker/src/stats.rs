//! Counters of a broker.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use crate::{quotas::account::Held, reason::Reason};

/// A moment's view of a broker; counters run from its creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// TCP connections open now.
    pub connections: usize,
    /// Clients connected now: connections that have a session.
    pub clients: usize,
    /// The most clients that were connected at a time.
    pub most_clients: usize,
    /// Sessions now, connected or not.
    pub sessions: usize,
    /// Subscriptions now.
    pub subscriptions: usize,
    /// Their bytes.
    pub subscription_bytes: usize,
    /// Bytes set aside now for packets that have not come completely.
    pub input_bytes: usize,
    /// Messages waiting or in flight now, counted once a receiver.
    pub queued_messages: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Retained messages now, but for those on topics that start with `$`.
    pub retained_messages: usize,
    /// Their bytes.
    pub retained_bytes: usize,
    /// PUBLISH packets that clients sent.
    pub messages_received: u64,
    /// PUBLISH packets sent to clients.
    pub messages_sent: u64,
    /// Bytes of the payloads of messages received.
    pub payload_bytes_received: u64,
    /// Bytes of the payloads of messages sent.
    pub payload_bytes_sent: u64,
    /// Packets of every type that clients sent.
    pub packets_received: u64,
    /// Packets of every type sent to clients.
    pub packets_sent: u64,
    /// Bytes received, without what TLS and WebSocket add.
    pub bytes_received: u64,
    /// Bytes sent, without what TLS and WebSocket add.
    pub bytes_sent: u64,
    /// Messages that a receiver did not get.
    pub dropped: Dropped,
    /// Connections refused or closed over a limit, and CONNECTs refused.
    pub connections_refused: u64,
    /// Of these, over a limit of connections or sessions, or because the application was too busy to decide (0x97,
    /// 0x89).
    pub refused_over_limit: u64,
    /// Of these, for what the client says or shows of itself: credentials that are wrong, or do not suffice, or a
    /// client id of somebody else (0x86, 0x87, 0x8C).
    pub authentication_failures: u64,
    /// Connections that ended because the client broke the protocol or a limit, or before CONNECT because TLS or
    /// WebSocket did not come about.
    pub violations: u64,
    /// Connections closed because the client took nothing for [`Config::write_timeout`](crate::Config::write_timeout).
    pub stalled: u64,
    /// Connections closed because a packet that had begun came more slowly than
    /// [`Config::min_input_rate`](crate::Config::min_input_rate).
    pub too_slow: u64,
    /// Times that a connection had to wait because its identity sent faster than it may.
    pub rate_delays: u64,
    /// Packets that had to wait for memory: see [`Config::max_input_bytes`](crate::Config::max_input_bytes).
    pub input_waits: u64,
    /// Times that a connection had to wait because its identity had used more than its share of the threads, while
    /// others were served.
    pub share_waits: u64,
}

/// Messages not delivered, by reason, counted once a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// QoS 0, the receiver's queue being half full or more.
    pub qos0_queue: u64,
    /// QoS 1 and 2, the receiver's queue or all queues together being full.
    pub queue_full: u64,
    /// Message expiry passed.
    pub expired: u64,
    /// Larger than the receiver's Maximum Packet Size.
    pub oversize: u64,
    /// Refused by the application or for a topic that starts with `$`.
    pub refused: u64,
    /// Not retained, the bounds on retained messages being reached.
    pub retained_full: u64,
    /// For one client alone, whose session is no more.
    pub gone: u64,
    /// Caused by a client, the receiver's identity having more sessions that wait for it than
    /// [`Config::max_receivers_per_identity`](crate::Config::max_receivers_per_identity).
    pub too_many_receivers: u64,
}

/// Packets that go one way, counted up where they are handled and added to the counters once for many.
#[derive(Default)]
pub(crate) struct Tally {
    packets: u64,
    messages: u64,
    payload: u64,
}

impl Tally {
    /// A PUBLISH with this number of bytes of payload.
    pub fn message(&mut self, payload: usize) {
        self.packets += 1;
        self.messages += 1;
        self.payload += payload as u64;
    }

    /// Other packets.
    pub fn packets(&mut self, packets: u64) {
        self.packets += packets;
    }
}

/// What went one way.
#[derive(Default)]
pub(crate) struct Traffic {
    messages: AtomicU64,
    payload: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Traffic {
    pub fn add(&self, tally: &Tally) {
        if tally.packets > 0 {
            self.packets.fetch_add(tally.packets, Relaxed);
        }
        if tally.messages > 0 {
            self.messages.fetch_add(tally.messages, Relaxed);
            self.payload.fetch_add(tally.payload, Relaxed);
        }
    }

    /// A packet that is no PUBLISH.
    pub fn packet(&self) {
        count(&self.packets);
    }

    pub fn bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    clients: AtomicUsize,
    most_clients: AtomicUsize,
    pub queued_messages: AtomicUsize,
    pub queued_bytes: AtomicUsize,
    /// Bytes of the storage that messages in queues take.
    pub stored_bytes: Arc<Held>,
    pub received: Traffic,
    pub sent: Traffic,
    pub dropped_qos0_queue: AtomicU64,
    pub dropped_queue_full: AtomicU64,
    pub dropped_expired: AtomicU64,
    pub dropped_oversize: AtomicU64,
    pub dropped_refused: AtomicU64,
    pub dropped_retained_full: AtomicU64,
    pub dropped_gone: AtomicU64,
    pub dropped_too_many_receivers: AtomicU64,
    connections_refused: AtomicU64,
    refused_over_limit: AtomicU64,
    authentication_failures: AtomicU64,
    pub violations: AtomicU64,
    pub stalled: AtomicU64,
    pub too_slow: AtomicU64,
    pub rate_delays: AtomicU64,
    pub share_waits: AtomicU64,
}

impl Counters {
    /// All that is counted here. What the parts of a broker hold is counted by them, and left at 0.
    pub fn snapshot(&self) -> Stats {
        Stats {
            clients: self.clients.load(Relaxed),
            most_clients: self.most_clients.load(Relaxed),
            queued_messages: self.queued_messages.load(Relaxed),
            queued_bytes: self.queued_bytes.load(Relaxed),
            messages_received: self.received.messages.load(Relaxed),
            messages_sent: self.sent.messages.load(Relaxed),
            payload_bytes_received: self.received.payload.load(Relaxed),
            payload_bytes_sent: self.sent.payload.load(Relaxed),
            packets_received: self.received.packets.load(Relaxed),
            packets_sent: self.sent.packets.load(Relaxed),
            bytes_received: self.received.bytes.load(Relaxed),
            bytes_sent: self.sent.bytes.load(Relaxed),
            dropped: Dropped {
                qos0_queue: self.dropped_qos0_queue.load(Relaxed),
                queue_full: self.dropped_queue_full.load(Relaxed),
                expired: self.dropped_expired.load(Relaxed),
                oversize: self.dropped_oversize.load(Relaxed),
                refused: self.dropped_refused.load(Relaxed),
                retained_full: self.dropped_retained_full.load(Relaxed),
                gone: self.dropped_gone.load(Relaxed),
                too_many_receivers: self.dropped_too_many_receivers.load(Relaxed),
            },
            connections_refused: self.connections_refused.load(Relaxed),
            refused_over_limit: self.refused_over_limit.load(Relaxed),
            authentication_failures: self.authentication_failures.load(Relaxed),
            violations: self.violations.load(Relaxed),
            stalled: self.stalled.load(Relaxed),
            too_slow: self.too_slow.load(Relaxed),
            rate_delays: self.rate_delays.load(Relaxed),
            share_waits: self.share_waits.load(Relaxed),
            ..Stats::default()
        }
    }

    pub fn client_connected(&self) {
        let clients = self.clients.fetch_add(1, Relaxed) + 1;
        self.most_clients.fetch_max(clients, Relaxed);
    }

    pub fn client_disconnected(&self) {
        self.clients.fetch_sub(1, Relaxed);
    }

    /// A connection is refused, in CONNACK or without an answer.
    pub fn connection_refused(&self, reason: Reason) {
        count(&self.connections_refused);
        match reason {
            Reason::QuotaExceeded | Reason::ServerBusy => count(&self.refused_over_limit),
            reason if reason.is_failed_log_in() => count(&self.authentication_failures),
            _ => {}
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
