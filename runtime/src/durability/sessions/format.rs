//! The broker's records as bytes: compact, and never misread by another version.
//!
//! The first byte is the [`VERSION`]. Numbers are little endian; texts and bytes have their length before them, in four
//! bytes; a field that may be absent has a byte, 0 or 1, before it; times are milliseconds since 1970.

use super::super::kind;
use bytes::Bytes;
use offload_broker::storage::{
    DeliveryRecord, Key, MessageRecord, Record, RetainedRecord, SessionRecord, SubscriptionRecord,
};
use offload_broker::{Message, Properties, QoS, TransportKind, UserProperties, Version};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
    let mut out = Out(vec![VERSION]);
    let kind = match record {
        Record::Session(session) => {
            out.session(session);
            kind::SESSION
        }
        Record::Subscription(subscription) => {
            out.subscription(subscription);
            kind::SUBSCRIPTION
        }
        Record::Message(MessageRecord { message, expires }) => {
            out.message(message, *expires);
            kind::MESSAGE
        }
        Record::Delivery(delivery) => {
            out.delivery(delivery);
            kind::DELIVERY
        }
        Record::Released { session, packet_id } => {
            out.packet(*session, *packet_id);
            kind::RELEASED
        }
        Record::Received { session, packet_id } => {
            out.packet(*session, *packet_id);
            kind::RECEIVED
        }
        Record::Retained(RetainedRecord { message, expires, user, source }) => {
            out.message(message, *expires);
            out.optional(user.as_deref(), Out::text);
            out.ip(*source);
            kind::RETAINED
        }
    };
    (kind, out.0)
}

/// The record of these bytes.
///
/// # Errors
///
/// When they are none that [`encode`] gives for this kind.
pub fn decode(kind: u8, bytes: &[u8]) -> Result<Record, Malformed> {
    let mut fields = Fields(bytes);
    match fields.byte()? {
        VERSION => {}
        version => return Err(Malformed::Version(version)),
    }
    let record = match kind {
        kind::SESSION => Record::Session(fields.session()?),
        kind::SUBSCRIPTION => Record::Subscription(fields.subscription()?),
        kind::MESSAGE => {
            let (message, expires) = fields.message()?;
            Record::Message(MessageRecord { message, expires })
        }
        kind::DELIVERY => Record::Delivery(fields.delivery()?),
        kind::RELEASED => Record::Released { session: fields.number()?, packet_id: fields.packet_id()? },
        kind::RECEIVED => Record::Received { session: fields.number()?, packet_id: fields.packet_id()? },
        kind::RETAINED => {
            let (message, expires) = fields.message()?;
            let user = fields.optional(Fields::arc)?;
            Record::Retained(RetainedRecord { message, expires, user, source: fields.ip()? })
        }
        other => return Err(Malformed::Kind(other)),
    };
    if fields.0.is_empty() { Ok(record) } else { Err(Malformed::Field) }
}

struct Out(Vec<u8>);

impl Out {
    fn session(&mut self, record: &SessionRecord) {
        let SessionRecord { number, client_id, assigned, user, source, peer, transport, version, .. } =
            record;
        self.number(*number);
        self.text(client_id);
        self.flag(*assigned);
        self.optional(user.as_deref(), Out::text);
        self.ip(*source);
        self.ip(peer.ip());
        self.short(peer.port());
        self.byte(match transport {
            TransportKind::Tcp => 0,
            TransportKind::Tls => 1,
            TransportKind::WebSocket => 2,
            TransportKind::WebSocketTls => 3,
        });
        self.byte(match version {
            Version::V311 => 4,
            Version::V5 => 5,
        });
        self.word(record.expiry);
        self.optional(record.disconnected, Out::time);
    }

    fn subscription(&mut self, record: &SubscriptionRecord) {
        let SubscriptionRecord { session, filter, qos, no_local, retain_as_published, id } = record;
        self.number(*session);
        self.text(filter);
        self.byte(*qos as u8);
        self.flag(*no_local);
        self.flag(*retain_as_published);
        self.optional(*id, Out::word);
    }

    fn delivery(&mut self, record: &DeliveryRecord) {
        let DeliveryRecord { session, message: Key(message), qos, retain, packet_id, subscription_ids } =
            record;
        self.packet(*session, *packet_id);
        self.number(*message);
        self.byte(*qos as u8);
        self.flag(*retain);
        self.word(subscription_ids.len() as u32);
        subscription_ids.iter().for_each(|id| self.word(*id));
    }

    fn packet(&mut self, session: u64, packet_id: u16) {
        self.number(session);
        self.short(packet_id);
    }

    fn message(&mut self, message: &Message, expires: Option<SystemTime>) {
        let Message { topic, payload, qos, retain, properties } = message;
        self.text(topic);
        self.byte(*qos as u8);
        self.flag(*retain);
        self.optional(expires, Out::time);
        self.optional(properties.as_deref(), Out::properties);
        self.bytes(payload);
    }

    fn properties(&mut self, properties: &Properties) {
        let Properties { payload_format, message_expiry, content_type, response_topic, .. } = properties;
        self.optional(*payload_format, Out::byte);
        self.optional(*message_expiry, Out::word);
        self.optional(content_type.as_deref(), Out::text);
        self.optional(response_topic.as_deref(), Out::text);
        self.optional(properties.correlation_data.as_deref(), Out::bytes);
        self.word(properties.user_properties.iter().count() as u32);
        for (name, value) in properties.user_properties.iter() {
            self.text(name);
            self.text(value);
        }
    }

    fn optional<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Out, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            put(self, value);
        }
    }

    fn ip(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.byte(4);
                self.0.extend(address.octets());
            }
            IpAddr::V6(address) => {
                self.byte(6);
                self.0.extend(address.octets());
            }
        }
    }

    fn time(&mut self, at: SystemTime) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.number(since.as_millis().try_into().unwrap_or(u64::MAX));
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// No text or payload of MQTT has 4 GiB.
    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
    }

    fn flag(&mut self, flag: bool) {
        self.byte(flag.into());
    }

    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn short(&mut self, short: u16) {
        self.0.extend(short.to_le_bytes());
    }

    fn word(&mut self, word: u32) {
        self.0.extend(word.to_le_bytes());
    }

    fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }
}

/// What is not read yet.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn session(&mut self) -> Result<SessionRecord, Malformed> {
        Ok(SessionRecord {
            number: self.number()?,
            client_id: self.arc()?,
            assigned: self.flag()?,
            user: self.optional(Fields::arc)?,
            source: self.ip()?,
            peer: SocketAddr::new(self.ip()?, self.short()?),
            transport: match self.byte()? {
                0 => TransportKind::Tcp,
                1 => TransportKind::Tls,
                2 => TransportKind::WebSocket,
                3 => TransportKind::WebSocketTls,
                _ => return Err(Malformed::Field),
            },
            version: match self.byte()? {
                4 => Version::V311,
                5 => Version::V5,
                _ => return Err(Malformed::Field),
            },
            expiry: self.word()?,
            disconnected: self.optional(Fields::time)?,
        })
    }

    fn subscription(&mut self) -> Result<SubscriptionRecord, Malformed> {
        Ok(SubscriptionRecord {
            session: self.number()?,
            filter: self.arc()?,
            qos: self.qos()?,
            no_local: self.flag()?,
            retain_as_published: self.flag()?,
            id: self.optional(Fields::word)?,
        })
    }

    fn delivery(&mut self) -> Result<DeliveryRecord, Malformed> {
        let (session, packet_id) = (self.number()?, self.packet_id()?);
        let message = Key(self.number()?);
        let qos = self.qos()?;
        if qos == QoS::AtMostOnce {
            return Err(Malformed::Field);
        }
        let retain = self.flag()?;
        // Each takes four bytes: a number that is too large finds its end here, not in memory.
        let subscription_ids = (0..self.word()?).map(|_| self.word()).collect::<Result<_, _>>()?;
        Ok(DeliveryRecord { session, message, qos, retain, packet_id, subscription_ids })
    }

    fn message(&mut self) -> Result<(Message, Option<SystemTime>), Malformed> {
        let (topic, qos, retain) = (self.arc()?, self.qos()?, self.flag()?);
        let expires = self.optional(Fields::time)?;
        let properties = self.optional(Fields::properties)?.map(Arc::new);
        let payload = Bytes::copy_from_slice(self.bytes()?);
        Ok((Message { topic, payload, qos, retain, properties }, expires))
    }

    fn properties(&mut self) -> Result<Properties, Malformed> {
        let mut properties = Properties {
            payload_format: self.optional(Fields::byte)?,
            message_expiry: self.optional(Fields::word)?,
            content_type: self.optional(Fields::text)?.map(str::to_owned),
            response_topic: self.optional(Fields::text)?.map(str::to_owned),
            correlation_data: self.optional(Fields::bytes)?.map(Bytes::copy_from_slice),
            user_properties: UserProperties::default(),
        };
        for _ in 0..self.word()? {
            properties.user_properties.push(self.text()?, self.text()?);
        }
        Ok(properties)
    }

    fn packet_id(&mut self) -> Result<u16, Malformed> {
        match self.short()? {
            0 => Err(Malformed::Field),
            id => Ok(id),
        }
    }

    fn qos(&mut self) -> Result<QoS, Malformed> {
        QoS::from_bits(self.byte()?).ok_or(Malformed::Field)
    }

    fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    fn ip(&mut self) -> Result<IpAddr, Malformed> {
        match self.byte()? {
            4 => Ok(Ipv4Addr::from(self.array::<4>()?).into()),
            6 => Ok(Ipv6Addr::from(self.array::<16>()?).into()),
            _ => Err(Malformed::Field),
        }
    }

    fn time(&mut self) -> Result<SystemTime, Malformed> {
        UNIX_EPOCH.checked_add(Duration::from_millis(self.number()?)).ok_or(Malformed::Field)
    }

    fn arc(&mut self) -> Result<Arc<str>, Malformed> {
        self.text().map(Arc::from)
    }

    fn text(&mut self) -> Result<&'b str, Malformed> {
        str::from_utf8(self.bytes()?).map_err(|_| Malformed::Field)
    }

    fn bytes(&mut self) -> Result<&'b [u8], Malformed> {
        let length = self.word()? as usize;
        self.take(length)
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Field),
        }
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    fn short(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    fn word(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::Field)
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed::Field)?;
        self.0 = rest;
        Ok(taken)
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
            disconnected: Some(at),
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
