//! Topic names and filters (section 4.7). An empty level is a level like any other: `result/` has two.

use crate::config::Config;

/// Prefix of shared subscriptions (section 4.8.2), which are not offered.
pub(crate) const SHARED: &str = "$share/";

/// True for a name that may be published to. UTF-8 and the absence of NUL were checked where it was read.
pub(crate) fn valid_name(name: &str, config: &Config) -> bool {
    !name.is_empty() && !name.contains(['+', '#', '\0']) && fits(name, config)
}

/// True for a filter whose wildcards stand where they may (section 4.7.1).
pub(crate) fn valid_filter(filter: &str, config: &Config) -> bool {
    if filter.is_empty() || filter.contains('\0') || !fits(filter, config) {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        let valid = match level {
            "+" => true,
            "#" => last,
            _ => !level.contains(['+', '#']),
        };
        if !valid {
            return false;
        }
    }
    true
}

fn fits(topic: &str, config: &Config) -> bool {
    topic.len() <= config.max_topic_length
        && topic.bytes().filter(|&byte| byte == b'/').count() < config.max_topic_levels
}

/// True if messages on `name` go to a subscription to `filter`; both are valid.
pub(crate) fn matches(filter: &str, name: &str) -> bool {
    // [MQTT-4.7.2-1]: a leading wildcard does not match the server's own topics.
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = name.split('/');
    for level in filter.split('/') {
        if level == "#" {
            return true; // also of the parent: `a/#` matches `a`
        }
        match names.next() {
            Some(name) if level == "+" || level == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_validated() {
        let config = Config::default();
        for name in ["a", "/", "a/", "localCode/", "a//b", "ünïcode/☃", "$SYS/x", " "] {
            assert!(valid_name(name, &config), "{name}");
        }
        for name in ["", "+", "a/#", "a+b", "a\0b"] {
            assert!(!valid_name(name, &config), "{name}");
        }
        assert!(valid_name(&"x".repeat(config.max_topic_length), &config));
        assert!(!valid_name(&"x".repeat(config.max_topic_length + 1), &config));
        assert!(valid_name(&"/".repeat(config.max_topic_levels - 1), &config));
        assert!(!valid_name(&"/".repeat(config.max_topic_levels), &config));
    }

    #[test]
    fn filters_are_validated() {
        let config = Config::default();
        for filter in ["#", "+", "a/#", "+/+", "a/+/b", "/", "a/", "+/#", "$SYS/#", "//#"] {
            assert!(valid_filter(filter, &config), "{filter}");
        }
        for filter in ["", "#/a", "a#", "a/b#", "a+", "+a/b", "##", "a/#/b", "\0"] {
            assert!(!valid_filter(filter, &config), "{filter}");
        }
    }

    #[test]
    fn filters_match_as_in_the_standard() {
        for (filter, name, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor", "$SYS/monitor", false),
            ("$SYS/#", "$SYS/monitor", true),
            ("result/", "result/", true),
            ("result/", "result", false),
            ("result", "result/", false),
        ] {
            assert_eq!(matches(filter, name), expected, "{filter} {name}");
        }
    }
}
