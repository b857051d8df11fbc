//! What the end of a connection means to the user of a gateway.

use std::io;
use std::time::Duration;

use offload_mqtt::{ConnectionError, Reason, ReasonCode, one_line};

/// Says what happened, and what to try.
pub(crate) fn explain(error: &ConnectionError, connect_timeout: Duration) -> String {
    match error {
        ConnectionError::TimedOut => format!("no answer within {} ms", connect_timeout.as_millis()),
        ConnectionError::Io { kind: io::ErrorKind::ConnectionRefused, .. } => {
            "connection refused: is the gateway running? `offload-rt serve` starts one".to_owned()
        }
        ConnectionError::Refused(Reason { code: ReasonCode::BadUserNamePassword, text }) => {
            with_text("wrong user name or password", text.as_deref())
        }
        ConnectionError::Refused(Reason { code: ReasonCode::NotAuthorized, text }) => with_text(
            "the broker does not let this client in: are user name and password right?",
            text.as_deref(),
        ),
        refused if refused.is_unsupported_version() => format!("{refused}: {OTHER_VERSION}"),
        other => other.to_string(),
    }
}

/// What to try with a broker that does not speak the version of MQTT that was asked for.
const OTHER_VERSION: &str = "try another version of MQTT, with NATS 3.1.1 (`-V 3.1.1`)";

/// Whether the broker refuses this client as who it is.
pub(crate) fn is_unauthorized(error: &ConnectionError) -> bool {
    use ReasonCode::{BadUserNamePassword, NotAuthorized};
    matches!(error, ConnectionError::Refused(Reason { code: BadUserNamePassword | NotAuthorized, .. }))
}

fn with_text(explanation: &str, text: Option<&str>) -> String {
    match text {
        Some(text) => format!("{explanation}; it says: {}", one_line(text)),
        None => explanation.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_what_to_try() {
        let refused = |code, text: Option<&str>| {
            ConnectionError::Refused(Reason { code, text: text.map(str::to_owned) })
        };
        for (error, expected, unauthorized) in [
            (ConnectionError::TimedOut, "no answer within 50 ms", false),
            (
                io::Error::from(io::ErrorKind::ConnectionRefused).into(),
                "connection refused: is the gateway",
                false,
            ),
            (refused(ReasonCode::BadUserNamePassword, None), "wrong user name or password", true),
            (
                refused(ReasonCode::NotAuthorized, Some("not\nyou")),
                "the broker does not let this client in",
                true,
            ),
            (
                refused(ReasonCode::UnsupportedProtocolVersion, None),
                "the broker refused the connection: UnsupportedProtocolVersion: try another version",
                false,
            ),
            (refused(ReasonCode::Banned, None), "the broker refused the connection: Banned", false),
        ] {
            let explained = explain(&error, Duration::from_millis(50));
            assert!(explained.starts_with(expected), "{explained}");
            assert_eq!(is_unauthorized(&error), unauthorized, "{explained}");
        }
        let explained = explain(&refused(ReasonCode::NotAuthorized, Some("not\nyou")), Duration::ZERO);
        assert!(explained.ends_with("; it says: not you"), "{explained}");
    }
}
