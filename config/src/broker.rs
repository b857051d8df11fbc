//! `[broker]`: an existing broker to join.

use super::table::{Setting, quoted, table};
use super::{BrokerUrls, ByteSize, Refusal, TimeSpan, bounds};
use offload_tls::{Identity, TlsFiles};
use serde::Deserialize;
use std::path::PathBuf;

/// Longest name of a group of gateways, in bytes: on NATS it begins names of files.
const MAX_SHARE: usize = 64;

table! {
    /// An existing MQTT broker, or NATS, to join instead of the embedded broker. The broker's own access rules decide
    /// who may ask and who reads the answers.
    pub struct Broker {
        /// Where the broker is. Of several MQTT brokers one is used at a time, the first that can be reached; of NATS
        /// these are servers of one cluster.
        pub url: BrokerUrls = BrokerUrls::default();
        /// The group of gateways that share the work on this broker: each request is answered by one of them. 1 to 64
        /// of `A-Z a-z 0-9 _ -`.
        pub share: String = "offload-rt".to_owned();
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
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if self.share.is_empty() || self.share.len() > MAX_SHARE || !self.share.chars().all(is_name) {
            let problem = format!("{:?} is no name of a group", self.share);
            refusals.push(Refusal::new("broker.share", problem).accepting("1 to 64 of `A-Z a-z 0-9 _ -`"));
        }
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
            if file.is_some() && !self.url.is_tls() {
                let problem = "the connection to `broker.url` does not use TLS";
                let refusal = Refusal::new(key, problem).beside("broker.url");
                refusals.push(refusal.accepting("an mqtts:// or tls:// URL, or no such file"));
            }
        }
    }

    /// The files for TLS, where a URL says so.
    pub fn tls(&self) -> Option<TlsFiles> {
        let identity = self.cert.clone().zip(self.key.clone());
        let identity = identity.map(|(certificate, key)| Identity { certificate, key });
        self.url.is_tls().then(|| TlsFiles { ca: self.cafile.clone(), identity })
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
    fn files_for_tls_go_with_tls_and_in_pairs() {
        let url = |text: &str| text.parse::<BrokerUrls>().unwrap();
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
}
