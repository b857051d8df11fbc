//! Strict reading and plain writing of CBOR (RFC 8949): definite lengths, text as names, and nothing after the one
//! document behind its tag.

use bytes::Bytes;
use minicbor::data::Type;
use minicbor::decode::Error;
use minicbor::{Decoder, Encoder};

use super::value::{Shape, Value};
use super::{MAX_DEPTH, nested_too_deep, too_many_values, unreadable};
use crate::error::WireError;

/// The self-described CBOR tag, 55799 (RFC 8949, section 3.4.6), which every envelope starts with.
pub(crate) const TAG: [u8; 3] = [0xD9, 0xD9, 0xF7];

/// Reads what fits `shape` of one document that is all of `payload`, behind the tag, and has at most `most` values.
pub(super) fn read<'a>(payload: &'a Bytes, shape: Shape<'_>, most: usize) -> Result<Value<'a>, WireError> {
    let document =
        payload.strip_prefix(&TAG).ok_or_else(|| unreadable("expected the self-described CBOR tag"))?;
    let mut reader = Reader { payload, decoder: Decoder::new(document), most, left: most };
    let value = reader.value(0, shape)?;
    if reader.decoder.position() == document.len() {
        Ok(value)
    } else {
        Err(reader.unreadable_here("trailing bytes"))
    }
}

struct Reader<'a> {
    payload: &'a Bytes,
    decoder: Decoder<'a>,
    /// How many values the document may hold.
    most: usize,
    /// How many more.
    left: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: u8, shape: Shape<'_>) -> Result<Value<'a>, WireError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| too_many_values(self.most))?;
        let value = match self.read(|decoder| decoder.datatype())? {
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => Value::Unsigned(self.read(Decoder::u64)?),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 => Value::Negative(self.read(Decoder::i64)?),
            Type::Int => self.unfit(Value::OTHER_NUMBER)?,
            Type::F16 | Type::F32 | Type::F64 => self.unfit(Value::OTHER_NUMBER)?,
            Type::String => Value::Text(self.read(Decoder::str)?.into()),
            Type::Bytes => Value::Bytes(self.payload.slice_ref(self.read(Decoder::bytes)?)),
            Type::Array => {
                let items = self.length(depth, Decoder::array)?;
                let most = shape.items();
                // Kept one by one: the length is the sender's word.
                let mut list = Vec::new();
                for _ in 0..items {
                    match most {
                        Some(most) if items <= most as u64 => {
                            list.push(self.value(depth + 1, Shape::Scalar)?)
                        }
                        _ => drop(self.value(depth + 1, Shape::Skipped)?),
                    }
                }
                Value::bounded("a list", items as usize, most, || Value::List(list))
            }
            Type::Map => {
                let entries = self.length(depth, Decoder::map)?;
                let most = shape.entries();
                let mut map = Vec::new();
                for _ in 0..entries {
                    let name = self.name()?;
                    match most {
                        Some(most) if entries <= most as u64 => {
                            map.push((name.into(), self.value(depth + 1, shape.of(name))?));
                        }
                        _ => drop(self.value(depth + 1, Shape::Skipped)?),
                    }
                }
                Value::bounded("a map", entries as usize, most, || Value::Map(map))
            }
            Type::Null => self.unfit(Value::Null)?,
            Type::Bool => self.unfit(Value::Unfit("a boolean"))?,
            Type::Tag => {
                self.inner(depth)?;
                self.read(Decoder::tag)?;
                self.value(depth + 1, Shape::Skipped)?;
                Value::Unfit("a tagged value")
            }
            Type::ArrayIndef | Type::MapIndef | Type::BytesIndef | Type::StringIndef => {
                return Err(self.unreadable_here("indefinite length"));
            }
            Type::Undefined | Type::Simple => self.unfit(Value::Unfit("a simple value"))?,
            Type::Break | Type::Unknown(_) => return Err(self.unreadable_here("not CBOR")),
        };
        Ok(value)
    }

    /// The name of a map's entry.
    fn name(&mut self) -> Result<&'a str, WireError> {
        match self.read(|decoder| decoder.datatype())? {
            Type::String => self.read(Decoder::str),
            Type::StringIndef => Err(self.unreadable_here("indefinite length")),
            _ => Err(self.unreadable_here("a name that is not text")),
        }
    }

    fn length(
        &mut self,
        depth: u8,
        read: impl FnOnce(&mut Decoder<'a>) -> Result<Option<u64>, Error>,
    ) -> Result<u64, WireError> {
        self.inner(depth)?;
        let length = self.read(read)?;
        length.ok_or_else(|| self.unreadable_here("indefinite length"))
    }

    fn inner(&self, depth: u8) -> Result<(), WireError> {
        if depth == MAX_DEPTH { Err(unreadable(nested_too_deep())) } else { Ok(()) }
    }

    fn unfit(&mut self, value: Value<'a>) -> Result<Value<'a>, WireError> {
        self.read(Decoder::skip).map(|()| value)
    }

    fn read<T>(&mut self, read: impl FnOnce(&mut Decoder<'a>) -> Result<T, Error>) -> Result<T, WireError> {
        read(&mut self.decoder).map_err(|problem| {
            if problem.is_end_of_input() {
                unreadable("ends too early")
            } else {
                self.unreadable_here(&format!("not CBOR: {problem}"))
            }
        })
    }

    fn unreadable_here(&self, problem: &str) -> WireError {
        unreadable(format_args!("{problem} at byte {}", TAG.len() + self.decoder.position()))
    }
}

/// Writes a document behind the tag.
pub(super) fn write(value: &Value<'_>) -> Vec<u8> {
    let mut encoder = Encoder::new(TAG.to_vec());
    write_value(&mut encoder, value).expect("a vector takes all that is written");
    encoder.into_writer()
}

type Written = Result<(), minicbor::encode::Error<core::convert::Infallible>>;

fn write_value(encoder: &mut Encoder<Vec<u8>>, value: &Value<'_>) -> Written {
    match value {
        Value::Null => encoder.null()?,
        Value::Unsigned(number) => encoder.u64(*number)?,
        Value::Negative(number) => encoder.i64(*number)?,
        Value::Text(text) => encoder.str(text)?,
        Value::Bytes(bytes) => encoder.bytes(bytes)?,
        Value::List(items) => {
            encoder.array(items.len() as u64)?;
            return items.iter().try_for_each(|item| write_value(encoder, item));
        }
        Value::Map(entries) => {
            encoder.map(entries.len() as u64)?;
            return entries.iter().try_for_each(|(name, value)| {
                encoder.str(name)?;
                write_value(encoder, value)
            });
        }
        Value::TooMany(_) | Value::Unfit(_) => unreachable!("only read, never written"),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::MAX_VALUES;
    use super::*;

    /// Keeps whatever can be kept.
    fn read(payload: &Bytes) -> Result<Value<'_>, WireError> {
        let any = |_: &str| Shape::Scalar;
        let is_list = payload.get(3).is_some_and(|first| first >> 5 == 4);
        let shape = if is_list { Shape::List(usize::MAX) } else { Shape::Fields(&any) };
        super::read(payload, shape, MAX_VALUES)
    }

    fn document(bytes: &[u8]) -> Bytes {
        [&TAG[..], bytes].concat().into()
    }

    fn problem(bytes: &[u8]) -> String {
        read(&document(bytes)).unwrap_err().message
    }

    #[test]
    fn numbers_are_exact() {
        for (bytes, expected) in [
            (&b"\x00"[..], Value::Unsigned(0)),
            (b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", Value::Unsigned(u64::MAX)),
            // Not the shortest way to write it, but a valid one.
            (b"\x1b\x00\x00\x00\x00\x00\x00\x00\x07", Value::Unsigned(7)),
            (b"\x20", Value::Negative(-1)),
            (b"\x3b\x7f\xff\xff\xff\xff\xff\xff\xff", Value::Negative(i64::MIN)),
            (b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff", Value::OTHER_NUMBER),
            (b"\xf9\x3c\x00", Value::OTHER_NUMBER),
            (b"\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00", Value::OTHER_NUMBER),
            (b"\xf4", Value::Unfit("a boolean")),
            (b"\xf7", Value::Unfit("a simple value")),
            (b"\xc2\x41\x07", Value::Unfit("a tagged value")),
        ] {
            assert_eq!(read(&document(bytes)), Ok(expected), "{bytes:?}");
        }
    }

    #[test]
    fn bytes_share_the_payload_and_duplicates_are_kept() {
        let payload = document(b"\xa2\x61a\x43xyz\x61a\xf6");
        let Ok(Value::Map(entries)) = read(&payload) else { panic!("not a map") };
        let Value::Bytes(bytes) = &entries[0].1 else { panic!("not bytes") };
        assert_eq!(bytes.as_ptr(), payload[7..].as_ptr());
        assert_eq!((&*entries[1].0, &entries[1].1), ("a", &Value::Null));
    }

    #[test]
    fn whatever_is_not_one_document_is_refused() {
        for (bytes, message) in [
            (&b""[..], "envelope: ends too early"),
            (b"\xa1\x61a", "envelope: ends too early"),
            (b"\x43ab", "envelope: ends too early"),
            (b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "envelope: ends too early"),
            (b"\xa0\x00", "envelope: trailing bytes at byte 4"),
            (b"\xbf\xff", "envelope: indefinite length at byte 3"),
            (b"\xa1\x61a\x9f\xff", "envelope: indefinite length at byte 6"),
            (b"\xa1\x61a\x7f\x61b\xff", "envelope: indefinite length at byte 6"),
            (b"\xa1\x61a\x5f\x41b\xff", "envelope: indefinite length at byte 6"),
            (b"\xa1\x7f\x61a\xff\x00", "envelope: indefinite length at byte 4"),
            (b"\xa1\x01\x02", "envelope: a name that is not text at byte 4"),
            (b"\x81\xff", "envelope: not CBOR at byte 4"),
            (b"\x81\x81\x81\x81\x80", "envelope: nested deeper than 4 levels"),
            (b"\xc1\xc1\xc1\xc1\xc1\x00", "envelope: nested deeper than 4 levels"),
        ] {
            assert_eq!(problem(bytes), message, "{bytes:?}");
        }
        assert!(problem(b"\x62\xff\xff").starts_with("envelope: not CBOR"));
        assert!(problem(b"\x1c").starts_with("envelope: not CBOR"));
        assert_eq!(read(&document(b"\x81\x81\x81\x80")).unwrap().description(), "a list");
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        let list =
            |items: u32| document(&[&[0x9a], &items.to_be_bytes()[..], &vec![0; items as usize]].concat());
        let most = MAX_VALUES as u32;
        assert!(read(&list(most - 1)).is_ok());
        assert_eq!(read(&list(most)), Err(too_many_values(MAX_VALUES)));
    }
}
