//! `$SYS/…`: the counters as retained messages, under Mosquitto's names where it has them.

use std::{collections::HashMap, convert::Infallible, future::pending, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::{
    message::{Message, QoS},
    stats::Stats,
    topics::Topics,
};

/// Under which the names in [`values`] are.
const ROOT: &str = "$SYS/broker";
const VERSION: &str = concat!(env!("CARGO_PKG_NAME"), " version ", env!("CARGO_PKG_VERSION"));

pub(crate) struct Sys {
    started: Instant,
    /// What was published last. Whoever publishes keeps it locked.
    last: Mutex<HashMap<&'static str, String>>,
}

impl Sys {
    pub fn new() -> Self {
        Self { started: Instant::now(), last: Mutex::default() }
    }

    /// Publishes what has changed, at once and then at each interval, for ever. Of several that are told to, one does;
    /// another takes over when that one is dropped.
    pub async fn keep_published(
        &self,
        interval: Duration,
        topics: &Topics,
        stats: impl Fn() -> Stats,
    ) -> Infallible {
        if interval.is_zero() {
            return pending().await;
        }
        let mut last = self.last.lock().await;
        loop {
            for (name, value) in values(&stats(), self.started.elapsed()) {
                if last.get(name) != Some(&value) {
                    publish(topics, name, &value);
                    last.insert(name, value);
                }
            }
            sleep(interval).await;
        }
    }
}

fn publish(topics: &Topics, name: &str, value: &str) {
    let payload = Bytes::copy_from_slice(value.as_bytes());
    let mut message = Message::new(format!("{ROOT}/{name}"), payload, QoS::AtMostOnce);
    message.retain = true;
    topics.publish(&message, None);
}

fn values(stats: &Stats, uptime: Duration) -> Vec<(&'static str, String)> {
    let dropped = &stats.dropped;
    let numbers = [
        // Mosquitto's, as mosquitto(8) describes them.
        ("clients/connected", stats.clients as u64),
        ("clients/disconnected", stats.sessions.saturating_sub(stats.clients) as u64),
        ("clients/maximum", stats.most_clients as u64),
        ("clients/total", stats.sessions as u64),
        ("messages/received", stats.packets_received),
        ("messages/sent", stats.packets_sent),
        ("bytes/received", stats.bytes_received),
        ("bytes/sent", stats.bytes_sent),
        ("publish/messages/received", stats.messages_received),
        ("publish/messages/sent", stats.messages_sent),
        ("publish/messages/dropped", dropped.qos0_queue + dropped.queue_full),
        ("publish/bytes/received", stats.payload_bytes_received),
        ("publish/bytes/sent", stats.payload_bytes_sent),
        ("subscriptions/count", stats.subscriptions as u64),
        ("retained messages/count", stats.retained_messages as u64),
        ("store/messages/count", (stats.queued_messages + stats.retained_messages) as u64),
        ("store/messages/bytes", (stats.queued_bytes + stats.retained_bytes) as u64),
        // Our own.
        ("publish/messages/dropped/qos-0-queue", dropped.qos0_queue),
        ("publish/messages/dropped/queue-full", dropped.queue_full),
        ("publish/messages/dropped/expired", dropped.expired),
        ("publish/messages/dropped/oversize", dropped.oversize),
        ("publish/messages/dropped/refused", dropped.refused),
        ("publish/messages/dropped/retained-full", dropped.retained_full),
        ("publish/messages/dropped/gone", dropped.gone),
        ("publish/messages/dropped/too-many-receivers", dropped.too_many_receivers),
        ("subscriptions/bytes", stats.subscription_bytes as u64),
        ("connections/count", stats.connections as u64),
        ("connections/refused", stats.connections_refused),
        ("connections/refused/over-limit", stats.refused_over_limit),
        ("connections/refused/authentication", stats.authentication_failures),
        ("connections/violations", stats.violations),
        ("connections/stalled", stats.stalled),
        ("connections/too-slow", stats.too_slow),
        ("connections/rate-delays", stats.rate_delays),
        ("connections/share-waits", stats.share_waits),
        ("connections/input-bytes", stats.input_bytes as u64),
        ("connections/input-waits", stats.input_waits),
    ];
    let texts = [("version", VERSION.to_owned()), ("uptime", format!("{} seconds", uptime.as_secs()))];
    texts.into_iter().chain(numbers.map(|(name, number)| (name, number.to_string()))).collect()
}
