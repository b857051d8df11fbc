//! Plain writing and strict reading of JSON: what a forgiving parser would silently drop or round is kept apart, so
//! that the fields of an envelope can be refused by name.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

use super::value::{Shape, Value};
use super::{MAX_DEPTH, nested_too_deep, too_many_values, unreadable};
use crate::error::WireError;

/// Reads what fits `shape` of one document that is all of `payload`, but for white space around it, and has at most
/// `most` values.
pub(super) fn read<'a>(payload: &'a [u8], shape: Shape<'_>, most: usize) -> Result<Value<'a>, WireError> {
    let left = Cell::new(most);
    // JSON's own white space lacks the form feed.
    let mut deserializer = serde_json::Deserializer::from_slice(payload.trim_ascii_start());
    Seed { depth: 0, left: &left, shape }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|problem| if left.get() == 0 { too_many_values(most) } else { unreadable(problem) })
}

/// Writes a document.
pub(super) fn write(value: &Value<'_>) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts, integers, lists and maps always serialize")
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Unsigned(number) => serializer.serialize_u64(*number),
            Value::Negative(number) => serializer.serialize_i64(*number),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Bytes(bytes) => serializer.collect_str(&Base64Display::new(bytes, &BASE64)),
            Value::List(items) => serializer.collect_seq(items),
            Value::Map(entries) => serializer.collect_map(entries.iter().map(|(name, value)| (name, value))),
            Value::TooMany(_) | Value::Unfit(_) => unreachable!("only read, never written"),
        }
    }
}

/// Reads what fits `shape` of one value at `depth`, taking it from what is `left` of the document's values.
#[derive(Clone, Copy)]
struct Seed<'c, 's> {
    depth: u8,
    left: &'c Cell<usize>,
    shape: Shape<'s>,
}

impl<'c> Seed<'c, '_> {
    /// For the values in this one, but for their shape.
    fn inner<E: serde::de::Error>(self) -> Result<Seed<'c, 'static>, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(nested_too_deep()));
        }
        Ok(Seed { depth: self.depth + 1, left: self.left, shape: Shape::Skipped })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| D::Error::custom("too many values"))?;
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Unfit("a boolean"))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Unsigned(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Negative(number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::OTHER_NUMBER)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(match self.shape {
            Shape::Scalar => Value::Text(Cow::Owned(text.to_owned())),
            _ => Value::Unfit("text"),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value<'de>, A::Error> {
        let skipped = self.inner()?;
        let most = self.shape.items();
        let (mut list, mut count) = (Vec::new(), 0);
        loop {
            let is_kept = most.is_some_and(|most| count < most);
            let seed = if is_kept { Seed { shape: Shape::Scalar, ..skipped } } else { skipped };
            let Some(value) = access.next_element_seed(seed)? else { break };
            count += 1;
            list.extend(is_kept.then_some(value));
        }
        Ok(Value::bounded("a list", count, most, || Value::List(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value<'de>, A::Error> {
        let skipped = self.inner()?;
        let most = self.shape.entries();
        let (mut map, mut count) = (Vec::new(), 0);
        while let Some(name) = access.next_key_seed(Name)? {
            if most.is_some_and(|most| count < most) {
                let seed = Seed { shape: self.shape.of(&name), ..skipped };
                map.push((name, access.next_value_seed(seed)?));
            } else {
                access.next_value_seed(skipped)?;
            }
            count += 1;
        }
        Ok(Value::bounded("a map", count, most, || Value::Map(map)))
    }
}

/// Reads the name of a map's entry.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_VALUES;
    use super::*;

    /// Keeps whatever can be kept.
    fn read(payload: &[u8]) -> Result<Value<'_>, WireError> {
        let any = |_: &str| Shape::Scalar;
        let shape = if payload.starts_with(b"[") { Shape::List(usize::MAX) } else { Shape::Fields(&any) };
        super::read(payload, shape, MAX_VALUES)
    }

    fn one(text: &str) -> Value<'_> {
        read(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_integer_literals_of_64_bits_are_unsigned() {
        assert_eq!(one("0"), Value::Unsigned(0));
        assert_eq!(one("18446744073709551615"), Value::Unsigned(u64::MAX));
        assert_eq!(one("9007199254740993"), Value::Unsigned(9_007_199_254_740_993));
        assert_eq!(one("-1"), Value::Negative(-1));
        for other in ["18446744073709551616", "-0", "1.0", "1e3", "1E0", "0.5"] {
            assert_eq!(one(other), Value::OTHER_NUMBER, "{other}");
        }
    }

    #[test]
    fn duplicates_are_kept_and_plain_texts_borrowed() {
        let Value::Map(entries) = one(r#"{"a":"x","a":"\n"}"#) else { panic!("not a map") };
        assert_eq!(entries.len(), 2);
        assert!(matches!(entries[0].1, Value::Text(Cow::Borrowed("x"))));
        assert!(matches!(&entries[1].1, Value::Text(Cow::Owned(text)) if text == "\n"));
    }

    #[test]
    fn whatever_is_not_one_document_is_refused() {
        let documents: [&[u8]; 10] = [
            b"",
            b"{",
            b"{} {}",
            b"{}x",
            b"{\"a\":01}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":\"\\ud800\"}",
            b"{'a':1}",
            b"{\"a\":1,}",
            b"[[[[[1]]]]]",
        ];
        for document in documents {
            assert!(read(document).unwrap_err().message.starts_with("envelope: "), "{document:?}");
        }
        assert_eq!(one("[[[[1]]]]").description(), "a list");
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        let list = |items: usize| format!("[{}0]", "0,".repeat(items - 1));
        assert!(read(list(MAX_VALUES - 1).as_bytes()).is_ok());
        assert_eq!(read(list(MAX_VALUES).as_bytes()), Err(too_many_values(MAX_VALUES)));
    }
}
