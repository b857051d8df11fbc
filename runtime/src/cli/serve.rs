//! `offload-rt serve`: the gateway until it is told to stop.

use super::output;
use super::overrides::Overrides;
use crate::config::Config;
use crate::{Gateway, scheduling, telemetry};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Open files that are no connections: pipes of children, artifacts, epoll, logs.
pub const OTHER_FILES: u64 = 256;

/// Exit code of a process that a second signal stops while it drains: 128 + SIGINT, as a shell would say.
const EXIT_IMPATIENT: u8 = 130;

pub const EXAMPLES: &str = "\
Examples:
  offload-rt serve
  offload-rt serve --listen 127.0.0.1:0 --data-dir /tmp/gateway
  offload-rt serve --config gateway.toml --listen 0.0.0.0:1883
  offload-rt serve --broker mqtt://plant-broker --allow-native";

pub fn run(overrides: Overrides) -> anyhow::Result<ExitCode> {
    let finished = overrides.into_draft()?.finish()?;
    telemetry::start_logging()?;
    for table in finished.ignored_tables() {
        tracing::warn!("[{table}] is ignored: [broker] replaces the embedded broker");
    }
    let config = finished.config;
    raise_open_files(&config);
    scheduling::runtime()?.block_on(async {
        // Before the start: a signal that comes early is not lost.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        // They mean nothing here, and would end a process that does not take them: once asked for, tokio takes them.
        for ignored in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
            drop(signal(ignored)?);
        }
        let gateway = tokio::select! {
            gateway = Gateway::start(config) => gateway?,
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
        };
        announce(&gateway);
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
                    tracing::info!("SIGINT: draining; a second one stops the gateway at once");
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

/// As many open files as this process may have: each connection takes one. The soft limit is low for the sake of old
/// programs that use `select`.
fn raise_open_files(config: &Config) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::info!(%error, "the limit on open files cannot be raised");
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections = allowed.saturating_sub(OTHER_FILES);
    if config.broker.is_none() && connections < config.listen.max_connections as u64 {
        let wanted = config.listen.max_connections;
        tracing::warn!(
            allowed,
            "the limit on open files allows {connections} connections, fewer than listen.max_connections, {wanted}: \
            raise the hard limit (`ulimit -Hn`, LimitNOFILE= of systemd)"
        );
    }
}

/// The one line on standard output: requests are taken from here on.
///
/// A gateway that can serve does so whether or not anybody reads that.
fn announce(gateway: &Gateway) {
    let line = match gateway.address() {
        Some(address) => format!("listening on mqtt://{address}"),
        None => format!("serving via {}", gateway.url()),
    };
    if let Err(error) = output::print_line(&line) {
        tracing::warn!(%error, "{line}");
    }
}
