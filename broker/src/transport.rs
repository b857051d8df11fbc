//! What lies between MQTT and TCP: nothing, TLS, WebSocket or both; and the buffers above it.

pub(crate) mod peer;
pub(crate) mod protocol_mismatch;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod websocket;

use crate::{
    error::Error,
    transport::{peer::TransportKind, tls::Tls, websocket::WebSocket},
};

/// What a listener speaks, for [`Broker::serve`](crate::Broker::serve).
#[derive(Clone, Debug)]
pub enum Transport {
    /// MQTT on TCP: everyone on the way can read and change it.
    Tcp,
    /// MQTT on TLS.
    Tls(Tls),
    /// MQTT on WebSocket, for browsers; on TLS if it says so.
    WebSocket(WebSocket),
}

impl Transport {
    pub(crate) fn kind(&self) -> TransportKind {
        match self {
            Self::Tcp => TransportKind::Tcp,
            Self::Tls(_) => TransportKind::Tls,
            Self::WebSocket(WebSocket { tls: None, .. }) => TransportKind::WebSocket,
            Self::WebSocket(WebSocket { tls: Some(_), .. }) => TransportKind::WebSocketTls,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Tcp | Self::Tls(_) => Ok(()),
            Self::WebSocket(websocket) => websocket.check(),
        }
    }
}
