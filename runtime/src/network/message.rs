//! What routers send each other: a request, and its answer. The master carries these bytes and does not read them.

use crate::durability::encoding::{Reader, Writer};
use bytes::Bytes;
use offload_protocol::UserProperties;
use offload_protocol::answer::{self, Answer, AnswerForm};
use offload_protocol::sealed;
use std::time::Duration;

/// The version of these bytes. Another one is not read.
const VERSION: u8 = 1;

/// Bytes of the tag with the version in front: the beginning of each message.
pub const TAG_BYTES: usize = 17;

/// How often a request may be handed on from one gateway to the next.
pub const MAX_HOPS: u8 = 8;

/// A request on its way to another gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks, as the gateway that sends it knows the client; `None` for one without a name.
    pub principal: Option<String>,
    /// Whether the client came over WebSocket.
    pub web: bool,
    /// The gates that have handed it on before the one that sends it.
    pub path: Vec<String>,
    /// The topic as the client has published it: what is sealed opens on no other.
    pub topic: String,
    /// Where the answer is delivered at the client's own site, which a sealed answer is bound to.
    pub answer_topic: String,
    /// Bytes that the payload of a sealed answer may have there, if anything is known of that: nobody on the way can
    /// make it shorter.
    pub answer_room: Option<u64>,
    /// The user properties as they came.
    pub user_properties: UserProperties,
    /// The payload as it came.
    pub payload: Bytes,
}

/// What tells a request from all others of the gate that sends it: the start of that gateway, and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// Drawn at random when the gateway starts.
    pub instance: u64,
    /// Counted from there.
    pub number: u64,
}

impl Request {
    /// The request as bytes, for whom it is new: it came this long ago, by the clocks of all that have had it.
    pub fn encode(&self, tag: Tag, age: Duration) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.byte(VERSION).number(tag.instance).number(tag.number);
        writer.number(age.as_millis().try_into().unwrap_or(u64::MAX));
        writer.optional(self.principal.as_ref().map(String::as_bytes)).flag(self.web);
        writer.number(self.path.len() as u64);
        self.path.iter().for_each(|gate| {
            writer.text(gate);
        });
        writer.text(&self.topic).text(&self.answer_topic).optional_number(self.answer_room);
        writer.number(self.user_properties.len() as u64);
        for (name, value) in &self.user_properties {
            writer.text(name).text(value);
        }
        writer.bytes(&self.payload);
        writer.finish()
    }

    /// From these bytes; `None` where they are no request of this version.
    pub fn decode(bytes: Bytes) -> Option<(Tag, Duration, Request)> {
        let mut reader = Reader::new(bytes);
        let tag = read_tag(&mut reader)?;
        let age = Duration::from_millis(reader.number()?);
        let (principal, web) = (reader.optional_text()?, reader.flag()?);
        let path = (0..reader.number()?).map(|_| reader.text()).collect::<Option<Vec<_>>>()?;
        let (topic, answer_topic) = (reader.text()?, reader.text()?);
        let answer_room = reader.optional_number()?;
        let count = reader.number()?;
        let user_properties =
            (0..count).map(|_| Some((reader.text()?, reader.text()?))).collect::<Option<Vec<_>>>()?;
        let payload = reader.bytes()?;
        reader.end()?;
        let request =
            Request { principal, web, path, topic, answer_topic, answer_room, user_properties, payload };
        Some((tag, age, request))
    }

    /// The tag alone, of a request that comes back.
    pub fn tag(bytes: Bytes) -> Option<Tag> {
        read_tag(&mut Reader::new(bytes))
    }

    /// Whether it has been handed on too often: by whoever has sent it, too.
    pub fn has_gone_too_far(&self) -> bool {
        self.path.len() >= usize::from(MAX_HOPS)
    }

    /// Bytes that it holds in memory.
    pub fn weight(&self) -> usize {
        let properties = self.user_properties.iter().map(|(name, value)| name.len() + value.len());
        self.payload.len() + self.topic.len() + properties.sum::<usize>()
    }
}

/// An ordinary message of another site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The gates that have had it, the one that it is from first.
    pub path: Vec<String>,
    /// The topic at its own site.
    pub topic: String,
    /// Whether it is retained.
    pub retain: bool,
    /// As it came.
    pub payload: Bytes,
}

impl Exported {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.byte(VERSION).number(self.path.len() as u64);
        self.path.iter().for_each(|gate| {
            writer.text(gate);
        });
        writer.text(&self.topic).flag(self.retain).bytes(&self.payload);
        writer.finish().into()
    }

    /// From these bytes; `None` where they are none of this version.
    pub fn decode(bytes: Bytes) -> Option<Exported> {
        let mut reader = Reader::new(bytes);
        (reader.byte()? == VERSION).then_some(())?;
        let path = (0..reader.number()?).map(|_| reader.text()).collect::<Option<Vec<_>>>()?;
        let copy = Exported { path, topic: reader.text()?, retain: reader.flag()?, payload: reader.bytes()? };
        reader.end()?;
        Some(copy)
    }
}

/// What another site answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is whole: whoever has asked gets it in its own form.
    Clear(Answer),
    /// What only whoever has asked can open.
    Sealed(Bytes),
}

/// Bytes of an answer in which nothing is sealed yet.
const AROUND_SEALED: usize = 64;

/// How many bytes may be sealed so that the answer has no more than `room`.
pub fn sealed_room(room: usize) -> usize {
    room.saturating_sub(AROUND_SEALED)
}

/// The answer to the request of this tag, as bytes.
pub fn encode_answer(tag: Tag, reply: &Reply) -> Bytes {
    let envelope = match reply {
        Reply::Clear(answer) => answer::encode(answer, AnswerForm::Cbor).0,
        Reply::Sealed(sealed) => sealed::encode_answer(AnswerForm::Cbor, sealed.to_vec()),
    };
    let mut writer = Writer::default();
    writer.byte(VERSION).number(tag.instance).number(tag.number).bytes(&envelope);
    writer.finish().into()
}

/// From these bytes; `None` where they are no answer of this version.
pub fn decode_answer(bytes: Bytes) -> Option<(Tag, Reply)> {
    let mut reader = Reader::new(bytes);
    let tag = read_tag(&mut reader)?;
    let envelope = reader.bytes()?;
    reader.end()?;
    let reply = match sealed::decode_answer(&envelope) {
        Some(sealed) => Reply::Sealed(sealed),
        None => Reply::Clear(answer::decode(AnswerForm::Cbor, envelope, &[]).ok()?),
    };
    Some((tag, reply))
}

/// Tags alone, as bytes: what routers tell each other of requests. One is as the beginning of its request.
pub fn encode_tags(tags: &[Tag]) -> Bytes {
    let mut writer = Writer::default();
    writer.byte(VERSION);
    for tag in tags {
        writer.number(tag.instance).number(tag.number);
    }
    writer.finish().into()
}

/// From these bytes; `None` where they are none of this version.
pub fn decode_tags(bytes: Bytes) -> Option<Vec<Tag>> {
    let count = bytes.len().checked_sub(1)? / (TAG_BYTES - 1);
    let mut reader = Reader::new(bytes);
    (reader.byte()? == VERSION).then_some(())?;
    let tag = |reader: &mut Reader| Some(Tag { instance: reader.number()?, number: reader.number()? });
    let tags = (0..count).map(|_| tag(&mut reader)).collect::<Option<Vec<_>>>()?;
    reader.end()?;
    Some(tags)
}

/// A part of the stream of the request of this tag, which begins at this byte of stdout.
pub fn encode_part(tag: Tag, offset: u64, part: &[u8]) -> Bytes {
    let mut writer = Writer::default();
    writer.byte(VERSION).number(tag.instance).number(tag.number).number(offset).bytes(part);
    writer.finish().into()
}

/// From these bytes; `None` where they are no part of this version.
pub fn decode_part(bytes: Bytes) -> Option<(Tag, u64, Bytes)> {
    let mut reader = Reader::new(bytes);
    let (tag, offset, part) = (read_tag(&mut reader)?, reader.number()?, reader.bytes()?);
    reader.end()?;
    Some((tag, offset, part))
}

fn read_tag(reader: &mut Reader) -> Option<Tag> {
    (reader.byte()? == VERSION).then_some(())?;
    Some(Tag { instance: reader.number()?, number: reader.number()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use offload_protocol::error::{ErrorKind, WireError};

    const TAG: Tag = Tag { instance: 7, number: 9 };

    #[test]
    fn a_request_comes_over_whole_or_not_at_all() {
        let request = Request {
            principal: Some("plc".to_owned()),
            web: true,
            path: vec!["west".to_owned()],
            topic: "net/north/localCode/plc".to_owned(),
            answer_topic: "result/plc/of-north".to_owned(),
            answer_room: Some(900),
            user_properties: vec![("arg".to_owned(), "5".to_owned())],
            payload: Bytes::from_static(b"5 7"),
        };
        let age = Duration::from_millis(1_500);
        let bytes = Bytes::from(request.encode(TAG, age));
        assert_eq!(Request::decode(bytes.clone()), Some((TAG, age, request)));
        assert_eq!(Request::tag(bytes.clone()), Some(TAG));
        for end in 0..bytes.len() {
            assert_eq!(Request::decode(bytes.slice(..end)), None, "{end}");
        }
    }

    #[test]
    fn a_request_that_was_handed_on_too_often_ends() {
        let after = |hops: usize| Request {
            principal: None,
            web: false,
            path: vec!["g".to_owned(); hops - 1],
            topic: "localCode/plc".to_owned(),
            answer_topic: "result/plc".to_owned(),
            answer_room: None,
            user_properties: Vec::new(),
            payload: Bytes::new(),
        };
        assert!(!after(8).has_gone_too_far() && after(9).has_gone_too_far());
    }

    #[test]
    fn a_copy_comes_over_whole_or_not_at_all() {
        let path = vec!["north".to_owned()];
        let copy =
            Exported { path, topic: "a/b".to_owned(), retain: true, payload: Bytes::from_static(b"1") };
        let bytes = copy.encode();
        assert_eq!(Exported::decode(bytes.clone()), Some(copy));
        assert_eq!(Exported::decode(bytes.slice(..bytes.len() - 1)), None);
    }

    #[test]
    fn a_part_comes_over_whole_or_not_at_all() {
        let bytes = encode_part(TAG, 4_096, b"a line\n");
        assert_eq!(decode_part(bytes.clone()), Some((TAG, 4_096, Bytes::from_static(b"a line\n"))));
        assert_eq!(decode_part(bytes.slice(..bytes.len() - 1)), None);
    }

    #[test]
    fn tags_come_over() {
        let tags = [TAG, Tag { instance: 7, number: 10 }];
        let bytes = encode_tags(&tags);
        assert_eq!(decode_tags(bytes.clone()).as_deref(), Some(&tags[..]));
        assert_eq!(Request::tag(encode_tags(&[TAG])), Some(TAG), "one is the beginning of its request");
        assert_eq!(decode_tags(encode_tags(&[])).as_deref(), Some(&[][..]));
        assert_eq!(decode_tags(bytes.slice(..bytes.len() - 1)), None);
        assert_eq!(decode_tags(Bytes::new()), None);
    }

    #[test]
    fn an_answer_comes_over_as_it_is() {
        let answer = Answer {
            stdout: Bytes::from_static(b"\xff1"),
            stderr: Bytes::from_static(b"e"),
            fuel: 3,
            run_us: 4,
            queue_us: 5,
            ..Answer::failed(None, WireError::new(ErrorKind::Trap, "unreachable"))
        };
        for reply in [Reply::Clear(answer), Reply::Sealed(vec![7; 300].into())] {
            let bytes = encode_answer(TAG, &reply);
            assert_eq!(decode_answer(bytes.clone()), Some((TAG, reply)));
            assert_eq!(decode_answer(bytes.slice(..bytes.len() - 1)), None);
            assert!(sealed_room(bytes.len()) < 300);
        }
    }
}
