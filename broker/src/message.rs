//! Application messages.

use std::{fmt, sync::Arc};

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
    pub user_properties: UserProperties,
}

/// User properties (section 3.3.2.3.7), in two pieces of memory however many they are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserProperties {
    /// All names and values, one behind the other.
    text: String,
    /// Where each name and each value ends.
    ends: Vec<usize>,
}

impl UserProperties {
    /// Appends one.
    pub fn push(&mut self, name: &str, value: &str) {
        for text in [name, value] {
            self.text.push_str(text);
            self.ends.push(self.text.len());
        }
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.chunks_exact(2).map(move |ends| {
            let (name, value) = (&self.text[start..ends[0]], &self.text[ends[0]..ends[1]]);
            start = ends[1];
            (name, value)
        })
    }

    /// Bytes of memory beside the value itself.
    fn weight(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for UserProperties {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut properties = Self::default();
        for (name, value) in pairs {
            properties.push(name.as_ref(), value.as_ref());
        }
        properties
    }
}

impl fmt::Debug for UserProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Properties {
    fn weight(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        size_of::<Self>()
            + text(&self.content_type)
            + text(&self.response_topic)
            + self.correlation_data.as_ref().map_or(0, Bytes::len)
            + self.user_properties.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_properties_come_out_as_they_went_in_and_take_little_memory() {
        let pairs = [("a", "b"), ("", ""), ("a", ""), ("é", "☃")];
        let properties: UserProperties = pairs.into_iter().collect();
        assert!(properties.iter().eq(pairs));
        let many: UserProperties = (0..1_000).map(|_| ("", "")).collect();
        assert_eq!(many.iter().count(), 1_000);
        // Two strings each would be 48.
        assert!(many.weight() <= 2_048 * size_of::<usize>(), "{}", many.weight());
    }
}
