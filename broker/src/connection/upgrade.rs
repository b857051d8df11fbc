//! From TCP to MQTT: the handshakes of TLS and WebSocket, before the connection is served.

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
    stats::count,
    throttle::Cause,
    transport::{Transport, tls::Tls, websocket::WebSocket},
};

/// Serves a connection from its first byte to its last, on its own task.
pub(crate) async fn serve(transport: &Transport, pending: PendingConnection, socket: TcpStream) {
    match transport {
        Transport::Tcp => connection::run(pending, socket).await,
        // A handshake would cost more than this answer is worth.
        _ if pending.over_limit => refused_at_once(&pending.broker, pending.peer.address),
        // On the heap, so that the task of a plain connection is none the larger.
        Transport::Tls(tls) => Box::pin(over_tls(tls, pending, socket)).await,
        Transport::WebSocket(websocket) => match &websocket.tls {
            None => Box::pin(over_websocket(websocket, pending, socket)).await,
            Some(tls) => Box::pin(over_both(websocket, tls, pending, socket)).await,
        },
    }
}

async fn over_tls(tls: &Tls, mut pending: PendingConnection, socket: TcpStream) {
    if let Some((socket, certificate)) = handshake("TLS", &pending, tls.accept(socket)).await {
        pending.peer.certificate = certificate;
        connection::run(pending, socket).await;
    }
}

async fn over_websocket<S>(websocket: &WebSocket, mut pending: PendingConnection, socket: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepting = websocket.accept(socket, pending.broker.config().max_packet_size);
    if let Some((frames, origin)) = handshake("WebSocket", &pending, accepting).await {
        pending.peer.origin = origin;
        connection::run(pending, frames).await;
    }
}

async fn over_both(websocket: &WebSocket, tls: &Tls, mut pending: PendingConnection, socket: TcpStream) {
    if let Some((socket, certificate)) = handshake("TLS", &pending, tls.accept(socket)).await {
        pending.peer.certificate = certificate;
        over_websocket(websocket, pending, socket).await;
    }
}

/// Waits for a handshake below MQTT. One that fails is logged and counted, one that is given up is not.
async fn handshake<T>(
    of: &'static str,
    pending: &PendingConnection,
    handshake: impl Future<Output = io::Result<T>>,
) -> Option<T> {
    let PendingConnection { broker, peer, .. } = pending;
    let peer = peer.address;
    match pending.in_time(handshake).await {
        Some(Ok(done)) => Some(done),
        Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            count(&broker.counters().violations);
            if let Some(left_out) = broker.throttle().line(Cause::Refused) {
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
