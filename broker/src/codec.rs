//! Between bytes and packets. What has structure and is rare goes through rumqttd's codecs, behind
//! [`guard`](crate::guard); PUBLISH and the packets of a few bytes are done here, for speed and because the
//! codecs get them wrong: they hide QoS and packet identifier of a PUBLISH, refuse a DISCONNECT that is only
//! a reason code, and write one byte too many after it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::{BufMut, Bytes, BytesMut};
use rumqttd::protocol::{
    self as wire, ConnAck, ConnAckProperties, ConnectReturnCode, Packet as Wire, Protocol as _, SubAck,
    SubscribeReasonCode, UnsubAck, UnsubAckReason, v4::V4, v5::V5,
};

use crate::{
    application::Version,
    config::Config,
    fields::{Fields, put_variable},
    frame::{Frame, Kind},
    guard,
    incoming::Decided,
    message::{Message, Properties, QoS},
    properties::{self, Property, Section},
    reason::{Reason, Violation},
    trie::Options,
    will::Will,
};

/// A packet of an established connection.
pub(crate) enum Packet {
    Publish(Publish),
    PubAck(u16),
    PubRec { id: u16, refused: bool },
    PubRel(u16),
    PubComp(u16),
    Subscribe { id: u16, filters: Vec<Filter> },
    Unsubscribe { id: u16, filters: Vec<String> },
    PingReq,
    Disconnect { reason: u8, session_expiry: Option<u32> },
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

pub(crate) struct Filter {
    pub path: String,
    pub options: Options,
    pub retained: RetainedFor,
}

/// Which retained messages a subscription gets (Retain Handling, section 3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetainedFor {
    EverySubscribe,
    NewSubscription,
    Nobody,
}

pub(crate) struct Connect {
    pub client_id: String,
    pub clean_start: bool,
    pub keep_alive: u16,
    /// Seconds; `None` for a persistent 3.1.1 session, which has no such limit of its own.
    pub session_expiry: Option<u32>,
    pub receive_maximum: u16,
    /// `None`: whatever fits in MQTT.
    pub max_packet_size: Option<u32>,
    pub authentication_method: bool,
    pub will: Option<Will>,
    pub user_name: Option<String>,
    pub password: Option<Vec<u8>>,
}

/// Decodes a CONNECT, whose protocol is known.
pub(crate) fn connect(body: &[u8], version: Version, config: &Config) -> Result<Connect, Violation> {
    let guard::Connect { head, user_name, password } = guard::connect(body, version, config)?;
    let mut packet = whole(0x10, head);
    let flags = packet.len() - head.len() + guard::CONNECT_FLAGS;
    packet[flags] &= !guard::CREDENTIALS;
    let Wire::Connect(connect, properties, will, will_properties, _) = decode_guarded(packet, version)?
    else {
        return Err(Violation::malformed("CONNECT"));
    };
    let properties = properties.as_ref();
    Ok(Connect {
        client_id: connect.client_id,
        clean_start: connect.clean_session,
        keep_alive: connect.keep_alive,
        session_expiry: match version {
            Version::V311 if connect.clean_session => Some(0),
            Version::V311 => None,
            Version::V5 => Some(properties.and_then(|p| p.session_expiry_interval).unwrap_or(0)),
        },
        receive_maximum: properties.and_then(|p| p.receive_maximum).unwrap_or(u16::MAX),
        max_packet_size: properties.and_then(|p| p.max_packet_size),
        authentication_method: properties.is_some_and(|p| p.authentication_method.is_some()),
        will: will.map(|will| self::will(will, will_properties)).transpose()?,
        user_name: user_name.map(str::to_owned),
        password: password.map(<[u8]>::to_vec),
    })
}

fn will(will: wire::LastWill, properties: Option<wire::LastWillProperties>) -> Result<Will, Violation> {
    let topic = str::from_utf8(&will.topic).map_err(|_| Violation::malformed("will topic"))?;
    let delay = properties.as_ref().and_then(|p| p.delay_interval).unwrap_or(0);
    let properties = properties.map(|p| {
        Arc::new(Properties {
            payload_format: p.payload_format_indicator,
            message_expiry: p.message_expiry_interval,
            content_type: p.content_type,
            response_topic: p.response_topic,
            correlation_data: p.correlation_data.map(|data| Bytes::copy_from_slice(&data)),
            user_properties: p.user_properties,
        })
    });
    let message = Message {
        topic: topic.into(),
        // A copy, so that the CONNECT is not kept as long as the will.
        payload: Bytes::copy_from_slice(&will.message),
        qos: from_wire(will.qos),
        retain: will.retain,
        properties,
    };
    Ok(Will { message, delay })
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
        Kind::Subscribe => subscribe(frame, version, config)?,
        Kind::Unsubscribe => {
            guard::unsubscribe(frame.body, version, config)?;
            match decode_guarded(whole(0xA2, frame.body), version)? {
                Wire::Unsubscribe(packet, _) => {
                    Packet::Unsubscribe { id: packet.pkid, filters: packet.filters }
                }
                _ => return Err(Violation::malformed("UNSUBSCRIBE")),
            }
        }
        Kind::PingReq if frame.body.is_empty() => Packet::PingReq,
        Kind::PingReq => return Err(Violation::malformed("PINGREQ with a body")),
        Kind::Disconnect => disconnect_request(frame, version, config)?,
        Kind::Connect => return Err(Violation::protocol("second CONNECT")), // [MQTT-3.1.0-2]
    })
}

fn publish(frame: &Frame<'_>, version: Version, config: &Config) -> Result<Publish, Violation> {
    let qos = QoS::from_bits(frame.flags >> 1 & 3).ok_or(Violation::malformed("QoS 3"))?;
    let mut fields = Fields::new(frame.body);
    let topic = fields.string()?;
    let id = if qos == QoS::AtMostOnce { 0 } else { fields.packet_id()? };
    let mut alias = None;
    let mut found = None;
    if version == Version::V5 {
        properties::read(&mut fields, Section::Publish, config.max_properties_size, |property| {
            if let Property::TopicAlias(number) = property {
                alias = Some(number);
            } else {
                set(found.get_or_insert_default(), property);
            }
        })?;
    }
    Ok(Publish {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(fields.rest()),
        qos,
        retain: frame.flags & 1 != 0,
        dup: frame.flags & 8 != 0,
        id,
        alias,
        properties: found,
    })
}

fn set(properties: &mut Box<Properties>, property: Property<'_>) {
    match property {
        Property::PayloadFormat(format) => properties.payload_format = Some(format),
        Property::MessageExpiry(seconds) => properties.message_expiry = Some(seconds),
        Property::ContentType(text) => properties.content_type = Some(text.to_owned()),
        Property::ResponseTopic(topic) => properties.response_topic = Some(topic.to_owned()),
        Property::CorrelationData(data) => properties.correlation_data = Some(Bytes::copy_from_slice(data)),
        Property::User(name, value) => properties.user_properties.push((name.to_owned(), value.to_owned())),
        Property::SessionExpiry(_) | Property::TopicAlias(_) | Property::Other => {}
    }
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP: identifier and reason code.
fn acknowledgement(frame: &Frame<'_>, version: Version, config: &Config) -> Result<(u16, u8), Violation> {
    let mut fields = Fields::new(frame.body);
    let id = fields.packet_id()?;
    let mut reason = 0;
    if version == Version::V5 && !fields.is_empty() {
        reason = fields.byte()?;
        if !fields.is_empty() {
            properties::read(&mut fields, Section::Acknowledgement, config.max_properties_size, |_| {})?;
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
            properties::read(&mut fields, Section::Disconnect, config.max_properties_size, |property| {
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

fn subscribe(frame: &Frame<'_>, version: Version, config: &Config) -> Result<Packet, Violation> {
    guard::subscribe(frame.body, version, config)?;
    let Wire::Subscribe(packet, properties) = decode_guarded(whole(0x82, frame.body), version)? else {
        return Err(Violation::malformed("SUBSCRIBE"));
    };
    let id = properties.and_then(|properties| properties.id).map(|id| id as u32);
    let filters = packet.filters.into_iter().map(|filter| Filter {
        path: filter.path,
        options: Options {
            qos: from_wire(filter.qos),
            no_local: filter.nolocal,
            retain_as_published: filter.preserve_retain,
            id,
        },
        retained: match filter.retain_forward_rule {
            wire::RetainForwardRule::OnEverySubscribe => RetainedFor::EverySubscribe,
            wire::RetainForwardRule::OnNewSubscribe => RetainedFor::NewSubscription,
            wire::RetainForwardRule::Never => RetainedFor::Nobody,
        },
    });
    Ok(Packet::Subscribe { id: packet.pkid, filters: filters.collect() })
}

fn from_wire(qos: wire::QoS) -> QoS {
    match qos {
        wire::QoS::AtMostOnce => QoS::AtMostOnce,
        wire::QoS::AtLeastOnce => QoS::AtLeastOnce,
        wire::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn whole(first: u8, body: &[u8]) -> BytesMut {
    let mut packet = BytesMut::with_capacity(5 + body.len());
    packet.put_u8(first);
    put_variable(&mut packet, body.len());
    packet.put_slice(body);
    packet
}

/// How the log says that the codec panicked.
pub(crate) const CODEC_PANICKED: &str = "the codec panicked";

/// The codec, on a packet that [`guard`] has passed. It must not panic on one; should it all the same, that
/// is this client's loss and nobody else's.
fn decode_guarded(mut packet: BytesMut, version: Version) -> Result<Wire, Violation> {
    let size = packet.len();
    let decoded = catch_unwind(AssertUnwindSafe(|| match version {
        Version::V311 => V4.read_mut(&mut packet, size),
        Version::V5 => V5.read_mut(&mut packet, size),
    }));
    match decoded {
        Ok(Ok(packet)) => Ok(packet),
        Ok(Err(_)) => Err(Violation::malformed("refused by the codec")),
        Err(_) => Err(Violation::malformed(CODEC_PANICKED)),
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

pub(crate) fn suback(id: u16, granted: &[Result<QoS, Reason>], version: Version, out: &mut BytesMut) {
    let code = |granted: &Result<QoS, Reason>| match (version, granted) {
        (_, Ok(QoS::AtMostOnce)) => SubscribeReasonCode::QoS0,
        (_, Ok(QoS::AtLeastOnce)) => SubscribeReasonCode::QoS1,
        (_, Ok(QoS::ExactlyOnce)) => SubscribeReasonCode::QoS2,
        (Version::V311, Err(_)) => SubscribeReasonCode::Failure,
        (_, Err(Reason::TopicFilterInvalid)) => SubscribeReasonCode::TopicFilterInvalid,
        (_, Err(Reason::NotAuthorized)) => SubscribeReasonCode::NotAuthorized,
        (_, Err(Reason::QuotaExceeded)) => SubscribeReasonCode::QuotaExceeded,
        (_, Err(Reason::SharedSubscriptionsNotSupported)) => {
            SubscribeReasonCode::SharedSubscriptionsNotSupported
        }
        (_, Err(_)) => SubscribeReasonCode::Unspecified,
    };
    let return_codes = granted.iter().map(code).collect();
    encode(Wire::SubAck(SubAck { pkid: id, return_codes }, None), version, out);
}

/// `removed` says for each filter whether there was such a subscription.
pub(crate) fn unsuback(id: u16, removed: &[bool], version: Version, out: &mut BytesMut) {
    let reason = |&removed: &bool| {
        if removed { UnsubAckReason::Success } else { UnsubAckReason::NoSubscriptionExisted }
    };
    let reasons = removed.iter().map(reason).collect();
    encode(Wire::UnsubAck(UnsubAck { pkid: id, reasons }, None), version, out);
}

/// PUBACK or PUBREC.
pub(crate) fn publish_ack(decided: Decided, version: Version, out: &mut BytesMut) {
    let first = if decided.qos == QoS::AtLeastOnce { 0x40 } else { 0x50 };
    short(first, decided.id, decided.reason.in_publish_ack(), version, out);
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
    use crate::frame;

    fn decode_all(bytes: &[u8], version: Version) {
        let config = Config::default();
        if let Ok(Some(frame)) = frame::next(bytes, 100_000) {
            let _ = match frame.kind {
                Kind::Connect => connect(frame.body, version, &config).map(|_| ()),
                _ => decode(&frame, version, &config).map(|_| ()),
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
    fn a_password_that_is_not_utf_8_is_no_obstacle() {
        for (sample, version) in samples().iter().zip([Version::V5, Version::V311]) {
            let frame = frame::next(sample, 1000).unwrap().unwrap();
            let connect = connect(frame.body, version, &Config::default()).unwrap();
            assert_eq!(connect.client_id, "c");
            assert_eq!(
                (connect.user_name.as_deref(), connect.password.as_deref()),
                (Some("u"), Some(&b"\xFF\xFE"[..]))
            );
            assert_eq!(&connect.will.unwrap().message.payload[..], b"m");
        }
    }

    #[test]
    fn a_subscription_identifier_survives_beside_a_user_property() {
        let frame_bytes = &samples()[3];
        let frame = frame::next(frame_bytes, 1000).unwrap().unwrap();
        let Ok(Packet::Subscribe { filters, .. }) = decode(&frame, Version::V5, &Config::default()) else {
            panic!("not decoded")
        };
        assert_eq!(filters.len(), 2);
        assert!(filters.iter().all(|filter| filter.options.id == Some(5)));
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
                suback(1, &[Err(reason)], version, &mut BytesMut::new());
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
