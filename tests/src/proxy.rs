//! The network between a client and its broker, which a test can cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Forwards connections to a broker; all of them end when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    _listener: JoinSet<()>,
}

struct Shared {
    target: SocketAddr,
    connections: JoinSet<()>,
    /// All bytes of both directions, where they are kept.
    captured: Option<Vec<u8>>,
    /// What is put in the place of what, in both directions, each as long as the other.
    rewritten: Vec<(String, String)>,
}

impl Proxy {
    /// To this broker.
    pub async fn start(target: SocketAddr) -> Result<Proxy> {
        Proxy::with(target, None, &[]).await
    }

    /// The same, which keeps what it forwards.
    pub async fn capturing(target: SocketAddr) -> Result<Proxy> {
        Proxy::with(target, Some(Vec::new()), &[]).await
    }

    /// One that puts the second of each pair in the place of the first, wherever that comes in one piece. They are as
    /// long as each other, so that packets stay whole.
    pub async fn rewriting(target: SocketAddr, pairs: &[(&str, &str)]) -> Result<Proxy> {
        Proxy::with(target, Some(Vec::new()), pairs).await
    }

    async fn with(target: SocketAddr, captured: Option<Vec<u8>>, pairs: &[(&str, &str)]) -> Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let rewritten = pairs.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
        let shared =
            Arc::new(Mutex::new(Shared { target, connections: JoinSet::new(), captured, rewritten }));
        let mut task = JoinSet::new();
        task.spawn(forward(listener, shared.clone()));
        Ok(Proxy { address, shared, _listener: task })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections at once.
    pub fn cut(&self) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).connections.abort_all();
    }

    /// All that it has forwarded so far.
    pub fn captured(&self) -> Vec<u8> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).captured.clone().unwrap_or_default()
    }

    /// Forwards new connections to another broker.
    pub fn set_target(&self, target: SocketAddr) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).target = target;
    }
}

async fn forward(listener: TcpListener, all: Arc<Mutex<Shared>>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut shared = all.lock().unwrap_or_else(PoisonError::into_inner);
        let (target, captures, all) = (shared.target, shared.captured.is_some(), all.clone());
        shared.connections.spawn(async move {
            // A broker that is away, or a connection that breaks: the client sees its own end.
            if let Ok(mut broker) = TcpStream::connect(target).await {
                let _ = client.set_nodelay(true).and(broker.set_nodelay(true));
                if captures {
                    let (from_client, to_client) = client.split();
                    let (from_broker, to_broker) = broker.split();
                    let (there, back) =
                        (keep(from_client, to_broker, &all), keep(from_broker, to_client, &all));
                    tokio::join!(there, back);
                } else {
                    let _ = copy_bidirectional(&mut client, &mut broker).await;
                }
            }
        });
    }
}

/// Forwards one direction until it ends, and keeps its bytes.
async fn keep(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, shared: &Mutex<Shared>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = &mut buffer[..length];
        {
            let Shared { captured, rewritten, .. } =
                &mut *shared.lock().unwrap_or_else(PoisonError::into_inner);
            for (from, to) in rewritten.iter() {
                let starts: Vec<usize> =
                    (0..bytes.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
                for at in starts {
                    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
                }
            }
            if let Some(captured) = captured {
                captured.extend(&*bytes);
            }
        }
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
