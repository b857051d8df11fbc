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
    /// What no field takes, by its description; only read, never written.
    Unfit(&'static str),
}

impl Value<'_> {
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
