//! What gateways say of themselves, and whatever else a stranger publishes on their topics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use offload_mqtt::Message;
use offload_protocol::topic::GATEWAY_PREFIX;
use serde_json::Value;

use super::table::{Row, row};
use crate::message::{acts_on_a_terminal, text};

/// Topics that are listened to: those that are heard first.
const MAX_TOPICS: usize = 1000;

/// A document that is longer together with its topic is ignored; in bytes. A topic alone is always shorter.
const MAX_STATUS: usize = 64 * 1024;

/// The newest status of each gateway. Those of one name share a topic, and have one more each.
#[derive(Default)]
pub struct Discovery {
    /// By the name in the topic, and the instance below it.
    topics: BTreeMap<(String, Option<String>), Topic>,
    too_many: bool,
}

#[derive(Default)]
struct Topic {
    status: Option<Status>,
    /// It was said that something here cannot be understood.
    complained: bool,
}

struct Status {
    row: Row,
    /// Tells gateways of one name apart.
    instance: Option<String>,
    is_offline: bool,
    /// As it was published.
    document: String,
}

impl Discovery {
    /// Takes note of a message; an error says what is ignored, once a topic.
    pub fn take(&mut self, message: &Message) -> Result<(), String> {
        let name = message.topic.strip_prefix(GATEWAY_PREFIX).and_then(|rest| rest.split_once("/status"));
        // Nothing else is subscribed to.
        let Some((name, below)) = name else { return Ok(()) };
        let key = (name.to_owned(), below.strip_prefix('/').map(str::to_owned));
        if self.topics.len() == MAX_TOPICS && !self.topics.contains_key(&key) {
            return if std::mem::replace(&mut self.too_many, true) {
                Ok(())
            } else {
                Err(format!("more than {MAX_TOPICS} gateways; the others are ignored"))
            };
        }
        let topic = self.topics.entry(key).or_default();
        if message.payload.is_empty() {
            // So a retained message is deleted.
            topic.status = None;
            return Ok(());
        }
        match Status::read(name, message) {
            Some(status) => topic.status = Some(status),
            None if topic.complained => {}
            None => {
                topic.complained = true;
                let expected = format!("expected a JSON object of at most {MAX_STATUS} bytes with its topic");
                return Err(format!("{}: {expected}; it is ignored", text(&message.topic)));
            }
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.statuses().next().is_none()
    }

    /// By name; of several that have the same one the instance is told too.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.statuses().map(|status| status.row.clone()).collect();
        let names: Vec<String> = rows.iter().map(|[name, ..]| name.clone()).collect();
        for ([name, ..], status) in rows.iter_mut().zip(self.statuses()) {
            let is_shared = names.iter().filter(|other| *other == name).count() > 1;
            if is_shared && let Some(instance) = &status.instance {
                *name = format!("{name} ({})", text(instance));
            }
        }
        rows
    }

    /// The programs of all gateways whose names a shell takes as they stand, each once.
    pub fn programs(&self) -> Vec<String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let lists = self.statuses().map(|status| status.row.last().map(String::as_str).unwrap_or_default());
        let names = lists.flat_map(|list| list.split(','));
        let plain = names.filter(|name| !name.is_empty() && name.chars().all(is_plain));
        plain.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// One JSON array, as published but for what a terminal would act on.
    pub fn as_json(&self) -> String {
        let documents: Vec<_> = self.statuses().map(|status| harmless(&status.document)).collect();
        format!("[{}]", documents.join(","))
    }

    /// The documents of gateways that are there, with the name that each has in its topic.
    pub fn documents(&self) -> impl Iterator<Item = (&str, &str)> {
        self.topics.iter().filter_map(|((name, _), topic)| {
            let status = topic.status.as_ref().filter(|status| !status.is_offline)?;
            Some((name.as_str(), status.document.as_str()))
        })
    }

    /// Of what is said on the shared topic only that counts which is news of the gateway that it is about: that it
    /// has gone, or that it is there at all.
    fn statuses(&self) -> impl Iterator<Item = &Status> {
        let status = |key: &(String, Option<String>)| self.topics.get(key)?.status.as_ref();
        self.topics.iter().filter_map(move |((name, below), topic)| {
            let own = topic.status.as_ref()?;
            let other = match below {
                // What the gateway said of itself.
                None => {
                    let instance = own.instance.clone().filter(|_| !own.is_offline);
                    instance.and_then(|instance| status(&(name.clone(), Some(instance))))
                }
                // What was left behind.
                Some(_) => status(&(name.clone(), None))
                    .filter(|shared| shared.is_offline && shared.instance == own.instance),
            };
            other.is_none().then_some(own)
        })
    }
}

impl Status {
    fn read(name: &str, message: &Message) -> Option<Self> {
        if message.topic.len() + message.payload.len() > MAX_STATUS {
            return None;
        }
        let document = str::from_utf8(&message.payload).ok()?;
        let value: Value = serde_json::from_str(document).ok()?;
        value.is_object().then(|| Self {
            row: row(name, &value),
            instance: value["instance"].as_str().map(str::to_owned),
            is_offline: value["state"] == "offline",
            document: document.trim().to_owned(),
        })
    }
}

/// The same JSON: what a terminal would act on stands in strings, and is escaped there, or is white space.
fn harmless(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii_whitespace() {
            shown.push(' ');
        } else if acts_on_a_terminal(c) {
            // All of them have four digits.
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: impl AsRef<[u8]>) -> Message {
        Message { retain: true, ..Message::new(topic, payload.as_ref().to_vec()) }
    }

    #[test]
    fn programs_of_all_gateways_are_listed_once_unless_a_shell_would_act_on_them() {
        let mut discovery = Discovery::default();
        for (topic, programs) in [
            ("gateway/a/status", r#"["sort", "add", "$(x)", "a b", ""]"#),
            ("gateway/b/status", r#"["add"]"#),
        ] {
            let document = format!(r#"{{"capabilities": {{"programs": {programs}}}}}"#);
            discovery.take(&message(topic, document)).unwrap();
        }
        assert_eq!(discovery.programs(), ["add", "sort"]);
    }

    #[test]
    fn the_newest_document_of_each_gateway_counts() {
        let mut discovery = Discovery::default();
        for (topic, payload) in [
            ("gateway/b/status", r#" {"state": "online"} "#),
            ("gateway/a/status", r#"{"name": "b"}"#),
            ("gateway/gone/status", "{}"),
            ("gateway/gone/status", ""),
            ("gateway/b/status", "{\n\"state\":\t\"offline\"}\n"),
        ] {
            assert_eq!(discovery.take(&message(topic, payload)), Ok(()));
        }
        assert_eq!(discovery.as_json(), r#"[{"name": "b"},{ "state": "offline"}]"#);
        assert_eq!(discovery.rows().len(), 2);
        for topic in ["gateway/a/status", "gateway/b/status"] {
            assert!(!discovery.is_empty());
            discovery.take(&message(topic, "")).unwrap();
        }
        assert!(discovery.is_empty());
        assert_eq!(discovery.as_json(), "[]");
    }

    #[test]
    fn gateways_of_one_name_are_told_apart() {
        let document =
            |state: &str, instance: &str| format!(r#"{{"state":"{state}","instance":"{instance}"}}"#);
        let names = |discovery: &Discovery| -> Vec<String> {
            discovery.rows().iter().map(|[name, state, ..]| format!("{name}: {state}")).collect()
        };
        let mut discovery = Discovery::default();
        discovery.take(&message("gateway/a/status", document("online", "1"))).unwrap();
        discovery.take(&message("gateway/a/status/1", document("online", "1"))).unwrap();
        assert_eq!(names(&discovery), ["a: online"]);
        discovery.take(&message("gateway/a/status/2", document("online", "2"))).unwrap();
        assert_eq!(names(&discovery), ["a (1): online", "a (2): online"]);
        // One has gone, and what it said below is left behind.
        discovery.take(&message("gateway/a/status", document("offline", "1"))).unwrap();
        assert_eq!(names(&discovery), ["a (1): offline", "a (2): online"]);
        discovery.take(&message("gateway/a/status", document("online", "2"))).unwrap();
        discovery.take(&message("gateway/a/status/1", "")).unwrap();
        assert_eq!(names(&discovery), ["a: online"]);
    }

    #[test]
    fn what_cannot_be_understood_is_ignored_and_said_once() {
        let mut discovery = Discovery::default();
        let good = message("gateway/a/status", r#"{"a":1}"#);
        discovery.take(&good).unwrap();
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_STATUS));
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        for (number, bad) in
            ["{", "[]", "1", "\"a\"", "{} {}", "", &long, &deep].map(str::as_bytes).into_iter().enumerate()
        {
            // An empty one says that the gateway is gone.
            let expected = if bad.is_empty() { Ok(()) } else { Err(()) };
            let name = format!("gateway/bad\x1b{number}/status");
            let said = discovery.take(&message(&name, bad));
            assert_eq!(said.clone().map_err(drop), expected, "{number}");
            assert!(!said.err().unwrap_or_default().contains('\x1b'));
            assert_eq!(discovery.take(&message(&name, bad)), Ok(()), "{number}");
        }
        let said = discovery.take(&message("gateway/a/status", b"\xff")).unwrap_err();
        assert!(said.starts_with("gateway/a/status: expected a JSON object"), "{said}");
        assert_eq!(discovery.take(&message("gateway/a/status", b"\xff")), Ok(()));
        assert_eq!(discovery.as_json(), r#"[{"a":1}]"#);
    }

    #[test]
    fn no_more_topics_than_that_are_kept() {
        let mut discovery = Discovery::default();
        let take = |discovery: &mut Discovery, number| {
            discovery.take(&message(&format!("gateway/{number}/status"), "{}"))
        };
        for number in 0..MAX_TOPICS {
            assert_eq!(take(&mut discovery, number), Ok(()));
        }
        assert!(take(&mut discovery, MAX_TOPICS).is_err());
        assert_eq!(take(&mut discovery, MAX_TOPICS + 1), Ok(()));
        assert_eq!(take(&mut discovery, 0), Ok(()));
        assert_eq!(discovery.rows().len(), MAX_TOPICS);
    }

    #[test]
    fn json_is_the_same_and_harmless() {
        let document = "{\"a\u{9b}\u{7f}\u{202e}\":\n\t\"grün \\n\"}";
        let shown = harmless(document);
        assert_eq!(shown, "{\"a\\u009b\\u007f\\u202e\":  \"grün \\n\"}");
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(read(&shown), read(document));
    }
}
