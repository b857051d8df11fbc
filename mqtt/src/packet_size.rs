//! How large the packet of a message is.

use crate::{Message, Version, v5, v311};

impl Message {
    /// Bytes of the whole packet in which it is published.
    pub fn packet_size(&self, version: Version) -> usize {
        match version {
            Version::V311 => v311::packet_size(self),
            Version::V5 => v5::packet_size(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::QoS;

    use super::*;

    #[test]
    fn the_size_is_that_of_the_packet() {
        let mut message = Message::new("a/b", "12345");
        // Fixed header, topic with its length, packet identifier, payload.
        assert_eq!(message.packet_size(Version::V311), 2 + 2 + 3 + 2 + 5);
        // And the length of no properties.
        assert_eq!(message.packet_size(Version::V5), 2 + 2 + 3 + 2 + 1 + 5);
        message.properties.correlation_data = Some("c".into());
        message.properties.user_properties = vec![("k".to_owned(), "v".to_owned())];
        assert_eq!(message.packet_size(Version::V311), 14);
        assert_eq!(message.packet_size(Version::V5), 15 + (1 + 2 + 1) + (1 + 2 + 1 + 2 + 1));
        message.qos = QoS::AtMostOnce;
        assert_eq!(message.packet_size(Version::V311), 12);
    }
}
