//! Where an external broker is, or several that stand in for each other.

use super::HostPort;
use super::table::{Setting, quoted};
use serde::{Deserialize, Deserializer, de};
use std::fmt;
use std::str::FromStr;

/// Most brokers that stand in for each other.
pub const MAX_BROKERS: usize = 16;

/// Brokers that stand in for each other, in the order in which they are tried: at least one, all of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrls(Vec<BrokerUrl>);

/// Where a broker is: `mqtt://HOST:PORT`, `nats://HOST:PORT`, or with TLS `mqtts://` and `tls://`, as clients of NATS
/// write it. The port is the registered one when it is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// What it speaks.
    pub scheme: Scheme,
    /// Its host and port.
    pub address: HostPort,
}

/// What a broker speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// MQTT.
    Mqtt,
    /// MQTT over TLS.
    Mqtts,
    /// NATS.
    Nats,
    /// NATS over TLS.
    NatsTls,
}

impl Scheme {
    const ALL: [Scheme; 4] = [Scheme::Mqtt, Scheme::Mqtts, Scheme::Nats, Scheme::NatsTls];

    /// As a URL has it.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Mqtt => "mqtt",
            Scheme::Mqtts => "mqtts",
            Scheme::Nats => "nats",
            Scheme::NatsTls => "tls",
        }
    }

    /// The port that is registered for it.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Mqtt => 1883,
            Scheme::Mqtts => 8883,
            Scheme::Nats | Scheme::NatsTls => 4222,
        }
    }

    /// Whether it is NATS.
    pub fn is_nats(self) -> bool {
        matches!(self, Scheme::Nats | Scheme::NatsTls)
    }

    /// Whether the connection is by TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Scheme::Mqtts | Scheme::NatsTls)
    }
}

impl BrokerUrls {
    /// What may be written, in words.
    pub const FORM: &'static str = "mqtt://HOST[:PORT], mqtts:// with TLS, nats:// or tls:// for NATS, or several \
                                    with commas";

    /// All of them, in their order.
    pub fn all(&self) -> &[BrokerUrl] {
        &self.0
    }

    /// Others of the same kind, one for each.
    pub fn map(&self, other: impl FnMut(&BrokerUrl) -> BrokerUrl) -> BrokerUrls {
        BrokerUrls(self.0.iter().map(other).collect())
    }

    /// The first one.
    pub fn first(&self) -> &BrokerUrl {
        &self.0[0]
    }

    /// Whether these are servers of NATS.
    pub fn is_nats(&self) -> bool {
        self.first().scheme.is_nats()
    }

    /// Whether any of them is reached by TLS.
    pub fn is_tls(&self) -> bool {
        self.0.iter().any(|url| url.scheme.is_tls())
    }

    /// All of these lists as one.
    ///
    /// # Errors
    ///
    /// When there is none, there are too many, or not all are of one kind.
    pub fn concat(lists: impl IntoIterator<Item = BrokerUrls>) -> Result<BrokerUrls, String> {
        let all: Vec<BrokerUrl> = lists.into_iter().flat_map(|list| list.0).collect();
        let Some(first) = all.first() else { return Err("no broker is named".to_owned()) };
        if all.iter().any(|url| url.scheme.is_nats() != first.scheme.is_nats()) {
            return Err("MQTT and NATS cannot stand in for each other".to_owned());
        }
        if all.len() > MAX_BROKERS {
            return Err(format!("{} brokers are more than {MAX_BROKERS}", all.len()));
        }
        Ok(BrokerUrls(all))
    }
}

impl Default for BrokerUrls {
    fn default() -> BrokerUrls {
        let address = HostPort::new("127.0.0.1", Scheme::Mqtt.default_port());
        BrokerUrls(vec![BrokerUrl { scheme: Scheme::Mqtt, address }])
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.address)
    }
}

impl fmt::Display for BrokerUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(","))
    }
}

impl FromStr for BrokerUrls {
    type Err = String;

    /// A URL without a scheme has that of the one before it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all: Vec<BrokerUrls> = Vec::new();
        for part in text.split(',') {
            let part = part.trim();
            let url = match all.last() {
                Some(before) if !part.contains("://") => {
                    format!("{}://{part}", before.first().scheme.name()).parse()
                }
                _ => part.parse(),
            };
            all.push(BrokerUrls(vec![url?]));
        }
        BrokerUrls::concat(all)
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
        let Some(scheme) = Scheme::ALL.into_iter().find(|known| known.name() == scheme) else {
            return Err(format!("{scheme}:// is no scheme of a broker"));
        };
        let address = rest.strip_suffix('/').unwrap_or(rest);
        let has_port = address.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let default_port = scheme.default_port();
        let parsed = if has_port { address.parse() } else { format!("{address}:{default_port}").parse() };
        match parsed {
            Ok(address) => Ok(BrokerUrl { scheme, address }),
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

impl Setting for BrokerUrls {
    const FORM: &'static str = BrokerUrls::FORM;
    fn to_toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl<'de> Deserialize<'de> for BrokerUrls {
    /// A text, or a list of texts.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;

        impl<'de> de::Visitor<'de> for Texts {
            type Value = BrokerUrls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BrokerUrls, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<BrokerUrls, A::Error> {
                let mut all: Vec<BrokerUrls> = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    all.push(text.parse().map_err(de::Error::custom)?);
                }
                BrokerUrls::concat(all).map_err(de::Error::custom)
            }
        }

        deserializer.deserialize_any(Texts)
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
            ("nats://host", "nats://host:4222"),
            ("tls://host:1", "tls://host:1"),
        ] {
            assert_eq!(text.parse::<BrokerUrl>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn several_stand_in_for_each_other_if_they_are_of_one_kind() {
        for (text, printed) in [
            ("mqtt://a,mqtt://b:2", "mqtt://a:1883,mqtt://b:2"),
            ("nats://a, b,c:7", "nats://a:4222,nats://b:4222,nats://c:7"),
            ("mqtt://a,mqtts://b", "mqtt://a:1883,mqtts://b:8883"),
        ] {
            assert_eq!(text.parse::<BrokerUrls>().unwrap().to_string(), printed);
        }
        for text in ["mqtt://a,", "mqtt://a,nats://b", "a,mqtt://b", &["mqtt://a"; MAX_BROKERS + 1].join(",")]
        {
            assert!(text.parse::<BrokerUrls>().is_err(), "{text}");
        }
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
