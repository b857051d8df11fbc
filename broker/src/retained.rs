//! Retained messages (section 3.3.1.3), by topic name.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use tokio::time::Instant;

use crate::{message::Message, topic};

#[derive(Clone)]
pub(crate) struct Kept {
    pub message: Message,
    pub expires: Option<Instant>,
}

pub(crate) struct Retained {
    messages: BTreeMap<Arc<str>, Kept>,
    bytes: usize,
    max_messages: usize,
    max_bytes: usize,
}

impl Retained {
    /// Nothing yet, and never more than this.
    pub fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self { messages: BTreeMap::new(), bytes: 0, max_messages, max_bytes }
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a message in place of its topic's former one, or clears it if the payload is empty; false if
    /// there is no room, and then the former one stays.
    pub fn keep(&mut self, message: &Message, expires: Option<Instant>, now: Instant) -> bool {
        if message.payload.is_empty() {
            self.forget(&message.topic);
            return true;
        }
        let former = self.messages.get(&message.topic).map_or(0, |kept| kept.message.weight());
        if !self.fits(message, former) {
            self.forget_expired(now);
            // The former one may have been among them.
            let former = self.messages.get(&message.topic).map_or(0, |kept| kept.message.weight());
            if !self.fits(message, former) {
                return false;
            }
        }
        self.forget(&message.topic);
        self.bytes += message.weight();
        self.messages.insert(message.topic.clone(), Kept { message: message.clone(), expires });
        true
    }

    /// The messages that a new subscription to `filter` gets.
    pub fn matching(&self, filter: &str, now: Instant) -> Vec<Kept> {
        if !filter.contains(['+', '#']) {
            return self
                .messages
                .get(filter)
                .filter(|kept| !expired(kept, now))
                .cloned()
                .into_iter()
                .collect();
        }
        // Topics are in order, so only those that share the filter's literal beginning are looked at. The
        // parent that `a/#` matches too is without the last `/`.
        let literal = filter.find(['+', '#']).map_or(filter, |at| &filter[..at]);
        let literal = literal.strip_suffix('/').unwrap_or(literal);
        let from = (Bound::Included(literal), Bound::Unbounded);
        self.messages
            .range::<str, _>(from)
            .take_while(|(name, _)| name.starts_with(literal))
            .filter(|(name, kept)| topic::matches(filter, name) && !expired(kept, now))
            .map(|(_, kept)| kept.clone())
            .collect()
    }

    fn fits(&self, message: &Message, former: usize) -> bool {
        let messages = self.messages.len() + usize::from(former == 0);
        let bytes = self.bytes - former + message.weight();
        messages <= self.max_messages && bytes <= self.max_bytes
    }

    fn forget(&mut self, topic: &str) {
        if let Some(former) = self.messages.remove(topic) {
            self.bytes -= former.message.weight();
        }
    }

    fn forget_expired(&mut self, now: Instant) {
        let bytes = &mut self.bytes;
        self.messages.retain(|_, kept| {
            let stays = !expired(kept, now);
            if !stays {
                *bytes -= kept.message.weight();
            }
            stays
        });
    }
}

fn expired(kept: &Kept, now: Instant) -> bool {
    kept.expires.is_some_and(|expires| expires <= now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::QoS;

    fn keep(retained: &mut Retained, topic: &str, payload: &str) -> bool {
        retained.keep(&Message::new(topic, payload.to_owned(), QoS::AtMostOnce), None, Instant::now())
    }

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        retained.matching(filter, Instant::now()).iter().map(|kept| kept.message.topic.to_string()).collect()
    }

    #[test]
    fn wildcards_find_what_they_match() {
        let mut retained = Retained::new(100, 10_000);
        for topic in ["a", "a/", "a/b", "a/b/c", "a0", "b", "$SYS/x"] {
            assert!(keep(&mut retained, topic, "x"));
        }
        assert_eq!(topics(&retained, "a/#"), ["a", "a/", "a/b", "a/b/c"]);
        assert_eq!(topics(&retained, "a/+"), ["a/", "a/b"]);
        assert_eq!(topics(&retained, "+"), ["a", "a0", "b"]);
        assert_eq!(topics(&retained, "#").len(), 6);
        assert_eq!(topics(&retained, "$SYS/#"), ["$SYS/x"]);
        assert_eq!(topics(&retained, "a/"), ["a/"]);
    }

    #[test]
    fn an_empty_payload_clears() {
        let mut retained = Retained::new(100, 10_000);
        keep(&mut retained, "a", "x");
        keep(&mut retained, "a", "");
        assert_eq!((retained.len(), retained.bytes()), (0, 0));
    }

    #[test]
    fn bounds_hold_and_the_former_message_stays() {
        let mut retained = Retained::new(2, 1000);
        assert!(keep(&mut retained, "a", "x"));
        assert!(keep(&mut retained, "b", "x"));
        assert!(!keep(&mut retained, "c", "x"));
        assert!(keep(&mut retained, "a", "y"));
        assert!(!keep(&mut retained, "a", &"x".repeat(1000)));
        assert_eq!(&retained.matching("a", Instant::now())[0].message.payload[..], b"y");
    }

    #[test]
    fn expired_messages_make_room() {
        let mut retained = Retained::new(1, 1000);
        let now = Instant::now();
        assert!(retained.keep(&Message::new("a", "x", QoS::AtMostOnce), Some(now), now));
        assert!(retained.matching("#", now).is_empty());
        assert!(keep(&mut retained, "b", "x"));
        assert_eq!(retained.len(), 1);
    }
}
