//! `[network]`: the gateway as the router of its site, and `[master]`: what joins the routers.

use super::table::{Setting, quoted, table};
use super::{BrokerUrl, ByteSize, HostPort, Refusal, TimeSpan, TopicFilter};
use offload_protocol::topic;
use offload_tls::{Identity, TlsFiles};
use serde::{Deserialize, Deserializer, de};
use std::net::IpAddr;
use std::path::PathBuf;

/// The port of a master, beside those of MQTT.
pub const MASTER_PORT: u16 = 1884;

table! {
    /// The gateway is the router of its site: its clients ask other sites on `net/<gate>/…`, and those ask here. A
    /// rule names clients of other sites as `users = ["<gate>/<principal>"]`. Absent, there are no other sites.
    pub struct Network {
        /// The site's name for the others: 1 to 64 letters, digits, `_` and `-`. With TLS the common name of `cert`.
        pub gate: String = String::new();
        /// The master, mqtt:// on loopback and mqtts:// elsewhere; of several each is joined, and those behind the
        /// first are used where the ones before them are away.
        pub master: Masters = Masters(Vec::new());
        /// CA certificates, in PEM, that verify the masters. Default: those that the system trusts.
        pub cafile: Option<PathBuf> = None;
        /// This gateway's certificate, in PEM; `offload-rt keygen DIR --device GATE` makes one.
        pub cert: Option<PathBuf> = None;
        /// The certificate's private key, in PEM, not encrypted.
        pub key: Option<PathBuf> = None;
        /// Requests that may be on their way to other sites; one site takes no more than is left for the others.
        pub buffer_requests: usize = 4_096, in 1..=1_000_000;
        /// Bytes of these requests.
        pub buffer_bytes: ByteSize = ByteSize::mib(64), in ByteSize::kib(64)..=ByteSize::gib(64);
        /// How long a request waits for a site that is away, until it is answered `unreachable`.
        pub buffer_age: TimeSpan = TimeSpan::secs(30), in TimeSpan::millis(100)..=TimeSpan::secs(86_400);
        /// Topics of this site's broker whose messages other sites may have, those below `import_prefix` excepted.
        pub export: Vec<TopicFilter> = Vec::new();
        /// Topics of other sites whose messages are published here, below `import_prefix`/<gate>/: "<gate>/<filter>".
        pub import: Vec<TopicFilter> = Vec::new();
        /// The first levels of what is imported.
        pub import_prefix: String = "sites".to_owned();
        /// Gates that requests are handed on to while this gateway is saturated and they are less busy; they need rules
        /// for "<this gate>/<principal>". What they refuse runs here.
        pub overflow: Vec<String> = Vec::new();
        /// Whether requests that bring code are handed on too, and not only those for programs.
        pub overflow_code: bool = false;
        /// Idle time after which a master is probed, in whole seconds. It takes a gateway for lost after one and a half
        /// times as long.
        pub keep_alive: TimeSpan = TimeSpan::secs(5), in TimeSpan::secs(5)..=TimeSpan::secs(3_600);
        /// Longest wait between two attempts to connect to a master.
        pub reconnect_max: TimeSpan = TimeSpan::secs(2), in TimeSpan::millis(100)..=TimeSpan::secs(3_600);
    }
}

table! {
    /// What `offload-rt master` reads: it joins the routers of sites. Other tables mean nothing to it.
    pub struct Master {
        /// Where to listen; port 0 picks a free one. Without `certificate` on loopback alone.
        pub address: HostPort = HostPort::new("127.0.0.1", MASTER_PORT);
        /// The master's certificate and those that lead to its CA, in PEM: routers connect by TLS, with certificates of
        /// their own.
        pub certificate: Option<PathBuf> = None;
        /// The certificate's private key, in PEM.
        pub key: Option<PathBuf> = None;
        /// CA certificates, in PEM, that verify routers: the common name of a router's certificate is its gate.
        pub client_ca: Option<PathBuf> = None;
        /// Gates that are let in; all that have a certificate if the list is empty.
        pub gates: Vec<String> = Vec::new();
    }
}

impl Network {
    pub(super) fn check(&self, refusals: &mut Vec<Refusal>) {
        if !topic::is_gate(&self.gate) {
            let refusal = Refusal::new("network.gate", format!("{:?} is no gate's name", self.gate));
            refusals.push(refusal.accepting("1 to 64 letters, digits, `_` and `-`"));
        }
        if self.master.0.is_empty() {
            let refusal = Refusal::new("network.master", "the master is missing");
            refusals.push(refusal.accepting(Masters::FORM));
        }
        for url in self.master.0.iter().filter(|url| !url.scheme.is_tls() && !is_loopback(&url.address)) {
            let problem = format!("{url} is not on loopback, and not by TLS");
            let refusal = Refusal::new("network.master", problem);
            refusals
                .push(refusal.accepting("mqtts://, or mqtt:// with a loopback address such as 127.0.0.1"));
        }
        let reserved = ["result", "gateway", "net", "localCode", "inputCode"];
        let first = self.import_prefix.split('/').next().unwrap_or_default();
        if !topic::is_valid_name(&self.import_prefix) || first.starts_with('$') || reserved.contains(&first) {
            let problem = format!("{:?} is no topic for messages of other sites", self.import_prefix);
            let refusal = Refusal::new("network.import_prefix", problem);
            refusals.push(refusal.accepting("a topic without wildcards, not one that the gateway uses"));
        }
        for filter in self.export.iter().map(AsRef::as_ref) {
            let first: &str = filter;
            let first = first.split('/').next().unwrap_or_default();
            if ["#", "+"].contains(&first) || reserved.contains(&first) {
                let problem = format!("{filter:?} holds topics of the gateway");
                let refusal = Refusal::new("network.export", problem);
                refusals
                    .push(refusal.accepting("filters whose first level is none of those and no wildcard"));
            }
        }
        for filter in self.import.iter().map(AsRef::as_ref) {
            let gate = filter.split_once('/').map(|(gate, _)| gate);
            if !gate.is_some_and(topic::is_gate) {
                let refusal = Refusal::new("network.import", format!("{filter:?} names no gate"));
                refusals.push(refusal.accepting("\"<gate>/<filter>\""));
            }
        }
        for gate in self.overflow.iter().filter(|gate| !topic::is_gate(gate)) {
            let refusal = Refusal::new("network.overflow", format!("{gate:?} is no gate's name"));
            refusals.push(refusal.accepting("1 to 64 letters, digits, `_` and `-`"));
        }
        let by_tls = self.master.0.iter().any(|url| url.scheme.is_tls());
        if self.cert.is_some() != self.key.is_some() || (by_tls && self.cert.is_none()) {
            let missing = if self.cert.is_none() { "network.cert" } else { "network.key" };
            let refusal = Refusal::new(missing, "the file is missing").beside("network.master");
            refusals.push(refusal.accepting("a PEM file; `offload-rt keygen` makes one"));
        }
    }

    /// The files for TLS.
    pub fn tls(&self) -> TlsFiles {
        let identity = self.cert.clone().zip(self.key.clone());
        let identity = identity.map(|(certificate, key)| Identity { certificate, key });
        TlsFiles { ca: self.cafile.clone(), identity }
    }
}

impl Master {
    pub(super) fn check(&self, refusals: &mut Vec<Refusal>) {
        let files = [
            ("master.certificate", &self.certificate),
            ("master.key", &self.key),
            ("master.client_ca", &self.client_ca),
        ];
        if files.iter().any(|(_, file)| file.is_some()) {
            for (key, _) in files.iter().filter(|(_, file)| file.is_none()) {
                let refusal = Refusal::new(*key, "the file is missing: both ends have certificates");
                refusals.push(refusal.accepting("a PEM file; `offload-rt keygen` makes one"));
            }
        } else if self.address.is_exposed() {
            let problem = format!("any machine could join at {}: there are no certificates", self.address);
            let refusal = Refusal::new("master.address", problem).beside("master.certificate");
            refusals.push(
                refusal.accepting("a loopback address, or `master.certificate`, `key` and `client_ca`"),
            );
        }
        for gate in self.gates.iter().filter(|gate| !topic::is_gate(gate)) {
            let refusal = Refusal::new("master.gates", format!("{gate:?} is no gate's name"));
            refusals.push(refusal.accepting("1 to 64 letters, digits, `_` and `-`"));
        }
    }
}

/// Whether this is loopback by its name.
fn is_loopback(address: &HostPort) -> bool {
    let ip = address.host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Where the masters are, in the order in which they are preferred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Masters(pub Vec<BrokerUrl>);

impl Setting for Masters {
    const FORM: &'static str =
        "mqtt://HOST:PORT on loopback, mqtts://HOST:PORT elsewhere, or a list of these";
    fn to_toml(&self) -> Option<String> {
        match &self.0[..] {
            [] => None,
            [url] => Some(quoted(url)),
            urls => Some(format!("[{}]", urls.iter().map(quoted).collect::<Vec<_>>().join(", "))),
        }
    }
}

impl<'de> Deserialize<'de> for Masters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum OneOrMore {
            One(String),
            More(Vec<String>),
        }
        let urls = match OneOrMore::deserialize(deserializer)? {
            OneOrMore::One(url) => vec![url],
            OneOrMore::More(urls) => urls,
        };
        urls.iter()
            .map(|url| master_url(url))
            .collect::<Result<_, _>>()
            .map(Masters)
            .map_err(de::Error::custom)
    }
}

/// The URL of a master, which has a port of its own where none is named.
///
/// # Errors
///
/// As for any broker's URL.
pub fn master_url(text: &str) -> Result<BrokerUrl, String> {
    let mut url: BrokerUrl = text.parse()?;
    let authority = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    if !has_port {
        url.address.port = MASTER_PORT;
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Vec<String> {
        let network: Network = toml::from_str(text).unwrap();
        let mut refusals = Vec::new();
        network.check(&mut refusals);
        refusals.into_iter().map(|refusal| refusal.key).collect()
    }

    #[test]
    fn a_router_has_a_gate_and_a_master_that_is_near_or_by_tls() {
        assert_eq!(refused("gate = \"north\"\nmaster = \"mqtt://127.0.0.1\""), [""; 0]);
        assert_eq!(
            refused("gate = \"north\"\nmaster = [\"mqtt://localhost:1\", \"mqtt://[::1]:2\"]"),
            [""; 0]
        );
        assert_eq!(refused(""), ["network.gate", "network.master"]);
        assert_eq!(
            refused("gate = \"a.b\"\nmaster = \"mqtt://10.0.0.1\""),
            ["network.gate", "network.master"]
        );
        assert_eq!(refused("gate = \"a\"\nmaster = \"mqtts://10.0.0.1\""), ["network.cert"]);
        let files = "cert = \"c\"\nkey = \"k\"";
        assert_eq!(refused(&format!("gate = \"a\"\nmaster = \"mqtts://10.0.0.1\"\n{files}")), [""; 0]);
    }

    #[test]
    fn a_master_has_a_port_of_its_own() {
        for (text, url) in [
            ("mqtt://127.0.0.1", "mqtt://127.0.0.1:1884"),
            ("mqtts://hub/", "mqtts://hub:1884"),
            ("mqtt://[::1]", "mqtt://[::1]:1884"),
            ("mqtt://[::1]:9", "mqtt://[::1]:9"),
        ] {
            assert_eq!(master_url(text).unwrap().to_string(), url);
        }
    }

    #[test]
    fn a_master_listens_on_loopback_or_with_certificates_of_both_ends() {
        for (text, expected) in [
            ("", &[][..]),
            ("address = \"0.0.0.0:1884\"", &["master.address"]),
            ("certificate = \"c\"\nkey = \"k\"", &["master.client_ca"]),
            ("address = \"0.0.0.0:1884\"\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"a\"", &[]),
        ] {
            let master: Master = toml::from_str(text).unwrap();
            let mut refusals = Vec::new();
            master.check(&mut refusals);
            assert_eq!(refusals.iter().map(|refusal| refusal.key.as_str()).collect::<Vec<_>>(), expected);
        }
    }
}
