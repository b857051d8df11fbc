//! Where to connect, as whom, and within which bounds.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use offload_mqtt::{ConnectionOptions, Version as MqttVersion};
use offload_protocol::request::RequestKind;
use offload_protocol::topic;
use offload_tls::TlsFiles;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::{Error, PublicKey};

/// Where a gateway listens by default.
pub const DEFAULT_HOST: &str = "127.0.0.1";

/// MQTT's port without TLS.
pub const DEFAULT_PORT: u16 = 1883;

/// MQTT's port with TLS.
pub const DEFAULT_TLS_PORT: u16 = 8883;

/// Time without traffic after which the broker is asked whether it is there.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How a [`crate::Client`] connects. [`Options::default`] is right for a gateway on this machine.
#[derive(Clone)]
pub struct Options {
    /// Host name or address of the broker; [`DEFAULT_HOST`] by default. An IPv6 address may stand in brackets.
    pub host: String,
    /// Port of the broker; [`DEFAULT_PORT`] by default.
    pub port: u16,
    /// TLS, with a broker whose certificate is for [`Options::host`]; none by default.
    pub tls: Option<TlsFiles>,
    /// The MQTT client id, and the reply id of every request: answers come on `result/<client id>`. No `+`, `#` or
    /// NUL. By default `offload-` and a random number, another one for each `Options`.
    pub client_id: String,
    /// The reply id of every request, if it is another one than the client id; for whoever acts in the place of another
    /// client, as to cancel its request.
    pub reply_id: Option<String>,
    /// The gate of the site that every request is for (`net/<gate>/…`), if that is another one than the broker's own;
    /// none by default.
    pub gate: Option<String>,
    /// Whether to subscribe to streams too, for [`crate::Client::send_streaming`]; not by default.
    pub streams: bool,
    /// The version of MQTT to speak; 5 by default. With 3.1.1 every request goes in an envelope and gets an id where it
    /// has none, by which its answer is known; the default program, which has no envelope, cannot be run. That no
    /// gateway is there, and that a request was lost since its gateway was away for a moment, is seen only by the time
    /// that passes.
    pub mqtt_version: MqttVersion,
    /// User name and password; none by default.
    pub credentials: Option<(String, String)>,
    /// The first connection, from name look-up to the granted subscription, is given up after this time; 5 s by
    /// default. Then it takes a second to find out what answers there, if that is no broker. Later each attempt may
    /// take as long.
    pub connect_timeout: Duration,
    /// How long to wait for the answer to a request that has no timeout of its own; 5 minutes by default. A request
    /// that has one is waited for that long and [`Options::transport_grace`].
    pub answer_timeout: Duration,
    /// What is added to a request's own timeout, which counts from its arrival at the gateway, for both ways; 10 s by
    /// default.
    pub transport_grace: Duration,
    /// Requests in flight; [`crate::Client::send`] waits while there are as many. 1 024 by default, at least 1.
    pub max_in_flight: u16,
    /// The broker keeps what it has for this client for this time after a connection is lost, so that answers are not
    /// lost with it; 30 s by default. With less than a second it keeps nothing and every unanswered request is sent
    /// again, and so it is with MQTT 3.1.1.
    pub session_expiry: Duration,
    /// The largest packet to receive, in bytes; 32 MiB by default. The gateway answers with an `output` error instead
    /// of a larger one; with MQTT 3.1.1 it is not told, and a larger one ends the connection.
    pub max_answer: u32,
    /// The gateway's key, to which every request is sealed, so that nobody on the way sees what is in it or in its
    /// answer; none by default. A request needs a form that is an envelope for that, and this machine a clock that is
    /// right to a minute.
    pub seal: Option<PublicKey>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: DEFAULT_HOST.to_owned(),
            port: DEFAULT_PORT,
            tls: None,
            client_id: format!("offload-{:016x}", random()),
            reply_id: None,
            gate: None,
            streams: false,
            mqtt_version: MqttVersion::V5,
            credentials: None,
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(300),
            transport_grace: Duration::from_secs(10),
            max_in_flight: 1024,
            session_expiry: Duration::from_secs(30),
            max_answer: 32 * 1024 * 1024,
            seal: None,
        }
    }
}

/// Without the password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("address", &self.address())
            .field("client_id", &self.client_id)
            .field("user", &self.credentials.as_ref().map(|(user, _)| user))
            .finish_non_exhaustive()
    }
}

/// A broker URL that cannot be used; never quotes the URL, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected mqtt[s]://[user[:password]@]host[:port], {0}")]
pub struct UrlError(String);

impl Options {
    /// Takes host, port and credentials from `mqtt://[user[:password]@]host[:port]`; the rest as by default. User and
    /// password are percent-decoded. With `mqtts` it is TLS, and those whom the system trusts are trusted.
    ///
    /// # Errors
    /// If it is another text.
    pub fn from_url(url: &str) -> Result<Self, UrlError> {
        let refused = |problem: &str| UrlError(problem.to_owned());
        let parsed = Url::parse(url).map_err(|problem| UrlError(format!("got another text: {problem}")))?;
        let (tls, default_port) = match parsed.scheme() {
            "mqtt" => (None, DEFAULT_PORT),
            "mqtts" => (Some(TlsFiles::default()), DEFAULT_TLS_PORT),
            other @ ("nats" | "tls") => {
                let problem =
                    format!("got the scheme {other}: clients ask the MQTT listener of a NATS server");
                return Err(UrlError(problem));
            }
            other => return Err(UrlError(format!("got the scheme {other}"))),
        };
        let host = parsed.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| refused("got no host"))?.to_owned();
        if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(refused("got more after the port"));
        }
        let decode = |text: &str| {
            percent_decode_str(text)
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_| refused("got a user or password that is not text"))
        };
        let credentials = match (parsed.username(), parsed.password()) {
            ("", None) => None,
            ("", Some(_)) => return Err(refused("got a password without a user")),
            (user, password) => Some((decode(user)?, decode(password.unwrap_or_default())?)),
        };
        let port = parsed.port().unwrap_or(default_port);
        Ok(Self { host, port, tls, credentials, ..Self::default() })
    }

    /// Host and port as messages name them.
    pub(crate) fn address(&self) -> String {
        if self.host.contains(':') && !self.host.starts_with('[') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// A connection to this broker as this client, for whoever wants to speak MQTT itself.
    ///
    /// # Errors
    /// When the files that TLS needs cannot be used.
    pub fn connection(&self) -> Result<ConnectionOptions, Error> {
        let tls = self.tls.as_ref().map(TlsFiles::client_config).transpose();
        Ok(ConnectionOptions {
            version: self.mqtt_version,
            tls: tls.map_err(|error| Error::InvalidOption(error.to_string()))?,
            credentials: self.credentials.clone(),
            keep_alive: KEEP_ALIVE,
            connect_timeout: self.connect_timeout,
            max_packet: self.max_answer as usize,
            ..ConnectionOptions::new(&self.host, self.port, &self.client_id)
        })
    }

    /// The topic on which all answers to this client come.
    pub(crate) fn result_topic(&self) -> String {
        topic::result(self.reply_id())
    }

    /// What its requests are answered by.
    pub(crate) fn reply_id(&self) -> &str {
        self.reply_id.as_deref().unwrap_or(&self.client_id)
    }

    /// The topic of requests of this kind.
    pub(crate) fn request_topic(&self, kind: RequestKind) -> String {
        let plain = topic::request(kind, self.reply_id());
        self.gate.as_ref().map_or(plain.clone(), |gate| topic::routed(gate, &plain))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let refused = |problem: &str| Err(Error::InvalidOption(problem.to_owned()));
        if self.client_id.is_empty() || !topic::is_valid_name(&self.result_topic()) {
            return refused("client id: expected text without `+`, `#` and NUL that is not empty");
        }
        if self.gate.as_ref().is_some_and(|gate| !topic::is_gate(gate)) {
            return refused("gate: expected 1 to 64 letters, digits, `_` and `-`");
        }
        if self.host.is_empty() {
            return refused("host: expected a name or an address, got nothing");
        }
        if self.max_in_flight == 0 {
            return refused("requests in flight: expected at least 1");
        }
        if self.max_answer == 0 {
            return refused("largest answer: expected at least 1 byte");
        }
        Ok(())
    }
}

/// A number that no other process and no earlier call is likely to have got. Nothing secret hangs on it.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_as_whom() {
        let options = Options::from_url("mqtt://alice:p%40ss%3A@broker.example:1884").unwrap();
        assert_eq!((options.host.as_str(), options.port), ("broker.example", 1884));
        assert_eq!(options.credentials, Some(("alice".into(), "p@ss:".into())));
        assert!(!format!("{options:?}").contains("p@ss"));
        let plain = Options::from_url("mqtt://[::1]/").unwrap();
        assert_eq!((plain.address().as_str(), plain.credentials.clone()), ("[::1]:1883", None));
        assert_eq!(Options { host: "::1".into(), ..plain }.address(), "[::1]:1883");
        let tls = Options::from_url("mqtts://[::1]").unwrap();
        assert_eq!((tls.tls.as_ref(), tls.port), (Some(&TlsFiles::default()), 8883));
        assert_eq!(tls.address(), "[::1]:8883");
        assert_eq!(Options::from_url("mqtts://h:1").unwrap().port, 1);
        assert_eq!(
            Options::from_url("mqtt://bob@h").unwrap().credentials,
            Some(("bob".to_owned(), String::new()))
        );
    }

    #[test]
    fn a_url_that_says_something_else_is_refused_without_quoting_it() {
        for (url, problem) in [
            ("broker:1883", "got the scheme broker"),
            ("mqtt://", "got no host"),
            ("mqtt://h/topic", "got more after the port"),
            ("mqtt://h?x=secret", "got more after the port"),
            ("mqtt://:secret@h", "got a password without a user"),
            ("mqtt://a:%ff@h", "got a user or password that is not text"),
            ("mqtt://a:secret@h:99999", "got another text: invalid port number"),
        ] {
            let error = Options::from_url(url).unwrap_err().to_string();
            assert!(error.ends_with(problem), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn unusable_options_are_refused() {
        assert!(Options::default().check().is_ok());
        let unusable = [
            Options { client_id: String::new(), ..Options::default() },
            Options { client_id: "a/#".into(), ..Options::default() },
            Options { host: String::new(), ..Options::default() },
            Options { gate: Some("a/b".into()), ..Options::default() },
            Options { max_in_flight: 0, ..Options::default() },
            Options { max_answer: 0, ..Options::default() },
        ];
        for options in unusable {
            assert!(matches!(options.check(), Err(Error::InvalidOption(_))), "{options:?}");
        }
        assert_ne!(Options::default().client_id, Options::default().client_id);
    }
}
