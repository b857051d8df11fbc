//! The fields of a record as bytes: numbers are little endian, what has a length says it first.

use bytes::{Buf, Bytes};

/// Writes fields, one behind the other.
#[derive(Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// A number of one byte: a version, or which of several things follows.
    pub fn byte(&mut self, value: u8) -> &mut Writer {
        self.0.push(value);
        self
    }

    /// A number.
    pub fn number(&mut self, value: u64) -> &mut Writer {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Bytes of any length.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Writer {
        self.number(value.len() as u64);
        self.0.extend(value);
        self
    }

    /// Text of any length.
    pub fn text(&mut self, value: &str) -> &mut Writer {
        self.bytes(value.as_bytes())
    }

    /// Bytes, or none.
    pub fn optional(&mut self, value: Option<&[u8]>) -> &mut Writer {
        match value {
            Some(value) => self.byte(1).bytes(value),
            None => self.byte(0),
        }
    }

    /// A number, or none.
    pub fn optional_number(&mut self, value: Option<u64>) -> &mut Writer {
        match value {
            Some(value) => self.byte(1).number(value),
            None => self.byte(0),
        }
    }

    /// Yes or no.
    pub fn flag(&mut self, value: bool) -> &mut Writer {
        self.byte(value.into())
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads fields in the order in which they were written. Each is `None` where the bytes are no such field.
pub struct Reader(Bytes);

impl Reader {
    /// Of these bytes.
    pub fn new(bytes: Bytes) -> Reader {
        Reader(bytes)
    }

    /// As [`Writer::byte`].
    pub fn byte(&mut self) -> Option<u8> {
        self.0.try_get_u8().ok()
    }

    /// As [`Writer::number`].
    pub fn number(&mut self) -> Option<u64> {
        self.0.try_get_u64_le().ok()
    }

    /// As [`Writer::bytes`].
    pub fn bytes(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.number()?).ok().filter(|length| *length <= self.0.len())?;
        Some(self.0.split_to(length))
    }

    /// As [`Writer::text`].
    pub fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.into()).ok()
    }

    /// As [`Writer::optional`].
    pub fn optional(&mut self) -> Option<Option<Bytes>> {
        match self.byte()? {
            0 => Some(None),
            1 => self.bytes().map(Some),
            _ => None,
        }
    }

    /// As [`Writer::optional`] of text.
    pub fn optional_text(&mut self) -> Option<Option<String>> {
        match self.optional()? {
            Some(bytes) => String::from_utf8(bytes.into()).ok().map(Some),
            None => Some(None),
        }
    }

    /// As [`Writer::optional_number`].
    pub fn optional_number(&mut self) -> Option<Option<u64>> {
        match self.flag()? {
            true => self.number().map(Some),
            false => Some(None),
        }
    }

    /// As [`Writer::flag`].
    pub fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// All that follows.
    pub fn rest(self) -> Bytes {
        self.0
    }

    /// Nothing follows.
    pub fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_their_order_and_nothing_else_does() {
        let mut writer = Writer::default();
        writer.byte(7).number(1 << 40).text("é").bytes(&[0, 1]).optional(None).optional(Some(b"x"));
        let bytes = Bytes::from(writer.finish());
        let read = |bytes: Bytes| {
            let mut reader = Reader::new(bytes);
            let fields = (reader.byte()?, reader.number()?, reader.text()?, reader.bytes()?);
            let fields = (fields, reader.optional()?, reader.optional_text()?);
            reader.end().map(|()| fields)
        };
        let fields = (7, 1 << 40, "é".to_owned(), Bytes::from_static(&[0, 1]));
        assert_eq!(read(bytes.clone()), Some((fields, None, Some("x".to_owned()))));
        for end in 0..bytes.len() {
            assert_eq!(read(bytes.slice(..end)), None, "{end}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(read(longer.into()), None);
        assert_eq!(Reader::new(Bytes::from_static(&[0xFF; 9])).bytes(), None);
    }
}
