//! The other end of a connection, as far as it is known below MQTT.

use std::net::SocketAddr;

/// How a client came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// MQTT on TCP.
    Tcp,
    /// MQTT on TLS.
    Tls,
    /// MQTT on WebSocket: perhaps a web page that somebody on this machine or network looks at.
    WebSocket,
    /// MQTT on WebSocket on TLS.
    WebSocketTls,
}

/// What is known of the other end before its CONNECT.
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
