//! Accepts connections.

use std::{
    io,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::{
    arrival::Arrival,
    connection,
    core::Core,
    error::Error,
    stats::count,
    transport::{Peer, Transport},
};

/// Connections over the limit that are heard until they can be told so; more are closed at once.
const REFUSED_AT_A_TIME: usize = 64;
/// Pause after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown`, then waits until all its connections are closed.
pub(crate) async fn serve(
    core: &Arc<Core>,
    listener: TcpListener,
    transport: Transport,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    core.config.check()?;
    let connections = TaskTracker::new();
    let mut deadlines = pin!(core.keep_deadlines());
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            never = &mut deadlines => match never {},
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => match Slot::take(core) {
                Some(slot) => {
                    let arrival = Arrival {
                        core: core.clone(),
                        peer: Peer::new(peer, transport.kind()),
                        over_limit: slot.full,
                        deadline: Instant::now() + core.config.connect_timeout,
                        shutdown: shutdown.clone(),
                    };
                    connections.spawn(async move {
                        if prepare(&socket).is_ok() {
                            connection::run(arrival, socket).await;
                        }
                        drop(slot);
                    });
                }
                None => {
                    count(&core.counters.connections_refused);
                    if let Some(left_out) = core.throttle.line() {
                        warn!(%peer, left_out, "too many connections, one was closed");
                    }
                }
            },
            Err(error) => {
                if let Some(left_out) = core.throttle.line() {
                    warn!(%error, left_out, "cannot accept connections");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
    Ok(())
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    // With Nagle's algorithm a round trip at QoS 1 takes 40 ms.
    socket.set_nodelay(true)
}

/// A place among the connections, given back when dropped.
struct Slot {
    core: Arc<Core>,
    /// Over the limit: only to be told so.
    full: bool,
}

impl Slot {
    fn take(core: &Arc<Core>) -> Option<Self> {
        let before = core.counters.connections.fetch_add(1, Relaxed);
        let slot = Self { core: core.clone(), full: before >= core.config.max_connections };
        (before < core.config.max_connections.saturating_add(REFUSED_AT_A_TIME)).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.core.counters.connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_do_not_delay_small_packets() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        prepare(&socket).unwrap();
        assert!(socket.nodelay().unwrap());
    }
}
