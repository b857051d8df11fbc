//! The one interface between brokers and the gateway.
//!
//! An ingress turns MQTT publishes on the request topics into [`Delivery`]s, gives them to a [`Sink`], and publishes
//! the answers. Nothing behind it knows whether the broker is our own ([`embedded`]) or somebody else's
//! ([`external_mqtt`]): what differs (when a request is acknowledged, how an answer finds its session) is inside the
//! [`Responder`] that comes with each delivery.

pub mod embedded;
pub mod external_mqtt;

pub use crate::client::Client;
use bytes::Bytes;
use offload_protocol::UserProperties;
use offload_protocol::answer::{self, Answer, AnswerForm};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Takes deliveries from an ingress. Called on the ingress's own task, so it never blocks.
pub trait Sink: Send + Sync + 'static {
    /// Takes over one delivery. Its responder is used exactly once.
    fn deliver(&self, delivery: Delivery);

    /// The ingress has nothing more to deliver at the moment. Comes after each delivery, or several; what is short may
    /// be run in here.
    fn delivered(&self);
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
    /// Stored by an external broker before we subscribed: no request.
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
    /// The gateway has the request safely. The embedded broker acknowledges now, an external one only with the answer.
    fn accepted(&mut self);
    /// Publishes the answer at QoS 1, then completes the acknowledgement if that is still due.
    fn answer(self: Box<Self>, answer: Outgoing);
    /// The delivery was no request: acknowledges it and publishes nothing.
    fn ignore(self: Box<Self>);
}

/// An answer on its way out. How it is encoded depends on who receives it, so that is left to the ingress.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where it goes.
    pub topic: String,
    /// What it says.
    pub answer: Answer,
    /// The form that the request asked for.
    pub form: AnswerForm,
    /// Correlation Data of the request, returned.
    pub correlation_data: Option<Bytes>,
    /// Bytes that the payload may have, where the configuration limits the answers on this topic.
    pub max_payload: Option<usize>,
}

/// A message of the gateway's own, beside the answers, on a topic below `gateway/`. Published at QoS 1.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Where it goes.
    pub topic: Arc<str>,
    /// What it says.
    pub payload: Bytes,
    /// Whether the broker keeps it for those who come later.
    pub retain: bool,
}

/// What an ingress publishes beside the answers, from the moment when it can until it shuts down.
#[derive(Debug)]
pub struct Notices {
    /// The gateway's status: published at each connection to a broker, and when it changes.
    pub status: watch::Receiver<Notice>,
    /// The status that is left behind, however the gateway goes.
    pub offline: Notice,
    /// What the audit log shows. Taken only while there is room, and lost with the connection.
    pub audit_log: mpsc::Receiver<Notice>,
    /// What tells the gateway from others of its name, if it is to be told.
    pub instance: Option<String>,
}

impl Notices {
    /// A status that never changes, and no audit log.
    pub fn fixed(status: Notice, offline: Notice) -> Notices {
        Notices { status: watch::channel(status).1, offline, audit_log: mpsc::channel(1).1, instance: None }
    }
}

/// Payload and user properties of an answer in its encoded form.
pub type Encoded = (Bytes, UserProperties);

impl Outgoing {
    /// The payload, and the user properties for an MQTT 5 receiver.
    pub fn encode(&self) -> Encoded {
        let encoded = answer::encode(&self.answer, self.form);
        match self.max_payload {
            Some(max) if encoded.0.len() > max => {
                answer::encode_within(&self.answer, self.form, max, false).unwrap_or_default()
            }
            _ => encoded,
        }
    }

    /// A replacement for a receiver that takes no more than `room` bytes of payload and user properties, as MQTT 5
    /// counts them. `None` if not even an error fits.
    pub fn encode_within(&self, room: usize) -> Option<Encoded> {
        let room = self.max_payload.map_or(room, |max| max.min(room));
        answer::encode_within(&self.answer, self.form, room, true)
    }
}
