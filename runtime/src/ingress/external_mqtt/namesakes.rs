//! Gateways of one name on one broker. They share the retained topic of their status, so each listens there: one that
//! is new is greeted, so that both know and say so, and one that goes leaves the others' status behind, not its own.

use std::collections::BTreeSet;

use serde::Deserialize;

/// Most others that are known; more would be a name for nobody.
const MAX_KNOWN: usize = 64;

/// What a gateway has to know of the others.
pub(super) struct Namesakes {
    /// This gateway's.
    instance: String,
    known: BTreeSet<String>,
}

/// What a status document says of whoever published it.
#[derive(Deserialize)]
struct Document {
    state: String,
    /// Missing in those of other software.
    instance: Option<String>,
}

/// What is to be done about a status document.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Nothing: it is this gateway's own, that of one that is known, or no such document.
    Nothing,
    /// Another gateway has this name: it is to be told of this one.
    Greet(String),
    /// The topic says that a gateway is gone, which this one is not; the document of that one's own, if it had one,
    /// is to go.
    Reassert(Option<String>),
}

impl Namesakes {
    pub fn new(instance: String) -> Namesakes {
        Namesakes { instance, known: BTreeSet::new() }
    }

    /// This gateway's.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// A document was published on the topic of this name.
    pub fn hear(&mut self, document: &[u8]) -> Reaction {
        let Ok(Document { state, instance }) = serde_json::from_slice(document) else {
            return Reaction::Nothing;
        };
        let other = instance.filter(|instance| *instance != self.instance && is_instance(instance));
        match (state.as_str(), other) {
            ("offline", other) => {
                if let Some(other) = &other {
                    self.known.remove(other);
                }
                Reaction::Reassert(other)
            }
            ("online", Some(other)) if self.known.len() < MAX_KNOWN && self.known.insert(other.clone()) => {
                Reaction::Greet(other)
            }
            _ => Reaction::Nothing,
        }
    }
}

/// It becomes a level of a topic.
fn is_instance(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namesake_is_greeted_once_and_outlived() {
        let mut namesakes = Namesakes::new("aa".to_owned());
        let online = |instance: &str| format!(r#"{{"state":"online","name":"a","instance":"{instance}"}}"#);
        let offline = |instance: &str| format!(r#"{{"state":"offline","instance":"{instance}"}}"#);
        let other = || "bb".to_owned();
        for (document, reaction) in [
            (online("aa"), Reaction::Nothing),
            (online("bb"), Reaction::Greet(other())),
            (online("bb"), Reaction::Nothing),
            (offline("bb"), Reaction::Reassert(Some(other()))),
            (online("bb"), Reaction::Greet(other())),
            // The will of a former connection.
            (offline("aa"), Reaction::Reassert(None)),
            (r#"{"state":"offline"}"#.to_owned(), Reaction::Reassert(None)),
            (online("b/#"), Reaction::Nothing),
            (offline("b/#"), Reaction::Reassert(None)),
            ("offline".to_owned(), Reaction::Nothing),
        ] {
            assert_eq!(namesakes.hear(document.as_bytes()), reaction, "{document}");
        }
    }

    #[test]
    fn no_more_than_that_are_known() {
        let mut namesakes = Namesakes::new("aa".to_owned());
        let greeted = (0..2 * MAX_KNOWN).filter(|number| {
            let document = format!(r#"{{"state":"online","instance":"{number}"}}"#);
            namesakes.hear(document.as_bytes()) != Reaction::Nothing
        });
        assert_eq!(greeted.count(), MAX_KNOWN);
    }
}
