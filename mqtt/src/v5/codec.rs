//! rumqttc's codec of MQTT 5, and what it does not take of what brokers send.

use bytes::{Buf, BytesMut};
use rumqttc::v5::mqttbytes::Error;
use rumqttc::v5::mqttbytes::v5::{self, Packet};
use tokio_util::codec::{Decoder, Encoder};

/// First byte of a CONNACK (MQTT 5, section 3.2).
const CONNACK: u8 = 0x20;
/// First byte of a DISCONNECT (MQTT 5, section 3.14).
const DISCONNECT: u8 = 0xE0;
/// "Unacceptable protocol version": how a broker that knows MQTT 3.1.1 alone refuses MQTT 5 (MQTT 3.1.1, section
/// 3.2.2.3).
const V311_UNACCEPTABLE_VERSION: u8 = 0x01;
/// "Unsupported Protocol Version" (MQTT 5, section 3.2.2.2).
const UNSUPPORTED_VERSION: u8 = 0x84;

/// Frames packets.
pub(super) struct Codec {
    inner: v5::Codec,
}

impl Codec {
    /// Takes packets of at most this number of bytes.
    pub(super) fn new(max_incoming: Option<u32>) -> Codec {
        Codec { inner: v5::Codec { max_incoming_size: max_incoming, max_outgoing_size: None } }
    }

    /// Writes no packet of more bytes than that.
    pub(super) fn set_max_outgoing(&mut self, bytes: Option<u32>) {
        self.inner.max_outgoing_size = bytes;
    }
}

impl Decoder for Codec {
    type Item = Packet;
    type Error = Error;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Packet>, Error> {
        if let Some((short, whole)) = completed(src) {
            src.advance(short);
            return self.inner.decode(&mut BytesMut::from(&whole[..]));
        }
        let available = src.len();
        match self.inner.decode(src)? {
            // It has taken a whole packet, found too little in it, and would wait for more for ever.
            None if src.len() < available => Err(Error::MalformedPacket),
            packet => Ok(packet),
        }
    }
}

/// A packet that may leave out its end, with that end: the bytes that it has, and the whole of it. A DISCONNECT may
/// lack its properties, and even its reason code (MQTT 5, section 3.14.2); a CONNACK in the form of MQTT 3.1.1 has
/// none.
fn completed(src: &[u8]) -> Option<(usize, Vec<u8>)> {
    match *src {
        [DISCONNECT, 0, ..] => Some((2, vec![DISCONNECT, 2, 0, 0])),
        [DISCONNECT, 1, reason, ..] => Some((3, vec![DISCONNECT, 2, reason, 0])),
        [CONNACK, 2, flags, V311_UNACCEPTABLE_VERSION, ..] => {
            Some((4, vec![CONNACK, 3, flags, UNSUPPORTED_VERSION, 0]))
        }
        [CONNACK, 2, flags, code, ..] => Some((4, vec![CONNACK, 3, flags, code, 0])),
        _ => None,
    }
}

impl Encoder<Packet> for Codec {
    type Error = Error;

    fn encode(&mut self, packet: Packet, dst: &mut BytesMut) -> Result<(), Error> {
        self.inner.encode(packet, dst)
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode};

    use super::*;

    /// What is decoded when the bytes come all at once, and one by one.
    fn decode(bytes: &[u8]) -> Vec<Result<Packet, String>> {
        let all = |chunks: &mut dyn Iterator<Item = &[u8]>| {
            let (mut codec, mut src, mut packets) = (Codec::new(None), BytesMut::new(), Vec::new());
            for chunk in chunks {
                src.extend_from_slice(chunk);
                loop {
                    match codec.decode(&mut src) {
                        Ok(None) => break,
                        Ok(Some(packet)) => packets.push(Ok(packet)),
                        Err(error) => {
                            packets.push(Err(error.to_string()));
                            return packets;
                        }
                    }
                }
            }
            packets
        };
        let at_once = all(&mut [bytes].into_iter());
        assert_eq!(all(&mut bytes.chunks(1)), at_once);
        at_once
    }

    #[test]
    fn a_disconnect_keeps_its_reason_in_each_of_its_forms() {
        for (bytes, expected) in [
            (&b"\xe0\x00"[..], DisconnectReasonCode::NormalDisconnection),
            (b"\xe0\x01\x8e", DisconnectReasonCode::SessionTakenOver),
            (b"\xe0\x01\x8b", DisconnectReasonCode::ServerShuttingDown),
            (b"\xe0\x02\x8e\x00", DisconnectReasonCode::SessionTakenOver),
            (b"\xe0\x05\x95\x03\x1f\x00\x00", DisconnectReasonCode::PacketTooLarge),
        ] {
            let decoded = decode(bytes);
            let [Ok(Packet::Disconnect(packet))] = &decoded[..] else { panic!("{bytes:?}: {decoded:?}") };
            assert_eq!(packet.reason_code, expected, "{bytes:?}");
        }
        assert!(matches!(decode(b"\xd0\x00\xe0\x01\x8e\xd0\x00")[..], [Ok(_), Ok(_), Ok(_)]));
        assert!(matches!(decode(b"\xe0\x01\x01")[..], [Err(_)]), "no reason of the standard");
    }

    #[test]
    fn a_broker_that_knows_no_mqtt_5_says_so_in_its_own_form() {
        for (bytes, expected) in [
            (b"\x20\x02\x00\x01", ConnectReturnCode::UnsupportedProtocolVersion),
            (b"\x20\x02\x00\x00", ConnectReturnCode::Success),
        ] {
            let decoded = decode(bytes);
            let [Ok(Packet::ConnAck(connack))] = &decoded[..] else { panic!("{decoded:?}") };
            assert_eq!(connack.code, expected);
        }
    }

    #[test]
    fn a_packet_that_is_too_short_for_what_it_is_is_malformed() {
        for bytes in [&b"\x90\x02\x00\x01"[..], b"\x20\x01\x00", b"\xe0\x02\x8e\x05"] {
            assert!(matches!(decode(bytes)[..], [Err(_)]), "{bytes:?}");
        }
        assert_eq!(decode(b"\x90\x04\x00\x01"), []);
    }
}
