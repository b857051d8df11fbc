//! How topics of MQTT are written as subjects of NATS, and back.
//!
//! The server's MQTT listener turns levels into tokens: an empty level is `/`, and a point within a level is `//`
//! (since 2.10; before, a client that publishes on such a topic is disconnected, as one whose topic has a space still
//! is).

/// The topic of a subject.
pub(super) fn topic_of(subject: &str) -> String {
    let levels = subject.split('.').map(|token| match token {
        "/" => String::new(),
        token => token.replace("//", "."),
    });
    levels.collect::<Vec<_>>().join("/")
}

/// The subject of a topic; `None` where NATS has none for it.
pub(super) fn subject_of(topic: &str) -> Option<String> {
    if topic.is_empty() || topic.contains(|c: char| c.is_whitespace() || matches!(c, '*' | '>' | '\0')) {
        return None;
    }
    let tokens = topic.split('/').map(|level| match level {
        "" => "/".to_owned(),
        level => level.replace('.', "//"),
    });
    Some(tokens.collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_and_subjects_are_each_others() {
        for (topic, subject) in [
            ("localCode/d1", "localCode.d1"),
            ("localCode/", "localCode./"),
            ("localCode/a/b", "localCode.a.b"),
            ("localCode//b", "localCode./.b"),
            ("localCode/a.b", "localCode.a//b"),
            ("/a", "/.a"),
        ] {
            assert_eq!(subject_of(topic).as_deref(), Some(subject));
            assert_eq!(topic_of(subject), topic);
        }
        for topic in ["", "result/a b", "result/*", "result/a>"] {
            assert_eq!(subject_of(topic), None, "{topic}");
        }
    }
}
