//! A message on its way to an external broker, and the size of the packet that it becomes.

use std::sync::Arc;

use bytes::Bytes;
use offload_mqtt::{Message, Properties, QoS, Version};
use offload_protocol::UserProperties;
use tokio::sync::OwnedSemaphorePermit;

use super::offer::Offer;
use crate::ingress::{Left, Notice, Outgoing};

/// Fixed header with the longest remaining length, length of the topic, packet identifier (MQTT 5, section 3.3).
const HEADERS: usize = 1 + 4 + 2 + 2;
/// Longest length of the properties.
const PROPERTIES: usize = 4;
/// Identifier and length of Correlation Data.
const CORRELATION_DATA: usize = 1 + 2;
/// Identifier and length of a Response Topic.
const RESPONSE_TOPIC: usize = 1 + 2;
/// Identifier and the two lengths of a User Property.
const USER_PROPERTY: usize = 1 + 2 + 2;

/// A message to publish: an answer, a notice of the gateway's own or a request for other gateways, at QoS 1; or a part
/// of an answer.
pub(super) struct Publication {
    pub topic: Arc<str>,
    pub payload: Bytes,
    pub retain: bool,
    pub qos: QoS,
    pub user_properties: UserProperties,
    /// That of the request.
    pub correlation_data: Option<Bytes>,
    /// Of a request that is left to other gateways: where its answer goes.
    response_topic: Option<String>,
    /// The answer, from which a smaller one can be made.
    answer: Option<Outgoing>,
    /// Of a part of an answer: until the broker has it, others may have to be left out.
    _room: Option<OwnedSemaphorePermit>,
}

impl From<Outgoing> for Publication {
    fn from(outgoing: Outgoing) -> Publication {
        // Empty where the configuration leaves no room for any answer.
        let (payload, user_properties) = outgoing.encode(None).unwrap_or_default();
        let address = &outgoing.address;
        Publication {
            topic: address.topic.as_str().into(),
            payload,
            retain: false,
            qos: QoS::AtLeastOnce,
            user_properties,
            correlation_data: address.correlation_data.clone(),
            response_topic: None,
            answer: Some(outgoing),
            _room: None,
        }
    }
}

impl From<Notice> for Publication {
    fn from(Notice { topic, payload, retain }: Notice) -> Publication {
        let user_properties = UserProperties::default();
        let qos = QoS::AtLeastOnce;
        let (correlation_data, response_topic, answer) = (None, None, None);
        Publication {
            topic,
            payload,
            retain,
            qos,
            user_properties,
            correlation_data,
            response_topic,
            answer,
            _room: None,
        }
    }
}

impl Publication {
    /// A part of an answer that has not come yet.
    pub fn part(topic: String, payload: Bytes, qos: QoS, room: OwnedSemaphorePermit) -> Publication {
        Publication {
            topic: topic.into(),
            payload,
            retain: false,
            qos,
            user_properties: UserProperties::default(),
            correlation_data: None,
            response_topic: None,
            answer: None,
            _room: Some(room),
        }
    }

    /// A request, as it came but for these user properties, that another gateway is to get.
    pub fn left(request: &Left<'_>, user_properties: UserProperties) -> Publication {
        let address = request.reply_address;
        Publication {
            topic: request.topic.into(),
            payload: request.payload.clone(),
            retain: false,
            qos: QoS::AtLeastOnce,
            user_properties,
            correlation_data: address.correlation_data.clone(),
            response_topic: Some(address.topic.clone()),
            answer: None,
            _room: None,
        }
    }

    /// The message, as a broker with this offer takes it.
    pub fn message(&self, offer: Offer) -> Message {
        let properties = Properties {
            correlation_data: self.correlation_data.clone(),
            response_topic: self.response_topic.clone(),
            user_properties: self.user_properties.clone(),
            ..Properties::default()
        };
        let message = Message::new(&*self.topic, self.payload.clone());
        offer.limit(Message { retain: self.retain, qos: self.qos, properties, ..message })
    }

    /// Most bytes that it holds while it waits: the packet, and what a smaller one can be made from.
    pub fn weight(&self) -> usize {
        let source = self.answer.as_ref().map_or(0, |outgoing| {
            let answer = &outgoing.answer;
            answer.stdout.len() + answer.stderr.len()
        });
        self.packet(Version::V5) + source
    }

    /// Makes the packet of at most `max` bytes: the message itself, or what replaces an answer. False when not even
    /// that fits.
    pub fn fit(&mut self, version: Version, max: usize) -> bool {
        if self.packet(version) <= max {
            return true;
        }
        let room = max.checked_sub(self.overhead(version));
        let smaller = self.answer.as_ref().zip(room).and_then(|(answer, room)| answer.encode(Some(room)));
        let Some((payload, user_properties)) = smaller else { return false };
        (self.payload, self.user_properties) = (payload, user_properties);
        self.packet(version) <= max
    }

    /// Most bytes that the packet can have.
    fn packet(&self, version: Version) -> usize {
        let properties: usize = match version {
            Version::V311 => 0,
            Version::V5 => self
                .user_properties
                .iter()
                .map(|(name, value)| USER_PROPERTY + name.len() + value.len())
                .sum(),
        };
        self.overhead(version) + properties + self.payload.len()
    }

    fn overhead(&self, version: Version) -> usize {
        overhead(&self.topic, self.correlation_data.as_ref(), self.response_topic.as_deref(), version)
    }
}

/// Bytes of a packet besides the payload and the user properties.
pub(super) fn overhead(
    topic: &str,
    correlation_data: Option<&Bytes>,
    response_topic: Option<&str>,
    version: Version,
) -> usize {
    let headers = HEADERS + topic.len();
    match version {
        Version::V311 => headers,
        Version::V5 => {
            let correlation = correlation_data.map_or(0, |data| CORRELATION_DATA + data.len());
            let response = response_topic.map_or(0, |topic| RESPONSE_TOPIC + topic.len());
            headers + PROPERTIES + correlation + response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::ReplyAddress;
    use offload_protocol::answer::{self, AnswerForm, Outcome};

    fn answer(bytes: usize) -> Publication {
        let answer = answer::Answer {
            id: None,
            outcome: Outcome::Exited(0),
            stdout: vec![b'x'; bytes].into(),
            content_range: None,
            stderr: Bytes::new(),
            fuel: 1,
            run_us: 2,
            queue_us: 3,
        };
        let address = ReplyAddress {
            topic: "result/a".to_owned(),
            correlation_data: Some(Bytes::from_static(b"c")),
            max_payload: None,
        };
        Outgoing { address, form: AnswerForm::Line, answer, seal: None }.into()
    }

    #[test]
    fn what_fits_is_left_alone() {
        let mut small = answer(100);
        assert!(small.fit(Version::V5, 300));
        assert_eq!(small.payload.len(), 100);
        assert!(!small.user_properties.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_replaced() {
        let mut large = answer(1000);
        assert!(large.fit(Version::V5, 256));
        assert!(large.payload.starts_with(b"error: output"), "{:?}", large.payload);
        assert!(large.packet(Version::V5) <= 256);
    }

    #[test]
    fn an_answer_without_room_for_its_topic_cannot_be_sent() {
        assert!(!answer(100).fit(Version::V5, 10));
    }

    #[test]
    fn a_notice_fits_or_does_not() {
        let notice = |bytes: usize| {
            Publication::from(Notice {
                topic: "gateway/g/jobs".into(),
                payload: vec![b'x'; bytes].into(),
                retain: false,
            })
        };
        assert!(notice(100).fit(Version::V5, 256));
        assert!(!notice(1000).fit(Version::V5, 256));
    }

    #[test]
    fn the_size_is_that_of_the_packet_or_a_little_more() {
        let answer = answer(100);
        for version in [Version::V5, Version::V311] {
            let exact = answer.message(Offer::ALL).packet_size(version);
            let ours = answer.packet(version);
            assert!(exact <= ours && ours <= exact + 6, "{version}: {exact} {ours}");
        }
    }
}
