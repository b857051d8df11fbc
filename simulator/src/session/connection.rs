//! A connection and its subscriptions, as either of its ends knows them.

use std::collections::BTreeMap;

use super::code::Code;
use super::keys::ConnectionKey;
use crate::clock::{MILLISECOND, Nanos};

/// One end of a connection.
pub struct Connection {
    /// How it is.
    pub code: Code,
    /// Since when it is so.
    pub since: Nanos,
    /// Seals its packets.
    pub key: ConnectionKey,
    /// The client's own words.
    pub description: String,
    /// In milliseconds; zero is none.
    pub keep_alive_ms: u64,
    /// When the other end was heard last.
    pub heard: Nanos,
    /// When the client's last ping came, or was sent.
    pub last_ping: Option<Nanos>,
    /// The greatest number of a packet that came: what comes once more has no greater one.
    pub received: u64,
    /// By topic filter.
    pub subscriptions: BTreeMap<String, Subscription>,
}

/// A subscription of one connection.
pub struct Subscription {
    /// How it is.
    pub code: Code,
    /// Since when it is so.
    pub since: Nanos,
    /// The client's own words.
    pub description: String,
}

impl Connection {
    /// Packets can be exchanged on it.
    pub fn is_open(&self) -> bool {
        self.code == Code::Ok
    }

    /// It is now so.
    pub fn becomes(&mut self, code: Code, now: Nanos) {
        (self.code, self.since) = (code, now);
    }

    /// It ends, with its subscriptions.
    pub fn end(&mut self, code: Code, now: Nanos) {
        self.becomes(code, now);
        for subscription in self.subscriptions.values_mut().filter(|of| of.code == Code::Ok) {
            (subscription.code, subscription.since) = (code, now);
        }
    }

    /// When silence ends it: after one and a half keep-alives, as in MQTT (MQTT 5, section 3.1.2.10).
    pub fn deadline(&self) -> Option<Nanos> {
        let patience = self.keep_alive_ms * MILLISECOND / 2 * 3;
        (self.is_open() && patience > 0).then(|| self.heard.saturating_add(patience))
    }
}
