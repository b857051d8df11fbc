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
        // Packet type and flags, remaining length (4 bytes at the most), topic with its length, packet identifier.
        let header = 1 + 4 + 2 + topic.len() + 2;
        Some(max.bytes.as_usize().saturating_sub(header))
    }
}

impl MaxAnswer {
    /// `path` is that of the table, for the refusal.
    pub(super) fn validate(&self, path: &str) -> Result<(), Refusal> {
        if self.topic == TopicFilter::default() {
            return Err(
                Refusal::new(format!("{path}.topic"), "the topic is missing").accepting("a topic filter")
            );
        }
        Ok(())
    }
}
