//! The MQTT 5 user properties that stand in for an envelope's fields.

use std::time::Duration;

use super::{Request, RequestId, RequestLimits};
use crate::UserProperties;
use crate::error::WireError;

/// What the forms without an envelope take from user properties; others are ignored.
#[derive(Default)]
pub(super) struct Properties {
    pub(super) id: Option<RequestId>,
    pub(super) limits: RequestLimits,
}

impl Properties {
    /// Reads them. What could be read before an error is kept in `self`, so that the answer can carry the id.
    pub(super) fn read(&mut self, user_properties: &[(String, String)]) -> Result<(), WireError> {
        // The id first and whatever else is wrong: the answer echoes it.
        if let Some(id) = once(user_properties, "id")? {
            self.id = Some(RequestId::try_from(id)?);
        }
        self.limits.fuel = integer(user_properties, "fuel")?;
        self.limits.memory = integer(user_properties, "memory")?;
        self.limits.timeout = integer(user_properties, "timeout-ms")?.map(Duration::from_millis);
        Ok(())
    }
}

/// Writes what [`Properties::read`] reads.
pub(super) fn write(request: &Request) -> UserProperties {
    let mut written = UserProperties::new();
    let mut push = |name: &str, value: Option<String>| {
        written.extend(value.map(|value| (name.to_owned(), value)));
    };
    push("id", request.id.as_ref().map(RequestId::to_string));
    push("fuel", request.limits.fuel.map(|fuel| fuel.to_string()));
    push("memory", request.limits.memory.map(|memory| memory.to_string()));
    push("timeout-ms", request.limits.timeout.map(|timeout| timeout.as_millis().to_string()));
    written
}

/// The value of a property that may be given once at most.
fn once<'p>(user_properties: &'p [(String, String)], name: &str) -> Result<Option<&'p str>, WireError> {
    let mut values = user_properties.iter().filter(|(given, _)| given == name);
    let first = values.next().map(|(_, value)| value.as_str());
    match values.next() {
        Some(_) => Err(WireError::malformed(name, "given twice")),
        None => Ok(first),
    }
}

fn integer(user_properties: &[(String, String)], name: &str) -> Result<Option<u64>, WireError> {
    let Some(value) = once(user_properties, name)? else { return Ok(None) };
    // `str::parse` alone would take a leading `+`.
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse() {
        Ok(number) if digits => Ok(Some(number)),
        _ => Err(WireError::malformed(name, "expected an unsigned 64-bit integer in decimal digits")),
    }
}
