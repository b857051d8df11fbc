//! Application messages.

use std::sync::Arc;

use bytes::Bytes;

/// Quality of service (section 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// Delivered once or not at all.
    #[default]
    AtMostOnce = 0,
    /// Delivered, perhaps more than once.
    AtLeastOnce = 1,
    /// Delivered once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The level of this number; `None` above 2.
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// An application message. Cloning shares topic, payload and properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Topic name, without wildcards.
    pub topic: Arc<str>,
    /// The bytes; an empty payload with `retain` clears the retained message of the topic.
    pub payload: Bytes,
    /// The publisher's level; a subscriber gets the lower of this and what it was granted.
    pub qos: QoS,
    /// Keep it for later subscribers (section 3.3.1.3).
    pub retain: bool,
    /// MQTT 5 properties; clients of 3.1.1 get the message without them.
    pub properties: Option<Arc<Properties>>,
}

impl Message {
    /// A message that is not retained and has no properties.
    pub fn new(topic: impl Into<Arc<str>>, payload: impl Into<Bytes>, qos: QoS) -> Self {
        Self { topic: topic.into(), payload: payload.into(), qos, retain: false, properties: None }
    }

    /// Bytes that a copy of it holds in memory, for the bounds on queues and retained messages.
    pub(crate) fn weight(&self) -> usize {
        let properties = self.properties.as_ref().map_or(0, |properties| properties.weight());
        size_of::<Self>() + self.topic.len() + self.payload.len() + properties
    }
}

/// The properties of a PUBLISH that travel with the message (section 3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// 1: the payload is UTF-8; 0 or absent: bytes.
    pub payload_format: Option<u8>,
    /// Seconds after which it is no longer delivered.
    pub message_expiry: Option<u32>,
    /// MIME type or whatever the parties agreed on.
    pub content_type: Option<String>,
    /// Where an answer is expected.
    pub response_topic: Option<String>,
    /// Returned with the answer.
    pub correlation_data: Option<Bytes>,
    /// Names and values, in order, names may repeat.
    pub user_properties: Vec<(String, String)>,
}

impl Properties {
    fn weight(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let pair =
            |(name, value): &(String, String)| size_of::<(String, String)>() + name.len() + value.len();
        size_of::<Self>()
            + text(&self.content_type)
            + text(&self.response_topic)
            + self.correlation_data.as_ref().map_or(0, Bytes::len)
            + self.user_properties.iter().map(pair).sum::<usize>()
    }
}
