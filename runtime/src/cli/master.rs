//! `offload-rt master`: joins the routers of sites, until it is told to stop.

use super::output;
use crate::config::{Draft, HostPort};
use crate::network::master::Master;
use crate::{scheduling, telemetry};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Where the master listens, and with what.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct MasterCommand {
    /// Read the [master] table of this TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen for routers here; port 0 picks a free one [default: 127.0.0.1:1884]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<HostPort>,
}

const EXAMPLES: &str = "\
Examples:
  offload-rt master
  offload-rt master --listen 127.0.0.1:0
  offload-rt master --config master.toml

Without certificates it listens on loopback alone. For other machines make them
with `offload-rt keygen keys --host MASTER --device GATE...`, and name in [master]
certificate = \"keys/server.pem\", key = \"keys/server.key\", client_ca = \"keys/ca.pem\".";

pub fn run(command: MasterCommand) -> anyhow::Result<ExitCode> {
    let mut draft = match &command.config {
        Some(file) => Draft::read(file)?,
        None => Draft::default(),
    };
    if let Some(address) = command.listen {
        draft.set("master.address", |config| config.master.get_or_insert_default().address = address);
    }
    let config = draft.finish()?.config;
    telemetry::start_logging()?;
    scheduling::runtime()?.block_on(async {
        // Before the start: a signal that comes early is not lost.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let master = Master::start(&config.master.unwrap_or_default(), &config.name).await?;
        output::print_line(format_args!("listening on {}", master.url()))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        master.shutdown().await;
        Ok(ExitCode::SUCCESS)
    })
}
