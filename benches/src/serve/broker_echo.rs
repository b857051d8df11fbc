//! Our broker as a broker alone, with the service that Mosquitto has: the two brokers side by side.

use super::{announce, service};
use anyhow::Result;
use offload_broker::{Broker, Config, NoApplication, Transport};
use std::sync::Arc;
use std::thread;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio_util::sync::CancellationToken;

pub async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let broker = Broker::new(Config::default(), Arc::new(NoApplication));
    let serving =
        tokio::spawn(async move { broker.serve(listener, Transport::Tcp, CancellationToken::new()).await });
    // On a thread of its own, as Mosquitto's service is in a process of its own.
    let serving_echo = thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(service::serve(address, || announce(address), service::echo))
    });
    let served = tokio::task::spawn_blocking(|| serving_echo.join()).await?;
    serving.abort();
    served.map_err(|_| anyhow::anyhow!("the service panicked"))?
}
