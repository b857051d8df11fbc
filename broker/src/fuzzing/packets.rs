//! Bytes as a client may send them, through header and codec.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::time::Instant;

use crate::{
    config::Config,
    message::{Message, QoS},
    packet::{
        codec::{self, Packet},
        connect::{self, ConnectPacket, Protocol},
        frame::{self, Frame, Kind},
        outbound_publish::{OutboundPublish, encodable},
    },
    reason::Violation,
    version::Version,
};

/// Decodes packet after packet: the first byte's lowest bit chooses the version (1 is MQTT 5), the rest is the stream.
///
/// # Panics
/// If decoding panics, or a message does not come out of its encoding as it went in.
pub fn packets(data: &[u8]) {
    let Some((&choice, mut input)) = data.split_first() else { return };
    let version = if choice & 1 == 0 { Version::V311 } else { Version::V5 };
    let config = Config::default();
    while let Ok(Some(frame)) = frame::next(input, config.max_packet_size) {
        let _ = decode(&frame, version, &config);
        input = &input[frame.size..];
    }
}

fn decode(frame: &Frame<'_>, version: Version, config: &Config) -> Result<(), Violation> {
    if frame.kind == Kind::Connect {
        if let Protocol::Offered(version) = connect::protocol(frame.body)?
            && let Some(will) = ConnectPacket::read(frame.body, version, config)?.decode(config)?.will
        {
            survives(will.message);
        }
        return Ok(());
    }
    match codec::decode(frame, version, config)? {
        Packet::Publish(publish) => survives(Message {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: publish.properties.map(|properties| Arc::new(*properties)),
        }),
        Packet::Filters(mut filters) => while filters.next(frame)?.is_some() {},
        _ => {}
    }
    Ok(())
}

/// A message that was decoded can be encoded for every client, in as many bytes as foreseen, and is the same again.
fn survives(mut message: Message) {
    assert!(encodable(&message));
    if let Some(properties) = &mut message.properties {
        Arc::make_mut(properties).message_expiry = None; // what is left of it is written instead
    }
    let now = Instant::now();
    for version in [Version::V311, Version::V5] {
        let outbound = OutboundPublish {
            qos: message.qos,
            retain: message.retain,
            subscription_ids: Vec::new(),
            expires: None,
            receipt: None,
            message: message.clone(),
        };
        let mut out = BytesMut::new();
        outbound.encode(version, 1, message.qos != QoS::AtMostOnce, now, &mut out);
        assert_eq!(out.len(), outbound.packet_size(version));
        assert!(out.len() <= outbound.weight());

        let frame = frame::next(&out, usize::MAX).expect("a good header").expect("a whole packet");
        assert_eq!(frame.size, out.len());
        let Ok(Packet::Publish(again)) = codec::decode(&frame, version, &Config::default()) else {
            panic!("not decoded: {out:?}");
        };
        assert_eq!((&again.topic, &again.payload), (&message.topic, &message.payload));
        assert_eq!((again.qos, again.retain), (message.qos, message.retain));
        if version == Version::V5 {
            let default = Default::default();
            let properties = message.properties.as_deref().unwrap_or(&default);
            assert_eq!(again.properties.as_deref().unwrap_or(&Default::default()), properties);
        }
    }
}
