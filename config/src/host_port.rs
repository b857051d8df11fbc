//! A host and a port.

use super::table::{Setting, quoted};
use serde::{Deserialize, Deserializer, de};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Where to listen, or whom to call: `127.0.0.1:1883`, `localhost:0`, `[::1]:1883`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address; IPv6 without its brackets.
    pub host: String,
    /// TCP port; 0 to listen on any free one.
    pub port: u16,
}

impl HostPort {
    /// Host and port joined.
    pub fn new(host: impl Into<String>, port: u16) -> HostPort {
        HostPort { host: host.into(), port }
    }

    /// Whether others than this machine can reach it, as far as that is known without asking for the address of a name.
    pub(super) fn is_exposed(&self) -> bool {
        self.ip().is_some_and(|ip| !ip.is_loopback())
    }

    /// Whether only one of the two can be listened on.
    pub(super) fn collides_with(&self, other: &HostPort) -> bool {
        let takes_all = |address: &HostPort| address.ip().is_some_and(|ip| ip.is_unspecified());
        let overlap = self.host == other.host || takes_all(self) || takes_all(other);
        self.port == other.port && self.port != 0 && overlap
    }

    fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostPort { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |why: &str| Err(format!("{text:?} {why}"));
        let Some((host, port)) = text.rsplit_once(':') else { return refuse("has no port: HOST:PORT") };
        let Ok(port) = port.parse() else { return refuse("has no port from 0 to 65535") };
        let bare = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) if address.parse::<std::net::Ipv6Addr>().is_ok() => address,
            Some(_) => return refuse("has no IPv6 address in its brackets"),
            None if host.contains(':') => return refuse("needs brackets around its IPv6 address"),
            None => host,
        };
        if bare.is_empty() || bare.contains(|c: char| !c.is_ascii_alphanumeric() && !"._-:".contains(c)) {
            return refuse("has no host name or address");
        }
        Ok(HostPort::new(bare, port))
    }
}

impl Setting for HostPort {
    const FORM: &'static str = "HOST:PORT";
    fn to_toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_read_and_printed() {
        for (text, host, port) in [
            ("127.0.0.1:1883", "127.0.0.1", 1883),
            ("localhost:0", "localhost", 0),
            ("[::1]:1884", "::1", 1884),
        ] {
            let parsed: HostPort = text.parse().unwrap();
            assert_eq!(parsed, HostPort::new(host, port));
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn one_address_cannot_be_listened_on_twice() {
        for (one, other, collide) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "[::]:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let [one, other] = [one, other].map(|text| text.parse::<HostPort>().unwrap());
            assert_eq!(one.collides_with(&other), collide, "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_host_and_port_is_refused() {
        for text in
            ["", "host", ":1", "host:", "host:65536", "::1:1883", "[host]:1", "a b:1", "user@host:1", "h/x:1"]
        {
            assert!(text.parse::<HostPort>().is_err(), "{text:?}");
        }
    }
}
