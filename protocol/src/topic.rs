//! Topics: what a request's topic says, where its answer goes, and MQTT's rules for topic filters.

/// The subscription that sees every request to run a program that the gateway has. It also matches the bare
/// `localCode`, which is no request ([`parse_request`]).
pub const LOCAL_CODE_FILTER: &str = "localCode/#";

/// The subscription that sees every request that carries code.
pub const INPUT_CODE_FILTER: &str = "inputCode/#";

/// The subscriptions that see every request to another site.
pub const ROUTED_LOCAL_CODE_FILTER: &str = "net/+/localCode/#";
/// As [`ROUTED_LOCAL_CODE_FILTER`], for requests that carry code.
pub const ROUTED_INPUT_CODE_FILTER: &str = "net/+/inputCode/#";

/// What the topic of every answer starts with, unless a Response Topic says otherwise.
pub const RESULT_PREFIX: &str = "result/";

/// What is between the topic of an answer and the `id` in the topics of its stream.
const STREAM_LEVEL: &str = "/stream/";

/// What the topics that gateways publish about themselves start with.
pub const GATEWAY_PREFIX: &str = "gateway/";

/// The longest topic that MQTT can carry, in bytes (MQTT 5, section 1.5.4).
pub const MAX_TOPIC: usize = 65_535;

/// Which of the two request topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// `localCode/<id>`: run a program that the gateway already has.
    LocalCode,
    /// `inputCode/<id>`: run the code that the message carries.
    InputCode,
}

impl RequestKind {
    /// The topic's part before the reply id, with its `/`.
    pub const fn prefix(self) -> &'static str {
        match self {
            RequestKind::LocalCode => "localCode/",
            RequestKind::InputCode => "inputCode/",
        }
    }
}

/// A request's topic, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTopic<'a> {
    /// Which request topic.
    pub kind: RequestKind,
    /// Everything after the first `/`, as it stands; may be empty and may hold further `/`.
    pub reply_id: &'a str,
}

/// Takes a request's topic apart. `None` for any other topic, also for the bare `localCode` and `inputCode`.
pub fn parse_request(topic: &str) -> Option<RequestTopic<'_>> {
    [RequestKind::LocalCode, RequestKind::InputCode]
        .into_iter()
        .find_map(|kind| topic.strip_prefix(kind.prefix()).map(|reply_id| RequestTopic { kind, reply_id }))
}

/// What the topics of requests to other sites start with.
pub const NET_PREFIX: &str = "net/";

/// Most bytes of a gate's name.
pub const MAX_GATE: usize = 64;

/// The topic of a request to a site, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutedTopic<'a> {
    /// The site's name; it may be none that a site can have.
    pub gate: &'a str,
    /// The topic of the same request at that site.
    pub plain: &'a str,
}

/// Takes the topic of a request to a site apart: `net/<gate>/localCode/<id>` or `net/<gate>/inputCode/<id>`. `None` for
/// any other topic.
pub fn parse_routed(topic: &str) -> Option<RoutedTopic<'_>> {
    let (gate, plain) = topic.strip_prefix(NET_PREFIX)?.split_once('/')?;
    parse_request(plain).map(|_| RoutedTopic { gate, plain })
}

/// Whether a site can have this name: 1 to [`MAX_GATE`] letters, digits, `_` and `-`.
pub fn is_gate(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=MAX_GATE).contains(&name.len()) && name.bytes().all(allowed)
}

/// The topic on which a device with this reply id asks.
pub fn request(kind: RequestKind, reply_id: &str) -> String {
    format!("{}{reply_id}", kind.prefix())
}

/// The topic on which a device asks the site with this gate what it asks its own on `plain`.
pub fn routed(gate: &str, plain: &str) -> String {
    format!("{NET_PREFIX}{gate}/{plain}")
}

/// The topic on which a device with this reply id is answered.
pub fn result(reply_id: &str) -> String {
    format!("{RESULT_PREFIX}{reply_id}")
}

/// The topic of the part of stdout from `offset` on, of a request with this `id` that is answered on `answers`.
pub fn stream(answers: &str, id: &str, offset: u64) -> String {
    format!("{answers}{STREAM_LEVEL}{id}/{offset}")
}

/// Takes the topic of a part of stdout apart, of a request that is answered on `answers`: the request's `id`, and where
/// the part begins. `None` for any other topic.
pub fn parse_stream<'a>(topic: &'a str, answers: &str) -> Option<(&'a str, u64)> {
    let (id, offset) = topic.strip_prefix(answers)?.strip_prefix(STREAM_LEVEL)?.split_once('/')?;
    Some((id, offset.parse().ok()?))
}

/// The filters of answers whose streams `filter` may select: of all topics that it matches, each is that of a part of
/// what is answered there.
pub fn answers_of_streams(filter: &str) -> impl Iterator<Item = &str> {
    let ends = filter.match_indices(STREAM_LEVEL).map(|(at, _)| &filter[..at]);
    ends.filter(|answers| answers.starts_with(RESULT_PREFIX))
}

/// The retained topic on which the gateway of this name says how it is.
pub fn gateway_status(name: &str) -> String {
    format!("{GATEWAY_PREFIX}{name}/status")
}

/// The retained topic, below that of its name, on which one gateway says how it is beside others of that name.
pub fn instance_status(status: &str, instance: &str) -> String {
    format!("{status}/{instance}")
}

/// The retained topic on which the gateways of a group note the keys that requests are sealed to.
pub fn group_keys(share: &str) -> String {
    format!("{GATEWAY_PREFIX}{share}/keys")
}

/// The retained topic on which the gateway or the master of this name lists the gates that it knows.
pub fn routers(name: &str) -> String {
    format!("{GATEWAY_PREFIX}{name}/routers")
}

/// The topic on which the gateway of this name shows requests and their answers, where its configuration says so.
pub fn gateway_jobs(name: &str) -> String {
    format!("{GATEWAY_PREFIX}{name}/jobs")
}

/// Whether `topic` is `result/<reply_id>` or a level below it.
pub fn is_result_or_below(topic: &str, reply_id: &str) -> bool {
    topic
        .strip_prefix(RESULT_PREFIX)
        .and_then(|rest| rest.strip_prefix(reply_id))
        .is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

/// Whether a request with this reply id may have its answer sent to `topic`, its Response Topic: its own result topic
/// or below, or a topic that one of the configured `patterns` (topic filters) matches. Never a request topic, `$…`,
/// `gateway/…` or anything that is no valid topic name, whatever the patterns say.
pub fn is_response_permitted(topic: &str, reply_id: &str, patterns: &[impl AsRef<str>]) -> bool {
    if !is_valid_name(topic) || topic.starts_with('$') {
        return false;
    }
    let reserved = ["localCode", "inputCode", "gateway"];
    if topic.split('/').next().is_some_and(|first| reserved.contains(&first)) {
        return false;
    }
    is_result_or_below(topic, reply_id) || patterns.iter().any(|pattern| matches(pattern.as_ref(), topic))
}

/// Whether `topic` may be published to: 1 to [`MAX_TOPIC`] bytes, no wildcards, no NUL (MQTT 5, section 4.7).
pub fn is_valid_name(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= MAX_TOPIC && !topic.contains(['+', '#', '\0'])
}

/// Whether `filter` may be subscribed to: `+` and `#` only as whole levels, `#` only as the last (MQTT 5, section
/// 4.7.1).
pub fn is_valid_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > MAX_TOPIC || filter.contains('\0') {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let valid = match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            _ => !level.contains(['+', '#']),
        };
        if !valid {
            return false;
        }
    }
    true
}

/// Whether a valid `filter` matches a valid `topic`. A wildcard at the start matches no topic that starts with `$`
/// (MQTT 5, section 4.7.2).
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            // `#` also matches the level above it.
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Whether every topic that the valid filter `narrow` matches is matched by the valid filter `wide` too.
pub fn covers(wide: &str, narrow: &str) -> bool {
    if narrow.starts_with('$') && wide.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = narrow.split('/');
    for wanted in wide.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(level)) if level != "#" => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Levels of few kinds, so that filters and topics often meet.
        #[test]
        fn what_covers_a_filter_matches_what_it_matches(
            wide in "(a|b|[+])(/(a|b|[+])){0,2}(/#)?",
            narrow in "(a|b|[+]|[$]S)(/(a|b|[+])){0,2}(/#)?",
            topic in "(a|b|[$]S)(/(a|b)?){0,3}",
        ) {
            if covers(&wide, &narrow) && matches(&narrow, &topic) {
                prop_assert!(matches(&wide, &topic));
            }
        }
    }

    #[test]
    fn a_request_to_a_site_is_one_to_a_request_topic_below_the_sites_name() {
        let routed = |gate, plain| Some(RoutedTopic { gate, plain });
        assert_eq!(parse_routed("net/north/localCode/plc/1"), routed("north", "localCode/plc/1"));
        assert_eq!(parse_routed("net/north/inputCode/"), routed("north", "inputCode/"));
        assert_eq!(super::routed("north", "inputCode/"), "net/north/inputCode/");
        assert_eq!(parse_routed("net//localCode/plc"), routed("", "localCode/plc"));
        for topic in ["net/north/localCode", "net/north/result/plc", "net/localCode/plc", "localCode/net/x"] {
            assert_eq!(parse_routed(topic), None, "{topic}");
        }
        assert!(is_gate("north_1-A") && is_gate(&"x".repeat(64)));
        for name in ["", "a.b", "a/b", "é", "+", &"x".repeat(65)] {
            assert!(!is_gate(name), "{name}");
        }
    }

    #[test]
    fn a_filter_covers_narrower_ones() {
        for (wide, narrow, expected) in [
            ("#", "a/+/#", true),
            ("#", "$SYS/#", false),
            ("$SYS/#", "$SYS/a/+", true),
            ("result/a/#", "result/a", true),
            ("result/a/#", "result/a/+", true),
            ("result/a/#", "result/+", false),
            ("result/+", "result/a", true),
            ("result/+", "result/#", false),
            ("result/+", "result/+", true),
            ("result/+", "result", false),
            ("result/a", "result/a/b", false),
        ] {
            assert_eq!(covers(wide, narrow), expected, "{wide} over {narrow}");
        }
    }

    #[test]
    fn a_reply_id_is_everything_after_the_first_slash() {
        let parsed = |topic| parse_request(topic).map(|request| (request.kind, request.reply_id));
        assert_eq!(parsed("localCode/arduino0"), Some((RequestKind::LocalCode, "arduino0")));
        assert_eq!(parsed("inputCode/a/b//"), Some((RequestKind::InputCode, "a/b//")));
        assert_eq!(parsed("localCode/"), Some((RequestKind::LocalCode, "")));
        for other in ["localCode", "inputCode", "localcode/a", "result/a", "/localCode/a", "localCodes/a", ""]
        {
            assert_eq!(parsed(other), None, "{other}");
        }
        assert_eq!(request(RequestKind::InputCode, "a/b"), "inputCode/a/b");
        assert_eq!(result(""), "result/");
        assert_eq!(gateway_status("box"), "gateway/box/status");
        assert_eq!(instance_status(&gateway_status("box"), "1f"), "gateway/box/status/1f");
    }

    #[test]
    fn an_answer_goes_to_its_own_result_topic_or_below() {
        for (topic, reply_id, expected) in [
            ("result/a", "a", true),
            ("result/a/b", "a", true),
            ("result/a/", "a", true),
            ("result/ab", "a", false),
            ("result/b", "a", false),
            ("result/", "", true),
            ("result//x", "", true),
            ("result/a", "", false),
            ("result", "", false),
            ("other/a", "a", false),
        ] {
            assert_eq!(is_result_or_below(topic, reply_id), expected, "{topic} for {reply_id:?}");
        }
    }

    #[test]
    fn response_topics_are_permitted_by_pattern_only() {
        let patterns = ["replies/+/out", "#"];
        assert!(is_response_permitted("result/a/1", "a", &[] as &[&str]));
        assert!(!is_response_permitted("replies/a/out", "a", &[] as &[&str]));
        assert!(is_response_permitted("replies/a/out", "a", &patterns[..1]));
        assert!(!is_response_permitted("replies/a/in", "a", &patterns[..1]));
        for never in [
            "localCode/a",
            "inputCode",
            "gateway/x/status",
            "$SYS/x",
            "result/+",
            "result/a/#",
            "",
            "result/a\0",
        ] {
            assert!(!is_response_permitted(never, "a", &patterns), "{never}");
        }
    }

    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, topic, expected) in [
            ("localCode/#", "localCode/a/b", true),
            ("localCode/#", "localCode", true),
            ("localCode/#", "localCode/", true),
            ("localCode/#", "localCodes", false),
            ("a/+", "a/b", true),
            ("a/+", "a/", true),
            ("a/+", "a", false),
            ("a/+", "a/b/c", false),
            ("+/+", "/a", true),
            ("/+", "/a", true),
            ("+", "/a", false),
            ("a/+/c/#", "a/b/c", true),
            ("#", "$SYS/a", false),
            ("+/a", "$SYS/a", false),
            ("$SYS/#", "$SYS/a", true),
            ("a", "a", true),
            ("a", "a/b", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} on {topic}");
        }
        for (filter, valid) in [
            ("#", true),
            ("a/#", true),
            ("+/b/#", true),
            ("a/#/b", false),
            ("a#", false),
            ("a+/b", false),
            ("", false),
            ("a\0", false),
            ("/", true),
        ] {
            assert_eq!(is_valid_filter(filter), valid, "{filter}");
        }
    }
}
