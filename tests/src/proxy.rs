//! The network between a client and its broker, which a test can cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::copy_bidirectional;
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
}

impl Proxy {
    /// To this broker.
    pub async fn start(target: SocketAddr) -> Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared { target, connections: JoinSet::new() }));
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

    /// Forwards new connections to another broker.
    pub fn set_target(&self, target: SocketAddr) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).target = target;
    }
}

async fn forward(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let target = shared.target;
        shared.connections.spawn(async move {
            // A broker that is away, or a connection that breaks: the client sees its own end.
            if let Ok(mut broker) = TcpStream::connect(target).await {
                let _ = client.set_nodelay(true).and(broker.set_nodelay(true));
                let _ = copy_bidirectional(&mut client, &mut broker).await;
            }
        });
    }
}
