//! How clients reach a listener: what lies between MQTT and TCP.

use std::net::SocketAddr;

/// What a listener speaks, for [`Broker::serve`](crate::Broker::serve).
#[derive(Clone, Debug)]
pub enum Transport {
    /// MQTT on TCP: everyone on the way can read and change it.
    Tcp,
}

impl Transport {
    pub(crate) fn kind(&self) -> TransportKind {
        match self {
            Self::Tcp => TransportKind::Tcp,
        }
    }
}

/// How a client came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// MQTT on TCP.
    Tcp,
}

/// What is known of the other end before it says a word of MQTT.
#[derive(Debug)]
pub(crate) struct Peer {
    pub address: SocketAddr,
    pub transport: TransportKind,
    /// Whom a client certificate that was verified names.
    pub certificate: Option<String>,
    /// Of the WebSocket handshake.
    pub origin: Option<String>,
}

impl Peer {
    pub fn new(address: SocketAddr, transport: TransportKind) -> Self {
        Self { address, transport, certificate: None, origin: None }
    }
}
