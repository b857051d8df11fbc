//! The way between two servers, which can be slowed, stalled and cut: a proxy for TCP connections.
//!
//! The kernel's own means (netem) are not there on every machine that runs this.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Bytes that are carried at once.
const PORTION: usize = 4096;

/// What each portion takes on a slow link: some 200 KB a second, with 20 ms of delay.
const SLOWNESS: Duration = Duration::from_millis(20);

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It carries all at once.
    Whole,
    /// It carries little at a time.
    Slow,
    /// It carries nothing, and neither side is told.
    Stalled,
    /// Its connections have ended, and there are no new ones.
    Cut,
}

/// All of its connections end when it is dropped.
pub struct Link {
    condition: watch::Sender<Condition>,
    _connections: JoinSet<()>,
}

impl Link {
    /// From connections to `near` on to `far`, which need not listen yet. Call it within a `LocalSet`.
    ///
    /// # Errors
    ///
    /// The address is taken.
    pub async fn start(near: SocketAddr, far: SocketAddr) -> Result<Link> {
        let listener = TcpListener::bind(near).await?;
        let condition = watch::Sender::new(Condition::Whole);
        let mut connections = JoinSet::new();
        connections.spawn_local(accept(listener, far, condition.clone()));
        Ok(Link { condition, _connections: connections })
    }

    /// How it is from now on.
    pub fn set(&self, condition: Condition) {
        self.condition.send_replace(condition);
    }
}

async fn accept(listener: TcpListener, far: SocketAddr, condition: watch::Sender<Condition>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (mut until_cut, carried) = (condition.subscribe(), condition.subscribe());
        connections.spawn_local(async move {
            // Whichever ends first: the sender of the condition outlives neither.
            tokio::select! {
                _ = until_cut.wait_for(|condition| *condition == Condition::Cut) => {}
                () = connection(client, far, carried) => {}
            }
        });
    }
}

async fn connection(client: TcpStream, far: SocketAddr, mut condition: watch::Receiver<Condition>) {
    flows(&mut condition).await;
    // A server that is away, or a connection that breaks: the client sees its own end.
    let Ok(server) = TcpStream::connect(far).await else { return };
    let _ = client.set_nodelay(true).and(server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::join!(carry(from_client, to_server, condition.clone()), carry(from_server, to_client, condition));
}

/// One direction, until it ends.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut condition: watch::Receiver<Condition>) {
    let mut buffer = vec![0; PORTION];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if *condition.borrow() == Condition::Slow {
            sleep(SLOWNESS).await;
        }
        flows(&mut condition).await;
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Waits while the link is stalled.
async fn flows(condition: &mut watch::Receiver<Condition>) {
    // The sender is away when the link is, and then this task ends too.
    let _ = condition.wait_for(|condition| *condition != Condition::Stalled).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::LocalSet;
    use tokio::time::timeout;

    #[test]
    fn a_link_carries_stalls_and_is_cut() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let near = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
            let link = Link::start(near, server.local_addr().unwrap()).await.unwrap();
            let mut client = TcpStream::connect(near).await.unwrap();
            let (mut accepted, _) = server.accept().await.unwrap();
            let mut byte = [0];
            for condition in [Condition::Whole, Condition::Slow] {
                link.set(condition);
                client.write_all(b"a").await.unwrap();
                accepted.read_exact(&mut byte).await.unwrap();
            }
            link.set(Condition::Stalled);
            client.write_all(b"b").await.unwrap();
            let silence = timeout(Duration::from_millis(50), accepted.read_exact(&mut byte)).await;
            assert!(silence.is_err(), "it carries what it should not");
            link.set(Condition::Whole);
            accepted.read_exact(&mut byte).await.unwrap();
            assert_eq!(&byte, b"b");
            link.set(Condition::Cut);
            assert_eq!(accepted.read(&mut byte).await.unwrap(), 0);
            let mut refused = TcpStream::connect(near).await.unwrap();
            assert!(matches!(refused.read(&mut byte).await, Ok(0) | Err(_)));
            link.set(Condition::Whole);
            let _again = TcpStream::connect(near).await.unwrap();
            server.accept().await.unwrap();
        });
    }
}
