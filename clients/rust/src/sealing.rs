//! Requests that are sealed to a gateway's key, and the answers to them.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use offload_protocol::answer::{self, AnswerForm};
use offload_protocol::request::{self, RequestKind};
use offload_protocol::sealed::{self, SealedRequest};
use offload_seal::AnswerKey;

use crate::{
    Answer, Code, Error, ErrorKind, Form, Options, Outcome, PublicKey, ReplyForm, Request, RequestId,
    WireError,
};

/// Milliseconds from 1970 to 2025: a clock that shows less was never set.
const CLOCK_WAS_SET: u64 = 1_735_689_600_000;

/// Random bytes of an id that is made up.
const ID_BYTES: usize = 16;

/// A sealed request as it is published.
pub(crate) struct Sealed {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) answers: SealedAnswers,
}

/// What opens the answers to a sealed request.
pub(crate) struct SealedAnswers {
    key: AnswerKey,
    /// Whether it goes to another site: what its own gateway refuses, nobody has opened.
    is_routed: bool,
}

/// The request as it can be sealed: in an envelope, with an id that nobody can guess.
pub(crate) fn prepared(mut request: Request) -> Result<Request, Error> {
    if request.code == Code::DefaultProgram {
        return Err(Error::Request(
            "program: expected a name; the default program has no envelope to seal".to_owned(),
        ));
    }
    request.form = if request.form == Form::Cbor { Form::Cbor } else { Form::Json };
    request.reply = ReplyForm::Envelope;
    match &request.id {
        Some(id) if id.as_str().chars().count() < sealed::MIN_ID => {
            let least = sealed::MIN_ID;
            let problem = format!("id: expected {least} characters or more in a sealed request, at random");
            Err(Error::Request(problem))
        }
        Some(_) => Ok(request),
        None => {
            let random: [u8; ID_BYTES] = offload_seal::random().map_err(no_random)?;
            let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            request.id = RequestId::try_from(id.as_str()).ok();
            Ok(request)
        }
    }
}

/// Seals a request that was [`prepared`], on the topic of `kind` or by default on that where its code belongs.
pub(crate) fn seal(
    key: &PublicKey,
    request: &Request,
    kind: Option<RequestKind>,
    options: &Options,
) -> Result<Sealed, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    if now < CLOCK_WAS_SET {
        return Err(Error::Request(
            "the clock of this machine is not set: a sealed request says when".to_owned(),
        ));
    }
    let (own_kind, plaintext) =
        request::encode_inner(request, now).map_err(|error| Error::Request(error.message))?;
    let topic = options.request_topic(kind.unwrap_or(own_kind));
    let offload_seal::Sealed { encapsulated, ciphertext, answer_key } =
        key.seal(&plaintext, &topic).map_err(no_random)?;
    let sealed = SealedRequest {
        form: if request.form == Form::Cbor { AnswerForm::Cbor } else { AnswerForm::Json },
        sealed: ciphertext.into(),
        encapsulated: encapsulated.into(),
        key: key.fingerprint(),
        suite: key.suite().as_str().to_owned(),
    };
    let answers = SealedAnswers { key: answer_key, is_routed: options.gate.is_some() };
    Ok(Sealed { topic, payload: sealed.encode(), answers })
}

impl SealedAnswers {
    /// Opens an answer. In clear nothing counts but that nobody has opened the request, and that anybody on the way can
    /// have said.
    pub(crate) fn open(&self, topic: &str, payload: &Bytes) -> Result<Answer, Error> {
        match sealed::decode_answer(payload) {
            Some(sealed) => {
                let opened = self.key.open(&sealed, topic);
                let opened = opened.map_err(|_| unsealed("it is sealed to another request"))?;
                answer::decode(form(&opened), opened.into(), &[]).map_err(Error::Answer)
            }
            None => self.refusal(payload).ok_or_else(|| unsealed("it is in clear")),
        }
    }

    fn refusal(&self, payload: &Bytes) -> Option<Answer> {
        use ErrorKind::{Busy, Internal, Malformed, TooLarge, Unauthorized, Unreachable};
        let answer = answer::decode(form(payload), payload.clone(), &[]).ok()?;
        let is_refusal = match &answer.outcome {
            Outcome::Failed(WireError { kind: Unauthorized | Malformed, .. }) => true,
            Outcome::Failed(WireError { kind: Busy | Internal | TooLarge | Unreachable, .. }) => {
                self.is_routed
            }
            _ => false,
        };
        is_refusal.then_some(answer)
    }
}

fn unsealed(problem: &str) -> Error {
    Error::Answer(WireError::malformed("sealed", problem))
}

fn form(payload: &[u8]) -> AnswerForm {
    if payload.trim_ascii_start().starts_with(b"{") { AnswerForm::Json } else { AnswerForm::Cbor }
}

fn no_random(error: offload_seal::SealError) -> Error {
    Error::Request(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_made_up_is_random_and_a_short_one_is_refused() {
        let request = Request::new(Code::Program("add".to_owned()));
        let id = || prepared(request.clone()).unwrap().id.unwrap();
        assert_ne!(id(), id());
        assert_eq!(id().as_str().len(), 2 * ID_BYTES);
        let with = |id: &str| prepared(Request { id: Some(id.try_into().unwrap()), ..request.clone() });
        assert!(with(&"a".repeat(21)).is_err() && with(&"a".repeat(22)).is_ok());
        assert!(prepared(Request::new(Code::DefaultProgram)).is_err());
    }

    #[test]
    fn an_answer_in_clear_says_nothing_but_that_it_was_not_opened() {
        let key = AnswerKey::new(&[7; 32]);
        let answers = |key: &AnswerKey, is_routed| SealedAnswers { key: key.clone(), is_routed };
        let open = |key: &AnswerKey, topic: &str, payload: &Bytes| answers(key, false).open(topic, payload);
        for (outcome, is_taken, is_routed) in [
            (Outcome::Exited(0), false, true),
            (Outcome::Failed(WireError::new(ErrorKind::Busy, "")), false, false),
            (Outcome::Failed(WireError::new(ErrorKind::Unreachable, "")), true, true),
            (Outcome::Failed(WireError::new(ErrorKind::Malformed, "")), true, false),
            (Outcome::Failed(WireError::new(ErrorKind::Unauthorized, "")), true, false),
        ] {
            let answer = Answer { outcome, ..Answer::failed(None, WireError::new(ErrorKind::Busy, "")) };
            let (payload, _) = answer::encode(&answer, AnswerForm::Json);
            let opened = answers(&key, is_routed).open("result/d", &payload);
            assert_eq!(opened.is_ok(), is_taken, "{answer:?}");
            let sealed = sealed::encode_answer(AnswerForm::Json, key.seal(&payload, "result/d").unwrap());
            assert_eq!(open(&key, "result/d", &sealed).unwrap(), answer);
            assert!(open(&key, "result/e", &sealed).is_err());
            assert!(open(&AnswerKey::new(&[8; 32]), "result/d", &sealed).is_err());
        }
    }
}
