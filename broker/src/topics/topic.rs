//! Topic names and filters (section 4.7). An empty level is a level like any other: `result/` has two.

use crate::config::Config;

/// Prefix of shared subscriptions (section 4.8.2), which are not offered.
pub(crate) const SHARED: &str = "$share/";

/// What bridges publish below it, a topic that ends in [`STATE`], says whether they are connected. Mosquitto's do so by
/// default, in their will too.
const BRIDGES: &str = "$SYS/broker/connection/";
const STATE: &str = "/state";

/// True for a name that may be published to. UTF-8 and the absence of NUL were checked where it was read.
pub(crate) fn valid_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['+', '#', '\0'])
}

/// True for a filter whose wildcards stand where they may (section 4.7.1).
pub(crate) fn valid_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.contains('\0') {
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

/// Which limit a name or filter exceeds, if it exceeds one.
pub(crate) fn over_limit(topic: &str, config: &Config) -> Option<&'static str> {
    if topic.len() > config.max_topic_length {
        Some("the topic is longer than max_topic_length")
    } else if topic.bytes().filter(|&byte| byte == b'/').count() >= config.max_topic_levels {
        Some("the topic has more levels than max_topic_levels")
    } else {
        None
    }
}

/// Whether a message on this topic is a bridge's notice of its own state.
pub(crate) fn is_bridge_state(name: &str) -> bool {
    name.strip_prefix(BRIDGES).and_then(|bridge| bridge.strip_suffix(STATE)).is_some_and(|id| !id.is_empty())
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
        for name in ["a", "/", "a/", "localCode/", "a//b", "ünïcode/☃", "$SYS/x", " "] {
            assert!(valid_name(name), "{name}");
        }
        for name in ["", "+", "a/#", "a+b", "a\0b"] {
            assert!(!valid_name(name), "{name}");
        }
    }

    #[test]
    fn length_and_levels_have_limits() {
        let config = Config::default();
        assert_eq!(over_limit(&"x".repeat(config.max_topic_length), &config), None);
        assert!(over_limit(&"x".repeat(config.max_topic_length + 1), &config).is_some());
        assert_eq!(over_limit(&"/".repeat(config.max_topic_levels - 1), &config), None);
        assert!(over_limit(&"/".repeat(config.max_topic_levels), &config).is_some());
    }

    #[test]
    fn the_state_of_a_bridge_is_told_from_other_topics_of_the_server() {
        assert!(is_bridge_state("$SYS/broker/connection/vm.edge/state"));
        for name in ["$SYS/broker/connection/state", "$SYS/broker/connection//state", "$SYS/broker/x/state"] {
            assert!(!is_bridge_state(name), "{name}");
        }
    }

    #[test]
    fn filters_are_validated() {
        for filter in ["#", "+", "a/#", "+/+", "a/+/b", "/", "a/", "+/#", "$SYS/#", "//#"] {
            assert!(valid_filter(filter), "{filter}");
        }
        for filter in ["", "#/a", "a#", "a/b#", "a+", "+a/b", "##", "a/#/b", "\0"] {
            assert!(!valid_filter(filter), "{filter}");
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
