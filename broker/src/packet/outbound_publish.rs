//! A PUBLISH to one subscriber (section 3.3): its message, and its packet.
//!
//! Encoded by hand, straight into the connection's buffer: rumqttd's `Publish` keeps QoS and packet
//! identifier to itself, and this is the hot path.

use bytes::{BufMut, BytesMut};
use tokio::time::Instant;

use crate::{
    message::{Message, Properties, QoS},
    packet::fields::{put_binary, put_variable, variable_len},
    session::receipt::Receipt,
    version::Version,
};

#[derive(Debug)]
pub(crate) struct OutboundPublish {
    pub message: Message,
    /// The lower of the message's and the subscription's.
    pub qos: QoS,
    pub retain: bool,
    /// Of every subscription that matched (section 3.3.4).
    pub subscription_ids: Vec<u32>,
    pub expires: Option<Instant>,
    /// Given when the subscriber acknowledges, if anybody wants to know.
    pub receipt: Option<Receipt>,
}

impl OutboundPublish {
    /// What a queue's bound in bytes counts. Never less than the size of the packet.
    pub fn weight(&self) -> usize {
        size_of::<Self>() - size_of::<Message>() + self.message.weight() + 5 * self.subscription_ids.len()
    }

    pub fn expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Size of the whole packet in bytes.
    pub fn packet_size(&self, version: Version) -> usize {
        let remaining = self.remaining_length(version);
        1 + variable_len(remaining) + remaining
    }

    fn remaining_length(&self, version: Version) -> usize {
        let id = if self.qos == QoS::AtMostOnce { 0 } else { 2 };
        let properties = match version {
            Version::V311 => 0,
            Version::V5 => {
                let len = self.properties_len();
                variable_len(len) + len
            }
        };
        2 + self.message.topic.len() + id + properties + self.message.payload.len()
    }

    fn properties_len(&self) -> usize {
        let ids: usize = self.subscription_ids.iter().map(|&id| 1 + variable_len(id as usize)).sum();
        let expiry = if self.expires.is_some() { 5 } else { 0 };
        ids + expiry + self.message.properties.as_ref().map_or(0, |properties| properties_len(properties))
    }

    /// Appends the packet; `id` counts from QoS 1 on. Message expiry is what is left of it [MQTT-3.3.2-6].
    pub fn encode(&self, version: Version, id: u16, dup: bool, now: Instant, out: &mut BytesMut) {
        let remaining = self.remaining_length(version);
        out.reserve(5 + remaining);
        out.put_u8(0x30 | u8::from(dup) << 3 | (self.qos as u8) << 1 | u8::from(self.retain));
        put_variable(out, remaining);
        put_binary(out, self.message.topic.as_bytes());
        if self.qos != QoS::AtMostOnce {
            out.put_u16(id);
        }
        if version == Version::V5 {
            put_variable(out, self.properties_len());
            for &id in &self.subscription_ids {
                out.put_u8(11);
                put_variable(out, id as usize);
            }
            if let Some(expires) = self.expires {
                // What has begun of a second counts: one that did not wait says what its publisher said.
                let left = expires.duration_since(now);
                let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
                out.put_u8(2);
                out.put_u32(seconds.try_into().unwrap_or(u32::MAX));
            }
            if let Some(properties) = &self.message.properties {
                put_properties(properties, out);
            }
        }
        out.put_slice(&self.message.payload);
    }
}

/// All but message expiry, of which what is left is written instead.
fn properties_len(properties: &Properties) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, |text| 3 + text.len());
    properties.payload_format.map_or(0, |_| 2)
        + text(&properties.content_type)
        + text(&properties.response_topic)
        + properties.correlation_data.as_ref().map_or(0, |data| 3 + data.len())
        + properties.user_properties.iter().map(|(name, value)| 5 + name.len() + value.len()).sum::<usize>()
}

fn put_properties(properties: &Properties, out: &mut BytesMut) {
    if let Some(format) = properties.payload_format {
        out.put_slice(&[1, format]);
    }
    if let Some(content_type) = &properties.content_type {
        out.put_u8(3);
        put_binary(out, content_type.as_bytes());
    }
    if let Some(topic) = &properties.response_topic {
        out.put_u8(8);
        put_binary(out, topic.as_bytes());
    }
    if let Some(data) = &properties.correlation_data {
        out.put_u8(9);
        put_binary(out, data);
    }
    for (name, value) in properties.user_properties.iter() {
        out.put_u8(38);
        put_binary(out, name.as_bytes());
        put_binary(out, value.as_bytes());
    }
}

/// True if no field is longer than its length can say, which messages from clients never are.
pub(crate) fn encodable(message: &Message) -> bool {
    const LONGEST: usize = u16::MAX as usize;
    let text = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= LONGEST);
    message.topic.len() <= LONGEST
        && message.properties.as_ref().is_none_or(|properties| {
            text(&properties.content_type)
                && text(&properties.response_topic)
                && properties.correlation_data.as_ref().is_none_or(|data| data.len() <= LONGEST)
                && properties
                    .user_properties
                    .iter()
                    .all(|(name, value)| name.len() <= LONGEST && value.len() <= LONGEST)
        })
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    #[test]
    fn what_is_left_of_an_expiry_is_rounded_up() {
        let now = Instant::now();
        for (millis, seconds) in [(0, 0), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (119_999, 120)] {
            let publish = OutboundPublish {
                message: Message::new("t", "", QoS::AtMostOnce),
                qos: QoS::AtMostOnce,
                retain: false,
                subscription_ids: Vec::new(),
                expires: Some(now + Duration::from_millis(millis)),
                receipt: None,
            };
            let mut out = BytesMut::new();
            publish.encode(Version::V5, 0, false, now, &mut out);
            assert_eq!(out[out.len() - 4..], u32::to_be_bytes(seconds), "{millis} ms");
        }
    }

    #[test]
    fn packet_size_is_what_is_encoded() {
        let now = Instant::now();
        let properties = Properties {
            payload_format: Some(1),
            message_expiry: Some(9),
            content_type: Some("text/plain".into()),
            response_topic: Some("result/x".into()),
            correlation_data: Some(vec![1, 2, 3].into()),
            user_properties: [("a", "b"), ("a", "")].into_iter().collect(),
        };
        for size in [0, 100, 20_000] {
            for qos in [QoS::AtMostOnce, QoS::ExactlyOnce] {
                for version in [Version::V311, Version::V5] {
                    let mut message = Message::new("a/b", vec![7u8; size], qos);
                    message.properties = Some(Arc::new(properties.clone()));
                    let publish = OutboundPublish {
                        message,
                        qos,
                        retain: true,
                        subscription_ids: vec![1, 200, 20_000],
                        expires: Some(now),
                        receipt: None,
                    };
                    let mut out = BytesMut::new();
                    publish.encode(version, 1, false, now, &mut out);
                    assert_eq!(out.len(), publish.packet_size(version));
                    assert!(out.len() <= publish.weight());
                }
            }
        }
    }
}
