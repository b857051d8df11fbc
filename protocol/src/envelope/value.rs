//! What both encodings can say.

use std::borrow::Cow;
use std::fmt::Display;

use bytes::Bytes;

use crate::error::WireError;

/// The entries of a map in their order.
pub(crate) type Fields<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// A value of an envelope. Texts are borrowed from the payload where they can be, bytes share it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Unsigned(u64),
    Negative(i64),
    Text(Cow<'a, str>),
    /// Only CBOR has them when read; JSON writes them as base64 text.
    Bytes(Bytes),
    List(Vec<Value<'a>>),
    Map(Fields<'a>),
    /// A list or a map with more than its [`Shape`] takes: how many; only read, never written.
    TooMany(usize),
    /// What no field takes, by its description; only read, never written.
    Unfit(&'static str),
}

/// What is kept of a value that is read. The rest is looked through, not kept, and told by its description.
#[derive(Clone, Copy)]
pub(crate) enum Shape<'s> {
    /// Text, bytes or a number.
    Scalar,
    /// Up to this many scalars.
    List(usize),
    /// Up to this many scalars with names.
    Map(usize),
    /// Named values, each of its own shape; as many as one document may have.
    Fields(&'s dyn Fn(&str) -> Shape<'static>),
    /// Nothing.
    Skipped,
}

impl Shape<'_> {
    /// How many values a list may have; `None` where none is expected.
    pub(super) fn items(self) -> Option<usize> {
        if let Shape::List(most) = self { Some(most) } else { None }
    }

    /// How many values a map may have; `None` where none is expected.
    pub(super) fn entries(self) -> Option<usize> {
        match self {
            Shape::Map(most) => Some(most),
            Shape::Fields(_) => Some(usize::MAX),
            _ => None,
        }
    }

    /// Of the value of this name in a map.
    pub(super) fn of(self, name: &str) -> Shape<'static> {
        match self {
            Shape::Map(_) => Shape::Scalar,
            Shape::Fields(shape_of) => shape_of(name),
            _ => Shape::Skipped,
        }
    }
}

impl<'a> Value<'a> {
    /// What is left of a list or map of `count` where there may be `most`, of which `kept` was kept.
    pub(super) fn bounded(
        description: &'static str,
        count: usize,
        most: Option<usize>,
        kept: impl FnOnce() -> Value<'a>,
    ) -> Value<'a> {
        match most {
            None => Value::Unfit(description),
            Some(most) if count > most => Value::TooMany(count),
            Some(_) => kept(),
        }
    }

    /// Any number but an integer from -2^63 to 2^64 - 1.
    pub(super) const OTHER_NUMBER: Self =
        Value::Unfit("a number that is negative, too large or not an integer literal");

    /// What this is, as a message says it: "expected text, got …".
    pub(crate) fn description(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Unsigned(_) => "a number",
            Value::Negative(_) => "a number that is negative",
            Value::Text(_) => "text",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::TooMany(_) => "more of it than it may have",
            Value::Unfit(description) => description,
        }
    }

    /// A field that holds text.
    pub(crate) fn text(self, field: impl Display) -> Result<String, WireError> {
        match self {
            Value::Text(text) => Ok(text.into_owned()),
            other => Err(expected(field, "text", &other)),
        }
    }

    /// A field that holds an unsigned integer.
    pub(crate) fn unsigned(self, field: &str) -> Result<u64, WireError> {
        match self {
            Value::Unsigned(number) => Ok(number),
            other => Err(expected(field, "an unsigned 64-bit integer", &other)),
        }
    }
}

/// The error of a field that holds something else.
pub(crate) fn expected(field: impl Display, expected: &str, got: &Value<'_>) -> WireError {
    WireError::malformed(field, format_args!("expected {expected}, got {}", got.description()))
}
