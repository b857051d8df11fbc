//! A plain MQTT broker: `cargo run --release -p offload-broker --example plain_broker [127.0.0.1:1883]`.
//!
//! `RUST_LOG=offload_broker=debug` shows who comes and goes; the counters are printed at ctrl-c.

use std::{error::Error, sync::Arc};

use offload_broker::{Broker, Config, NoApplication, Transport};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1883".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on mqtt://{}", listener.local_addr()?);

    let broker = Broker::new(Config::default(), Arc::new(NoApplication));
    let shutdown = CancellationToken::new();
    let serving = broker.serve(listener, Transport::Tcp, shutdown.clone());
    let stop = async {
        tokio::signal::ctrl_c().await?;
        shutdown.cancel();
        Ok::<_, std::io::Error>(())
    };
    let (served, stopped) = tokio::join!(serving, stop);
    println!("{:#?}", broker.stats());
    stopped?;
    Ok(served?)
}
