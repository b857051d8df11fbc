//! The field types of MQTT (section 1.5), read with every check that the standard asks for.

use bytes::{BufMut, BytesMut};

use crate::reason::Violation;

/// Reads fields off the front of a packet.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes not yet read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Violation> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(Violation::malformed("packet ends within a field"));
        };
        self.rest = rest;
        Ok(taken)
    }

    pub fn byte(&mut self) -> Result<u8, Violation> {
        Ok(self.take(1)?[0])
    }

    pub fn two_bytes(&mut self) -> Result<u16, Violation> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub fn four_bytes(&mut self) -> Result<u32, Violation> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub fn variable(&mut self) -> Result<u32, Violation> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(Violation::malformed("variable byte integer not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(Violation::malformed("variable byte integer of more than four bytes"))
    }

    pub fn binary(&mut self) -> Result<&'a [u8], Violation> {
        let len = self.two_bytes()?;
        self.take(len.into())
    }

    pub fn string(&mut self) -> Result<&'a str, Violation> {
        Self::text(self.binary()?)
    }

    /// The text of a string whose length was read.
    pub fn text(bytes: &[u8]) -> Result<&str, Violation> {
        match str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Ok(text),
            _ => Err(Violation::malformed("string that is not UTF-8 or holds NUL")),
        }
    }

    /// A packet identifier, which is never 0 [MQTT-2.2.1-3].
    pub fn packet_id(&mut self) -> Result<u16, Violation> {
        match self.two_bytes()? {
            0 => Err(Violation::protocol("packet identifier 0")),
            id => Ok(id),
        }
    }
}

/// Bytes that a variable byte integer takes.
pub(crate) fn variable_len(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

pub(crate) fn put_variable(out: &mut BytesMut, mut value: usize) {
    while value > 127 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Writes a length and at most 65 535 bytes: whoever builds a packet has checked that they are no more.
pub(crate) fn put_binary(out: &mut BytesMut, bytes: &[u8]) {
    debug_assert!(bytes.len() <= usize::from(u16::MAX));
    out.put_u16(bytes.len() as u16);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn variable_byte_integers_survive(value in 0usize..268_435_456) {
            let mut out = BytesMut::new();
            put_variable(&mut out, value);
            prop_assert_eq!(out.len(), variable_len(value));
            prop_assert_eq!(Fields::new(&out).variable(), Ok(value as u32));
        }
    }
}
