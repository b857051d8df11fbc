//! What has passed through the connection to an external broker, counted by the task that owns it and read by others.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ingress::Statistics;

/// See the module's documentation.
#[derive(Default)]
pub(in crate::ingress) struct Counters {
    messages_in: AtomicU64,
    messages_out: AtomicU64,
    dropped: AtomicU64,
}

impl Counters {
    /// The broker has delivered a message.
    pub fn message_in(&self) {
        self.messages_in.fetch_add(1, Ordering::Relaxed);
    }

    /// The broker has a message of ours, as far as its QoS tells.
    pub fn message_out(&self) {
        self.messages_out.fetch_add(1, Ordering::Relaxed);
    }

    /// A message of ours is lost.
    pub fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// All counts as they are now.
    pub fn snapshot(&self, connections: usize) -> Statistics {
        Statistics {
            connections,
            messages_in: self.messages_in.load(Ordering::Relaxed),
            messages_out: self.messages_out.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}
