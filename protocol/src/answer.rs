//! An answer: what became of a request, and the forms in which that is said.
//!
//! One submodule a form, each with its `encode` and `decode`; the two envelopes share one.

mod envelope;
mod line;
mod properties;

use bytes::Bytes;

use crate::UserProperties;
use crate::envelope::Encoding;
use crate::error::{ErrorKind, WireError};
use crate::request::{Rejected, RequestId, StdoutRange};

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program ended by itself, with this exit code; 0 is success.
    Exited(i32),
    /// It was not run, or it was ended.
    Failed(WireError),
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's id.
    pub id: Option<RequestId>,
    /// What became of it.
    pub outcome: Outcome,
    /// What the program printed, or the part of it that was asked for.
    pub stdout: Bytes,
    /// Where `stdout` is in all that the program printed; only where a part was asked for, and only in envelopes.
    pub content_range: Option<ContentRange>,
    /// What it printed as diagnostics. Envelopes carry all of it, an error line its first line where stdout is empty.
    pub stderr: Bytes,
    /// Units of fuel used.
    pub fuel: u64,
    /// Microseconds that the program ran, by the clock on the wall.
    pub run_us: u64,
    /// Microseconds from the request's arrival to the program's start; only envelopes carry it.
    pub queue_us: u64,
}

/// Where a part of stdout is in the whole: what HTTP says in `Content-Range` (RFC 9110, section 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The byte that it begins at, as asked for; it can be beyond the end.
    pub offset: u64,
    /// Bytes of the whole.
    pub total: u64,
}

impl Answer {
    /// An answer to a request of which nothing was run.
    pub fn failed(id: Option<RequestId>, error: WireError) -> Self {
        Self::empty(id, Outcome::Failed(error))
    }

    /// An answer to a request that was done without running anything.
    pub fn done(id: Option<RequestId>) -> Self {
        Self::empty(id, Outcome::Exited(0))
    }

    fn empty(id: Option<RequestId>, outcome: Outcome) -> Self {
        Self {
            id,
            outcome,
            stdout: Bytes::new(),
            content_range: None,
            stderr: Bytes::new(),
            fuel: 0,
            run_us: 0,
            queue_us: 0,
        }
    }

    /// The same answer with this part of stdout; beyond its end the part is empty.
    #[must_use]
    pub fn with_range(mut self, range: StdoutRange) -> Self {
        let total = self.stdout.len();
        let clamped = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let start = clamped(range.offset).min(total);
        let end = start.saturating_add(range.length.map_or(usize::MAX, clamped)).min(total);
        if end - start < total {
            // Copied: whoever keeps a part in a queue keeps no more than is counted there.
            self.stdout = Bytes::copy_from_slice(&self.stdout[start..end]);
        }
        self.content_range = Some(ContentRange { offset: range.offset, total: total as u64 });
        self
    }

    /// Whether the program printed nothing at all, which an empty part does not say.
    fn is_silent(&self) -> bool {
        self.content_range.map_or(self.stdout.is_empty(), |range| range.total == 0)
    }
}

impl From<Rejected> for Answer {
    fn from(rejected: Rejected) -> Self {
        Self::failed(rejected.id, rejected.error)
    }
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnswerForm {
    /// The bytes of stdout, or one error line.
    Line,
    /// A CBOR envelope.
    Cbor,
    /// A JSON envelope.
    Json,
}

/// Writes an answer: the payload, and the user properties that go with it in MQTT 5.
pub fn encode(answer: &Answer, form: AnswerForm) -> (Bytes, UserProperties) {
    match form {
        AnswerForm::Line => {
            (line::encode(answer), properties::encode(answer, line::needs_error_line(answer)))
        }
        AnswerForm::Cbor => (envelope::encode(Encoding::Cbor, answer), properties::encode(answer, false)),
        AnswerForm::Json => (envelope::encode(Encoding::Json, answer), properties::encode(answer, false)),
    }
}

/// Writes an answer that fits in `room` bytes, the payload and the user properties taken together as MQTT 5 counts
/// them (each property 5 bytes more than its name and value).
///
/// Without `with_properties` (MQTT 3.1.1) there are no properties. An error line that does not fit loses what it says
/// of stderr. An answer that does not fit even so is replaced by an `output` error that says so, then by a terser one,
/// then by that without properties, and last by a bare error line, which is shorter than any envelope. `None` if not
/// even that fits.
pub fn encode_within(
    answer: &Answer,
    form: AnswerForm,
    room: usize,
    with_properties: bool,
) -> Option<(Bytes, UserProperties)> {
    let within = |answer: &Answer, form: AnswerForm, with_properties: bool| {
        let (payload, mut user_properties) = encode(answer, form);
        if !with_properties {
            user_properties.clear();
        }
        let size = size(&payload, &user_properties);
        if size <= room { Ok((payload, user_properties)) } else { Err(size) }
    };
    let size = match within(answer, form, with_properties) {
        Ok(encoded) => return Some(encoded),
        Err(size) => size,
    };
    if form == AnswerForm::Line
        && let Ok(encoded) = within(&Answer { stderr: Bytes::new(), ..answer.clone() }, form, with_properties)
    {
        return Some(encoded);
    }
    let replaced = |message: String| Answer {
        outcome: Outcome::Failed(WireError::new(ErrorKind::Output, message)),
        stdout: Bytes::new(),
        stderr: Bytes::new(),
        ..answer.clone()
    };
    let full = replaced(format!("the answer has {size} bytes, its receiver takes {room}"));
    let terse = replaced("too large".to_owned());
    [
        (&full, form, with_properties),
        (&terse, form, with_properties),
        (&terse, form, false),
        (&terse, AnswerForm::Line, false),
    ]
    .into_iter()
    .find_map(|(answer, form, with_properties)| within(answer, form, with_properties).ok())
}

fn size(payload: &[u8], user_properties: &[(String, String)]) -> usize {
    payload.len() + user_properties.iter().map(|(name, value)| 5 + name.len() + value.len()).sum::<usize>()
}

/// Reads an answer to a request that asked for it in this form. Without user properties (MQTT 3.1.1) an answer in line
/// form that reads as an error line is taken for one. Fails with `malformed`, naming the field.
pub fn decode(
    form: AnswerForm,
    payload: Bytes,
    user_properties: &[(String, String)],
) -> Result<Answer, WireError> {
    match form {
        AnswerForm::Line => line::decode(payload, user_properties),
        AnswerForm::Cbor => envelope::decode(Encoding::Cbor, &payload),
        AnswerForm::Json => envelope::decode(Encoding::Json, &payload),
    }
}

/// The `status` of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok,
    Exit,
    Error,
}

impl Status {
    const ALL: [Status; 3] = [Status::Ok, Status::Exit, Status::Error];

    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Exited(0) => Status::Ok,
            Outcome::Exited(_) => Status::Exit,
            Outcome::Failed(_) => Status::Error,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Exit => "exit",
            Status::Error => "error",
        }
    }

    fn parse(name: &str) -> Result<Self, WireError> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == name)
            .ok_or_else(|| WireError::malformed("status", "expected ok, exit or error"))
    }
}

#[cfg(test)]
mod tests;
