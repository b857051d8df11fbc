//! The task that publishes answers and acknowledges requests.
//!
//! An answer goes where the server's MQTT listener puts what is published at QoS 1: into the stream of such messages,
//! from where sessions get it that were away, and as a message of core NATS, which reaches subscriptions at QoS 0. A
//! request is acknowledged when the stream has stored its answer.

use super::held::Held;
use super::jetstream::MQTT_MESSAGES;
use super::pull::MQTT_QOS;
use super::responder::Command;
use super::subject::subject_of;
use crate::ingress::Outgoing;
use crate::ingress::external_mqtt::counters::Counters;
use crate::log_sampling::sampled;
use crate::telemetry;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use offload_policy::Backoff;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Waits between attempts to publish an answer.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Bytes of a message's headers, and some to spare.
const HEADERS: usize = 256;

/// See the module's documentation.
#[derive(Clone)]
pub(super) struct Answers {
    pub client: Client,
    pub context: Context,
    pub counters: Arc<Counters>,
    /// Answers that the server has not confirmed.
    pub unconfirmed: TaskTracker,
}

/// A message as it is published.
#[derive(Clone)]
struct Message {
    subject: String,
    payload: Bytes,
}

impl Answers {
    /// Publishes what comes, in its order; when told to stop, what was sent until then.
    pub async fn run(self, mut commands: UnboundedReceiver<Command>, stop: CancellationToken) {
        loop {
            let command = tokio::select! {
                command = commands.recv() => command,
                () = stop.cancelled(), if !commands.is_closed() => {
                    commands.close();
                    continue;
                }
            };
            let Some(command) = command else { return };
            match command {
                Command::Answer(held, outgoing) => self.answer(held, *outgoing).await,
                Command::Settle(held) => held.acknowledge(&self.client).await,
                Command::Release(held, after) => held.release(&self.client, after).await,
            }
        }
    }

    async fn answer(&self, held: Option<Held>, outgoing: Outgoing) {
        let Some(message) = self.message(outgoing) else {
            self.counters.dropped();
            if let Some(held) = held {
                held.acknowledge(&self.client).await;
            }
            return;
        };
        let first = self.publish(&message).await;
        let answers = self.clone();
        self.unconfirmed.spawn(async move { answers.confirm(first, message, held).await });
    }

    /// As NATS takes it; none where it cannot.
    fn message(&self, mut outgoing: Outgoing) -> Option<Message> {
        let topic = outgoing.address.topic.clone();
        let Some(subject) = subject_of(&topic) else {
            _ = sampled!(warn, topic = %telemetry::bounded(&topic), "NATS has no subject for the topic of an answer");
            return None;
        };
        let room = self.client.server_info().max_payload.saturating_sub(HEADERS + subject.len());
        let most = outgoing.address.max_payload.map_or(room, |most| most.min(room));
        outgoing.address.max_payload = Some(most);
        let Some((payload, _)) = outgoing.encode(None) else {
            _ = sampled!(warn, topic = %telemetry::bounded(&topic), "answers that fit into no message");
            return None;
        };
        Some(Message { subject, payload })
    }

    async fn publish(&self, message: &Message) -> Option<PublishAckFuture> {
        let Message { subject, payload } = message;
        let headers = || {
            let mut headers = HeaderMap::new();
            headers.insert(MQTT_QOS, "1");
            headers
        };
        let stored = format!("{MQTT_MESSAGES}{subject}");
        let stored = self.context.publish_with_headers(stored, headers(), payload.clone()).await;
        // Subscriptions at QoS 1 pass over it, by its header.
        let _ = self.client.publish_with_headers(subject.clone(), headers(), payload.clone()).await;
        stored.ok()
    }

    /// Publishes until the stream has it, then acknowledges the request. An answer can come twice that way.
    async fn confirm(self, mut sent: Option<PublishAckFuture>, message: Message, held: Option<Held>) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let problem = match sent {
                None => "not sent".to_owned(),
                Some(sent) => match sent.await {
                    Ok(_) => break,
                    Err(error) => error.to_string(),
                },
            };
            _ = sampled!(warn, problem, "an answer is not stored; trying again");
            tokio::time::sleep(backoff.wait(RandomState::new().hash_one(()))).await;
            sent = self.publish(&message).await;
        }
        self.counters.message_out();
        if let Some(held) = held {
            held.acknowledge(&self.client).await;
        }
    }
}
