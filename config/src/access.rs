//! `[access]`: which clients may connect, and what they may do.

use super::table::{Setting, quoted, table};
use super::{NativeMode, Refusal, TopicFilter, TopicPattern};
use serde::Deserialize;
use std::path::PathBuf;

/// Kinds of code that a request can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Offload {
    /// WebAssembly: modules, components, and their digests.
    Wasm,
    /// Source that is built and run, where `native` is on.
    Source,
}

impl Setting for Vec<Offload> {
    const FORM: &'static str = "a list of \"wasm\" and \"source\"";
    fn to_toml(&self) -> Option<String> {
        let names = self.iter().map(|offload| match offload {
            Offload::Wasm => "\"wasm\"",
            Offload::Source => "\"source\"",
        });
        Some(format!("[{}]", names.collect::<Vec<_>>().join(", ")))
    }
}

impl Setting for Vec<String> {
    const FORM: &'static str = "a list of strings";
    fn to_toml(&self) -> Option<String> {
        Some(format!("[{}]", self.iter().map(quoted).collect::<Vec<_>>().join(", ")))
    }
}

table! {
    /// Which clients may connect, and what all of them may do; `[[access.rule]]` adds to that. Only the gateway
    /// publishes to `result/`, `gateway/` and `$…`.
    pub struct Access {
        /// File of user names and hashed passwords; `offload-rt passwd` writes it. Changes take effect at once, for
        /// connected clients too.
        pub passwords: Option<PathBuf> = None;
        /// Whether clients without a name may connect. Default: only where neither `passwords` nor client certificates
        /// identify clients and the gateway listens on loopback alone; never over WebSocket.
        pub anonymous: Option<bool> = None;
        /// Topics that clients may publish to. `%u` is the user name, `%c` the client id, which matches nothing where
        /// there is a `tls.client_ca`. Where clients are not identified, all topics are open.
        pub publish: Vec<TopicPattern> =
            patterns(["localCode/%u", "localCode/%c", "localCode/", "inputCode/%u", "inputCode/%c", "inputCode/"]);
        /// Filters that clients may subscribe to, and narrower ones. Where clients are not identified, all are open.
        pub subscribe: Vec<TopicPattern> = patterns(["result/%u/#", "result/%c/#", "result/"]);
        /// Code that clients may send.
        pub offload: Vec<Offload> = vec![Offload::Wasm, Offload::Source];
        /// Programs that clients may run, by name; "*" is all of them.
        pub programs: Vec<String> = vec!["*".to_owned()];
    }
    tables {
        /// `[[access.rule]]`: what some clients may do besides.
        pub rule: Vec<Rule>,
    }
}

table! {
    /// What some clients may do in addition to what all may do. All rules that name a client apply; for `native` the
    /// last of them that sets it.
    pub struct Rule {
        /// User names, or topic filters over them: "#" is every user. On another broker a client's reply id is its user
        /// name. With a `[network]`, "<gate>/<name>" is a client of another site, "<gate>/#" all of that site.
        pub users: Vec<TopicFilter> = Vec::new();
        /// Whether the rule applies to clients without a name too.
        pub anonymous: bool = false;
        /// Topics that they may publish to.
        pub publish: Vec<TopicPattern> = Vec::new();
        /// Filters that they may subscribe to, and narrower ones.
        pub subscribe: Vec<TopicPattern> = Vec::new();
        /// Code that they may send.
        pub offload: Vec<Offload> = Vec::new();
        /// Programs that they may run, by name; "*" is all of them.
        pub programs: Vec<String> = Vec::new();
        /// How their source is run. Default: `native` at the top of the file.
        pub native: Option<NativeMode> = None;
    }
}

fn patterns<const N: usize>(texts: [&str; N]) -> Vec<TopicPattern> {
    texts.into_iter().map(|text| text.parse().expect("a topic filter")).collect()
}

impl Rule {
    /// `path` is that of the table, for the refusals.
    pub(super) fn check(&self, path: &str, access: &Access, refusals: &mut Vec<Refusal>) {
        let users = format!("{path}.users");
        if self.users.is_empty() && !self.anonymous {
            let refusal = Refusal::new(users, "the rule names no client");
            refusals.push(refusal.accepting("user names, or `anonymous = true`"));
        } else if self.users.is_empty() && access.anonymous == Some(false) {
            let problem = "the rule names no client: `access.anonymous` is false";
            let refusal = Refusal::new(users, problem).beside("access.anonymous");
            refusals.push(refusal.accepting("user names, or `access.anonymous = true`"));
        }
    }
}
