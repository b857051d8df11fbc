//! `offload-rt serve`: the gateway until it is told to stop.

use super::output;
use super::overrides::Overrides;
use crate::config::Config;
use crate::durability::EXIT_JOURNAL_FAILED;
use crate::systemd::{InheritedSockets, Notifier, Systemd};
use crate::{Gateway, Reloaded, scheduling, telemetry};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

/// Open files that are no connections: pipes of children, artifacts, epoll, logs.
pub const OTHER_FILES: u64 = 256;

/// Exit code of a process that a second signal stops while it drains, less the signal's number: as a shell would say,
/// 130 for SIGINT and 143 for SIGTERM.
const SIGNAL_EXIT: i32 = 128;

pub const EXAMPLES: &str = "\
Examples:
  offload-rt serve
  offload-rt serve --listen 127.0.0.1:0 --data-dir /tmp/gateway
  offload-rt serve --config gateway.toml --listen 0.0.0.0:1883
  offload-rt serve --broker mqtt://plant-broker --allow-native
  offload-rt serve --broker mqtt://first,mqtt://second
  offload-rt serve --broker nats://a,b,c
  offload-rt serve --gate north --master mqtt://127.0.0.1

docs/scaling.md says which of these to choose for many gateways or sites.";

pub fn run(overrides: Overrides) -> anyhow::Result<ExitCode> {
    // Before any other file is open.
    let sockets = InheritedSockets::from_environment()?;
    let finished = overrides.clone().into_draft()?.finish()?;
    telemetry::start_logging()?;
    let notifier = Arc::new(Notifier::from_environment());
    let systemd = Systemd { sockets, notifier: notifier.clone() };
    for table in finished.ignored_tables() {
        tracing::warn!("[{table}] is ignored: [broker] replaces the embedded broker");
    }
    let config = finished.config;
    let own_watchdog = config.broker.is_none() && config.watchdog.enabled;
    let heartbeat = notifier.watchdog_interval().filter(|_| !own_watchdog);
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
            gateway = Gateway::start_service(config, systemd) => gateway?,
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
        };
        announce(&gateway);
        notifier.ready(gateway.serving());
        let beating = heartbeat.map(|interval| tokio::spawn(beat(notifier.clone(), interval)));
        let _beating = beating.map(AbortOnDropHandle::new);
        let mut exit_code = ExitCode::SUCCESS;
        loop {
            tokio::select! {
                () = gateway.journal_failed() => {
                    exit_code = EXIT_JOURNAL_FAILED.into();
                    break;
                }
                _ = hang_up.recv() => {
                    notifier.reloading();
                    tokio::select! {
                        status = reload(&gateway, overrides.clone()) => notifier.ready(status),
                        // A gateway that stops needs no other configuration.
                        _ = terminate.recv() => break,
                        _ = interrupt.recv() => break,
                    }
                }
                _ = terminate.recv() => {
                    tracing::info!("SIGTERM: draining; a second one stops the gateway at once");
                    break;
                }
                _ = interrupt.recv() => {
                    tracing::info!("SIGINT: draining; a second one stops the gateway at once");
                    break;
                }
            }
        }
        let impatient = tokio::select! {
            () = gateway.shutdown() => return Ok(exit_code),
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
        };
        tracing::warn!("told to stop a second time: requests that run are dropped");
        // At once: neither what runs nor what waits is asked.
        std::process::exit(SIGNAL_EXIT + impatient.as_raw_value())
    })
}

/// Reads the configuration again, and has the gateway take over what it can. Returns its status, for people.
async fn reload(gateway: &Gateway, overrides: Overrides) -> String {
    tracing::info!("SIGHUP: reading the configuration again");
    let read = tokio::task::spawn_blocking(move || overrides.into_config()).await;
    let reloaded = match read {
        Ok(Ok(config)) => gateway.reload(config).await.map_err(|error| error.to_string()),
        Ok(Err(refused)) => Err(refused.to_string()),
        Err(panic) => Err(panic.to_string()),
    };
    match reloaded {
        Ok(Reloaded { changed, need_restart }) => {
            tracing::info!(?changed, "the configuration was read again, and is in force");
            for key in need_restart {
                tracing::warn!(
                    "{key} has another value now: it needs a restart, until which the old one holds"
                );
            }
            gateway.serving()
        }
        Err(problems) => {
            problems.lines().for_each(|problem| tracing::error!("SIGHUP: {problem}"));
            tracing::error!("the configuration is refused as a whole: what was read before stays in force");
            format!(
                "{}; the configuration that was read again is refused, the log says why",
                gateway.serving()
            )
        }
    }
}

/// Tells the service manager that the gateway lives, where no watchdog of the broker's own does: that tasks are run.
async fn beat(notifier: Arc<Notifier>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        notifier.alive();
    }
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
    let line = gateway.serving();
    if let Err(error) = output::print_line(&line) {
        tracing::warn!(%error, "{line}");
    }
}
