//! Sealed requests and answers as envelopes: what is around them, and what has to be inside. How they are sealed and
//! opened is the crate `offload-seal`'s.

use bytes::Bytes;

use crate::answer::AnswerForm;
use crate::digest::Digest;
use crate::envelope::{Encoding, Fields, Shape, Value};
use crate::error::{ErrorKind, WireError};
use crate::request::{Rejected, Request};

/// The field that only a sealed request, and a sealed answer, has.
pub(crate) const SEALED: &str = "sealed";

/// The other fields of a sealed request.
pub(crate) const BESIDE: [&str; 3] = ["encapsulated", "key", "suite"];

/// The fewest characters of the `id` in a sealed request: as many as 128 random bits have in base64.
pub const MIN_ID: usize = 22;

/// The longest name of a suite, in bytes: none that there is has as many.
const MAX_SUITE: usize = 64;

/// Bytes of an answer's envelope in CBOR beside what is sealed: the tag, the map, the field's name, and the longest
/// head of a byte string.
const CBOR_AROUND: usize = 3 + 1 + 7 + 9;

/// Bytes of an answer's envelope in JSON beside the base64 of what is sealed: `{"sealed":""}`.
const JSON_AROUND: usize = 13;

/// A request that is sealed, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRequest {
    /// The encoding of its envelope, and of that of its answer: [`AnswerForm::Cbor`] or [`AnswerForm::Json`].
    pub form: AnswerForm,
    /// Ciphertext and tag.
    pub sealed: Bytes,
    /// HPKE's `enc`.
    pub encapsulated: Bytes,
    /// The fingerprint of the gateway's key.
    pub key: Digest,
    /// The suite's name.
    pub suite: String,
}

/// What was in a sealed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    /// What is asked; it has an `id`.
    pub request: Request,
    /// When it was sealed, in milliseconds since 1970.
    pub sealed_at: u64,
}

impl SealedRequest {
    /// As payload.
    pub fn encode(&self) -> Bytes {
        let text = |text: &str| Value::Text(text.to_owned().into());
        encoding(self.form).write(vec![
            (SEALED.into(), Value::Bytes(self.sealed.clone())),
            ("encapsulated".into(), Value::Bytes(self.encapsulated.clone())),
            ("key".into(), text(&self.key.to_string())),
            ("suite".into(), text(&self.suite)),
        ])
    }

    /// The refusal of one whose key the gateway does not have, or has no more.
    pub fn unknown_key(form: AnswerForm) -> Rejected {
        let message = "sealed to no key of this gateway";
        Rejected { form, id: None, error: WireError::new(ErrorKind::Unauthorized, message) }
    }

    /// The refusal of one that does not open. It does not say why: that would help who forges one.
    pub fn unopened(form: AnswerForm) -> Rejected {
        let error = WireError::new(ErrorKind::Malformed, "sealed: it cannot be opened");
        Rejected { form, id: None, error }
    }
}

/// Whether these fields are those of a sealed request, well-formed or not.
pub(crate) fn is_sealed(fields: &Fields<'_>) -> bool {
    fields.iter().any(|(name, _)| name == SEALED)
}

/// Takes the fields of a sealed request: all of them, each once, and no other.
pub(crate) fn take(
    encoding: Encoding,
    form: AnswerForm,
    fields: Fields<'_>,
) -> Result<SealedRequest, Rejected> {
    let unopened = || SealedRequest::unopened(form);
    let (mut sealed, mut encapsulated, mut key, mut suite) = (None, None, None, None);
    for (name, value) in fields {
        let is_first = match &*name {
            SEALED => encoding.bytes(SEALED, value).map(|bytes| sealed.replace(bytes).is_none()),
            "encapsulated" => encoding.bytes(&name, value).map(|bytes| encapsulated.replace(bytes).is_none()),
            "key" => {
                value.text("key").and_then(|text| text.parse()).map(|digest| key.replace(digest).is_none())
            }
            "suite" => value.text("suite").map(|text| suite.replace(text).is_none()),
            _ => return Err(unopened()),
        };
        if is_first != Ok(true) {
            return Err(unopened());
        }
    }
    match (sealed, encapsulated, key, suite) {
        (Some(sealed), Some(encapsulated), Some(key), Some(suite)) if suite.len() <= MAX_SUITE => {
            Ok(SealedRequest { form, sealed, encapsulated, key, suite })
        }
        _ => Err(unopened()),
    }
}

/// The payload of a sealed answer in this encoding.
pub fn encode_answer(form: AnswerForm, sealed: Vec<u8>) -> Bytes {
    encoding(form).write(vec![(SEALED.into(), Value::Bytes(sealed.into()))])
}

/// How many bytes may be sealed so that the payload has no more than `room` in this encoding.
pub fn answer_room(form: AnswerForm, room: usize) -> usize {
    match form {
        AnswerForm::Json => room.saturating_sub(JSON_AROUND) / 4 * 3,
        _ => room.saturating_sub(CBOR_AROUND),
    }
}

/// What is sealed in an answer; `None` where the payload is no sealed answer.
pub fn decode_answer(payload: &Bytes) -> Option<Bytes> {
    let encoding = if payload.trim_ascii_start().starts_with(b"{") { Encoding::Json } else { Encoding::Cbor };
    let mut fields = encoding.read(payload, |_| Shape::Scalar, 4).ok()?;
    match (fields.pop(), fields.pop()) {
        (Some((name, value)), None) if name == SEALED => encoding.bytes(SEALED, value).ok(),
        _ => None,
    }
}

fn encoding(form: AnswerForm) -> Encoding {
    if form == AnswerForm::Json { Encoding::Json } else { Encoding::Cbor }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{self, Bounds, Code, Form, Incoming, RequestKind};

    const FORMS: [AnswerForm; 2] = [AnswerForm::Json, AnswerForm::Cbor];

    fn sealed(form: AnswerForm) -> SealedRequest {
        SealedRequest {
            form,
            sealed: Bytes::from_static(b"sealed bytes"),
            encapsulated: Bytes::from_static(&[7; 32]),
            key: Digest::of(b"a key"),
            suite: "x25519-sha256-chacha20poly1305".to_owned(),
        }
    }

    fn read(payload: Bytes) -> Result<Incoming, Rejected> {
        request::read(RequestKind::LocalCode, payload, &[], &Bounds::NONE)
    }

    #[test]
    fn a_sealed_request_is_read_back() {
        for form in FORMS {
            assert_eq!(read(sealed(form).encode()), Ok(Incoming::Sealed(sealed(form))));
            let clear = request::decode(RequestKind::LocalCode, sealed(form).encode(), &[], &Bounds::NONE);
            assert_eq!(clear, Err(SealedRequest::unopened(form)), "where sealed ones are not opened");
        }
    }

    /// Without one of its fields, with one more, one twice, one of another type.
    #[test]
    fn what_is_not_exactly_a_sealed_request_is_none() {
        let text = String::from_utf8(sealed(AnswerForm::Json).encode().to_vec()).unwrap();
        for (from, to) in [
            ("\"suite\":\"x25519-sha256-chacha20poly1305\"", "\"id\":\"a\""),
            ("}", ",\"id\":\"a\"}"),
            ("}", ",\"key\":\"\"}"),
            ("}", ",\"sealed\":\"\"}"),
            ("\"key\":\"sha256:", "\"key\":\"sha512:"),
            ("\"suite\":\"", "\"suite\":7,\"program\":\""),
            ("\"encapsulated\":\"", "\"encapsulated\":\"?"),
        ] {
            let payload = text.replacen(from, to, 1);
            assert_ne!(payload, text);
            assert_eq!(read(payload.into()), Err(SealedRequest::unopened(AnswerForm::Json)), "{from} {to}");
        }
    }

    #[test]
    fn what_is_inside_has_an_id_a_time_and_an_envelope_for_its_answer() {
        let request = Request {
            id: Some("0123456789abcdefghijkl".try_into().unwrap()),
            args: vec!["5".to_owned()],
            ..Request::new(Code::Program("add".to_owned()))
        };
        for form in [Form::Json, Form::Cbor] {
            let request = Request { form, ..request.clone() };
            let (kind, payload) = request::encode_inner(&request, 7).unwrap();
            assert_eq!(
                request::decode_inner(kind, payload.clone(), &Bounds::NONE),
                Ok(Inner { request, sealed_at: 7 })
            );
            let clear = request::decode(kind, payload, &[], &Bounds::NONE).unwrap_err();
            assert_eq!(clear.error.message, "sealed_at: no such field");
        }
        let (_, payload) = request::encode_inner(&request, 7).unwrap();
        let text = String::from_utf8(payload.to_vec()).unwrap();
        for (from, to, problem) in [
            ("0123456789abcdefghijkl", "0123456789abcdefghijk", "id: "),
            ("\"id\":\"0123456789abcdefghijkl\",", "", "id: "),
            (",\"sealed_at\":7", "", "sealed_at: "),
            ("\"sealed_at\":7", "\"sealed_at\":\"7\"", "sealed_at: "),
            ("}", ",\"sealed_at\":8}", "sealed_at: "),
            ("}", ",\"reply\":\"stdout\"}", "reply: "),
            ("}", ",\"sealed\":\"\"}", "sealed: "),
            ("{", "5 7", "envelope: "),
        ] {
            let other = text.replacen(from, to, 1);
            assert_ne!(other, text);
            let rejected =
                request::decode_inner(RequestKind::LocalCode, other.into(), &Bounds::NONE).unwrap_err();
            assert!(rejected.error.message.starts_with(problem), "{problem} {rejected:?}");
            assert_ne!(rejected.form, AnswerForm::Line);
        }
    }

    #[test]
    fn a_sealed_answer_is_read_back_and_fits() {
        for form in FORMS {
            for length in 0..300 {
                let payload = encode_answer(form, vec![7; length]);
                assert_eq!(decode_answer(&payload), Some(vec![7; length].into()));
                assert!(answer_room(form, payload.len() + 9) >= length, "{form:?} {length}");
                // The least room is more than what is around it.
                let room = 24 + length;
                let fitted = encode_answer(form, vec![7; answer_room(form, room)]);
                assert!(fitted.len() <= room, "{form:?} {length}");
            }
            assert_eq!(answer_room(form, 0), 0);
        }
        for other in ["", "{}", "{\"sealed\":\"\",\"id\":\"\"}", "{\"other\":\"\"}", "5 7"] {
            assert_eq!(decode_answer(&Bytes::from(other)), None, "{other}");
        }
    }
}
