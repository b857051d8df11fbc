//! Envelopes: one map of fields, in one of two encodings. What the fields mean is said once, for requests in
//! `request::envelope` and for answers in `answer::envelope`; here is only how they are written.

mod cbor;
mod json;
mod value;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

pub(crate) use self::cbor::TAG as CBOR_TAG;
pub(crate) use self::value::{Fields, Shape, Value, expected};
use crate::error::{ErrorKind, WireError};

/// Lists and maps may be nested this deep: an envelope needs two levels, itself and one field of it.
const MAX_DEPTH: u8 = 4;

/// One envelope may hold this many values: bounds time, and memory, since a value of one byte becomes one of some
/// forty.
pub(crate) const MAX_VALUES: usize = 65_536;

/// How an envelope is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Byte strings are base64 text (standard alphabet, padded).
    Json,
    /// Behind the self-described tag ([`CBOR_TAG`]); definite lengths only.
    Cbor,
}

impl Encoding {
    /// Reads one envelope that is all of `payload`, of which up to `most` values are looked at, and kept what fits the
    /// shape of its field. Duplicate names are kept, so that they can be refused by name.
    pub(crate) fn read(
        self,
        payload: &Bytes,
        shape_of: impl Fn(&str) -> Shape<'static>,
        most: usize,
    ) -> Result<Fields<'_>, WireError> {
        let shape = Shape::Fields(&shape_of);
        let value = match self {
            Encoding::Json => json::read(payload, shape, most),
            Encoding::Cbor => cbor::read(payload, shape, most),
        }?;
        match value {
            Value::Map(fields) => Ok(fields),
            other => Err(expected("envelope", "a map", &other)),
        }
    }

    /// Writes one envelope.
    pub(crate) fn write(self, fields: Fields<'_>) -> Bytes {
        match self {
            Encoding::Json => json::write(&Value::Map(fields)),
            Encoding::Cbor => cbor::write(&Value::Map(fields)),
        }
        .into()
    }

    /// How many bytes a field holds that holds bytes.
    pub(crate) fn length(self, value: &Value<'_>) -> usize {
        match value {
            Value::Bytes(bytes) => bytes.len(),
            // Four characters for three bytes, and padding for those of the last three that are missing.
            Value::Text(text) => (text.len() / 4 * 3)
                .saturating_sub(text.bytes().rev().take(2).filter(|byte| *byte == b'=').count()),
            _ => 0,
        }
    }

    /// Reads a field that holds bytes.
    pub(crate) fn bytes(self, field: &str, value: Value<'_>) -> Result<Bytes, WireError> {
        match (self, value) {
            (Encoding::Cbor, Value::Bytes(bytes)) => Ok(bytes),
            (Encoding::Cbor, other) => Err(expected(field, "bytes", &other)),
            (Encoding::Json, Value::Text(text)) => BASE64
                .decode(text.as_bytes())
                .map(Bytes::from)
                .map_err(|problem| WireError::malformed(field, format!("expected padded base64: {problem}"))),
            (Encoding::Json, other) => Err(expected(field, "bytes as base64 text", &other)),
        }
    }
}

fn unreadable(problem: impl std::fmt::Display) -> WireError {
    WireError::malformed("envelope", problem)
}

fn nested_too_deep() -> String {
    format!("nested deeper than {MAX_DEPTH} levels")
}

fn too_many_values(most: usize) -> WireError {
    WireError::new(ErrorKind::TooLarge, format!("envelope: more than {most} values"))
}
