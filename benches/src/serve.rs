//! The servers to measure, one file each. They live until their standard input ends, and so never longer than the
//! process that started them.

mod broker_echo;
mod echo;
mod gateway;
mod mosquitto_echo;
mod rumqttc_echo;

use anyhow::Result;
use offload_rt::config::{Config, HostPort};
use offload_rt::telemetry;
use std::io::{Write, copy, sink, stdin, stdout};
use std::net::SocketAddr;
use tokio::runtime;

/// What a server prints before its address, once it takes requests.
pub const READY: &str = "listening on mqtt://";

/// The gateway's configuration with its defaults, but on a free port.
fn on_any_port() -> Config {
    let mut config = Config::default();
    config.listen.address = HostPort::new("127.0.0.1", 0);
    config
}

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The gateway, with its defaults.
    Gateway,
    /// A handler at the gateway's ingress that answers at once.
    Echo,
    /// A client of our broker that publishes back what it gets.
    BrokerEcho,
    /// The same client of a Mosquitto.
    MosquittoEcho,
}

/// Serves until standard input ends. Each has the runtime that is usual for it: `offload-rt serve` and so the echo at
/// the same ingress a thread for each core, a small service one thread.
pub fn run(kind: Kind) -> Result<()> {
    telemetry::start_logging();
    match kind {
        Kind::Gateway => {
            runtime::Builder::new_multi_thread().enable_all().build()?.block_on(gateway::serve())
        }
        Kind::Echo => runtime::Builder::new_multi_thread().enable_all().build()?.block_on(echo::serve()),
        Kind::BrokerEcho => {
            runtime::Builder::new_multi_thread().enable_all().build()?.block_on(broker_echo::serve())
        }
        Kind::MosquittoEcho => {
            runtime::Builder::new_current_thread().enable_all().build()?.block_on(mosquitto_echo::serve())
        }
    }
}

/// Tells that requests are taken at `address`.
fn announce(address: SocketAddr) -> Result<()> {
    let mut stdout = stdout();
    writeln!(stdout, "{READY}{address}")?;
    Ok(stdout.flush()?)
}

/// Waits for the end of standard input.
async fn told_to_stop() -> Result<()> {
    tokio::task::spawn_blocking(|| copy(&mut stdin().lock(), &mut sink())).await??;
    Ok(())
}
