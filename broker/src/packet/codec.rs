//! Between bytes and packets. What a client sends is read here, with every check that the standard asks for: PUBLISH
//! for speed, the rest because nothing may be built for a packet that is wrong, or that its sender has no right to.
//! What the broker sends and is rare goes through rumqttd's codec, which writes no DISCONNECT that is only a reason
//! code.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use rumqttd::protocol::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Packet as Wire, Protocol as _, v4::V4, v5::V5,
};

use crate::{
    config::Config,
    message::{Properties, QoS},
    packet::{
        fields::Fields,
        frame::{Frame, Kind},
        properties::{self, Property, Section},
        subscribe::FilterPacket,
    },
    reason::{Reason, Violation},
    version::Version,
};

/// A packet of an established connection.
pub(crate) enum Packet {
    Publish(Publish),
    PubAck(u16),
    PubRec {
        id: u16,
        refused: bool,
    },
    PubRel(u16),
    PubComp(u16),
    /// SUBSCRIBE or UNSUBSCRIBE, whose filters are read one by one.
    Filters(FilterPacket),
    PingReq,
    Disconnect {
        reason: u8,
        session_expiry: Option<u32>,
    },
}

impl Packet {
    /// Whether it answers what was sent before, rather than asks for something.
    pub fn acknowledges(&self) -> bool {
        matches!(self, Self::PubAck(_) | Self::PubRec { .. } | Self::PubRel(_) | Self::PubComp(_))
    }
}

pub(crate) struct Publish {
    /// Empty if `alias` stands for it.
    pub topic: Arc<str>,
    pub payload: Bytes,
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
    /// 0 at QoS 0.
    pub id: u16,
    pub alias: Option<u16>,
    pub properties: Option<Box<Properties>>,
}

/// Decodes a packet of an established connection.
pub(crate) fn decode(frame: &Frame<'_>, version: Version, config: &Config) -> Result<Packet, Violation> {
    Ok(match frame.kind {
        Kind::Publish => Packet::Publish(publish(frame, version, config)?),
        Kind::PubAck => Packet::PubAck(acknowledgement(frame, version, config)?.0),
        Kind::PubRec => {
            let (id, reason) = acknowledgement(frame, version, config)?;
            Packet::PubRec { id, refused: reason >= 0x80 }
        }
        Kind::PubRel => Packet::PubRel(acknowledgement(frame, version, config)?.0),
        Kind::PubComp => Packet::PubComp(acknowledgement(frame, version, config)?.0),
        Kind::Subscribe | Kind::Unsubscribe => Packet::Filters(FilterPacket::begin(frame, version, config)?),
        Kind::PingReq if frame.body.is_empty() => Packet::PingReq,
        Kind::PingReq => return Err(Violation::malformed("PINGREQ with a body")),
        Kind::Disconnect => disconnect_request(frame, version, config)?,
        Kind::Connect => return Err(Violation::protocol("second CONNECT")), // [MQTT-3.1.0-2]
    })
}

fn publish(frame: &Frame<'_>, version: Version, config: &Config) -> Result<Publish, Violation> {
    let (mut publish, payload) = publish_head(frame, version, config)?;
    publish.payload = Bytes::copy_from_slice(payload);
    Ok(publish)
}

/// A PUBLISH without its payload, and the payload as far as it has come.
pub(crate) fn publish_head<'a>(
    frame: &Frame<'a>,
    version: Version,
    config: &Config,
) -> Result<(Publish, &'a [u8]), Violation> {
    let qos = QoS::from_bits(frame.flags >> 1 & 3).ok_or(Violation::malformed("QoS 3"))?;
    let mut fields = Fields::new(frame.body);
    let topic = fields.string()?;
    let id = if qos == QoS::AtMostOnce { 0 } else { fields.packet_id()? };
    let mut alias = None;
    let mut found: Option<Box<Properties>> = None;
    if version == Version::V5 {
        properties::read(&mut fields, Section::Publish, config, |property| {
            if let Property::TopicAlias(number) = property {
                alias = Some(number);
            } else {
                property.keep(found.get_or_insert_default());
            }
        })?;
    }
    let publish = Publish {
        topic: topic.into(),
        payload: Bytes::new(),
        qos,
        retain: frame.flags & 1 != 0,
        dup: frame.flags & 8 != 0,
        id,
        alias,
        properties: found,
    };
    Ok((publish, fields.rest()))
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP: identifier and reason code.
fn acknowledgement(frame: &Frame<'_>, version: Version, config: &Config) -> Result<(u16, u8), Violation> {
    let mut fields = Fields::new(frame.body);
    let id = fields.packet_id()?;
    let mut reason = 0;
    if version == Version::V5 && !fields.is_empty() {
        reason = fields.byte()?;
        if !fields.is_empty() {
            properties::read(&mut fields, Section::Acknowledgement, config, |_| {})?;
        }
    }
    if fields.is_empty() { Ok((id, reason)) } else { Err(Violation::malformed("acknowledgement too long")) }
}

fn disconnect_request(frame: &Frame<'_>, version: Version, config: &Config) -> Result<Packet, Violation> {
    let mut fields = Fields::new(frame.body);
    let mut reason = 0;
    let mut session_expiry = None;
    if version == Version::V5 && !fields.is_empty() {
        reason = fields.byte()?;
        if !fields.is_empty() {
            properties::read(&mut fields, Section::Disconnect, config, |property| {
                if let Property::SessionExpiry(seconds) = property {
                    session_expiry = Some(seconds);
                }
            })?;
        }
    }
    if fields.is_empty() {
        Ok(Packet::Disconnect { reason, session_expiry })
    } else {
        Err(Violation::malformed("DISCONNECT too long"))
    }
}

/// Appends a packet through the codec. It fails only for lengths that no packet built here has.
fn encode(packet: Wire, version: Version, out: &mut BytesMut) {
    let written = match version {
        Version::V311 => V4.write(packet, out),
        Version::V5 => V5.write(packet, out),
    };
    debug_assert!(written.is_ok());
}

pub(crate) fn connack(
    session_present: bool,
    reason: Reason,
    properties: Option<ConnAckProperties>,
    version: Version,
    out: &mut BytesMut,
) {
    let code = match (version, reason) {
        (_, Reason::Success) => ConnectReturnCode::Success,
        // The six of 3.1.1; the codec panics on any other.
        (Version::V311, Reason::UnsupportedProtocolVersion) => ConnectReturnCode::RefusedProtocolVersion,
        (_, Reason::ClientIdentifierNotValid) => ConnectReturnCode::ClientIdentifierNotValid,
        (_, Reason::BadUserNameOrPassword) => ConnectReturnCode::BadUserNamePassword,
        (_, Reason::NotAuthorized) => ConnectReturnCode::NotAuthorized,
        (Version::V311, _) => ConnectReturnCode::ServiceUnavailable,
        (_, Reason::UnsupportedProtocolVersion) => ConnectReturnCode::UnsupportedProtocolVersion,
        (_, Reason::MalformedPacket) => ConnectReturnCode::MalformedPacket,
        (_, Reason::ProtocolError) => ConnectReturnCode::ProtocolError,
        (_, Reason::TopicNameInvalid) => ConnectReturnCode::TopicNameInvalid,
        (_, Reason::BadAuthenticationMethod) => ConnectReturnCode::BadAuthenticationMethod,
        (_, Reason::PacketTooLarge) => ConnectReturnCode::PacketTooLarge,
        (_, Reason::QuotaExceeded) => ConnectReturnCode::QuotaExceeded,
        (_, Reason::ServerUnavailable) => ConnectReturnCode::ServerUnavailable,
        (_, Reason::ServerBusy) => ConnectReturnCode::ServerBusy,
        _ => ConnectReturnCode::UnspecifiedError,
    };
    encode(Wire::ConnAck(ConnAck { session_present, code }, properties), version, out);
}

/// PUBACK or PUBREC.
pub(crate) fn publish_ack(id: u16, qos: QoS, reason: Reason, version: Version, out: &mut BytesMut) {
    let first = if qos == QoS::AtLeastOnce { 0x40 } else { 0x50 };
    short(first, id, reason.in_publish_ack(), version, out);
}

pub(crate) fn pubrel(id: u16, reason: Reason, version: Version, out: &mut BytesMut) {
    short(0x62, id, reason, version, out);
}

pub(crate) fn pubcomp(id: u16, reason: Reason, version: Version, out: &mut BytesMut) {
    short(0x70, id, reason, version, out);
}

fn short(first: u8, id: u16, reason: Reason, version: Version, out: &mut BytesMut) {
    let with_reason = version == Version::V5 && reason != Reason::Success;
    out.put_slice(&[first, if with_reason { 3 } else { 2 }]);
    out.put_u16(id);
    if with_reason {
        out.put_u8(reason as u8);
    }
}

pub(crate) fn pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xD0, 0]);
}

/// The server's DISCONNECT, which only MQTT 5 has.
pub(crate) fn disconnect(reason: Reason, out: &mut BytesMut) {
    out.put_slice(&[0xE0, 1, reason as u8]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{connect::ConnectPacket, fields::put_variable, frame};

    fn whole(first: u8, body: &[u8]) -> BytesMut {
        let mut packet = BytesMut::new();
        packet.put_u8(first);
        put_variable(&mut packet, body.len());
        packet.put_slice(body);
        packet
    }

    fn decode_all(bytes: &[u8], version: Version) {
        let config = Config::default();
        if let Ok(Some(frame)) = frame::next(bytes, 100_000) {
            let _ = match frame.kind {
                Kind::Connect => ConnectPacket::read(frame.body, version, &config)
                    .and_then(|packet| packet.decode(&config).map(drop)),
                _ => decode(&frame, version, &config).and_then(|packet| match packet {
                    Packet::Filters(mut filters) => {
                        while filters.next(&frame)?.is_some() {}
                        Ok(())
                    }
                    _ => Ok(()),
                }),
            };
        }
    }

    /// A whole packet of one of the types that clients send, with any body.
    fn packet() -> impl Strategy<Value = Vec<u8>> {
        let first = prop::sample::select(vec![
            0x10u8, 0x30, 0x32, 0x3D, 0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xC0, 0xE0,
        ]);
        (first, prop::collection::vec(any::<u8>(), 0..120))
            .prop_map(|(first, body)| whole(first, &body).to_vec())
    }

    /// Valid packets, to be damaged.
    fn samples() -> Vec<Vec<u8>> {
        let connect_v5 =
            b"\x00\x04MQTT\x05\xCE\x00\x3C\x05\x11\x00\x00\x00\x0A\x00\x01c\x07\x18\x00\x00\x00\x05\
            \x01\x01\x00\x01w\x00\x01m\x00\x01u\x00\x02\xFF\xFE";
        let connect_v4 = b"\x00\x04MQTT\x04\xCE\x00\x3C\x00\x01c\x00\x01w\x00\x01m\x00\x01u\x00\x02\xFF\xFE";
        vec![
            whole(0x10, connect_v5).to_vec(),
            whole(0x10, connect_v4).to_vec(),
            whole(0x32, b"\x00\x03a/b\x00\x01\x11\x03\x00\x01t\x08\x00\x01r\x26\x00\x01k\x00\x01vpayload")
                .to_vec(),
            whole(0x82, b"\x00\x01\x09\x0B\x05\x26\x00\x01k\x00\x01v\x00\x03a/b\x01\x00\x01#\x02").to_vec(),
            whole(0xA2, b"\x00\x01\x00\x00\x03a/b\x00\x01#").to_vec(),
            whole(0xE0, b"\x04\x05\x11\x00\x00\x00\x07").to_vec(),
        ]
    }

    #[test]
    fn disconnect_with_a_reason_alone_is_read_and_written() {
        let mut out = BytesMut::new();
        disconnect(Reason::ServerShuttingDown, &mut out);
        assert_eq!(&out[..], [0xE0, 1, 0x8B]);
        let frame = frame::next(&[0xE0, 1, 4], 1000).unwrap().unwrap();
        let packet = decode(&frame, Version::V5, &Config::default());
        assert!(matches!(packet, Ok(Packet::Disconnect { reason: 4, session_expiry: None })));
    }

    #[test]
    fn every_refusal_can_be_written_in_both_versions() {
        use Reason::*;
        for reason in [
            Success,
            UnspecifiedError,
            MalformedPacket,
            ProtocolError,
            UnsupportedProtocolVersion,
            ClientIdentifierNotValid,
            NotAuthorized,
            ServerUnavailable,
            ServerBusy,
            BadAuthenticationMethod,
            TopicNameInvalid,
            PacketTooLarge,
            QuotaExceeded,
            ServerShuttingDown,
        ] {
            for version in [Version::V311, Version::V5] {
                connack(false, reason, None, version, &mut BytesMut::new());
            }
        }
    }

    proptest! {
        #[test]
        fn random_bodies_never_panic(bytes in packet(), v5: bool) {
            decode_all(&bytes, if v5 { Version::V5 } else { Version::V311 });
        }

        #[test]
        fn damaged_packets_never_panic(
            sample in prop::sample::select(samples()),
            at: prop::sample::Index,
            byte: u8,
            cut: prop::sample::Index,
            v5: bool,
        ) {
            let version = if v5 { Version::V5 } else { Version::V311 };
            let mut damaged = sample.clone();
            let at = at.index(damaged.len());
            damaged[at] = byte;
            decode_all(&damaged, version);
            let body = &sample[2..2 + cut.index(sample.len() - 2)];
            decode_all(&whole(sample[0], body), version);
        }
    }
}
