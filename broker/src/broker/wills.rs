//! Wills: checked when a client connects, published when they are due.

use std::{convert::Infallible, sync::Arc};

use tokio::task::yield_now;
use tracing::debug;

use crate::{
    application::Received,
    broker::{Broker, authorization::Destination},
    message::Message,
    packet::will::Will,
    reason::{Reason, Refusal},
    registry::DueWill,
    session::{acknowledgement::Acknowledgement, client::ClientInfo},
    stats::count,
    throttle::clip,
    topics::{fan_out::FanOut, topic},
};

impl Broker {
    /// A will is a publish, and is refused like one; better now than when nobody is there to be told.
    pub(crate) fn check_will(&self, will: &Will, client: &ClientInfo) -> Result<(), Refusal> {
        let topic = &will.message.topic;
        if !topic::valid_name(topic) {
            return Err(Refusal::new(Reason::TopicNameInvalid, "the will's topic is none"));
        }
        match self.destination(client, topic) {
            Destination::Refused(Refusal { reason: reason @ Reason::TopicNameInvalid, .. }) => {
                Err(Refusal::new(reason, "the will's topic exceeds max_topic_length or max_topic_levels"))
            }
            Destination::Refused(Refusal { reason, .. }) => {
                Err(Refusal::new(reason, "the will's topic is not permitted"))
            }
            Destination::Subscribers | Destination::Application(_) | Destination::Nobody => Ok(()),
        }
    }

    /// Publishes a will; returns it with the receivers that are left, if it has many.
    pub(crate) fn publish_will(&self, due: DueWill) -> Option<(Message, FanOut)> {
        let DueWill { client, session, will } = due;
        let Message { topic, payload, qos, retain, properties } = will.message;
        debug!(client_id = &*client.client_id, topic = clip(&topic), "publishing a will");
        match self.destination(&client, &topic) {
            Destination::Refused(_) => count(&self.counters().dropped_refused),
            Destination::Nobody => {}
            Destination::Subscribers => {
                let message = Message { topic, payload, qos, retain, properties };
                let mut fan_out = self.topics().start(Some(&session), &message);
                if !self.topics().deliver_slice(&message, &mut fan_out, None) {
                    return Some((message, fan_out));
                }
                self.topics().finish(&message, &mut fan_out);
            }
            Destination::Application(claim) => {
                let received = Received {
                    client,
                    topic,
                    claim,
                    payload,
                    properties: properties.map(|properties| Box::new(Arc::unwrap_or_clone(properties))),
                    qos,
                    retain,
                    dup: false,
                    ack: Acknowledgement::pending(None),
                };
                self.application().publish(self, received);
                self.application().published(self);
            }
        }
        None
    }

    /// Publishes a will to all of its receivers on the spot.
    pub(crate) fn publish_will_to_all(&self, due: DueWill) {
        if let Some((message, mut fan_out)) = self.publish_will(due) {
            while !self.topics().deliver_slice(&message, &mut fan_out, None) {}
            self.topics().finish(&message, &mut fan_out);
        }
    }

    /// Ends sessions and publishes wills as they are due, for ever.
    pub(crate) async fn keep_deadlines(&self) -> Infallible {
        loop {
            let session = self.registry().next_due().await;
            let due = self.registry().expire(&session);
            if let Some((message, mut fan_out)) = due.and_then(|due| self.publish_will(due)) {
                while !self.topics().deliver_slice(&message, &mut fan_out, None) {
                    yield_now().await;
                }
                self.topics().finish(&message, &mut fan_out);
            }
            yield_now().await;
        }
    }
}
