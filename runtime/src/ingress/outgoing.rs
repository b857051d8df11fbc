//! An answer on its way out, as plain data: a journal can keep it, a router can carry it, and any ingress can publish
//! it.

use bytes::Bytes;
use offload_protocol::UserProperties;
use offload_protocol::answer::{self, Answer, AnswerForm};
use offload_protocol::sealed;
use offload_seal::AnswerKey;

/// Where an answer goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyAddress {
    /// The topic.
    pub topic: String,
    /// Correlation Data of the request, returned.
    pub correlation_data: Option<Bytes>,
    /// Bytes that the payload may have, where the configuration limits the answers on this topic.
    pub max_payload: Option<usize>,
}

/// An answer, and all that is needed to publish it. How it is encoded depends on what its receiver takes, so that an
/// ingress asks for its bytes when it knows the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where it goes.
    pub address: ReplyAddress,
    /// The form that the request asked for.
    pub form: AnswerForm,
    /// What it says.
    pub answer: Answer,
    /// How it is sealed; none in clear.
    pub seal: Option<Seal>,
}

/// How an answer is sealed: whatever is between the gateway and the asker sees nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The encoding of the request's outer envelope.
    pub form: AnswerForm,
    /// What it is sealed with.
    pub with: SealWith,
}

/// What an answer is sealed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealWith {
    /// The key that the request has left, which its asker has too.
    Key(AnswerKey),
    /// Another site has sealed it: this is all that is known of it.
    Done(Bytes),
}

/// Payload and user properties of an answer in its encoded form.
pub type Encoded = (Bytes, UserProperties);

impl Outgoing {
    /// The payload, and the user properties for an MQTT 5 receiver, in `room` bytes of both together as MQTT 5 counts
    /// them; without `room` for a receiver that takes any size. An answer that is too large is replaced by an error
    /// that fits ([`answer::encode_within`]). `None` if not even that fits.
    pub fn encode(&self, room: Option<usize>) -> Option<Encoded> {
        let Outgoing { address: ReplyAddress { max_payload, .. }, form, answer, seal } = self;
        if let Some(seal) = seal {
            let room = [room, *max_payload].into_iter().flatten().min();
            let room = room.map(|room| sealed::answer_room(seal.form, room));
            return Some((sealed::encode_answer(seal.form, self.seal(seal, room)?), UserProperties::new()));
        }
        match (room, *max_payload) {
            (Some(room), max) => {
                let room = max.map_or(room, |max| max.min(room));
                answer::encode_within(answer, *form, room, true)
            }
            (None, max) => {
                let encoded = answer::encode(answer, *form);
                match max {
                    // Whom this limit is for has MQTT 3.1.1, which knows no properties.
                    Some(max) if encoded.0.len() > max => answer::encode_within(answer, *form, max, false),
                    _ => Some(encoded),
                }
            }
        }
    }

    /// What a sealed answer has in its one field, in `room` bytes, sealed afresh. `None` where no envelope fits, or the
    /// system has no random bytes.
    pub fn seal(&self, seal: &Seal, room: Option<usize>) -> Option<Vec<u8>> {
        let Outgoing { address, form, answer, .. } = self;
        let key = match &seal.with {
            SealWith::Key(key) => key,
            SealWith::Done(sealed) => {
                let fits = room.is_none_or(|room| sealed.len() <= room);
                return fits.then(|| sealed.to_vec());
            }
        };
        let plaintext = match room {
            None => answer::encode(answer, *form).0,
            Some(room) => {
                let room = room.saturating_sub(AnswerKey::OVERHEAD);
                let (plaintext, _) = answer::encode_within(answer, *form, room, false)?;
                // A bare error line is no answer envelope.
                Some(plaintext).filter(|plaintext| !plaintext.starts_with(b"error: "))?
            }
        };
        key.seal(&plaintext, &address.topic).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offload_protocol::answer::Outcome;

    fn outgoing(stdout: usize, max_payload: Option<usize>) -> Outgoing {
        let answer = Answer {
            id: None,
            outcome: Outcome::Exited(0),
            stdout: vec![b'x'; stdout].into(),
            content_range: None,
            stderr: Bytes::new(),
            fuel: 1,
            run_us: 2,
            queue_us: 3,
        };
        let address = ReplyAddress { topic: "result/a".to_owned(), correlation_data: None, max_payload };
        Outgoing { address, form: AnswerForm::Line, answer, seal: None }
    }

    #[test]
    fn an_answer_is_fitted_to_what_its_receiver_and_the_configuration_take() {
        // Bytes of stdout, room of the receiver, limit of the configuration: what the payload begins with, and whether
        // it has properties.
        for (stdout, room, max, expected) in [
            (500, None, None, Some(("xxx", true))),
            (500, Some(1000), None, Some(("xxx", true))),
            (500, None, Some(500), Some(("xxx", true))),
            (500, None, Some(499), Some(("error: output: ", false))),
            (500, Some(1000), Some(300), Some(("error: output: ", true))),
            (500, Some(300), Some(1000), Some(("error: output: ", true))),
            (500, Some(30), None, Some(("error: output", false))),
            (500, Some(5), None, None),
            (500, None, Some(5), None),
        ] {
            let encoded = outgoing(stdout, max).encode(room);
            let case = format!("{stdout} {room:?} {max:?}: {encoded:?}");
            let begins = encoded.map(|(payload, properties)| {
                let begins = expected.is_some_and(|(begin, _)| payload.starts_with(begin.as_bytes()));
                (begins, !properties.is_empty())
            });
            assert_eq!(begins, expected.map(|(_, has_properties)| (true, has_properties)), "{case}");
        }
    }

    /// Whatever room there is, it is sealed, on its topic, and never with the same nonce.
    #[test]
    fn a_sealed_answer_fits_too() {
        let key = AnswerKey::new(&[7; 32]);
        for form in [AnswerForm::Json, AnswerForm::Cbor] {
            let seal = Some(Seal { form, with: SealWith::Key(key.clone()) });
            for (stdout, max_payload) in [(500, None), (500, Some(2000)), (500, Some(400))] {
                let sealed = Outgoing { form, seal: seal.clone(), ..outgoing(stdout, max_payload) };
                let (payload, user_properties) = sealed.encode(None).unwrap();
                assert!(user_properties.is_empty());
                assert!(max_payload.is_none_or(|max| payload.len() <= max));
                assert_ne!(sealed.encode(None).unwrap().0, payload);
                let opened = key.open(&sealed::decode_answer(&payload).unwrap(), "result/a").unwrap();
                let read = answer::decode(form, opened.into(), &[]).unwrap();
                assert_eq!(read.stdout.len() == 500, max_payload != Some(400));
            }
            // What another site has sealed stays as it is.
            let done = Some(Seal { form, with: SealWith::Done("sealed".into()) });
            let done = Outgoing { form, seal: done, ..outgoing(0, None) };
            let (payload, _) = done.encode(None).unwrap();
            assert_eq!(sealed::decode_answer(&payload).unwrap(), "sealed");
            assert_eq!(done.encode(Some(10)), None);
            let sealed = Outgoing { form, seal, ..outgoing(500, None) };
            assert_eq!(sealed.encode(Some(60)), None);
        }
    }
}
