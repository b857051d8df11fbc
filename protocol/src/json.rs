//! Strict reading of JSON: what a forgiving parser would silently drop or round is kept apart, so that the envelope's
//! fields can be refused by name.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

/// Lists and maps may be nested this deep: an envelope needs two levels, itself and one field of it.
const MAX_DEPTH: u8 = 4;

/// One document may hold this many values: bounds memory, since a value of two bytes becomes one of some forty.
pub(crate) const MAX_VALUES: usize = 65_536;

/// A JSON value. Texts without escapes are borrowed from the document, duplicate names are kept.
#[derive(Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool,
    /// An integer literal from 0 to 2^64 - 1.
    Unsigned(u64),
    /// Any other number: negative, with fraction or exponent, or too large.
    OtherNumber,
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Map(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl Value<'_> {
    /// What this is, as a message says it: "expected text, got …".
    pub(crate) fn description(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool => "a boolean",
            Value::Unsigned(_) => "a number",
            Value::OtherNumber => "a number that is negative, too large or not an integer literal",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Why a document could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// Not JSON, nested too deep, or something follows it; says what and where.
    Syntax(String),
    /// More than [`MAX_VALUES`] values.
    TooManyValues,
}

/// Reads one document that is all of `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Result<Value<'_>, ReadError> {
    let left = Cell::new(MAX_VALUES);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Seed { depth: 0, left: &left }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| {
            if left.get() == 0 { ReadError::TooManyValues } else { ReadError::Syntax(error.to_string()) }
        })
}

/// Reads one value at `depth`, taking it from what is `left` of the document's values.
#[derive(Clone, Copy)]
struct Seed<'c> {
    depth: u8,
    left: &'c Cell<usize>,
}

impl Seed<'_> {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| D::Error::custom("too many values"))?;
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Unsigned(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value<'de>, E> {
        Ok(Value::OtherNumber)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::OtherNumber)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value<'de>, A::Error> {
        let seed = self.inner()?;
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(seed)? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value<'de>, A::Error> {
        let seed = self.inner()?;
        let mut map = Vec::new();
        while let Some(name) = access.next_key_seed(Name)? {
            map.push((name, access.next_value_seed(seed)?));
        }
        Ok(Value::Map(map))
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
    use super::*;

    fn one(text: &str) -> Value<'_> {
        read(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_integer_literals_of_64_bits_are_unsigned() {
        assert_eq!(one("0"), Value::Unsigned(0));
        assert_eq!(one("18446744073709551615"), Value::Unsigned(u64::MAX));
        assert_eq!(one("9007199254740993"), Value::Unsigned(9_007_199_254_740_993));
        for other in ["18446744073709551616", "-1", "-0", "1.0", "1e3", "1E0", "0.5"] {
            assert_eq!(one(other), Value::OtherNumber, "{other}");
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
            assert!(matches!(read(document), Err(ReadError::Syntax(_))), "{document:?}");
        }
        assert_eq!(one("[[[[1]]]]").description(), "a list");
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        let list = |items: usize| format!("[{}0]", "0,".repeat(items - 1));
        assert!(read(list(MAX_VALUES - 1).as_bytes()).is_ok());
        assert!(matches!(read(list(MAX_VALUES).as_bytes()), Err(ReadError::TooManyValues)));
    }
}
