//! Records of requests and outcomes, for people.

use super::Arrived;
use super::outcome;
use crate::durability::encoding::Reader;
use crate::durability::kind;
use crate::durability::moment::Moment;
use crate::telemetry;
use bytes::Bytes;
use offload_journal::Record;

/// What a record of a request or an outcome is, for people.
pub fn describe(record: &Record) -> String {
    let bytes = Bytes::copy_from_slice(&record.bytes);
    let text = match record.kind {
        kind::REQUEST => Arrived::decode_head(&mut Reader::new(bytes)).map(|arrived| {
            let age = arrived.moment.age(&Moment::now()).as_secs();
            format!("of `{}` on `{}`, {age} s ago", arrived.client.name(), arrived.topic)
        }),
        kind::OUTCOME => outcome::describe(bytes),
        kind::SEALED_OUTCOME => outcome::describe_sealed(bytes),
        _ => None,
    };
    let text = text.unwrap_or_default();
    telemetry::bounded(&text).to_string()
}
