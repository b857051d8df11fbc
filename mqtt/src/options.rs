//! Whom to connect to, as whom, and within which bounds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::Message;

/// Bytes of the largest packet that MQTT has: a fixed header of 5 bytes and what follows (MQTT 5, section 2.1.4).
pub const MAX_PACKET: usize = 268_435_455 + 5;

/// A version of MQTT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1, which has no properties and no reasons.
    V311,
    /// MQTT 5.
    #[default]
    V5,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::V5 => "MQTT 5",
            Version::V311 => "MQTT 3.1.1",
        })
    }
}

/// What a connection is made with. [`ConnectionOptions::new`] has the defaults.
#[derive(Clone)]
pub struct ConnectionOptions {
    /// The version of MQTT; 5 by default.
    pub version: Version,
    /// Name or address of the broker. An IPv6 address may stand in brackets.
    pub host: String,
    /// Port of the broker.
    pub port: u16,
    /// TLS, with a broker whose certificate is for [`ConnectionOptions::host`]; none by default.
    pub tls: Option<Arc<ClientConfig>>,
    /// The client id; with an empty one the broker makes one up.
    pub client_id: String,
    /// User name and password; none by default.
    pub credentials: Option<(String, String)>,
    /// Without traffic for this time the broker is asked whether it is there. In whole seconds, zero for never; 30 s
    /// by default. In MQTT 5 the broker may want another time.
    pub keep_alive: Duration,
    /// An attempt to connect, from name look-up to CONNACK, is given up after this time. In whole seconds, at least
    /// one; 5 s by default. In MQTT 3.1.1 no packet may take longer to be written.
    pub connect_timeout: Duration,
    /// A packet that takes longer to be written ends the connection, in MQTT 5; by default it may take for ever.
    pub write_timeout: Option<Duration>,
    /// Whether the broker forgets what it has of an earlier session of this client id; it does by default.
    pub clean_start: bool,
    /// The broker keeps the session for this time after the end of the connection; zero by default. MQTT 3.1.1 cannot
    /// say that: there a session with [`ConnectionOptions::clean_start`] lasts as long as the connection, another as
    /// long as the broker likes.
    pub session_expiry: Duration,
    /// Messages at QoS 1 and 2 that the broker may have sent without our acknowledgement; by default 65 535, which is
    /// also what holds in MQTT 3.1.1.
    pub receive_maximum: Option<u16>,
    /// Bytes of the largest packet to receive; [`MAX_PACKET`] by default. In MQTT 3.1.1 the broker is not told, and a
    /// larger packet ends the connection.
    pub max_packet: usize,
    /// Messages at QoS 1 and 2 that may have been sent without the broker's acknowledgement, at least one; 100 by
    /// default. In MQTT 5 the broker may want fewer.
    pub max_in_flight: u16,
    /// Packets that wait in the queue of the [`crate::PacketSender`]; 64 by default.
    pub max_queued: usize,
    /// The message that the broker publishes when the connection ends without a DISCONNECT; none by default.
    pub will: Option<Message>,
    /// Whether messages at QoS 1 are acknowledged by [`crate::PacketSender::acknowledge`] alone; by default they are
    /// when they come.
    pub manual_acknowledgement: bool,
}

impl ConnectionOptions {
    /// A connection to this broker as this client, with the defaults for all else.
    pub fn new(host: impl Into<String>, port: u16, client_id: impl Into<String>) -> ConnectionOptions {
        ConnectionOptions {
            version: Version::default(),
            host: host.into(),
            port,
            tls: None,
            client_id: client_id.into(),
            credentials: None,
            keep_alive: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            write_timeout: None,
            clean_start: true,
            session_expiry: Duration::ZERO,
            receive_maximum: None,
            max_packet: MAX_PACKET,
            max_in_flight: 100,
            max_queued: 64,
            will: None,
            manual_acknowledgement: false,
        }
    }

    /// The host without brackets: as the broker's certificate has it.
    pub(crate) fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The host as rumqttc takes it: with brackets where it becomes part of an address, without them where it is what
    /// the broker's certificate has to say.
    pub(crate) fn rumqttc_host(&self) -> String {
        let host = self.bare_host();
        if host.contains(':') && self.tls.is_none() { format!("[{host}]") } else { host.to_owned() }
    }

    /// Whole seconds, at least one.
    pub(crate) fn connect_timeout_seconds(&self) -> u64 {
        self.connect_timeout.as_secs().max(1)
    }

    /// Whole seconds: rumqttc takes no part of one, and zero means never.
    pub(crate) fn keep_alive_seconds(&self) -> Duration {
        if self.keep_alive.is_zero() {
            Duration::ZERO
        } else {
            Duration::from_secs(self.keep_alive.as_secs().max(1))
        }
    }
}

/// Without the password.
impl fmt::Debug for ConnectionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionOptions")
            .field("version", &self.version)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("client_id", &self.client_id)
            .field("user", &self.credentials.as_ref().map(|(user, _)| user))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_brackets_where_it_becomes_part_of_another_text() {
        for (host, bare, for_rumqttc) in
            [("::1", "::1", "[::1]"), ("[::1]", "::1", "[::1]"), ("127.0.0.1", "127.0.0.1", "127.0.0.1")]
        {
            let options = ConnectionOptions::new(host, 1883, "me");
            assert_eq!((options.bare_host(), options.rumqttc_host().as_str()), (bare, for_rumqttc));
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let credentials = Some(("alice".to_owned(), "secret".to_owned()));
        let shown =
            format!("{:?}", ConnectionOptions { credentials, ..ConnectionOptions::new("h", 1, "me") });
        assert!(shown.contains("alice") && !shown.contains("secret"), "{shown}");
    }
}
