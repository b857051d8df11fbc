//! As much MQTT 3.1.1 as a load needs: a client library would be most of what is measured.

use anyhow::{Result, bail, ensure};

/// Largest packet that is taken, in bytes: answers to a load are short.
pub const MAX_PACKET: usize = 4_096;

/// Seconds; far longer than a measurement, in which no PINGREQ is sent.
const KEEP_ALIVE: u16 = 0;

/// Clean Session, no will, no credentials (section 3.1.2.3).
const CONNECT_FLAGS: u8 = 0x02;

/// First byte of each packet, flags included (section 2.2).
const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBLISH_QOS_1: u8 = 0x32;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const DISCONNECT: u8 = 0xE0;

/// What a server sends to a load.
#[derive(Debug, PartialEq)]
pub enum Packet<'a> {
    /// CONNACK with its return code; 0 is success.
    ConnAck(u8),
    /// SUBACK to one filter: the granted QoS, 0x80 for a refusal.
    SubAck(u8),
    /// PUBACK with its packet identifier.
    PubAck(u16),
    /// PUBLISH at QoS 1.
    Publish { topic: &'a [u8], packet_id: u16, payload: &'a [u8] },
}

/// CONNECT (section 3.1).
pub fn connect(client_id: &str) -> Vec<u8> {
    let mut body = Vec::new();
    string(&mut body, b"MQTT");
    body.extend([4, CONNECT_FLAGS]);
    body.extend(KEEP_ALIVE.to_be_bytes());
    string(&mut body, client_id.as_bytes());
    packet(CONNECT, &body)
}

/// SUBSCRIBE to one filter at QoS 1 (section 3.8).
pub fn subscribe(packet_id: u16, filter: &str) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    string(&mut body, filter.as_bytes());
    body.push(1);
    packet(SUBSCRIBE, &body)
}

/// PUBLISH at QoS 1 (section 3.3).
pub fn publish(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    string(&mut body, topic.as_bytes());
    body.extend(packet_id.to_be_bytes());
    body.extend(payload);
    packet(PUBLISH_QOS_1, &body)
}

/// PUBACK (section 3.4).
pub fn puback(packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [PUBACK, 2, high, low]
}

/// DISCONNECT (section 3.14).
pub fn disconnect() -> [u8; 2] {
    [DISCONNECT, 0]
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    // Seven bits a byte, the low ones first; the eighth says that more follow (section 2.2.3).
    loop {
        let bits = (length % 128) as u8;
        length /= 128;
        packet.push(if length > 0 { bits | 128 } else { bits });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

fn string(body: &mut Vec<u8>, text: &[u8]) {
    body.extend((text.len() as u16).to_be_bytes());
    body.extend(text);
}

/// The packet at the start of `bytes` and its length; `None` while it is not whole.
///
/// # Errors
///
/// A packet that no load asks for, is longer than [`MAX_PACKET`], or ends before its fields do.
pub fn decode(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>> {
    let Some((start, length)) = body(bytes)? else { return Ok(None) };
    ensure!(start + length <= MAX_PACKET, "a packet of {length} bytes");
    let Some(mut body) = bytes.get(start..start + length) else { return Ok(None) };
    let packet = match bytes[0] {
        CONNACK => Packet::ConnAck(take(&mut body, 2)?[1]),
        SUBACK => Packet::SubAck(take(&mut body, 3)?[2]),
        PUBACK => Packet::PubAck(integer(&mut body)?),
        first if first & 0xF6 == PUBLISH_QOS_1 & 0xF6 => {
            let length = integer(&mut body)?;
            let topic = take(&mut body, length.into())?;
            Packet::Publish { topic, packet_id: integer(&mut body)?, payload: body }
        }
        first if first & 0xF0 == PUBLISH => bail!("an answer at another QoS than 1"),
        first => bail!("a packet of type {}", first >> 4),
    };
    Ok(Some((packet, start + length)))
}

/// Where the body starts, and its length.
fn body(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut length = 0;
    for (index, byte) in bytes.iter().skip(1).enumerate() {
        ensure!(index < 4, "a remaining length of more than four bytes");
        length |= usize::from(byte & 127) << (7 * index);
        if byte & 128 == 0 {
            return Ok(Some((index + 2, length)));
        }
    }
    Ok(None)
}

fn take<'a>(body: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let Some((field, rest)) = body.split_at_checked(length) else { bail!("a packet that ends too early") };
    *body = rest;
    Ok(field)
}

fn integer(body: &mut &[u8]) -> Result<u16> {
    let field = take(body, 2)?;
    Ok(u16::from_be_bytes([field[0], field[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_read_back_once_it_is_whole() {
        let payload = [7; 200];
        let bytes = publish("result/bench/3", 4, &payload);
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]).unwrap(), None);
        }
        let expected = Packet::Publish { topic: b"result/bench/3", packet_id: 4, payload: &payload };
        assert_eq!(decode(&bytes).unwrap(), Some((expected, bytes.len())));
    }

    #[test]
    fn acknowledgements_are_read() {
        assert_eq!(decode(&[0x20, 2, 0, 5]).unwrap(), Some((Packet::ConnAck(5), 4)));
        assert_eq!(decode(&[0x90, 3, 0, 1, 0x80]).unwrap(), Some((Packet::SubAck(0x80), 5)));
        assert_eq!(decode(&puback(0x0102)).unwrap(), Some((Packet::PubAck(0x0102), 4)));
    }

    #[test]
    fn what_no_load_asks_for_is_refused() {
        for bytes in [
            &[0x40, 1, 0][..],
            &[0x32, 3, 0, 9, b'a'],
            &[0x30, 3, 0, 1, b'a'],
            &[0xD0, 0],
            &[0x32, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
            &[0x32, 0xFF, 0xFF, 0x7F],
        ] {
            assert!(decode(bytes).is_err(), "{bytes:x?}");
        }
    }
}
