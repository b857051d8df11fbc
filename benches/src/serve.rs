//! The servers to measure, one file each. They live until their standard input ends, and so never longer than the
//! process that started them.

mod broker_echo;
mod echo;
mod gateway;
mod master;
mod mosquitto;
mod nats;
mod processes;
mod relay;
mod service;
mod subscriber;

use anyhow::{Context, Result};
use clap::ValueEnum;
use offload_rt::config::{Config, HostPort};
use offload_rt::{scheduling, telemetry};
use std::ffi::OsString;
use std::io::{Write, copy, sink, stdin, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::runtime;

/// What a server prints before its address, once it takes requests.
pub const READY: &str = "listening on mqtt://";

/// Open connections that our broker takes: the crowd and the load.
const MAX_CONNECTIONS: usize = 100_000;

/// Which server, and what it needs.
#[derive(clap::Args)]
pub struct Arguments {
    pub server: Kind,
    /// The gateway's configuration, as TOML; of NATS where it listens for its own clients and for devices; of a relay
    /// where the next one is
    #[arg(long)]
    pub configuration: Option<String>,
    /// The gateway's data directory; one for this once by default
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// What a service runs
    #[arg(last = true)]
    pub command: Vec<OsString>,
}

impl Arguments {
    /// A server that needs nothing else.
    pub fn new(server: Kind) -> Arguments {
        Arguments { server, configuration: None, data_dir: None, command: Vec::new() }
    }

    /// What makes this program the server.
    pub fn to_command_line(&self) -> Vec<OsString> {
        let server = self.server.to_possible_value().expect("no server is hidden");
        let mut line: Vec<OsString> = vec!["serve".into(), server.get_name().into()];
        if let Some(configuration) = &self.configuration {
            line.extend(["--configuration".into(), configuration.into()]);
        }
        if let Some(data_dir) = &self.data_dir {
            line.extend(["--data-dir".into(), data_dir.into()]);
        }
        line.push("--".into());
        line.extend_from_slice(&self.command);
        line
    }
}

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The gateway, with its defaults unless it is given a configuration.
    Gateway,
    /// What joins the routers of sites.
    Master,
    /// A NATS server with JetStream, for gateways and devices.
    Nats,
    /// A handler at the gateway's ingress that answers at once.
    Echo,
    /// What hands bytes on, or back.
    Relay,
    /// A client of our broker that publishes back what it gets.
    BrokerEcho,
    /// The same client of a Mosquitto.
    MosquittoEcho,
    /// A client of a Mosquitto that starts a process for each request.
    Processes,
    /// A program that is told host and port of a Mosquitto, and serves there.
    Subscriber,
}

/// Serves until standard input ends. Each has the runtime that is usual for it: `offload-rt serve` and so the echo at
/// the same ingress a thread for each core, a small service one thread.
pub fn run(arguments: Arguments) -> Result<()> {
    telemetry::start_logging()?;
    let one_thread = || runtime::Builder::new_current_thread().enable_all().build();
    let Arguments { server, configuration, data_dir, command } = arguments;
    match server {
        Kind::Gateway => scheduling::runtime()?.block_on(gateway::serve(configuration.as_deref(), data_dir)),
        Kind::Master => scheduling::runtime()?.block_on(master::serve()),
        Kind::Nats => one_thread()?.block_on(nats::serve(configuration.as_deref().unwrap_or_default())),
        Kind::Relay => one_thread()?.block_on(relay::serve(configuration.as_deref())),
        Kind::Echo => scheduling::runtime()?.block_on(echo::serve()),
        Kind::BrokerEcho => scheduling::runtime()?.block_on(broker_echo::serve()),
        Kind::MosquittoEcho => one_thread()?.block_on(service::echo_on_mosquitto()),
        Kind::Processes => one_thread()?.block_on(processes::serve(command)),
        Kind::Subscriber => one_thread()?.block_on(subscriber::serve(command)),
    }
}

/// This configuration, but on a free port, and for a crowd.
fn on_any_port(mut config: Config) -> Config {
    config.listen.address = HostPort::new("127.0.0.1", 0);
    config.listen.max_connections = MAX_CONNECTIONS;
    config
}

/// Tells that requests are taken at `address`.
fn announce(address: SocketAddr) -> Result<()> {
    let mut stdout = stdout();
    writeln!(stdout, "{READY}{address}")?;
    Ok(stdout.flush()?)
}

/// Waits for the end of standard input.
async fn told_to_stop() -> Result<()> {
    tokio::task::spawn_blocking(|| copy(&mut stdin().lock(), &mut sink()))
        .await?
        .context("standard input")?;
    Ok(())
}
