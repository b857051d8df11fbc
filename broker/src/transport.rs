//! How clients reach a listener: what lies between MQTT and TCP.

use std::{future::Future, io, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tracing::{debug, info};

use crate::{
    arrival::{Arrival, refused_at_once},
    connection,
    error::Error,
    stats::count,
    throttle::Cause,
    tls::Tls,
    websocket::WebSocket,
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
    pub(crate) async fn serve(&self, arrival: Arrival, socket: TcpStream) {
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

async fn over_tls(tls: &Tls, mut arrival: Arrival, socket: TcpStream) {
    if let Some((socket, certificate)) = handshake("TLS", &arrival, tls.accept(socket)).await {
        arrival.peer.certificate = certificate;
        connection::run(arrival, socket).await;
    }
}

async fn over_websocket<S>(websocket: &WebSocket, mut arrival: Arrival, socket: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepting = websocket.accept(socket, arrival.core.config.max_packet_size);
    if let Some((frames, origin)) = handshake("WebSocket", &arrival, accepting).await {
        arrival.peer.origin = origin;
        connection::run(arrival, frames).await;
    }
}

async fn over_both(websocket: &WebSocket, tls: &Tls, mut arrival: Arrival, socket: TcpStream) {
    if let Some((socket, certificate)) = handshake("TLS", &arrival, tls.accept(socket)).await {
        arrival.peer.certificate = certificate;
        over_websocket(websocket, arrival, socket).await;
    }
}

/// Waits for a handshake below MQTT. One that fails is logged and counted, one that is given up is not.
async fn handshake<T>(
    of: &'static str,
    arrival: &Arrival,
    handshake: impl Future<Output = io::Result<T>>,
) -> Option<T> {
    let Arrival { core, peer, .. } = arrival;
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
