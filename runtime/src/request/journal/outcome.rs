//! The outcome of a request with an `id`: durable before anybody gets it, and known to the next process.

use super::{RequestJournal, is_short};
use crate::deduplication::{Key, Remembered, ReplyTo};
use crate::durability::encoding::{Reader, Writer};
use crate::durability::kind;
use crate::durability::moment::Moment;
use crate::fingerprint::Fingerprint;
use crate::keys::now_ms;
use crate::log_sampling::sampled;
use bytes::Bytes;
use offload_journal::{RecordId, Refused};
use offload_protocol::answer::{Answer, Outcome};
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::RequestId;
use offload_seal::AnswerKey;
use std::sync::Arc;

/// The version of these bytes. Another one is not read.
const VERSION: u8 = 1;

/// What is authenticated beside the outcome of a sealed request.
const SEALED_CONTEXT: &str = "outcome";

impl RequestJournal {
    /// Makes an outcome durable. `then` gets the record that has it, `None`
    /// where there is no room for one, or an error where it may not be durable; it is called on this thread or on
    /// another.
    pub fn keep_outcome(
        self: &Arc<RequestJournal>,
        outcome: Encoded,
        then: impl FnOnce(Result<Option<RecordId>, Lost>) + Send + 'static,
    ) {
        let Encoded { kind, head, stdout } = outcome;
        if is_short(&head, &stdout) {
            return self.append_outcome(kind, &head, &stdout, then);
        }
        let journal = self.clone();
        self.runtime.spawn_blocking(move || journal.append_outcome(kind, &head, &stdout, then));
    }

    fn append_outcome(
        &self,
        kind: u8,
        head: &[u8],
        stdout: &[u8],
        then: impl FnOnce(Result<Option<RecordId>, Lost>) + Send + 'static,
    ) {
        let mut batch = self.journal.batch();
        let id = match self.put(&mut batch, kind, head, stdout) {
            Ok(id) => id,
            Err(refused) => return then(without_record(&refused)),
        };
        // Whichever comes first has it: the completion, or the refusal of the batch.
        let then = Arc::new(std::sync::Mutex::new(Some(then)));
        let take = |then: &std::sync::Mutex<Option<_>>| then.lock().expect("nothing panics in it").take();
        let on_durable = then.clone();
        let appended = self.journal.append(batch, move |result| {
            if let Some(then) = take(&on_durable) {
                then(result.map(|()| Some(id)).map_err(|_| Lost));
            }
        });
        if let Err(refused) = appended
            && let Some(then) = take(&then)
        {
            then(without_record(&refused));
        }
    }
}

/// The outcome may not be durable: nobody is to get it from this process.
#[derive(Debug)]
pub struct Lost;

/// A full journal costs the outcome its durability, not its request the answer.
fn without_record(refused: &Refused) -> Result<Option<RecordId>, Lost> {
    match refused {
        Refused::Full | Refused::TooLarge { .. } => {
            sampled!(
                warn,
                %refused,
                "an outcome is remembered until the gateway ends, and no longer: raise journal.log, journal.payloads \
                 or journal.records, or lower idempotency.bytes"
            );
            Ok(None)
        }
        Refused::Failed(_) | Refused::Closed => Err(Lost),
    }
}

/// An outcome that is to be remembered.
pub struct NewOutcome<'a> {
    /// Of this request.
    pub key: &'a Key,
    /// What tells it from others of its name.
    pub fingerprint: &'a Fingerprint,
    /// Who pays for it.
    pub account: &'a str,
    /// What it says.
    pub answer: &'a Answer,
    /// Until when it is remembered, in milliseconds since 1970, if the request was sealed.
    pub sealed_until: Option<u64>,
}

impl NewOutcome<'_> {
    /// As bytes; those of a sealed request are sealed with `secret`.
    pub fn encode(&self, secret: Option<&AnswerKey>) -> Encoded {
        let NewOutcome { key, fingerprint, account, answer, sealed_until } = self;
        let mut head = Writer::default();
        head.byte(VERSION);
        Moment::now().encode(&mut head);
        head.optional(key.principal.as_ref().map(|principal| principal.as_bytes()));
        match &key.reply_to {
            ReplyTo::Id(id) => head.byte(0).text(id),
            ReplyTo::Connection(client_id) => head.byte(1).text(client_id),
            ReplyTo::Sealed => head.byte(2),
        };
        head.text(key.id.as_str()).bytes(&fingerprint.0).text(account);
        match &answer.outcome {
            Outcome::Exited(code) => head.byte(0).number(*code as u32 as u64),
            Outcome::Failed(error) => head.byte(1).text(error.kind.as_str()).text(&error.message),
        };
        head.number(answer.fuel).number(answer.run_us).number(answer.queue_us).bytes(&answer.stderr);
        head.number(answer.stdout.len() as u64);
        let clear = Encoded { kind: kind::OUTCOME, head: head.finish(), stdout: answer.stdout.clone() };
        match sealed_until.zip(secret) {
            Some((until, secret)) => clear.sealed(until, secret),
            None => clear,
        }
    }
}

/// An outcome as the journal keeps it.
pub struct Encoded {
    kind: u8,
    /// All but stdout, which follows.
    head: Vec<u8>,
    stdout: Bytes,
}

impl Encoded {
    /// Bytes of it.
    pub fn size(&self) -> usize {
        self.head.len() + self.stdout.len()
    }

    /// All of it.
    pub fn into_bytes(self) -> Bytes {
        [&self.head[..], &self.stdout].concat().into()
    }

    /// Everything but until when it is remembered is sealed. Without random bytes of the system nothing is kept.
    fn sealed(self, until: u64, secret: &AnswerKey) -> Encoded {
        let sealed =
            secret.seal(&[&self.head[..], &self.stdout].concat(), SEALED_CONTEXT).unwrap_or_default();
        let mut head = Writer::default();
        head.byte(VERSION).number(until).number(sealed.len() as u64);
        Encoded { kind: kind::SEALED_OUTCOME, head: head.finish(), stdout: sealed.into() }
    }
}

/// Whose outcome a record has, for people.
pub fn describe(bytes: Bytes) -> Option<String> {
    let (key, moment) = decode_key(&mut Reader::new(bytes))?;
    let age = moment.age(&Moment::now()).as_secs();
    let (ReplyTo::Id(to) | ReplyTo::Connection(to)) = &key.reply_to else { return None };
    let who = key.principal.as_ref().map_or_else(String::new, |principal| format!(" of `{principal}`"));
    Some(format!("of request `{}`{who} answered to `{to}`, {age} s ago", key.id))
}

/// Of a sealed request's record nothing can be told but until when it counts.
pub fn describe_sealed(bytes: Bytes) -> Option<String> {
    let (until, _) = split_sealed(&mut Reader::new(bytes))?;
    Some(format!("of a sealed request, remembered for {} s more", until.saturating_sub(now_ms()) / 1000))
}

/// From the whole record of a sealed request: what it says. `None` where it is none of this version and key.
pub fn decode_sealed(bytes: Bytes, id: RecordId, secret: &AnswerKey) -> Option<Remembered> {
    let mut reader = Reader::new(bytes);
    let (until, _) = split_sealed(&mut reader)?;
    let sealed = reader.rest();
    let (remembered, _) = decode(secret.open(&sealed, SEALED_CONTEXT).ok()?.into(), id)?;
    Some(Remembered { sealed_until: Some(until), ..remembered })
}

fn split_sealed(reader: &mut Reader) -> Option<(u64, u64)> {
    if reader.byte()? != VERSION {
        return None;
    }
    Some((reader.number()?, reader.number()?))
}

fn decode_key(reader: &mut Reader) -> Option<(Key, Moment)> {
    if reader.byte()? != VERSION {
        return None;
    }
    let moment = Moment::decode(reader)?;
    let principal = reader.optional_text()?.map(Into::into);
    let reply_to = match reader.byte()? {
        0 => ReplyTo::Id(reader.text()?.into()),
        1 => ReplyTo::Connection(reader.text()?.into()),
        2 => ReplyTo::Sealed,
        _ => return None,
    };
    let id = RequestId::try_from(&*reader.text()?).ok()?;
    Some((Key { principal, reply_to, id }, moment))
}

/// From the whole record, `id`: what it says, and when it was. `None` where it is none of this version.
pub fn decode(bytes: Bytes, id: RecordId) -> Option<(Remembered, Moment)> {
    let mut reader = Reader::new(bytes);
    let (key, moment) = decode_key(&mut reader)?;
    let fingerprint = Fingerprint(reader.bytes()?[..].try_into().ok()?);
    let account = reader.text()?.into();
    let outcome = match reader.byte()? {
        0 => Outcome::Exited(u32::try_from(reader.number()?).ok()? as i32),
        1 => {
            let kind: ErrorKind = reader.text()?.parse().ok()?;
            Outcome::Failed(WireError::new(kind, reader.text()?))
        }
        _ => return None,
    };
    let (fuel, run_us, queue_us) = (reader.number()?, reader.number()?, reader.number()?);
    let (stderr, stdout) = (reader.bytes()?, reader.bytes()?);
    reader.end()?;
    let answer = Answer {
        id: Some(key.id.clone()),
        outcome,
        stdout,
        content_range: None,
        stderr,
        fuel,
        run_us,
        queue_us,
    };
    Some((Remembered { key, fingerprint, account, answer, record: id, sealed_until: None }, moment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Fingerprinter;

    #[test]
    fn an_outcome_comes_back_whole_or_not_at_all() {
        let failed = Outcome::Failed(WireError::new(ErrorKind::Trap, "unreachable in `f`"));
        for (principal, reply_to, outcome) in [
            (None, ReplyTo::Id("d".into()), Outcome::Exited(0)),
            (Some("anna".into()), ReplyTo::Connection("c".into()), Outcome::Exited(-1)),
            (None, ReplyTo::Id("".into()), failed),
        ] {
            let key = Key { principal, reply_to, id: RequestId::try_from("7").unwrap() };
            let fingerprint = Fingerprinter::new("wasm").finish();
            let answer = Answer {
                id: Some(key.id.clone()),
                outcome,
                stdout: Bytes::from_static(b"out"),
                content_range: None,
                stderr: Bytes::from_static(b"err"),
                fuel: 1,
                run_us: 2,
                queue_us: 3,
            };
            let (account, answer) = ("user anna", &answer);
            let new =
                NewOutcome { key: &key, fingerprint: &fingerprint, account, answer, sealed_until: None };
            let Encoded { head, stdout, .. } = new.encode(None);
            let bytes = Bytes::from([&head[..], &stdout].concat());
            let (found, _) = decode(bytes.clone(), RecordId(9)).unwrap();
            assert_eq!((&found.key, &found.fingerprint, &found.answer), (&key, &fingerprint, answer));
            assert_eq!((&*found.account, found.record), ("user anna", RecordId(9)));
            for end in 0..bytes.len() {
                assert!(decode(bytes.slice(..end), RecordId(9)).is_none(), "{end}");
            }
        }
    }

    #[test]
    fn the_outcome_of_a_sealed_request_is_read_with_its_key_alone() {
        let key =
            Key { principal: None, reply_to: ReplyTo::Sealed, id: RequestId::try_from("an-id").unwrap() };
        let fingerprint = Fingerprinter::new("wasm").finish();
        let ran = Answer {
            stdout: "content".into(),
            stderr: "content".into(),
            ..Answer::failed(None, WireError::new(ErrorKind::Busy, ""))
        };
        let answer = Answer { id: Some(key.id.clone()), outcome: Outcome::Exited(3), ..ran };
        let (account, secret) = ("user anna", AnswerKey::new(&[7; 32]));
        let sealed_until = Some(7);
        let new = NewOutcome { key: &key, fingerprint: &fingerprint, account, answer: &answer, sealed_until };
        let Encoded { kind, head, stdout } = new.encode(Some(&secret));
        assert_eq!(kind, kind::SEALED_OUTCOME);
        let bytes = Bytes::from([&head[..], &stdout].concat());
        for word in [&b"content"[..], b"an-id", b"anna"] {
            assert!(!bytes.windows(word.len()).any(|window| window == word));
        }
        let found = decode_sealed(bytes.clone(), RecordId(9), &secret).unwrap();
        assert_eq!((found.key, found.answer, found.sealed_until), (key, answer, Some(7)));
        assert!(decode_sealed(bytes.clone(), RecordId(9), &AnswerKey::new(&[8; 32])).is_none());
        for end in 0..bytes.len() {
            assert!(decode_sealed(bytes.slice(..end), RecordId(9), &secret).is_none(), "{end}");
        }
        assert_eq!(describe_sealed(bytes).unwrap(), "of a sealed request, remembered for 0 s more");
    }
}
