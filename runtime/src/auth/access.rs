//! Who may do what: the rules of the configuration, asked about each publish, subscription and request.
//!
//! What everyone may do and what each rule that names a client adds are taken together; what none of them grants is
//! denied. Where nothing tells who a client is, topics are open to all: a gateway on loopback that two `mosquitto`
//! commands can use.
//!
//! Where certificates tell who a client is, its client id grants nothing: it may be the name of another client, which
//! is not known before that comes with its certificate.

use crate::auth::authentication::KnownBy;
use crate::client::{Client, routed_name};
use crate::config::{self, Offload, TopicFilter, TopicPattern};
use crate::site::Site;
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::topic::{self, RoutedTopic};
use std::borrow::Cow;
use std::sync::Arc;

/// Stands for all programs.
const ALL: &str = "*";

/// Topics of which only the gateway publishes any, by their first level.
const GATEWAY_LEVELS: [&str; 2] = ["result", "gateway"];

/// A client, as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Its user name, or its reply id where an external broker hides that; for a client of another site its principal.
    pub user: Option<&'a str>,
    /// Its client id.
    pub client_id: &'a str,
    /// Whether it came over WebSocket, as any web page can.
    pub web: bool,
}

impl<'a> From<&'a Client> for Who<'a> {
    fn from(client: &'a Client) -> Who<'a> {
        Who { user: client.principal.as_deref(), client_id: &client.flow, web: client.web }
    }
}

/// The rules of the configuration.
pub struct Access {
    /// How clients are identified; where they are not, topics are open.
    known_by: KnownBy,
    everyone: Grants,
    rules: Vec<(Named, Grants)>,
    /// Which gate this is, and whether other sites need rules.
    site: Arc<Site>,
}

/// The clients that a rule names.
struct Named {
    users: Vec<TopicFilter>,
    anonymous: bool,
}

/// What a rule grants.
struct Grants {
    publish: Vec<TopicPattern>,
    subscribe: Vec<TopicPattern>,
    offload: Vec<Offload>,
    programs: Vec<String>,
    native: Option<config::NativeMode>,
}

impl Access {
    /// The rules of `config`, for clients that are known by this, at this site.
    pub fn new(config: &config::Access, known_by: KnownBy, site: Arc<Site>) -> Access {
        let everyone = Grants {
            publish: config.publish.clone(),
            subscribe: config.subscribe.clone(),
            offload: config.offload.clone(),
            programs: config.programs.clone(),
            native: None,
        };
        let rules = config.rule.iter().map(|rule| {
            let named = Named { users: rule.users.clone(), anonymous: rule.anonymous };
            let grants = Grants {
                publish: rule.publish.clone(),
                subscribe: rule.subscribe.clone(),
                offload: rule.offload.clone(),
                programs: rule.programs.clone(),
                native: rule.native,
            };
            (named, grants)
        });
        Access { known_by, everyone, rules: rules.collect(), site }
    }

    /// Whether `who` may publish to this topic.
    pub fn may_publish(&self, who: Who, topic: &str) -> bool {
        if topic.split('/').next().is_some_and(|first| GATEWAY_LEVELS.contains(&first)) {
            return false;
        }
        match topic::parse_routed(topic) {
            // The permission of the plain topic, and a rule that names the gate.
            Some(RoutedTopic { gate, plain }) => {
                self.may_publish(who, plain)
                    && (self.site.is_own(gate) || self.asks_freely(who) || self.grants_topic(who, topic))
            }
            None => self.is_open(who) || self.grants_topic(who, topic),
        }
    }

    fn grants_topic(&self, who: Who, topic: &str) -> bool {
        self.any(who, |grants| {
            let mut filters = grants.publish.iter().filter_map(|pattern| self.filter(pattern, who));
            filters.any(|filter| topic::matches(&filter, topic))
        })
    }

    /// Whether `who` may subscribe to this filter: whether one that is granted covers it, or the filter of the answers
    /// whose streams these are.
    pub fn may_subscribe(&self, who: Who, wanted: &str) -> bool {
        let is_granted = |wanted| self.is_granted(who, wanted);
        self.is_open(who) || is_granted(wanted) || topic::answers_of_streams(wanted).any(is_granted)
    }

    fn is_granted(&self, who: Who, wanted: &str) -> bool {
        self.any(who, |grants| {
            let mut filters = grants.subscribe.iter().filter_map(|pattern| self.filter(pattern, who));
            filters.any(|filter| topic::covers(&filter, wanted))
        })
    }

    /// Whether `who` may send code of this kind.
    ///
    /// # Errors
    ///
    /// `unauthorized`.
    pub fn may_offload(&self, who: Who, offload: Offload) -> Result<(), WireError> {
        let granted = |grants: &Grants| grants.offload.contains(&offload);
        let named = || self.rules_for(who).any(granted);
        // What a web page sends is run natively only where a rule says so.
        let everyone = self.everyone(who).is_some_and(granted) && !(who.web && offload == Offload::Source);
        if everyone || named() {
            return Ok(());
        }
        let what = match offload {
            Offload::Wasm => "modules",
            Offload::Source => "source",
        };
        Err(WireError::new(
            ErrorKind::Unauthorized,
            format!("this client may not send {what}; ask the operator"),
        ))
    }

    /// Whether `who` may run the program of this name.
    pub fn may_run(&self, who: Who, program: &str) -> bool {
        self.any(who, |grants| grants.programs.iter().any(|name| name == program || name == ALL))
    }

    /// How `who`'s source is run: as the last rule says that names the client and sets it.
    pub fn native(&self, who: Who) -> Option<config::NativeMode> {
        self.rules_for(who).filter_map(|grants| grants.native).last()
    }

    /// Whether `who` may have subscribed to something by these rules that `newer` ones, for clients that are known in
    /// the same way, do not grant.
    pub fn grants_more_than(&self, newer: &Access, who: Who) -> bool {
        !self.is_open(who)
            && self.any(who, |grants| {
                let mut filters = grants.subscribe.iter().filter_map(|pattern| self.filter(pattern, who));
                filters.any(|filter| !newer.may_subscribe(who, &filter))
            })
    }

    fn is_open(&self, who: Who) -> bool {
        self.known_by == KnownBy::Nothing && !who.web && self.everyone(who).is_some()
    }

    /// Whether a client of this site needs no rule to ask another one.
    fn asks_freely(&self, who: Who) -> bool {
        self.is_open(who) && self.site.is_local()
    }

    /// What all may do. A client of another site has none of it, unless nobody needs rules in this network.
    fn everyone(&self, who: Who) -> Option<&Grants> {
        let is_routed = who.user.and_then(routed_name).is_some();
        let is_free = || self.known_by == KnownBy::Nothing && self.site.network_is_local();
        (!is_routed || is_free()).then_some(&self.everyone)
    }

    fn any(&self, who: Who, granted: impl Fn(&Grants) -> bool) -> bool {
        self.everyone(who).is_some_and(&granted) || self.rules_for(who).any(granted)
    }

    fn rules_for(&self, who: Who) -> impl Iterator<Item = &Grants> {
        let has_gate = self.site.gate().is_some();
        let names_it = move |named: &Named| match who.user {
            Some(user) => named.users.iter().any(|filter| names(filter, user, has_gate)),
            None => named.anonymous,
        };
        self.rules.iter().filter(move |(named, _)| names_it(named)).map(|(_, grants)| grants)
    }

    fn filter<'a>(&self, pattern: &'a TopicPattern, who: Who) -> Option<Cow<'a, str>> {
        let own_name = who.user == Some(who.client_id);
        let client_id = (own_name || self.known_by != KnownBy::Certificates).then_some(who.client_id);
        pattern.filter_for(who.user, client_id)
    }
}

/// Whether a rule's filter names this user. Where there is a gate, a filter with a `/` is about clients of other sites,
/// and names none unless it names their gate; no other filter is about them.
fn names(filter: &TopicFilter, user: &str, has_gate: bool) -> bool {
    let gate = filter.as_ref().split_once('/').map(|(gate, _)| gate);
    match routed_name(user) {
        Some(name) => gate.is_some_and(topic::is_gate) && filter.matches(name),
        None => !(has_gate && gate.is_some()) && filter.matches(user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(text: &str, known_by: KnownBy) -> Access {
        Access::new(&toml::from_str(text).unwrap(), known_by, Arc::default())
    }

    fn at(site: Site, text: &str, known_by: KnownBy) -> Access {
        Access::new(&toml::from_str(text).unwrap(), known_by, Arc::new(site))
    }

    #[test]
    fn a_client_of_another_site_has_what_a_rule_gives_it_that_names_its_gate() {
        let rules = r##"
            [[rule]]
            users = ["#", "+/plc"]
            publish = ["#"]
            offload = ["wasm", "source"]
            programs = ["*"]
            [[rule]]
            users = ["north/plc"]
            publish = ["localCode/+"]
            programs = ["add"]
        "##;
        let access = at(Site::new(Some("south".to_owned()), false), rules, KnownBy::Nothing);
        let routed = |name| Who { user: Some(name), client_id: name, web: false };
        let plc = routed("\0north/plc");
        assert!(access.may_publish(plc, "localCode/any") && access.may_run(plc, "add"));
        assert!(!access.may_publish(plc, "inputCode/any") && !access.may_run(plc, "sort"));
        assert!(access.may_offload(plc, Offload::Wasm).is_err());
        for stranger in ["\0north/", "\0west/plc", "\0north/plc/x", "\0plc"] {
            assert!(!access.may_publish(routed(stranger), "localCode/any"), "{stranger:?}");
            assert!(!access.may_run(routed(stranger), "add"), "{stranger:?}");
        }
        // What is only called so.
        assert!(
            !at(Site::new(Some("south".to_owned()), false), rules, KnownBy::Passwords)
                .rules_for(user("north/plc"))
                .any(|grants| grants.programs == ["add"])
        );
    }

    #[test]
    fn to_ask_another_site_takes_the_plain_permission_and_a_rule() {
        let rules = "[[rule]]\nusers = [\"plc\"]\npublish = [\"net/north/#\"]";
        let site = || Site::new(Some("south".to_owned()), false);
        let access = at(site(), rules, KnownBy::Passwords);
        for (topic, allowed) in [
            ("net/north/localCode/plc", true),
            ("net/north/localCode/other", false),
            ("net/west/localCode/plc", false),
            ("net/south/localCode/plc", true),
            ("net/south/localCode/other", false),
        ] {
            assert_eq!(access.may_publish(user("plc"), topic), allowed, "{topic}");
        }
        assert!(!access.may_publish(user("panel"), "net/north/localCode/panel"));
        let exposed = at(site(), "", KnownBy::Nothing);
        assert!(!exposed.may_publish(NOBODY, "net/north/localCode/c7"), "all may do all, but for this");
        let local = at(Site::new(Some("south".to_owned()), true), "", KnownBy::Nothing);
        assert!(local.may_publish(NOBODY, "net/north/localCode/c7"));
    }

    #[test]
    fn where_all_of_the_network_is_on_loopback_no_rule_is_needed() {
        let site = Arc::new(Site::new(Some("south".to_owned()), true));
        let access = Access::new(&config::Access::default(), KnownBy::Nothing, site.clone());
        let asker = Who { user: Some("\0north/"), client_id: "\0north/", web: false };
        assert!(!access.may_publish(asker, "localCode/c7") && !access.may_run(asker, "add"));
        site.set_network_is_local(true);
        assert!(access.may_publish(asker, "localCode/c7") && access.may_run(asker, "add"));
        assert!(access.may_offload(asker, Offload::Source).is_ok());
        let page = Who { web: true, ..asker };
        assert!(
            !access.may_publish(page, "localCode/c7") && access.may_offload(page, Offload::Source).is_err()
        );
    }

    fn user(name: &'static str) -> Who<'static> {
        Who { user: Some(name), client_id: "c7", web: false }
    }

    const NOBODY: Who = Who { user: None, client_id: "c7", web: false };

    #[test]
    fn by_default_a_client_has_its_own_request_and_result_topics() {
        let access = access("", KnownBy::Passwords);
        for (topic, allowed) in [
            ("inputCode/plc", true),
            ("localCode/c7", true),
            ("localCode/", true),
            ("localCode/other", false),
            ("localCode/plc/x", false),
            ("localCode", false),
            ("result/plc", false),
            ("gateway/g/status", false),
            ("sensors/plc", false),
        ] {
            assert_eq!(access.may_publish(user("plc"), topic), allowed, "{topic}");
        }
        for (filter, allowed) in [
            ("result/plc", true),
            ("result/c7", true),
            ("result/plc/x", true),
            ("result/plc/#", true),
            ("result/", true),
            ("result/+", false),
            ("result/#", false),
            ("#", false),
            ("+/plc", false),
            ("result/other", false),
        ] {
            assert_eq!(access.may_subscribe(user("plc"), filter), allowed, "{filter}");
        }
        assert!(!access.may_publish(NOBODY, "inputCode/plc"));
        assert!(access.may_publish(NOBODY, "inputCode/c7"));
    }

    #[test]
    fn whoever_may_have_answers_may_have_their_streams() {
        let access = access("subscribe = [\"result/%u\", \"result/\", \"state/#\"]", KnownBy::Passwords);
        for (filter, allowed) in [
            ("result/plc/stream/#", true),
            ("result/plc/stream/a/+", true),
            ("result//stream/#", true),
            ("result/plc/stream", false),
            ("result/plc/streams/#", false),
            ("result/plc/#", false),
            ("result/other/stream/#", false),
            ("result/+/stream/#", false),
            ("+/plc/stream/#", false),
        ] {
            assert_eq!(access.may_subscribe(user("plc"), filter), allowed, "{filter}");
        }
    }

    #[test]
    fn where_certificates_tell_who_a_client_is_client_ids_grant_nothing() {
        let rules = "[[rule]]\nusers = [\"#\"]\nanonymous = true\npublish = [\"line/%c\", \"line/%u\"]";
        let access = access(rules, KnownBy::Certificates);
        for who in [user("plc"), NOBODY] {
            for topic in ["inputCode/c7", "localCode/c7", "line/c7"] {
                assert!(!access.may_publish(who, topic), "{who:?} {topic}");
            }
            assert!(!access.may_subscribe(who, "result/c7") && !access.may_subscribe(who, "result/c7/#"));
            assert!(access.may_publish(who, "localCode/") && access.may_subscribe(who, "result/"));
        }
        assert!(access.may_publish(user("plc"), "localCode/plc"));
        assert!(access.may_publish(user("plc"), "line/plc"));
        assert!(access.may_subscribe(user("plc"), "result/plc/#"));
        let own = Who { client_id: "plc", ..user("plc") };
        assert!(access.may_publish(own, "line/plc") && access.may_subscribe(own, "result/plc"));
    }

    #[test]
    fn a_name_that_holds_a_wildcard_or_a_level_matches_no_pattern() {
        let access = access("", KnownBy::Passwords);
        for name in ["+", "#", "plc/x", ""] {
            let who = Who { user: Some(name), client_id: name, web: false };
            assert!(!access.may_subscribe(who, "result/plc"), "{name:?}");
            assert!(!access.may_subscribe(who, &format!("result/{name}x")), "{name:?}");
            assert!(!access.may_publish(who, "inputCode/plc/x"), "{name:?}");
        }
    }

    #[test]
    fn rules_add_up_for_those_whom_they_name() {
        let access = access(
            r##"
            offload = []
            programs = ["add"]
            [[rule]]
            users = ["panel"]
            subscribe = ["result/#", "$SYS/#"]
            [[rule]]
            users = ["line3/+", "panel"]
            publish = ["sensors/%u/#", "plant/#"]
            offload = ["wasm"]
            programs = ["*"]
            [[rule]]
            anonymous = true
            publish = ["guests/%c"]
            "##,
            KnownBy::Passwords,
        );
        assert!(access.may_subscribe(user("panel"), "result/+/x"));
        assert!(access.may_subscribe(user("panel"), "$SYS/broker/#"));
        assert!(!access.may_subscribe(user("panel"), "#"));
        assert!(access.may_publish(user("panel"), "sensors/panel/1"));
        assert!(access.may_publish(user("line3/plc"), "plant/x"));
        assert!(!access.may_publish(user("line3/plc"), "sensors/line3/plc/1"), "%u holds a level");
        assert!(!access.may_publish(user("plc"), "plant/x"));
        assert!(access.may_publish(NOBODY, "guests/c7"));
        assert!(!access.may_publish(user("plc"), "guests/c7"));
        assert!(access.may_offload(user("panel"), Offload::Wasm).is_ok());
        assert!(access.may_offload(user("plc"), Offload::Wasm).is_err());
        assert!(access.may_run(user("panel"), "sort") && access.may_run(user("plc"), "add"));
        assert!(!access.may_run(user("plc"), "sort"));
    }

    #[test]
    fn the_last_rule_that_says_so_decides_what_becomes_of_source() {
        use config::NativeMode::{Compare, Off, Wasm};
        let access = access(
            r##"
            [[rule]]
            users = ["#"]
            native = "wasm"
            [[rule]]
            users = ["plc", "panel"]
            native = "compare"
            [[rule]]
            users = ["panel"]
            native = "off"
            [[rule]]
            users = ["plc"]
            "##,
            KnownBy::Passwords,
        );
        for (who, native) in [
            (user("other"), Some(Wasm)),
            (user("plc"), Some(Compare)),
            (user("panel"), Some(Off)),
            (NOBODY, None),
        ] {
            assert_eq!(access.native(who), native, "{who:?}");
        }
    }

    #[test]
    fn where_nothing_tells_who_a_client_is_topics_are_open_but_not_to_web_pages() {
        let access = access("", KnownBy::Nothing);
        assert!(access.may_publish(NOBODY, "localCode/whoever"));
        assert!(access.may_subscribe(NOBODY, "#"));
        assert!(!access.may_publish(NOBODY, "result/whoever"), "not even then");
        let page = Who { web: true, ..NOBODY };
        assert!(!access.may_publish(page, "localCode/whoever"));
        assert!(!access.may_subscribe(page, "#"));
        assert!(access.may_publish(page, "localCode/c7"));
        assert!(access.may_offload(page, Offload::Wasm).is_ok());
        assert!(access.may_offload(page, Offload::Source).is_err());
        assert!(access.may_offload(NOBODY, Offload::Source).is_ok());
    }

    #[test]
    fn whoever_loses_a_filter_is_known() {
        let before = access(
            r##"
            [[rule]]
            users = ["panel"]
            subscribe = ["plant/#"]
            [[rule]]
            users = ["line"]
            subscribe = ["plant/1/#"]
            "##,
            KnownBy::Passwords,
        );
        let after = access("[[rule]]\nusers = [\"panel\"]\nsubscribe = [\"plant/1/#\"]", KnownBy::Passwords);
        for (who, loses) in
            [(user("panel"), true), (user("line"), true), (user("plc"), false), (NOBODY, false)]
        {
            assert_eq!(before.grants_more_than(&after, who), loses, "{who:?}");
            assert!(!after.grants_more_than(&after, who) && !before.grants_more_than(&before, who));
        }
        assert!(!after.grants_more_than(&before, user("panel")), "it has more now");
        let open = access("subscribe = []", KnownBy::Nothing);
        assert!(!access("", KnownBy::Nothing).grants_more_than(&open, NOBODY), "all may do all");
    }

    #[test]
    fn a_rule_lets_a_web_page_send_source() {
        let access = access("[[rule]]\nusers = [\"panel\"]\noffload = [\"source\"]", KnownBy::Passwords);
        let page = Who { web: true, ..user("panel") };
        assert!(access.may_offload(page, Offload::Source).is_ok());
        assert!(access.may_offload(Who { user: Some("other"), ..page }, Offload::Source).is_err());
    }
}
