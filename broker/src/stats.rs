//! Counters of a broker.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// A moment's view of a broker; counters run from its creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// TCP connections open now.
    pub connections: usize,
    /// Sessions now, connected or not.
    pub sessions: usize,
    /// Subscriptions now.
    pub subscriptions: usize,
    /// Messages waiting or in flight now, counted once a receiver.
    pub queued_messages: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Retained messages now.
    pub retained_messages: usize,
    /// Their bytes.
    pub retained_bytes: usize,
    /// PUBLISH packets that clients sent.
    pub messages_received: u64,
    /// PUBLISH packets sent to clients.
    pub messages_sent: u64,
    /// Messages that a receiver did not get.
    pub dropped: Dropped,
    /// Connections refused or closed over a limit, and CONNECTs refused.
    pub connections_refused: u64,
    /// Connections that ended because the client broke the protocol or a limit, or before CONNECT because TLS or
    /// WebSocket did not come about.
    pub violations: u64,
    /// Connections closed because the client took nothing for [`Config::write_timeout`](crate::Config::write_timeout).
    pub stalled: u64,
    /// Times that a connection had to wait because it sent faster than it may.
    pub rate_delays: u64,
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
}

#[derive(Default)]
pub(crate) struct Counters {
    pub connections: AtomicUsize,
    pub queued_messages: AtomicUsize,
    pub queued_bytes: AtomicUsize,
    pub messages_received: AtomicU64,
    pub messages_sent: AtomicU64,
    pub dropped_qos0_queue: AtomicU64,
    pub dropped_queue_full: AtomicU64,
    pub dropped_expired: AtomicU64,
    pub dropped_oversize: AtomicU64,
    pub dropped_refused: AtomicU64,
    pub dropped_retained_full: AtomicU64,
    pub connections_refused: AtomicU64,
    pub violations: AtomicU64,
    pub stalled: AtomicU64,
    pub rate_delays: AtomicU64,
}

impl Counters {
    /// All that is counted here; what the core holds itself is left at 0.
    pub fn snapshot(&self) -> Stats {
        Stats {
            connections: self.connections.load(Relaxed),
            queued_messages: self.queued_messages.load(Relaxed),
            queued_bytes: self.queued_bytes.load(Relaxed),
            messages_received: self.messages_received.load(Relaxed),
            messages_sent: self.messages_sent.load(Relaxed),
            dropped: Dropped {
                qos0_queue: self.dropped_qos0_queue.load(Relaxed),
                queue_full: self.dropped_queue_full.load(Relaxed),
                expired: self.dropped_expired.load(Relaxed),
                oversize: self.dropped_oversize.load(Relaxed),
                refused: self.dropped_refused.load(Relaxed),
                retained_full: self.dropped_retained_full.load(Relaxed),
            },
            connections_refused: self.connections_refused.load(Relaxed),
            violations: self.violations.load(Relaxed),
            stalled: self.stalled.load(Relaxed),
            rate_delays: self.rate_delays.load(Relaxed),
            ..Stats::default()
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
