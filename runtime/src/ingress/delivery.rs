//! A message on a request topic, and what its broker is owed for it: an acknowledgement and an answer.

use super::outgoing::{Outgoing, ReplyAddress};
use crate::client::Client;
use bytes::Bytes;
use offload_broker::{Acknowledgement, OnAcknowledged};
use offload_protocol::UserProperties;

/// A publish on a request topic.
pub struct Delivery {
    /// Who published it, as far as the ingress can tell.
    pub client: Client,
    /// The topic as it stands.
    pub topic: String,
    /// The payload: bytes until a request form says more.
    pub payload: Bytes,
    /// MQTT 5 properties; empty for a 3.1.1 publish.
    pub properties: DeliveryProperties,
    /// Stored by an external broker before we subscribed: no request.
    pub retained: bool,
    /// To be completed when the gateway has the request safely.
    pub acceptance: Acceptance,
    /// How to answer the connection that asked.
    pub responder: Box<dyn Responder>,
}

impl Delivery {
    /// It is no request: acknowledges it, and publishes nothing.
    pub fn ignore(self) {
        self.acceptance.complete();
        self.responder.ignore();
    }
}

/// The MQTT 5 publish properties that matter to a request (MQTT 5, section 3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryProperties {
    /// Response Topic.
    pub response_topic: Option<String>,
    /// Correlation Data.
    pub correlation_data: Option<Bytes>,
    /// User Properties, in order.
    pub user_properties: Vec<(String, String)>,
}

/// That the gateway has a request safely. Whoever makes it safe may keep this for any time, complete it on any thread,
/// and let the request go on meanwhile.
///
/// Completed, it acknowledges the request to a publisher that is owed that now; an external broker is acknowledged with
/// the answer, which is the [`Responder`]'s. Dropped, it refuses a request whose publisher is owed that now, so that it
/// does not believe that the request is safe.
#[derive(Debug)]
#[must_use = "dropped, it refuses the request"]
pub struct Acceptance {
    /// What the embedded broker waits for.
    acknowledgement: Option<Acknowledgement>,
    /// Whether the gateway has accepted the request when it came, and runs it again.
    is_given: bool,
}

impl Acceptance {
    /// That of a request whose acknowledgement comes with its answer, or never.
    pub fn with_the_answer() -> Acceptance {
        Acceptance { acknowledgement: None, is_given: false }
    }

    /// That of a request whose publisher waits for this acknowledgement.
    pub fn acknowledging(acknowledgement: Acknowledgement) -> Acceptance {
        Acceptance { acknowledgement: Some(acknowledgement), is_given: false }
    }

    /// That of a request which the gateway has accepted when it came, and runs again.
    pub fn given() -> Acceptance {
        Acceptance { acknowledgement: None, is_given: true }
    }

    /// Whether the gateway has accepted the request before: whether it came in time is decided.
    pub fn is_given(&self) -> bool {
        self.is_given
    }

    /// Whether the publisher waits for it.
    pub fn is_owed(&self) -> bool {
        self.acknowledgement.as_ref().is_some_and(Acknowledgement::is_owed)
    }

    /// The request is safe.
    pub fn complete(self) {
        if let Some(acknowledgement) = self.acknowledgement {
            acknowledgement.complete();
        }
    }
}

/// Where an answer is that was handed to an ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// With the broker: a crash of this process takes it from no session that is to outlive that.
    Complete,
    /// In memory alone, for a session that is to outlive a crash: the broker's storage has no room for it.
    InMemory,
}

/// The way back to the connection that asked. Used once, on any thread; dropped, the request stays unanswered, and an
/// external broker delivers it again.
pub trait Responder: Send {
    /// Publishes the answer at QoS 1, then completes the acknowledgement if that is still due. Where the connection is
    /// gone, the answer goes to whoever else waits on its topic.
    ///
    /// `on_acknowledged` is called when all who have the answer now have acknowledged it, if the ingress gets to know
    /// that.
    fn answer(self: Box<Self>, answer: Outgoing, on_acknowledged: Option<OnAcknowledged>) -> Handover;

    /// The delivery was no request: nothing is published.
    fn ignore(self: Box<Self>);

    /// The request is for another gateway that shares the broker's requests, which gets it soon. Gives itself back
    /// where it seems that no other gateway takes it.
    fn leave(self: Box<Self>, _: Left<'_>) -> Result<(), Box<dyn Responder>> {
        Ok(())
    }

    /// Bytes that the payload of an answer to this address may have for the connection that asked; `None` where that
    /// takes any size, or nothing is known of it.
    fn max_payload(&self, _address: &ReplyAddress) -> Option<usize> {
        None
    }

    /// The way for what comes before the answer, at the request's QoS, at most 1; `None` where nothing is left of the
    /// connection that asked.
    fn parts(&self) -> Option<Box<dyn Parts>> {
        None
    }
}

/// A request that is left to another gateway.
pub struct Left<'r> {
    /// Its topic as it stands.
    pub topic: &'r str,
    /// Its payload.
    pub payload: &'r Bytes,
    /// Its user properties.
    pub user_properties: &'r UserProperties,
    /// Where its answer goes.
    pub reply_address: &'r ReplyAddress,
}

/// The way of parts of an answer that has not come yet, to whoever is to get that.
pub trait Parts: Send + Sync {
    /// Publishes a part to those who have room for it, more than the answer may need; it begins at this byte of stdout,
    /// as its topic says. On any thread; never blocks.
    fn publish(&self, topic: String, offset: u64, part: Bytes);
}
