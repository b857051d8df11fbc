//! `[answers]`: where answers may go and how large they may be.

use super::table::table;
use super::{ByteSize, Refusal, TopicFilter};

table! {
    /// Where answers may go, and how large they may be.
    pub struct Answers {
        /// Topics, besides `result/<id>` and below, that a request may name as its Response Topic (MQTT 5). Request
        /// topics and `gateway/` are never allowed.
        pub response_topics: Vec<TopicFilter> = Vec::new();
    }
    tables {
        /// `[[answers.max]]`: largest answers by topic; the first that matches counts.
        pub max: Vec<MaxAnswer>,
    }
}

table! {
    /// Largest answer on some topics, for clients that cannot say it themselves (MQTT 3.1.1); a longer one is
    /// replaced by an error that fits. The first entry that matches counts.
    pub struct MaxAnswer {
        /// Topics of answers.
        pub topic: TopicFilter = TopicFilter::default();
        /// The whole PUBLISH packet, in bytes.
        pub bytes: ByteSize = ByteSize::new(256), in ByteSize::new(64)..=ByteSize::mib(256);
    }
}

impl Answers {
    /// Bytes that the payload of an answer on this topic may have; `None` where nothing limits it.
    pub fn max_payload(&self, topic: &str) -> Option<usize> {
        let max = self.max.iter().find(|max| max.topic.matches(topic))?;
        Some(max.bytes.as_usize().saturating_sub(header_bytes(topic)))
    }
}

/// Bytes of the shortest error that can be told, `error: output`.
const SHORTEST_ERROR: usize = 13;

/// Packet type and flags, remaining length (4 bytes at the most), topic with its length, packet identifier.
fn header_bytes(topic: &str) -> usize {
    1 + 4 + 2 + topic.len() + 2
}

impl MaxAnswer {
    /// `path` is that of the table, for the refusals.
    pub(super) fn check(&self, path: &str, refusals: &mut Vec<Refusal>) {
        if self.topic == TopicFilter::default() {
            let refusal = Refusal::new(format!("{path}.topic"), "the topic is missing");
            refusals.push(refusal.accepting("a topic filter"));
        }
        let least = header_bytes(self.topic.as_ref()) + SHORTEST_ERROR;
        if self.bytes.as_usize() < least {
            let (bytes, topic) = (self.bytes, format!("{path}.topic"));
            let refusal = Refusal::new(
                format!("{path}.bytes"),
                format!("{bytes} are too few for an answer on `{topic}`"),
            );
            refusals.push(refusal.accepting(format!("{least}B or more, or a shorter topic")).beside(topic));
        }
    }
}
