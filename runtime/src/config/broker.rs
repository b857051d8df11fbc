//! `[broker]`: an existing broker to join.

use super::table::{Setting, quoted, table};
use super::{ByteSize, HostPort, Refusal, TimeSpan, bounds};
use offload_tls::{Identity, TlsFiles};
use serde::{Deserialize, Deserializer, de};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

table! {
    /// An existing MQTT broker to join instead of the embedded one. The broker's own access rules decide who may
    /// ask and who reads the answers.
    pub struct Broker {
        /// Where the broker is.
        pub url: BrokerUrl = BrokerUrl { tls: false, address: HostPort::new("127.0.0.1", BrokerUrl::DEFAULT_PORT) };
        /// Version of MQTT. MQTT 3.1.1 has no Receive Maximum: Mosquitto then keeps 20 requests in flight, queues 1000
        /// and drops the rest without an error.
        pub protocol: MqttVersion = MqttVersion::Auto;
        /// Requests that the broker may have in flight to this gateway (MQTT 5 Receive Maximum).
        pub receive_maximum: u16 = 4_096, in 1..=u16::MAX;
        /// How long the broker keeps requests for a gateway that has lost its connection, in whole seconds (MQTT 5).
        pub session_expiry: TimeSpan = TimeSpan::secs(60), in TimeSpan::secs(1)..=TimeSpan::secs(86_400);
        /// Idle time after which the connection is probed, in whole seconds. The broker notices that a gateway's
        /// machine has died after one and a half times as long; until then it hands that gateway its share of new
        /// requests.
        pub keep_alive: TimeSpan = TimeSpan::secs(5), in TimeSpan::secs(5)..=TimeSpan::secs(3_600);
        /// Largest MQTT packet that is taken from the broker.
        pub max_packet: ByteSize = ByteSize::mib(32), in ByteSize::kib(1)..=ByteSize::mib(256);
        /// User name to connect with.
        pub username: Option<String> = None;
        /// File whose first line is the password.
        pub password_file: Option<PathBuf> = None;
        /// CA certificates, in PEM, that verify the broker, with mqtts://. Default: those that the system trusts.
        pub cafile: Option<PathBuf> = None;
        /// This gateway's own certificate, in PEM, for a broker that asks for one.
        pub cert: Option<PathBuf> = None;
        /// The certificate's private key, in PEM, not encrypted.
        pub key: Option<PathBuf> = None;
        /// Longest time that one attempt to connect may take, in whole seconds.
        pub connect_timeout: TimeSpan = TimeSpan::secs(5), in TimeSpan::secs(1)..=TimeSpan::secs(60);
        /// Wait after the first failed attempt to connect; it doubles with each further one.
        pub reconnect_min: TimeSpan = TimeSpan::millis(100), in TimeSpan::millis(10)..=TimeSpan::secs(60);
        /// Longest wait between two attempts to connect.
        pub reconnect_max: TimeSpan = TimeSpan::secs(30), in TimeSpan::millis(10)..=TimeSpan::secs(3_600);
    }
}

impl Broker {
    pub(super) fn check(&self, refusals: &mut Vec<Refusal>) {
        let whole_seconds = [
            ("broker.session_expiry", self.session_expiry),
            ("broker.keep_alive", self.keep_alive),
            ("broker.connect_timeout", self.connect_timeout),
        ];
        refusals.extend(
            whole_seconds.into_iter().filter_map(|(key, time)| bounds::fraction_of_seconds(key, time)),
        );
        if self.password_file.is_some() && self.username.is_none() {
            let problem = "the user name of this password is missing: `broker.username`";
            let refusal = Refusal::new("broker.password_file", problem).beside("broker.username");
            refusals.push(refusal.accepting("both or neither"));
        }
        let pair = ["broker.cert", "broker.key"];
        if self.cert.is_some() != self.key.is_some() {
            let [alone, missing] = if self.cert.is_some() { pair } else { [pair[1], pair[0]] };
            let refusal = Refusal::new(alone, format!("`{missing}` is missing")).beside(missing);
            refusals.push(refusal.accepting("both or neither"));
        }
        for (key, file) in [("broker.cafile", &self.cafile), ("broker.cert", &self.cert)] {
            if file.is_some() && !self.url.tls {
                let problem = "the connection to `broker.url` does not use TLS";
                let refusal = Refusal::new(key, problem).beside("broker.url");
                refusals.push(refusal.accepting("an mqtts:// URL, or no such file"));
            }
        }
    }

    /// The files for TLS, where the URL says so.
    pub fn tls(&self) -> Option<TlsFiles> {
        let identity = self.cert.clone().zip(self.key.clone());
        let identity = identity.map(|(certificate, key)| Identity { certificate, key });
        self.url.tls.then(|| TlsFiles { ca: self.cafile.clone(), identity })
    }
}

/// Where a broker is: `mqtt://HOST:PORT`, or `mqtts://` with TLS; port 1883, or 8883, when it is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// Whether it is reached by TLS.
    pub tls: bool,
    /// Its host and port.
    pub address: HostPort,
}

impl BrokerUrl {
    /// What may be written, in words.
    pub const FORM: &'static str = "mqtt://HOST or mqtt://HOST:PORT, or mqtts:// with TLS";
    /// The port that is registered for MQTT without TLS.
    pub const DEFAULT_PORT: u16 = 1883;
    /// The port that is registered for MQTT with TLS.
    pub const DEFAULT_TLS_PORT: u16 = 8883;
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "mqtts" } else { "mqtt" }, self.address)
    }
}

impl FromStr for BrokerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A password in a URL ends in logs and process lists, so nothing of such a text is repeated here either.
        if text.contains('@') {
            return Err("a URL holds no user name and no password: see username and password_file".to_owned());
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Err(format!("{text:?} is no URL")) };
        let (tls, default_port) = match scheme {
            "mqtt" => (false, Self::DEFAULT_PORT),
            "mqtts" => (true, Self::DEFAULT_TLS_PORT),
            _ => return Err(format!("{scheme}:// is no scheme of a broker")),
        };
        let address = rest.strip_suffix('/').unwrap_or(rest);
        let has_port = address.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let parsed = if has_port { address.parse() } else { format!("{address}:{default_port}").parse() };
        match parsed {
            Ok(address) => Ok(BrokerUrl { tls, address }),
            // What stands behind a colon and is no port may be a password whose host is missing.
            Err(_) if has_port => {
                Err("a URL holds a host and a port from 0 to 65535, an IPv6 address in brackets, and \
                                       no password: see username and password_file"
                    .to_owned())
            }
            Err(problem) => Err(problem),
        }
    }
}

impl Setting for BrokerUrl {
    const FORM: &'static str = BrokerUrl::FORM;
    fn to_toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl<'de> Deserialize<'de> for BrokerUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The version of MQTT that an external broker is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum MqttVersion {
    /// MQTT 5, and 3.1.1 with a warning where the broker refuses it.
    #[serde(rename = "auto")]
    Auto,
    /// MQTT 5 alone.
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1 alone.
    #[serde(rename = "3.1.1")]
    V311,
}

impl Setting for MqttVersion {
    const FORM: &'static str = "\"auto\" (5, else 3.1.1), \"5\" or \"3.1.1\"";
    fn to_toml(&self) -> Option<String> {
        Some(quoted(match self {
            MqttVersion::Auto => "auto",
            MqttVersion::V5 => "5",
            MqttVersion::V311 => "3.1.1",
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_printed() {
        for (text, printed) in [
            ("mqtt://host", "mqtt://host:1883"),
            ("mqtt://host:42/", "mqtt://host:42"),
            ("mqtt://[::1]", "mqtt://[::1]:1883"),
            ("mqtt://[::1]:9", "mqtt://[::1]:9"),
            ("mqtts://host", "mqtts://host:8883"),
            ("mqtts://[::1]:9", "mqtts://[::1]:9"),
        ] {
            assert_eq!(text.parse::<BrokerUrl>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn files_for_tls_go_with_tls_and_in_pairs() {
        let url = |text: &str| text.parse::<BrokerUrl>().unwrap();
        let file = || Some(PathBuf::from("file"));
        let plain = Broker { url: url("mqtt://host"), ..Broker::default() };
        let by_tls = Broker { url: url("mqtts://host"), ..Broker::default() };
        for (broker, refused) in [
            (Broker { cafile: file(), ..plain.clone() }, &["broker.cafile"][..]),
            (Broker { cert: file(), key: file(), ..plain.clone() }, &["broker.cert"]),
            (Broker { cert: file(), ..by_tls.clone() }, &["broker.cert"]),
            (Broker { key: file(), ..by_tls.clone() }, &["broker.key"]),
        ] {
            let mut refusals = Vec::new();
            broker.check(&mut refusals);
            assert_eq!(refusals.iter().map(|refusal| refusal.key.as_str()).collect::<Vec<_>>(), refused);
        }
        let full = Broker { cafile: file(), cert: file(), key: file(), ..by_tls.clone() };
        let mut refusals = Vec::new();
        full.check(&mut refusals);
        assert_eq!(refusals, []);
        assert_eq!(by_tls.tls(), Some(TlsFiles::default()));
        let identity = Some(Identity { certificate: "file".into(), key: "file".into() });
        assert_eq!(full.tls(), Some(TlsFiles { ca: file(), identity }));
        assert_eq!(plain.tls(), None);
    }

    #[test]
    fn what_is_no_broker_is_refused_and_no_password_repeated() {
        for text in
            ["", "host:1883", "http://host", "mqtts://", "mqtt://", "mqtt://host/path", "mqtt://host:x"]
        {
            assert!(text.parse::<BrokerUrl>().is_err(), "{text:?}");
        }
        for text in [
            "mqtt://user:secret@host",
            "user:secret@host",
            "http://u:secret@h",
            "secret://u@h",
            "a:secret@h://",
            "mqtt://user:secret",
            "mqtt://user:secret:1883x",
            "mqtts://user:secret:host",
        ] {
            let error = text.parse::<BrokerUrl>().unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
