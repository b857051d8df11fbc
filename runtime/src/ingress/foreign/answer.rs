//! An answer on its way to a foreign broker, and the size of the packet that it becomes.

use bytes::Bytes;
use offload_protocol::UserProperties;

use super::version::Version;
use crate::ingress::Outgoing;

/// Fixed header with the longest remaining length, length of the topic, packet identifier (MQTT 5, section 3.3).
const HEADERS: usize = 1 + 4 + 2 + 2;
/// Longest length of the properties.
const PROPERTIES: usize = 4;
/// Identifier and length of Correlation Data.
const CORRELATION_DATA: usize = 1 + 2;
/// Identifier and the two lengths of a User Property.
const USER_PROPERTY: usize = 1 + 2 + 2;

/// An answer to publish at QoS 1.
pub(super) struct Answer {
    pub payload: Bytes,
    pub user_properties: UserProperties,
    /// From which a smaller one can be made.
    outgoing: Outgoing,
}

impl From<Outgoing> for Answer {
    fn from(outgoing: Outgoing) -> Answer {
        let (payload, user_properties) = outgoing.encode();
        Answer { payload, user_properties, outgoing }
    }
}

impl Answer {
    /// Where it goes.
    pub fn topic(&self) -> &str {
        &self.outgoing.topic
    }

    /// Correlation Data of the request.
    pub fn correlation_data(&self) -> Option<&Bytes> {
        self.outgoing.correlation_data.as_ref()
    }

    /// Most bytes that the answer holds while it waits: the packet, and what a smaller one can be made from.
    pub fn weight(&self) -> usize {
        let source = &self.outgoing.answer;
        self.packet(Version::V5) + source.stdout.len() + source.stderr.len()
    }

    /// Makes the packet of at most `max` bytes: the answer itself, or what replaces it. False when not even that fits.
    pub fn fit(&mut self, version: Version, max: usize) -> bool {
        if self.packet(version) <= max {
            return true;
        }
        let room = max.checked_sub(self.overhead(version));
        let Some((payload, user_properties)) = room.and_then(|room| self.outgoing.encode_within(room)) else {
            return false;
        };
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

    /// Bytes of the packet besides the payload and the user properties.
    fn overhead(&self, version: Version) -> usize {
        let headers = HEADERS + self.topic().len();
        match version {
            Version::V311 => headers,
            Version::V5 => {
                let correlation = self.correlation_data().map_or(0, |data| CORRELATION_DATA + data.len());
                headers + PROPERTIES + correlation
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offload_protocol::answer::{self, AnswerForm, Outcome};

    fn answer(bytes: usize) -> Answer {
        let answer = answer::Answer {
            id: None,
            outcome: Outcome::Exited(0),
            stdout: vec![b'x'; bytes].into(),
            stderr: Bytes::new(),
            fuel: 1,
            run_us: 2,
            queue_us: 3,
        };
        let outgoing = Outgoing {
            topic: "result/a".to_owned(),
            answer,
            form: AnswerForm::Line,
            correlation_data: Some(Bytes::from_static(b"c")),
            max_payload: None,
        };
        outgoing.into()
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
    fn the_size_is_that_of_the_packet_or_a_little_more() {
        use rumqttc::v5::mqttbytes::{QoS, v5};
        let answer = answer(100);
        let properties = v5::PublishProperties {
            correlation_data: answer.correlation_data().cloned(),
            user_properties: answer.user_properties.clone(),
            ..Default::default()
        };
        let payload = answer.payload.clone();
        let mut packet = v5::Publish::new(answer.topic(), QoS::AtLeastOnce, payload, Some(properties));
        packet.pkid = 1;
        let (exact, ours) = (packet.size(), answer.packet(Version::V5));
        assert!(exact <= ours && ours <= exact + 6, "{exact} {ours}");
    }
}
