//! How clients reach a listener: what lies between MQTT and TCP.

use std::{future::Future, io};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tracing::{debug, info};

use crate::{
    connection::{
        self,
        pending::{PendingConnection, refused_at_once},
    },
    error::Error,
    stats::count,
    throttle::Cause,
    transport::{peer::TransportKind, tls::Tls, websocket::WebSocket},
};

pub(crate) mod peer;
pub(crate) mod protocol_mismatch;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod websocket;

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

    /// Serves a connection from its first byte to its last, on its own task.
    pub(crate) async fn serve(&self, arrival: PendingConnection, socket: TcpStream) {
        match self {
            Self::Tcp => connection::run(arrival, socket).await,
            // A handshake would cost more than this answer is worth.
            _ if arrival.over_limit => refused_at_once(&arrival.core, arrival.peer.address),
            // On the heap, so that the task of a plain connection is none the larger.
            Self::Tls(tls) => Box::pin(over_tls(tls, arrival, socket)).await,
            Self::WebSocket(websocket) => match &websocket.tls {
                None => Box::pin(over_websocket(websocket, arrival, socket)).await,
                Some(tls) => Box::pin(over_both(websocket, tls, arrival, socket)).await,
            },
        }
    }
}

async fn over_tls(tls: &Tls, mut arrival: PendingConnection, socket: TcpStream) {
    if let Some((socket, certificate)) = handshake("TLS", &arrival, tls.accept(socket)).await {
        arrival.peer.certificate = certificate;
        connection::run(arrival, socket).await;
    }
}

async fn over_websocket<S>(websocket: &WebSocket, mut arrival: PendingConnection, socket: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepting = websocket.accept(socket, arrival.core.config.max_packet_size);
    if let Some((frames, origin)) = handshake("WebSocket", &arrival, accepting).await {
        arrival.peer.origin = origin;
        connection::run(arrival, frames).await;
    }
}

async fn over_both(websocket: &WebSocket, tls: &Tls, mut arrival: PendingConnection, socket: TcpStream) {
    if let Some((socket, certificate)) = handshake("TLS", &arrival, tls.accept(socket)).await {
        arrival.peer.certificate = certificate;
        over_websocket(websocket, arrival, socket).await;
    }
}

/// Waits for a handshake below MQTT. One that fails is logged and counted, one that is given up is not.
async fn handshake<T>(
    of: &'static str,
    arrival: &PendingConnection,
    handshake: impl Future<Output = io::Result<T>>,
) -> Option<T> {
    let PendingConnection { core, peer, .. } = arrival;
    let peer = peer.address;
    match arrival.in_time(handshake).await {
        Some(Ok(done)) => Some(done),
        Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            count(&core.counters.violations);
            if let Some(left_out) = core.throttle.line(Cause::Refused) {
                info!(%peer, %error, left_out, "closed: {of} handshake failed");
            }
            None
        }
        Some(Err(_)) | None => {
            debug!(%peer, "closed before the {of} handshake was over");
            None
        }
    }
}
