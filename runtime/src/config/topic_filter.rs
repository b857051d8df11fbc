//! Topic filters that the configuration names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use super::table::{Setting, quoted};

/// An MQTT topic filter, wildcards allowed (MQTT 5, section 4.7). Filters that start with `$` are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicFilter(String);

impl TopicFilter {
    /// The filter's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `topic`, which has no wildcards, matches.
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') {
            return false;
        }
        let mut levels = topic.split('/');
        for filter in self.0.split('/') {
            match (filter, levels.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (filter, Some(level)) if filter == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
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
        let last = text.split('/').count() - 1;
        let well_formed = |(index, level): (usize, &str)| match level {
            "#" => index == last,
            "+" => true,
            _ => !level.contains(['+', '#']),
        };
        let valid = !text.is_empty()
            && text.len() <= usize::from(u16::MAX)
            && !text.starts_with('$')
            && !text.contains(char::is_control)
            && text.split('/').enumerate().all(well_formed);
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
    fn filters_match_as_the_standard_says() {
        for (filter, topic, matches) in [
            ("result/a", "result/a", true),
            ("result/+", "result/a", true),
            ("result/+", "result/", true),
            ("result/+", "result/a/b", false),
            ("result/#", "result", true),
            ("result/#", "result/a/b", true),
            ("#", "a/b", true),
            ("#", "$SYS/a", false),
            ("+/a", "/a", true),
            ("a", "a/b", false),
            ("a/b", "a", false),
        ] {
            assert_eq!(filter.parse::<TopicFilter>().unwrap().matches(topic), matches, "{filter} {topic}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in ["", "#/a", "a#", "a/+b", "$SYS/#", "a\0b"] {
            assert!(text.parse::<TopicFilter>().is_err(), "{text:?}");
        }
    }
}
