//! Topic filters of rules, in which `%u` and `%c` stand for who asks.

use super::table::{Setting, quoted};
use offload_protocol::topic;
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// An MQTT topic filter in which `%u` stands for the user name and `%c` for the client id, as in Mosquitto's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPattern(String);

impl TopicPattern {
    /// The filter for this user and client id. `None` where what is to be put in does not exist, is empty, or holds
    /// `+`, `#` or `/`, so that nobody can choose a name that widens a rule.
    pub fn filter_for(&self, user: Option<&str>, client_id: Option<&str>) -> Option<Cow<'_, str>> {
        let mut filter = Cow::Borrowed(self.0.as_str());
        for (name, value) in [("%u", user), ("%c", client_id)] {
            if self.0.contains(name) {
                let value =
                    value.filter(|value| !value.is_empty() && !value.contains(['+', '#', '/', '%']))?;
                filter = Cow::Owned(filter.replace(name, value));
            }
        }
        Some(filter)
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TopicPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = topic::is_valid_filter(text) && !text.contains(char::is_control);
        if valid { Ok(TopicPattern(text.to_owned())) } else { Err(format!("{text:?} is no topic filter")) }
    }
}

impl Setting for Vec<TopicPattern> {
    const FORM: &'static str = "a list of topic filters; `%u` is the user name, `%c` the client id";
    fn to_toml(&self) -> Option<String> {
        Some(format!("[{}]", self.iter().map(quoted).collect::<Vec<_>>().join(", ")))
    }
}

impl<'de> Deserialize<'de> for TopicPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_in_unless_they_widen_the_rule() {
        let filter = |pattern: &str, user: Option<&str>, client_id: &str| {
            let pattern: TopicPattern = pattern.parse().unwrap();
            pattern.filter_for(user, Some(client_id)).map(Cow::into_owned)
        };
        assert_eq!(filter("line/%u/%c/#", Some("plc"), "7").as_deref(), Some("line/plc/7/#"));
        assert_eq!(filter("all/#", None, "+").as_deref(), Some("all/#"));
        assert_eq!(filter("line/%u", None, "7"), None);
        for name in ["+", "#", "a/b", "", "%c"] {
            assert_eq!(filter("line/%u", Some(name), "7"), None, "{name:?}");
            assert_eq!(filter("line/%c", Some("plc"), name), None, "{name:?}");
        }
    }
}
