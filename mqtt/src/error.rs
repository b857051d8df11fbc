//! Why there is no connection, or not any more.

use std::io;

use crate::{Reason, ReasonCode, Version, one_line};

/// Why a connection was not made, or has ended. Its text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// The broker did not answer within the time for connecting, or not to a ping, or does not acknowledge a message
    /// whose packet identifier is needed again.
    #[error("no answer in time")]
    TimedOut,
    /// The broker reads nothing any more: a packet could not be written in time.
    #[error("the broker takes nothing any more")]
    Stalled,
    /// The connection could not be made, or broke.
    #[error("{text}")]
    Io {
        /// What kind of error the system reports.
        kind: io::ErrorKind,
        /// The system's text.
        text: String,
    },
    /// TLS did not come about, or ended with an alert. The text may repeat all names of the broker's certificate.
    #[error("{0}")]
    Tls(String),
    /// The broker refused the connection with its CONNACK.
    #[error("the broker refused the connection: {0}")]
    Refused(Reason),
    /// The broker ended the connection with a DISCONNECT, which MQTT 5 alone has.
    #[error("the broker ended the connection: {0}")]
    Disconnected(Reason),
    /// The broker closed the connection without a word.
    #[error("the broker closed the connection")]
    Closed,
    /// What came is not what MQTT has in its place.
    #[error("what came is not {version}: {problem}")]
    Protocol {
        /// The version that was spoken.
        version: Version,
        /// What is wrong.
        problem: String,
    },
}

impl ConnectionError {
    /// Whether the broker does not speak this version of MQTT, and says so.
    pub fn is_unsupported_version(&self) -> bool {
        use ReasonCode::{RefusedProtocolVersion, UnsupportedProtocolVersion};
        matches!(
            self,
            ConnectionError::Refused(Reason {
                code: UnsupportedProtocolVersion | RefusedProtocolVersion,
                ..
            })
        )
    }

    /// Whether another client has connected with the same client id, and the broker says so. MQTT 3.1.1 cannot say it,
    /// and Mosquitto 2.0 does not where the session is a persistent one: then the connection is closed without a word.
    pub fn is_taken_over(&self) -> bool {
        matches!(self, ConnectionError::Disconnected(Reason { code: ReasonCode::SessionTakenOver, .. }))
    }

    /// Whether the other end closed the connection without a word, be it that there was more to read or to write.
    pub fn is_closed(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match self {
            ConnectionError::Closed => true,
            ConnectionError::Io { kind, .. } => {
                matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
            }
            _ => false,
        }
    }

    pub(crate) fn tls(error: &(dyn std::error::Error + 'static)) -> ConnectionError {
        ConnectionError::Tls(offload_tls::explain(error))
    }

    pub(crate) fn protocol(version: Version, problem: &str) -> ConnectionError {
        ConnectionError::Protocol { version, problem: one_line(problem) }
    }
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> ConnectionError {
        match error.kind() {
            // What TLS says, once there is a connection: that it wants a certificate, for one.
            io::ErrorKind::InvalidData => ConnectionError::tls(&error),
            // TLS tells programmers about it, at length.
            kind @ io::ErrorKind::UnexpectedEof => {
                ConnectionError::Io { kind, text: ConnectionError::Closed.to_string() }
            }
            kind => ConnectionError::Io { kind, text: one_line(&error.to_string()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_without_a_word_is_known_however_the_system_reports_it() {
        for (error, expected) in [
            (ConnectionError::Closed, true),
            (io::Error::from(io::ErrorKind::ConnectionReset).into(), true),
            (io::Error::from(io::ErrorKind::BrokenPipe).into(), true),
            (io::Error::from(io::ErrorKind::ConnectionRefused).into(), false),
            (ConnectionError::TimedOut, false),
            (ConnectionError::Disconnected(ReasonCode::ServerShuttingDown.into()), false),
        ] {
            assert_eq!(error.is_closed(), expected, "{error:?}");
        }
    }

    #[test]
    fn each_version_has_its_word_for_an_unsupported_version() {
        for (code, expected) in [
            (ReasonCode::UnsupportedProtocolVersion, true),
            (ReasonCode::RefusedProtocolVersion, true),
            (ReasonCode::NotAuthorized, false),
        ] {
            assert_eq!(ConnectionError::Refused(code.into()).is_unsupported_version(), expected, "{code}");
        }
    }
}
