//! A broker for one test.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use offload_broker::{Application, Broker, Config, Error, NoApplication, Stats, Transport};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// No test waits longer than this for anything.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct Server {
    pub broker: Broker,
    pub address: SocketAddr,
    shutdown: DropGuard,
    serving: JoinHandle<Result<(), Error>>,
}

impl Server {
    pub async fn start() -> Self {
        Self::with_config(Config::default()).await
    }

    pub async fn with_config(config: Config) -> Self {
        Self::with(config, Arc::new(NoApplication)).await
    }

    pub async fn with(config: Config, application: Arc<dyn Application>) -> Self {
        Self::on(Transport::Tcp, config, application).await
    }

    pub async fn on(transport: Transport, config: Config, application: Arc<dyn Application>) -> Self {
        Self::of(Broker::new(config, application), transport).await
    }

    /// A listener of a broker that may have others.
    pub async fn of(broker: Broker, transport: Transport) -> Self {
        // Somebody has to listen before the first line is logged: whether anybody does is remembered for each line
        // of the code, and a test that begins to at the same moment could be overlooked.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn({
            let (broker, shutdown) = (broker.clone(), shutdown.clone());
            async move { broker.serve(listener, transport, shutdown).await }
        });
        Self { broker, address, shutdown: shutdown.drop_guard(), serving }
    }

    /// Shuts down and waits until all connections are gone.
    pub async fn stop(self) {
        drop(self.shutdown);
        timeout(DEADLINE, self.serving).await.expect("the broker did not stop").unwrap().unwrap();
    }

    /// Waits until the counters are as they should be.
    pub async fn until(&self, what: &str, reached: impl Fn(&Stats) -> bool) {
        let waiting = async {
            while !reached(&self.broker.stats()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = timeout(DEADLINE, waiting).await;
        assert!(waited.is_ok(), "never: {what}; {:#?}", self.broker.stats());
    }
}
