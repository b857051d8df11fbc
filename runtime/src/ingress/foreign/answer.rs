//! An answer on its way to a foreign broker, and the size of the packet that it becomes.

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
pub(super) struct Answer(pub Outgoing);

impl Answer {
    /// Bytes that the answer holds while it waits.
    pub fn weight(&self) -> usize {
        self.overhead(Version::V5) + self.content()
    }

    /// Makes the packet of at most `max` bytes: the answer itself, or what replaces it. False when not even that fits.
    pub fn fit(&mut self, version: Version, max: usize) -> bool {
        if self.packet(version) <= max {
            return true;
        }
        let Some(room) = max.checked_sub(self.overhead(version)) else { return false };
        (self.0.payload, self.0.user_properties) = (self.0.oversize)(room);
        self.packet(version) <= max
    }

    /// Most bytes that the packet can have.
    fn packet(&self, version: Version) -> usize {
        match version {
            Version::V5 => self.overhead(version) + self.content(),
            Version::V311 => self.overhead(version) + self.0.payload.len(),
        }
    }

    fn content(&self) -> usize {
        let text: usize = self.0.user_properties.iter().map(|(name, value)| name.len() + value.len()).sum();
        text + self.0.payload.len()
    }

    /// Bytes of the packet besides the payload and the text of the user properties.
    fn overhead(&self, version: Version) -> usize {
        let headers = HEADERS + self.0.topic.len();
        match version {
            Version::V311 => headers,
            Version::V5 => {
                let correlation =
                    self.0.correlation_data.as_ref().map_or(0, |data| CORRELATION_DATA + data.len());
                headers + PROPERTIES + correlation + USER_PROPERTY * self.0.user_properties.len()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn answer(bytes: usize) -> Answer {
        Answer(Outgoing {
            topic: "result/a".to_owned(),
            payload: Bytes::from(vec![b'x'; bytes]),
            correlation_data: Some(Bytes::from_static(b"c")),
            user_properties: vec![("status".to_owned(), "ok".to_owned())],
            oversize: Box::new(|room| {
                let text = "error: output: too long for its receiver";
                (Bytes::from_static(text.as_bytes()).slice(..text.len().min(room)), Vec::new())
            }),
        })
    }

    #[test]
    fn what_fits_is_left_alone() {
        let mut small = answer(100);
        assert!(small.fit(Version::V5, 200));
        assert_eq!((small.0.payload.len(), small.0.user_properties.len()), (100, 1));
    }

    #[test]
    fn what_does_not_fit_is_replaced() {
        let mut large = answer(100);
        assert!(large.fit(Version::V5, 80));
        assert!(large.0.payload.starts_with(b"error: output"));
        assert!(large.packet(Version::V5) <= 80);
    }

    #[test]
    fn an_answer_without_room_for_its_topic_cannot_be_sent() {
        assert!(!answer(100).fit(Version::V5, 10));
    }

    #[test]
    fn the_size_is_that_of_the_packet_or_a_little_more() {
        let answer = answer(100);
        let properties = rumqttc::v5::mqttbytes::v5::PublishProperties {
            correlation_data: answer.0.correlation_data.clone(),
            user_properties: answer.0.user_properties.clone(),
            ..Default::default()
        };
        let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
        let mut packet = rumqttc::v5::mqttbytes::v5::Publish::new(
            answer.0.topic.clone(),
            qos,
            answer.0.payload.clone(),
            Some(properties),
        );
        packet.pkid = 1;
        let (exact, ours) = (packet.size(), answer.packet(Version::V5));
        assert!(exact <= ours && ours <= exact + 6, "{exact} {ours}");
    }
}
