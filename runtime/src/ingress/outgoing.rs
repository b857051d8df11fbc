//! An answer on its way out, as plain data: a journal can keep it, a router can carry it, and any ingress can publish
//! it.

use bytes::Bytes;
use offload_protocol::UserProperties;
use offload_protocol::answer::{self, Answer, AnswerForm};

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
}

/// Payload and user properties of an answer in its encoded form.
pub type Encoded = (Bytes, UserProperties);

impl Outgoing {
    /// The payload, and the user properties for an MQTT 5 receiver, in `room` bytes of both together as MQTT 5 counts
    /// them; without `room` for a receiver that takes any size. An answer that is too large is replaced by an error
    /// that fits ([`answer::encode_within`]). `None` if not even that fits.
    pub fn encode(&self, room: Option<usize>) -> Option<Encoded> {
        let Outgoing { address: ReplyAddress { max_payload, .. }, form, answer } = self;
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
        Outgoing { address, form: AnswerForm::Line, answer }
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
}
