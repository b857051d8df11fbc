//! Topic filters that the configuration names.

use super::table::{Setting, quoted};
use offload_protocol::topic;
use serde::{Deserialize, Deserializer, de};
use std::fmt;
use std::str::FromStr;

/// An MQTT topic filter, wildcards allowed (MQTT 5, section 4.7). Filters that start with `$` are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicFilter(String);

impl TopicFilter {
    /// Whether `topic`, which has no wildcards, matches.
    pub fn matches(&self, topic: &str) -> bool {
        topic::matches(&self.0, topic)
    }
}

impl AsRef<str> for TopicFilter {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TopicFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid =
            topic::is_valid_filter(text) && !text.starts_with('$') && !text.contains(char::is_control);
        if valid { Ok(TopicFilter(text.to_owned())) } else { Err(format!("{text:?} is no topic filter")) }
    }
}

impl Setting for TopicFilter {
    const FORM: &'static str = "a topic filter, not one that starts with `$`";
    fn to_toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Setting for Vec<TopicFilter> {
    const FORM: &'static str = "a list of topic filters, none that starts with `$`";
    fn to_toml(&self) -> Option<String> {
        Some(format!("[{}]", self.iter().map(quoted).collect::<Vec<_>>().join(", ")))
    }
}

impl<'de> Deserialize<'de> for TopicFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in ["", "#/a", "a#", "a/+b", "$SYS/#", "a\0b"] {
            assert!(text.parse::<TopicFilter>().is_err(), "{text:?}");
        }
    }
}
