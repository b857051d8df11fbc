//! Accepts connections.

use std::{io, pin::pin, sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::{
    broker::Broker,
    connection::{
        pending::{PendingConnection, refused_at_once},
        upgrade,
    },
    error::Error,
    spare_descriptor::{SpareDescriptor, is_lack_of_descriptors},
    throttle::Cause,
    transport::{Transport, peer::Peer},
};

/// Connections that may wait to be accepted. The kernel drops what one more sends, which its client notices after a
/// second: a crowd that comes at once is not to make others wait so long.
const BACKLOG: i32 = 4_096;

/// Pause after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that are closed before each pause, for want of descriptors: more than clients come in meanwhile, unless
/// they are a crowd, which takes its time.
const REFUSED_AT_A_TIME: usize = 256;

impl Broker {
    /// Accepts connections on this transport until `shutdown` is cancelled, then closes them (MQTT 5: DISCONNECT 0x8B;
    /// wills are not published) and returns when they are gone, after a second at most. Sessions stay, and a broker may
    /// be served again, or on several listeners at a time.
    ///
    /// Whoever reaches the listener may try to connect. Whether its address may be more than loopback is for the
    /// application to decide: only it knows whether its
    /// [`authenticate`](crate::Application::authenticate) keeps anyone out.
    ///
    /// # Errors
    ///
    /// At once, for a configuration that fails [`Config::check`](crate::Config::check).
    pub async fn serve(
        &self,
        listener: TcpListener,
        transport: Transport,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let config = self.config();
        config.check()?;
        transport.check()?;
        let transport = Arc::new(transport);
        bound_receive_buffers(&listener, config.receive_buffer);
        wait_for_accept(&listener);
        let connections = TaskTracker::new();
        let mut deadlines = pin!(self.keep_deadlines());
        let mut sweeping = pin!(self.registry().keep_sweeping());
        let mut counters =
            pin!(self.sys().keep_published(config.sys_interval, self.topics(), || self.stats()));
        let mut reports = pin!(self.throttle().keep_reporting());
        self.quotas().set_threads(Handle::current().metrics().num_workers());
        let mut spare = SpareDescriptor::new();
        let mut accepting = true;
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                never = &mut deadlines => match never {},
                never = &mut sweeping => match never {},
                never = &mut counters => match never {},
                never = &mut reports => match never {},
                () = self.closed().cancelled(), if accepting => {
                    accepting = false;
                    continue;
                }
                accepted = listener.accept(), if accepting => accepted,
            };
            match accepted {
                Ok((socket, peer)) => match self.quotas().connections.permit(peer.ip()) {
                    Some(permit) => {
                        let pending = PendingConnection {
                            broker: self.clone(),
                            account: self.quotas().accounts.of(None, peer.ip()),
                            peer: Peer::new(peer, transport.kind()),
                            over_limit: permit.over_limit(),
                            deadline: Instant::now() + config.connect_timeout,
                            shutdown: shutdown.clone(),
                        };
                        let transport = transport.clone();
                        connections.spawn(async move {
                            if prepare(&socket).is_ok() {
                                upgrade::serve(&transport, pending, socket).await;
                            }
                            drop(permit);
                        });
                    }
                    None => refused_at_once(self, peer),
                },
                Err(error) => {
                    let lacks_descriptors = is_lack_of_descriptors(&error);
                    if let Some(left_out) = self.throttle().line(Cause::Fault) {
                        let remedy = match lacks_descriptors {
                            true => ": raise the limit on open files (`ulimit -n`, LimitNOFILE= of systemd)",
                            false => "",
                        };
                        warn!(%error, left_out, "cannot accept connections{remedy}");
                    }
                    if lacks_descriptors {
                        let refused = std::iter::from_fn(|| spare.refuse(&listener));
                        refused.take(REFUSED_AT_A_TIME).for_each(|peer| refused_at_once(self, peer));
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        self.registry().hand_over_deadlines();
        drop(listener);
        connections.close();
        connections.wait().await;
        Ok(())
    }
}

/// Bounds what the kernel receives ahead for each connection. Accepted sockets inherit it, in time for the window that
/// their handshake agrees on.
fn bound_receive_buffers(listener: &TcpListener, bytes: usize) {
    if let Err(error) = SockRef::from(listener).set_recv_buffer_size(bytes) {
        warn!(%error, "the kernel keeps receive buffers of its own size");
    }
}

/// To listen a second time changes how many may wait (listen(2)). The system's own most, `net.core.somaxconn`,
/// goes before.
fn wait_for_accept(listener: &TcpListener) {
    if let Err(error) = SockRef::from(listener).listen(BACKLOG) {
        warn!(%error, "fewer connections than wanted may wait to be accepted");
    }
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    // With Nagle's algorithm a round trip at QoS 1 takes 40 ms.
    socket.set_nodelay(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_receives_no_more_ahead_than_it_is_told() {
        const BYTES: usize = 16 * 1024;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        bound_receive_buffers(&listener, BYTES);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        // The kernel doubles what it is told (socket(7)).
        assert_eq!(SockRef::from(&socket).recv_buffer_size().unwrap(), 2 * BYTES);
    }

    #[tokio::test]
    async fn sockets_do_not_delay_small_packets() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        prepare(&socket).unwrap();
        assert!(socket.nodelay().unwrap());
    }
}
