//! The broker's records as bytes, never misread by another version: the first byte is the [`VERSION`], then come the
//! fields in the order of [`encoding`](crate::durability::encoding). When a message
//! expires is milliseconds since 1970, when a connection has ended a [moment](crate::durability::moment).

use crate::durability::encoding::{Reader, Writer};
use crate::durability::kind;
use bytes::Bytes;
use offload_broker::storage::{
    DeliveryRecord, Key, MessageRecord, Moment, Record, RetainedRecord, SessionRecord, SubscriptionRecord,
};
use offload_broker::{Message, Properties, QoS, TransportKind, UserProperties, Version};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Of the form in this file. A record with another one is not read.
pub const VERSION: u8 = 1;

/// Why bytes are no record of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Another version of the gateway has written it.
    #[error("it has version {0}, and this gateway reads {VERSION}")]
    Version(u8),
    /// It is of no kind that the broker has.
    #[error("it is of kind {0}, which is none of the broker's")]
    Kind(u8),
    /// A field ends too early, or holds what it cannot.
    #[error("it is damaged")]
    Field,
}

/// A record's kind, and its bytes.
pub fn encode(record: &Record) -> (u8, Vec<u8>) {
    let mut out = Writer::default();
    out.byte(VERSION);
    let kind = match record {
        Record::Session(session) => {
            put_session(&mut out, session);
            kind::SESSION
        }
        Record::Subscription(subscription) => {
            put_subscription(&mut out, subscription);
            kind::SUBSCRIPTION
        }
        Record::Message(MessageRecord { message, expires }) => {
            put_message(&mut out, message, *expires);
            kind::MESSAGE
        }
        Record::Delivery(delivery) => {
            put_delivery(&mut out, delivery);
            kind::DELIVERY
        }
        Record::Released { session, packet_id } => {
            out.number(*session).number((*packet_id).into());
            kind::RELEASED
        }
        Record::Received { session, packet_id } => {
            out.number(*session).number((*packet_id).into());
            kind::RECEIVED
        }
        Record::Retained(RetainedRecord { message, expires, user, source }) => {
            put_message(&mut out, message, *expires);
            out.optional(user.as_deref().map(str::as_bytes));
            put_ip(&mut out, *source);
            kind::RETAINED
        }
    };
    (kind, out.finish())
}

/// The record of these bytes.
///
/// # Errors
///
/// When they are none that [`encode`] gives for this kind.
pub fn decode(kind: u8, bytes: &[u8]) -> Result<Record, Malformed> {
    if !kind::BROKER.contains(&kind) {
        return Err(Malformed::Kind(kind));
    }
    let mut fields = Reader::new(Bytes::copy_from_slice(bytes));
    match fields.byte().ok_or(Malformed::Field)? {
        VERSION => {}
        version => return Err(Malformed::Version(version)),
    }
    let record = match kind {
        kind::SESSION => session(&mut fields).map(Record::Session),
        kind::SUBSCRIPTION => subscription(&mut fields).map(Record::Subscription),
        kind::MESSAGE => {
            message(&mut fields).map(|(message, expires)| Record::Message(MessageRecord { message, expires }))
        }
        kind::DELIVERY => delivery(&mut fields).map(Record::Delivery),
        kind::RELEASED => {
            identifier(&mut fields).map(|(session, packet_id)| Record::Released { session, packet_id })
        }
        kind::RECEIVED => {
            identifier(&mut fields).map(|(session, packet_id)| Record::Received { session, packet_id })
        }
        kind::RETAINED => retained(&mut fields).map(Record::Retained),
        other => return Err(Malformed::Kind(other)),
    };
    record.zip(fields.end()).map(|(record, ())| record).ok_or(Malformed::Field)
}

fn put_session(out: &mut Writer, record: &SessionRecord) {
    let SessionRecord { number, client_id, assigned, user, source, peer, transport, version, .. } = record;
    out.number(*number).text(client_id).flag(*assigned).optional(user.as_deref().map(str::as_bytes));
    put_ip(out, *source);
    put_ip(out, peer.ip());
    out.number(peer.port().into());
    out.byte(match transport {
        TransportKind::Tcp => 0,
        TransportKind::Tls => 1,
        TransportKind::WebSocket => 2,
        TransportKind::WebSocketTls => 3,
    });
    out.byte(match version {
        Version::V311 => 4,
        Version::V5 => 5,
    });
    out.number(record.expiry.into()).flag(record.disconnected.is_some());
    if let Some(Moment(parts)) = record.disconnected {
        parts.iter().for_each(|part| {
            out.number(*part);
        });
    }
}

fn session(fields: &mut Reader) -> Option<SessionRecord> {
    Some(SessionRecord {
        number: fields.number()?,
        client_id: fields.text()?.into(),
        assigned: fields.flag()?,
        user: fields.optional_text()?.map(Arc::from),
        source: ip(fields)?,
        peer: SocketAddr::new(ip(fields)?, fields.number()?.try_into().ok()?),
        transport: match fields.byte()? {
            0 => TransportKind::Tcp,
            1 => TransportKind::Tls,
            2 => TransportKind::WebSocket,
            3 => TransportKind::WebSocketTls,
            _ => return None,
        },
        version: match fields.byte()? {
            4 => Version::V311,
            5 => Version::V5,
            _ => return None,
        },
        expiry: fields.number()?.try_into().ok()?,
        disconnected: match fields.flag()? {
            true => Some(Moment([fields.number()?, fields.number()?, fields.number()?])),
            false => None,
        },
    })
}

fn put_subscription(out: &mut Writer, record: &SubscriptionRecord) {
    let SubscriptionRecord { session, filter, qos, no_local, retain_as_published, id } = record;
    out.number(*session).text(filter).byte(*qos as u8).flag(*no_local).flag(*retain_as_published);
    out.optional_number(id.map(u64::from));
}

fn subscription(fields: &mut Reader) -> Option<SubscriptionRecord> {
    Some(SubscriptionRecord {
        session: fields.number()?,
        filter: fields.text()?.into(),
        qos: QoS::from_bits(fields.byte()?)?,
        no_local: fields.flag()?,
        retain_as_published: fields.flag()?,
        id: small(fields)?,
    })
}

fn put_delivery(out: &mut Writer, record: &DeliveryRecord) {
    let DeliveryRecord { session, message: Key(message), qos, retain, packet_id, subscription_ids } = record;
    out.number(*session).number((*packet_id).into()).number(*message).byte(*qos as u8).flag(*retain);
    out.number(subscription_ids.len() as u64);
    subscription_ids.iter().for_each(|id| {
        out.number((*id).into());
    });
}

fn delivery(fields: &mut Reader) -> Option<DeliveryRecord> {
    let (session, packet_id) = identifier(fields)?;
    let message = Key(fields.number()?);
    let qos = QoS::from_bits(fields.byte()?).filter(|qos| *qos != QoS::AtMostOnce)?;
    let retain = fields.flag()?;
    // Each takes bytes: a number that is too large finds its end here, not in memory.
    let subscription_ids =
        (0..fields.number()?).map(|_| u32::try_from(fields.number()?).ok()).collect::<Option<Vec<u32>>>()?;
    Some(DeliveryRecord { session, message, qos, retain, packet_id, subscription_ids })
}

/// A session, and a packet identifier in it.
fn identifier(fields: &mut Reader) -> Option<(u64, u16)> {
    let (session, packet_id) = (fields.number()?, u16::try_from(fields.number()?).ok()?);
    (packet_id != 0).then_some((session, packet_id))
}

fn put_message(out: &mut Writer, message: &Message, expires: Option<SystemTime>) {
    let Message { topic, payload, qos, retain, properties } = message;
    out.text(topic).byte(*qos as u8).flag(*retain).optional_number(expires.map(millis));
    out.flag(properties.is_some());
    if let Some(properties) = properties {
        put_properties(out, properties);
    }
    out.bytes(payload);
}

fn message(fields: &mut Reader) -> Option<(Message, Option<SystemTime>)> {
    let (topic, qos, retain) = (fields.text()?.into(), QoS::from_bits(fields.byte()?)?, fields.flag()?);
    let expires = time(fields)?;
    let properties = if fields.flag()? { Some(Arc::new(properties(fields)?)) } else { None };
    Some((Message { topic, payload: fields.bytes()?, qos, retain, properties }, expires))
}

fn retained(fields: &mut Reader) -> Option<RetainedRecord> {
    let (message, expires) = message(fields)?;
    let user = fields.optional_text()?.map(Arc::from);
    Some(RetainedRecord { message, expires, user, source: ip(fields)? })
}

fn put_properties(out: &mut Writer, properties: &Properties) {
    let Properties { payload_format, message_expiry, content_type, response_topic, .. } = properties;
    out.optional_number(payload_format.map(u64::from)).optional_number(message_expiry.map(u64::from));
    out.optional(content_type.as_deref().map(str::as_bytes));
    out.optional(response_topic.as_deref().map(str::as_bytes));
    out.optional(properties.correlation_data.as_deref());
    out.number(properties.user_properties.iter().count() as u64);
    for (name, value) in properties.user_properties.iter() {
        out.text(name).text(value);
    }
}

fn properties(fields: &mut Reader) -> Option<Properties> {
    let mut properties = Properties {
        payload_format: small(fields)?,
        message_expiry: small(fields)?,
        content_type: fields.optional_text()?,
        response_topic: fields.optional_text()?,
        correlation_data: fields.optional()?,
        user_properties: UserProperties::default(),
    };
    for _ in 0..fields.number()? {
        properties.user_properties.push(&fields.text()?, &fields.text()?);
    }
    Some(properties)
}

fn put_ip(out: &mut Writer, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.bytes(&address.octets()),
        IpAddr::V6(address) => out.bytes(&address.octets()),
    };
}

fn ip(fields: &mut Reader) -> Option<IpAddr> {
    let octets = fields.bytes()?;
    let v4 = <[u8; 4]>::try_from(&octets[..]).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(&octets[..]).map(IpAddr::from)).ok()
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

fn time(fields: &mut Reader) -> Option<Option<SystemTime>> {
    match fields.optional_number()? {
        Some(millis) => UNIX_EPOCH.checked_add(Duration::from_millis(millis)).map(Some),
        None => Some(None),
    }
}

/// A number of fewer bytes, or none.
fn small<T: TryFrom<u64>>(fields: &mut Reader) -> Option<Option<T>> {
    match fields.optional_number()? {
        Some(number) => T::try_from(number).ok().map(Some),
        None => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let at = UNIX_EPOCH + Duration::from_millis(1_800_000_000_123);
        let properties = Properties {
            payload_format: Some(1),
            message_expiry: Some(7),
            content_type: Some("text/plain".into()),
            response_topic: Some("result/x".into()),
            correlation_data: Some(vec![0, 1, 255].into()),
            user_properties: [("a", "b"), ("", "")].into_iter().collect(),
        };
        let plain = Message::new("a/b", "payload", QoS::ExactlyOnce);
        let full = Message { retain: true, properties: Some(Arc::new(properties)), ..plain.clone() };
        let session = SessionRecord {
            number: u64::MAX,
            client_id: "ünï".into(),
            assigned: true,
            user: Some("anna".into()),
            source: "2001:db8::".parse().unwrap(),
            peer: "[2001:db8::1]:1883".parse().unwrap(),
            transport: TransportKind::WebSocketTls,
            version: Version::V5,
            expiry: u32::MAX,
            disconnected: Some(Moment([1, 2, 3])),
        };
        let anonymous = SessionRecord {
            user: None,
            assigned: false,
            source: "127.0.0.1".parse().unwrap(),
            peer: "127.0.0.1:1".parse().unwrap(),
            transport: TransportKind::Tcp,
            version: Version::V311,
            disconnected: None,
            ..session.clone()
        };
        let subscription = SubscriptionRecord {
            session: 1,
            filter: "a/#".into(),
            qos: QoS::AtLeastOnce,
            no_local: true,
            retain_as_published: false,
            id: Some(268_435_455),
        };
        let delivery = DeliveryRecord {
            session: 1,
            message: Key(9),
            qos: QoS::AtLeastOnce,
            retain: true,
            packet_id: u16::MAX,
            subscription_ids: vec![1, 2, 3],
        };
        let source = "192.0.2.1".parse().unwrap();
        vec![
            Record::Session(session),
            Record::Session(anonymous),
            Record::Subscription(subscription),
            Record::Message(MessageRecord { message: plain.clone(), expires: None }),
            Record::Message(MessageRecord { message: full.clone(), expires: Some(at) }),
            Record::Delivery(delivery),
            Record::Released { session: 1, packet_id: 2 },
            Record::Received { session: 3, packet_id: 4 },
            Record::Retained(RetainedRecord { message: plain, expires: None, user: None, source }),
            Record::Retained(RetainedRecord {
                message: full,
                expires: Some(at),
                user: Some("u".into()),
                source,
            }),
        ]
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        for record in records() {
            let (kind, bytes) = encode(&record);
            assert_eq!(decode(kind, &bytes), Ok(record));
        }
    }

    #[test]
    fn what_is_cut_short_longer_or_altered_is_no_other_record_and_no_panic() {
        for record in records() {
            let (kind, bytes) = encode(&record);
            for end in 0..bytes.len() {
                assert!(decode(kind, &bytes[..end]).is_err(), "{record:?} cut at {end}");
            }
            assert_eq!(decode(kind, &[&bytes[..], &[0]].concat()), Err(Malformed::Field));
            for at in 0..bytes.len() {
                for value in [0, 1, 0x7F, 0x80, 0xFF] {
                    let mut altered = bytes.clone();
                    altered[at] = value;
                    // The journal's checksums find what was altered; here it must only do no harm.
                    if let Ok(other) = decode(kind, &altered) {
                        assert_eq!(encode(&other), (kind, altered));
                    }
                }
            }
        }
    }

    #[test]
    fn another_version_is_not_read() {
        for record in records() {
            let (kind, mut bytes) = encode(&record);
            bytes[0] = VERSION + 1;
            assert_eq!(decode(kind, &bytes), Err(Malformed::Version(VERSION + 1)));
        }
        assert_eq!(decode(kind::REQUEST, &[VERSION]), Err(Malformed::Kind(kind::REQUEST)));
    }
}
