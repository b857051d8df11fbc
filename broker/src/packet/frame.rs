//! Control packets in the byte stream: fixed header and length (section 2.1), checked before anything else
//! sees the bytes. The codec panics on packets that only a server sends and does not look at flags.

use crate::reason::{Reason, Violation};

/// Types of the control packets that a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Connect,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    Unsubscribe,
    PingReq,
    Disconnect,
}

/// One whole control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub kind: Kind,
    /// The low four bits of the first byte.
    pub flags: u8,
    /// All after the fixed header.
    pub body: &'a [u8],
    /// Bytes in all, fixed header included.
    pub size: usize,
}

/// The packet at the start of `input`; `None` if more bytes are needed. `max_size` bounds the whole packet
/// and is checked as soon as its length is known.
pub(crate) fn next(input: &[u8], max_size: usize) -> Result<Option<Frame<'_>>, Violation> {
    let header = header(input, max_size)?.filter(|header| header.size <= input.len());
    Ok(header.map(|header| header.frame(input)))
}

/// A fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: Kind,
    flags: u8,
    /// Bytes of the header itself.
    len: usize,
    /// Bytes of the whole packet.
    pub size: usize,
}

impl Header {
    /// The packet that this is the header of, as far as it has come.
    pub fn frame<'a>(&self, input: &'a [u8]) -> Frame<'a> {
        let end = self.size.min(input.len());
        Frame { kind: self.kind, flags: self.flags, body: &input[self.len..end], size: self.size }
    }
}

/// The fixed header at the start of `input`; `None` if more bytes are needed. Otherwise as [`next`].
pub(crate) fn header(input: &[u8], max_size: usize) -> Result<Option<Header>, Violation> {
    let Some(&first) = input.first() else { return Ok(None) };
    let flags = first & 0x0F;
    let kind = kind(first >> 4, flags)?;
    let Some((length, bytes)) = remaining_length(&input[1..])? else { return Ok(None) };
    let size = 1 + bytes + length;
    if size > max_size {
        return Err(Violation::new(Reason::PacketTooLarge, "packet too large"));
    }
    Ok(Some(Header { kind, flags, len: 1 + bytes, size }))
}

fn kind(number: u8, flags: u8) -> Result<Kind, Violation> {
    let (kind, expected) = match number {
        1 => (Kind::Connect, 0),
        3 => {
            let qos = flags >> 1 & 3;
            if qos == 3 {
                return Err(Violation::malformed("PUBLISH with QoS 3"));
            }
            if qos == 0 && flags & 8 != 0 {
                return Err(Violation::malformed("PUBLISH with DUP at QoS 0"));
            }
            (Kind::Publish, flags)
        }
        4 => (Kind::PubAck, 0),
        5 => (Kind::PubRec, 0),
        6 => (Kind::PubRel, 2),
        7 => (Kind::PubComp, 0),
        8 => (Kind::Subscribe, 2),
        10 => (Kind::Unsubscribe, 2),
        12 => (Kind::PingReq, 0),
        14 => (Kind::Disconnect, 0),
        0 => return Err(Violation::malformed("packet type 0")),
        15 => return Err(Violation::protocol("AUTH, though no authentication method was agreed on")),
        _ => return Err(Violation::protocol("a packet that only a server sends")),
    };
    if flags != expected {
        return Err(Violation::malformed("wrong flags in the fixed header"));
    }
    Ok(kind)
}

/// Remaining length and how many bytes it took.
fn remaining_length(input: &[u8]) -> Result<Option<(usize, usize)>, Violation> {
    let mut length = 0;
    for (at, &byte) in input.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            if byte == 0 && at > 0 {
                return Err(Violation::malformed("remaining length not in its shortest form"));
            }
            return Ok(Some((length, at + 1)));
        }
    }
    if input.len() >= 4 {
        return Err(Violation::malformed("remaining length of more than four bytes"));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(input: &[u8]) -> Reason {
        next(input, 1000).unwrap_err().reason
    }

    #[test]
    fn whole_packets_are_found() {
        let frame = next(&[0x40, 2, 0, 7, 0xC0], 1000).unwrap().unwrap();
        assert_eq!((frame.kind, frame.body, frame.size), (Kind::PubAck, &[0u8, 7][..], 4));
        assert_eq!(next(&[], 1000), Ok(None));
        assert_eq!(next(&[0x30], 1000), Ok(None));
        assert_eq!(next(&[0x30, 0x80], 1000), Ok(None));
        assert_eq!(next(&[0x30, 3, 0, 1], 1000), Ok(None));
    }

    #[test]
    fn size_is_checked_before_the_packet_is_there() {
        assert_eq!(reason(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]), Reason::PacketTooLarge);
        assert!(next(&[0x30, 8], 10).is_ok());
        assert!(next(&[0x30, 9], 10).is_err());
    }

    #[test]
    fn bad_headers_are_refused_at_their_first_byte() {
        for first in [0x00, 0x36, 0x38, 0x11, 0x60, 0x80, 0xA0, 0xC1, 0xE8] {
            assert_eq!(reason(&[first]), Reason::MalformedPacket, "{first:#x}");
        }
        for first in [0x20, 0x90, 0xB0, 0xD0, 0xF0] {
            assert_eq!(reason(&[first]), Reason::ProtocolError, "{first:#x}");
        }
        assert_eq!(reason(&[0x30, 0x80, 0x80, 0x80, 0x80]), Reason::MalformedPacket);
        assert_eq!(reason(&[0x30, 0x80, 0x00]), Reason::MalformedPacket);
    }

    proptest! {
        #[test]
        fn never_panics_and_never_reads_past_the_limit(input in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Some(frame)) = next(&input, 200) {
                prop_assert!(frame.size <= 200 && frame.size <= input.len());
            }
        }
    }
}
