//! Control packets, from bytes to values and back: those that a client sends and receives.

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};

/// The longest packet that is taken: more than any that the checker asks for.
const MAX_PACKET: usize = 16 << 20;

/// Properties of MQTT 5 that are read or written.
const CORRELATION_DATA: u8 = 0x09;
const SESSION_EXPIRY: u8 = 0x11;
const RECEIVE_MAXIMUM: u8 = 0x21;

/// The versions of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5,
}

/// The packets that acknowledge a part of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// PUBACK.
    Puback,
    /// PUBREC.
    Pubrec,
    /// PUBREL.
    Pubrel,
    /// PUBCOMP.
    Pubcomp,
}

/// PUBLISH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Whether it may have come before.
    pub dup: bool,
    /// 0, 1 or 2.
    pub qos: u8,
    /// To the broker: keep it. From it: it was kept.
    pub retain: bool,
    /// Where.
    pub topic: String,
    /// Zero at QoS 0.
    pub packet: u16,
    /// In MQTT 5.
    pub correlation: Option<Bytes>,
    /// What it says.
    pub payload: Bytes,
}

/// A control packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// CONNECT, without keep alive.
    Connect {
        /// The client id.
        client_id: String,
        /// Whether the session ends with the connection; else it is resumed, and kept for a day.
        clean: bool,
    },
    /// CONNACK.
    Connack {
        /// Whether the broker has a session.
        present: bool,
        /// Zero for success.
        code: u8,
        /// How much may be in flight to the broker.
        receive_maximum: u16,
    },
    /// PUBLISH.
    Publish(Publish),
    /// PUBACK and its kind.
    Ack {
        /// Which.
        ack: Ack,
        /// Of which packet.
        packet: u16,
        /// Zero for success.
        code: u8,
    },
    /// SUBSCRIBE.
    Subscribe {
        /// Its identifier.
        packet: u16,
        /// Filter and quality of service.
        filter: (String, u8),
    },
    /// SUBACK.
    Suback {
        /// Of which packet.
        packet: u16,
        /// One for each filter.
        codes: Vec<u8>,
    },
    /// PINGRESP.
    Pingresp,
    /// DISCONNECT, with its reason code.
    Disconnect(u8),
}

impl Packet {
    /// Appends its bytes.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        let v5 = version == Version::V5;
        let mut body = Vec::new();
        let first = match self {
            Packet::Connect { client_id, clean } => {
                text(&mut body, b"MQTT");
                let flags = if *clean { 0x02 } else { 0x00 };
                body.extend([if v5 { 5 } else { 4 }, flags, 0, 0]);
                match (v5, clean) {
                    (true, true) => body.push(0),
                    // A day.
                    (true, false) => {
                        body.extend([5, SESSION_EXPIRY]);
                        body.extend(86_400_u32.to_be_bytes());
                    }
                    (false, _) => {}
                }
                text(&mut body, client_id.as_bytes());
                0x10
            }
            Packet::Publish(publish) => {
                text(&mut body, publish.topic.as_bytes());
                if publish.qos > 0 {
                    body.extend(publish.packet.to_be_bytes());
                }
                if v5 {
                    let mut properties = Vec::new();
                    if let Some(data) = &publish.correlation {
                        properties.push(CORRELATION_DATA);
                        text(&mut properties, data);
                    }
                    length(&mut body, properties.len());
                    body.extend(properties);
                }
                body.extend(&publish.payload);
                0x30 | u8::from(publish.dup) << 3 | publish.qos << 1 | u8::from(publish.retain)
            }
            Packet::Ack { ack, packet, code } => {
                body.extend(packet.to_be_bytes());
                if v5 && *code != 0 {
                    body.push(*code);
                }
                match ack {
                    Ack::Puback => 0x40,
                    Ack::Pubrec => 0x50,
                    Ack::Pubrel => 0x62,
                    Ack::Pubcomp => 0x70,
                }
            }
            Packet::Subscribe { packet, filter: (filter, qos) } => {
                body.extend(packet.to_be_bytes());
                if v5 {
                    body.push(0);
                }
                text(&mut body, filter.as_bytes());
                body.push(*qos);
                0x82
            }
            Packet::Disconnect(_) => 0xe0,
            Packet::Connack { .. } | Packet::Suback { .. } | Packet::Pingresp => {
                unreachable!("only a broker sends it")
            }
        };
        let mut head = vec![first];
        length(&mut head, body.len());
        out.extend(head);
        out.extend(body);
    }
}

/// Takes the first packet out of these bytes, if it is whole.
///
/// # Errors
///
/// The bytes are no packet that a broker may send.
pub fn decode(version: Version, input: &mut BytesMut) -> Result<Option<Packet>> {
    let Some((&first, rest)) = input.split_first() else { return Ok(None) };
    let Some((body, head)) = read_length(rest)? else { return Ok(None) };
    ensure!(body <= MAX_PACKET, "a packet of {body} bytes");
    if rest.len() < head + body {
        return Ok(None);
    }
    input.advance(1 + head);
    let mut body = input.split_to(body).freeze();
    let v5 = version == Version::V5;
    let packet = match first >> 4 {
        2 => connack(v5, &mut body)?,
        3 => Packet::Publish(publish(v5, first, body)?),
        kind @ 4..=7 => {
            let packet = number(&mut body)?;
            let code = if v5 && body.has_remaining() { body.get_u8() } else { 0 };
            let ack = [Ack::Puback, Ack::Pubrec, Ack::Pubrel, Ack::Pubcomp][usize::from(kind - 4)];
            ensure!((first & 0x0f == 2) == (ack == Ack::Pubrel), "flags of {ack:?}: {first:#04x}");
            Packet::Ack { ack, packet, code }
        }
        9 => {
            let packet = number(&mut body)?;
            if v5 {
                properties(&mut body)?;
            }
            Packet::Suback { packet, codes: body.to_vec() }
        }
        13 => Packet::Pingresp,
        14 if v5 => Packet::Disconnect(if body.has_remaining() { body.get_u8() } else { 0 }),
        _ => bail!("a packet that begins with {first:#04x}"),
    };
    Ok(Some(packet))
}

fn connack(v5: bool, body: &mut Bytes) -> Result<Packet> {
    ensure!(body.remaining() >= 2, "a short CONNACK");
    let (present, code) = (body.get_u8() == 1, body.get_u8());
    let mut receive_maximum = u16::MAX;
    if v5 && body.has_remaining() {
        let found = properties(body)?;
        receive_maximum = found.receive_maximum.unwrap_or(u16::MAX);
    }
    Ok(Packet::Connack { present, code, receive_maximum })
}

fn publish(v5: bool, first: u8, mut body: Bytes) -> Result<Publish> {
    let qos = first >> 1 & 0x03;
    ensure!(qos <= 2, "QoS 3");
    let topic = binary(&mut body)?;
    let topic = str::from_utf8(&topic).context("a topic that is not UTF-8")?.to_owned();
    let packet = if qos > 0 { number(&mut body)? } else { 0 };
    ensure!(qos == 0 || packet != 0, "packet identifier 0");
    let correlation = if v5 { properties(&mut body)?.correlation } else { None };
    let (dup, retain) = (first & 0x08 != 0, first & 0x01 != 0);
    Ok(Publish { dup, qos, retain, topic, packet, correlation, payload: body })
}

/// The properties that are looked at.
#[derive(Default)]
struct Properties {
    correlation: Option<Bytes>,
    receive_maximum: Option<u16>,
}

fn properties(body: &mut Bytes) -> Result<Properties> {
    let (all, head) = read_length(body)?.context("properties without a length")?;
    body.advance(head);
    ensure!(all <= body.remaining(), "properties that are longer than their packet");
    let (mut rest, mut found) = (body.split_to(all), Properties::default());
    while rest.has_remaining() {
        match rest.get_u8() {
            CORRELATION_DATA => found.correlation = Some(binary(&mut rest)?),
            RECEIVE_MAXIMUM => found.receive_maximum = Some(number(&mut rest)?),
            // The others, by the form of their values (MQTT 5, section 2.2.2.2).
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => skip(&mut rest, 1)?,
            0x13 | 0x22 | 0x23 => skip(&mut rest, 2)?,
            0x02 | SESSION_EXPIRY | 0x18 | 0x27 => skip(&mut rest, 4)?,
            0x0b => {
                let (_, head) = read_length(&rest)?.context("a property that is cut off")?;
                rest.advance(head);
            }
            0x03 | 0x08 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => drop(binary(&mut rest)?),
            0x26 => {
                binary(&mut rest)?;
                binary(&mut rest)?;
            }
            other => bail!("property {other:#04x}"),
        }
    }
    Ok(found)
}

fn skip(body: &mut Bytes, length: usize) -> Result<()> {
    ensure!(body.remaining() >= length, "a property that is cut off");
    body.advance(length);
    Ok(())
}

fn number(body: &mut Bytes) -> Result<u16> {
    ensure!(body.remaining() >= 2, "a packet that is cut off");
    Ok(body.get_u16())
}

fn binary(body: &mut Bytes) -> Result<Bytes> {
    let length = usize::from(number(body)?);
    ensure!(length <= body.remaining(), "a text that is longer than its packet");
    Ok(body.split_to(length))
}

/// The length that these bytes begin with, and how many of them it takes.
fn read_length(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut length = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((length, index + 1)));
        }
    }
    ensure!(bytes.len() < 4, "a length of more than four bytes");
    Ok(None)
}

fn length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let more = if length > 0x7f { 0x80 } else { 0 };
        // The cast takes the last seven bits.
        out.push((length & 0x7f) as u8 | more);
        length >>= 7;
        if length == 0 {
            return;
        }
    }
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).expect("topics and names are short");
    out.extend(length.to_be_bytes());
    out.extend(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(version: Version, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet.encode(version, &mut bytes);
        let whole = bytes.clone();
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert_eq!(decode(version, &mut part).expect("it is cut off"), None, "{packet:?} at {cut}");
        }
        assert_eq!(decode(version, &mut bytes).expect("it is whole").as_ref(), Some(packet));
        assert!(bytes.is_empty());
    }

    #[test]
    fn packets_are_read_as_they_are_written() {
        for version in [Version::V311, Version::V5] {
            let correlation = (version == Version::V5).then(|| Bytes::from("c1-2"));
            for (qos, packet) in [(0, 0), (1, 7), (2, 65_535)] {
                let payload = Bytes::from(vec![7; 300]);
                let publish = Publish {
                    dup: qos > 0,
                    qos,
                    retain: qos == 1,
                    topic: "a/b".to_owned(),
                    packet,
                    correlation: correlation.clone(),
                    payload,
                };
                round_trip(version, &Packet::Publish(publish));
            }
            for ack in [Ack::Puback, Ack::Pubrec, Ack::Pubrel, Ack::Pubcomp] {
                let code = if version == Version::V5 { 0x92 } else { 0 };
                round_trip(version, &Packet::Ack { ack, packet: 258, code });
            }
        }
    }

    #[test]
    fn what_brokers_send_is_read() {
        let read = |version, bytes: &[u8]| {
            decode(version, &mut BytesMut::from(bytes)).expect("it is a packet").expect("it is whole")
        };
        let connack = |present, receive_maximum| Packet::Connack { present, code: 0, receive_maximum };
        assert_eq!(read(Version::V311, &[0x20, 2, 1, 0]), connack(true, u16::MAX));
        let of_v5 = [0x20, 10, 0, 0, 7, 0x21, 0, 20, 0x22, 0, 10, 0x2a];
        assert!(decode(Version::V5, &mut BytesMut::from(&of_v5[..])).is_err(), "a property is cut off");
        let of_v5 = [0x20, 11, 0, 0, 8, 0x21, 0, 20, 0x22, 0, 10, 0x2a, 0];
        assert_eq!(read(Version::V5, &of_v5), connack(false, 20));
        let suback = Packet::Suback { packet: 1, codes: vec![1] };
        assert_eq!(read(Version::V311, &[0x90, 3, 0, 1, 1]), suback);
        assert_eq!(read(Version::V5, &[0x90, 4, 0, 1, 0, 1]), suback);
        assert_eq!(read(Version::V5, &[0xe0, 1, 0x8e]), Packet::Disconnect(0x8e));
    }

    #[test]
    fn what_no_broker_may_send_is_refused() {
        for bytes in [
            &[0x10, 0][..],
            &[0x36, 5, 0, 1, b'a', 0, 1],
            &[0x32, 5, 0, 1, b'a', 0, 0],
            &[0x30, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert!(decode(Version::V311, &mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
        }
    }
}
