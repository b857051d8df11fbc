//! What can go wrong between this client and a gateway. What goes wrong at the gateway is an answer, not an error.

use std::time::Duration;

use thiserror::Error;

use crate::WireError;

/// Why a client could not connect, or a request got no answer.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// An option is not usable.
    #[error("{0}")]
    InvalidOption(String),
    /// There is no connection, and none could be made.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// Host and port.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The broker does not let this client in, or not do this.
    #[error("{0}")]
    Unauthorized(String),
    /// Nobody takes requests at this broker.
    #[error(
        "no gateway takes requests at this broker: is it running? `offload-rt serve --broker URL` starts one"
    )]
    NoGateway,
    /// The request is larger than the broker takes; it was not sent.
    #[error("the request makes a packet of {size} bytes, the broker takes {limit}")]
    TooLarge {
        /// Bytes of the whole MQTT packet.
        size: usize,
        /// The broker's Maximum Packet Size in bytes.
        limit: usize,
    },
    /// The request cannot be written in its form, or the contract forbids it; it was not sent.
    #[error("{0}")]
    Request(String),
    /// The broker refused the request.
    #[error("the broker refused the request: {0}")]
    Refused(String),
    /// No answer came in time; the gateway may still be running the request.
    #[error("no answer within {} ms{}", waited.as_millis(), because(lost))]
    NoAnswer {
        /// How long this client waited.
        waited: Duration,
        /// Why the connection is lost, if it is.
        lost: Option<String>,
    },
    /// The gateway has answered with an error, to what is no run.
    #[error("{}", .0.message)]
    Gateway(WireError),
    /// An answer came that cannot be understood.
    #[error("the answer cannot be understood: {0}")]
    Answer(WireError),
    /// The connection ended for good; it is not made again.
    #[error("the connection ended: {0}")]
    Closed(String),
}

fn because(lost: &Option<String>) -> String {
    lost.as_ref().map(|reason| format!("; the connection is lost: {reason}")).unwrap_or_default()
}

impl Error {
    /// The error's kind as commands print it: a kind of the wire contract where there is one that fits, else
    /// `connection`.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::InvalidOption(_) | Error::Request(_) => "malformed",
            Error::Unauthorized(_) => "unauthorized",
            Error::TooLarge { .. } => "too-large",
            Error::NoAnswer { .. } => "timeout",
            Error::Gateway(error) => error.kind.as_str(),
            Error::Answer(_) => "internal",
            Error::Connect { .. } | Error::NoGateway | Error::Refused(_) | Error::Closed(_) => "connection",
        }
    }
}
