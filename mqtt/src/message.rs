//! Messages, and the subscriptions by which they come.

use bytes::Bytes;
use rumqttc::QoS;

/// A message, as it is published and as it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The topic name. In one that came, bytes that are no UTF-8 are replaced.
    pub topic: String,
    /// The content.
    pub payload: Bytes,
    /// The quality of service; 1 by default.
    pub qos: QoS,
    /// When it is published: whether the broker keeps it for who subscribes later; not by default. When it comes:
    /// whether it was kept.
    pub retain: bool,
    /// What MQTT 5 has beside; MQTT 3.1.1 carries none of it.
    pub properties: Properties,
}

impl Message {
    /// A message at QoS 1, not retained and without properties.
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>) -> Message {
        Message {
            topic: topic.into(),
            payload: payload.into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::default(),
        }
    }
}

/// The properties of a message that are of use here (MQTT 5, section 3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Where an answer should go.
    pub response_topic: Option<String>,
    /// What an answer should carry, so that it is known which one it is.
    pub correlation_data: Option<Bytes>,
    /// What the payload is.
    pub content_type: Option<String>,
    /// Names and values, in order.
    pub user_properties: Vec<(String, String)>,
}

/// What is asked of the broker by one filter of a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The topic filter.
    pub filter: String,
    /// The highest quality of service at which messages are sent.
    pub qos: QoS,
    /// Whether retained messages are sent when the subscription is made; they are by default. In MQTT 3.1.1 they
    /// always are.
    pub wants_retained: bool,
}

impl Subscription {
    /// To all messages that match the filter, retained ones first.
    pub fn new(filter: impl Into<String>, qos: QoS) -> Subscription {
        Subscription { filter: filter.into(), qos, wants_retained: true }
    }
}
