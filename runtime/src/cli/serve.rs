//! `offload-rt serve`: the gateway until it is told to stop.

use super::Overrides;
use crate::{Gateway, telemetry};
use std::io::Write;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Exit code of a process that a second signal stops while it drains: 128 + SIGINT, as a shell would say.
const EXIT_IMPATIENT: u8 = 130;

pub fn run(overrides: Overrides) -> anyhow::Result<ExitCode> {
    let config = overrides.into_config()?;
    telemetry::start_logging();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        // Before the start: a signal that comes early is not lost.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let gateway = tokio::select! {
            gateway = Gateway::start(config) => gateway?,
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
        };
        announce(&gateway)?;
        loop {
            tokio::select! {
                _ = hang_up.recv() => {
                    tracing::info!("SIGHUP: reading passwords and certificates again");
                    gateway.reload();
                }
                _ = terminate.recv() => {
                    tracing::info!("SIGTERM: draining");
                    break;
                }
                _ = interrupt.recv() => {
                    tracing::info!("interrupted: draining, once more to stop at once");
                    break;
                }
            }
        }
        tokio::select! {
            () = gateway.shutdown() => Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => Ok(ExitCode::from(EXIT_IMPATIENT)),
        }
    })
}

/// The one line on standard output: requests are taken from here on.
fn announce(gateway: &Gateway) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    match gateway.address() {
        Some(address) => writeln!(stdout, "listening on mqtt://{address}")?,
        None => writeln!(stdout, "serving via {}", gateway.url())?,
    }
    stdout.flush()
}
