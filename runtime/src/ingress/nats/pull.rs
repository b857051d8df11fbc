//! Takes requests from a consumer, as many as there is room for.

use super::held::Holding;
use super::jetstream::MQTT_MESSAGES;
use super::responder::{Command, NatsParts, NatsResponder};
use super::subject::topic_of;
use crate::client::Client;
use crate::ingress::external_mqtt::counters::Counters;
use crate::ingress::{Acceptance, Delivery, DeliveryProperties, Intake};
use crate::log_sampling::sampled;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::PullConsumer;
use futures_util::{FutureExt, StreamExt};
use offload_protocol::topic;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The header that says at which QoS a message of MQTT was published.
pub(super) const MQTT_QOS: &str = "Nmqtt-Pub";
/// How long JetStream keeps a demand for requests. It is also the longest time that a gateway takes requests after it
/// was told to stop, so that none that is on its way to it waits for the acknowledgement wait.
const PULL_WAIT: Duration = Duration::from_secs(1);
/// How long a demand that failed waits for the next one.
const RETRY_WAIT: Duration = Duration::from_millis(250);
/// Requests that are handed on together.
const MAX_BATCH: usize = 64;

/// What a puller needs.
#[derive(Clone)]
pub(super) struct Puller {
    pub consumer: PullConsumer,
    /// Room for as many requests.
    pub room: Arc<Semaphore>,
    /// Whether this is the stream of messages at QoS 1 and 2; the other one has copies of these.
    pub from_mqtt_messages: bool,
    pub holding: Holding,
    pub intake: Intake,
    pub commands: UnboundedSender<Command>,
    /// Room for parts of answers.
    pub room_for_parts: Arc<Semaphore>,
    pub counters: Arc<Counters>,
    pub stop: CancellationToken,
}

impl Puller {
    /// Takes requests until told to stop.
    pub async fn run(self) {
        while !self.stop.is_cancelled() {
            let Some(room) = self.room().await else { return };
            if let Err(error) = self.take(room).await {
                _ = sampled!(warn, %error, "no requests from JetStream; trying again");
                tokio::time::sleep(RETRY_WAIT).await;
            }
        }
    }

    /// All the room there is, and at least for one; none when it is to stop.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        let one = self.stop.run_until_cancelled(self.room.clone().acquire_owned()).await?;
        let mut room = one.ok()?;
        let more = u32::try_from(self.room.available_permits()).unwrap_or(u32::MAX);
        if let Ok(more) = self.room.clone().try_acquire_many_owned(more) {
            room.merge(more);
        }
        Some(room)
    }

    /// Demands as many requests as there is room for, and hands them on as they come.
    async fn take(&self, mut room: OwnedSemaphorePermit) -> Result<(), async_nats::Error> {
        let demand = self.consumer.batch().max_messages(room.num_permits()).expires(PULL_WAIT);
        let mut messages = demand.messages().await?;
        while let Some(first) = messages.next().await {
            let mut ready = vec![first?];
            while ready.len() < MAX_BATCH
                && let Some(Some(Ok(message))) = messages.next().now_or_never()
            {
                ready.push(message);
            }
            let mut skipped = Vec::new();
            {
                let batch = self.intake.batch();
                for message in ready {
                    match room.split(1).filter(|_| !self.is_copy(&message)) {
                        Some(room) => batch.deliver(self.delivery(message, room)),
                        None => skipped.push(message),
                    }
                }
            }
            for message in skipped {
                // It is taken from the stream of messages at QoS 1 and 2.
                message.ack().await?;
            }
        }
        Ok(())
    }

    /// Whether the request is in the stream of messages at QoS 1 and 2 too, which has it safely: there the publisher's
    /// acknowledgement waits for it.
    fn is_copy(&self, message: &Message) -> bool {
        let qos = message.headers.as_ref().and_then(|headers| headers.get(MQTT_QOS));
        !self.from_mqtt_messages && qos.is_some_and(|qos| matches!(qos.as_str(), "1" | "2"))
    }

    fn delivery(&self, message: Message, room: OwnedSemaphorePermit) -> Delivery {
        self.counters.message_in();
        // One that another gateway has had may have been streamed.
        let is_new = message.info().is_ok_and(|info| info.delivered == 1);
        let parts = is_new.then(|| NatsParts {
            commands: self.commands.clone(),
            room: self.room_for_parts.clone(),
            are_stored: self.from_mqtt_messages,
        });
        let async_nats::Message { subject, reply, payload, .. } = message.message;
        let subject = match self.from_mqtt_messages {
            true => subject.strip_prefix(MQTT_MESSAGES).unwrap_or(&subject),
            false => &subject,
        };
        let topic = topic_of(subject);
        let held = self.holding.hold(reply.unwrap_or_else(|| "".into()), room);
        // The server knows who published this, and does not say: the reply id stands in.
        let flow: Arc<str> = topic::parse_request(&topic).map_or("", |request| request.reply_id).into();
        let principal = (!flow.is_empty()).then(|| flow.clone());
        Delivery {
            client: Client { principal, account: flow.clone(), flow, web: false },
            topic,
            payload,
            properties: DeliveryProperties::default(),
            retained: false,
            acceptance: Acceptance::with_the_answer(),
            responder: Box::new(NatsResponder::new(held, self.commands.clone(), parts)),
        }
    }
}
