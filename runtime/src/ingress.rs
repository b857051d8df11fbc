//! The one interface between brokers and the gateway.
//!
//! An ingress turns MQTT publishes on the request topics into [`Delivery`]s, gives them to a [`Sink`], and publishes
//! the answers. Nothing behind it knows whether the broker is our own ([`embedded`]) or somebody else's
//! ([`foreign`]): what differs (when a request is acknowledged, how an answer finds its session) is inside the
//! [`Responder`] that comes with each delivery.

pub mod embedded;
pub mod foreign;

use bytes::Bytes;
use std::sync::Arc;

/// Takes deliveries from an ingress. Called on the ingress's own task, so it never blocks.
pub trait Sink: Send + Sync + 'static {
    /// Takes over one delivery. Its responder is used exactly once.
    fn deliver(&self, delivery: Delivery);
}

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The authenticated identity, or the reply id where a foreign broker hides it; `None` for an anonymous client.
    pub principal: Option<Arc<str>>,
    /// What service is fair between: one connection's client id (embedded broker) or one reply id (foreign broker).
    pub flow: Arc<str>,
}

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
    /// Stored by a foreign broker before we subscribed: no request.
    pub retained: bool,
    /// How to acknowledge and answer.
    pub responder: Box<dyn Responder>,
}

/// The MQTT 5 publish properties that matter to a request (MQTT 5, section 3.3.2.3).
#[derive(Clone, Debug, Default)]
pub struct DeliveryProperties {
    /// Response Topic.
    pub response_topic: Option<String>,
    /// Correlation Data.
    pub correlation_data: Option<Bytes>,
    /// User Properties, in order.
    pub user_properties: Vec<(String, String)>,
}

/// Completes one delivery: acknowledges the request and publishes its answer.
pub trait Responder: Send {
    /// The gateway has the request safely. The embedded broker acknowledges now, a foreign one only with the answer.
    fn accepted(&mut self);
    /// Publishes the answer at QoS 1, then completes the acknowledgement if that is still due.
    fn answer(self: Box<Self>, answer: Outgoing);
    /// The delivery was no request: acknowledges it and publishes nothing.
    fn ignore(self: Box<Self>);
}

/// Payload and user properties of an answer in its encoded form.
pub type Encoded = (Bytes, Vec<(String, String)>);

/// An answer on its way out.
pub struct Outgoing {
    /// Where it goes.
    pub topic: String,
    /// The encoded answer.
    pub payload: Bytes,
    /// Correlation Data of the request, returned.
    pub correlation_data: Option<Bytes>,
    /// User properties of the answer (MQTT 5 receivers only).
    pub user_properties: Vec<(String, String)>,
    /// Makes a replacement whose payload and user properties together have at most this many bytes, for a receiver
    /// whose Maximum Packet Size the answer exceeds.
    pub oversize: Box<dyn Fn(usize) -> Encoded + Send>,
}
