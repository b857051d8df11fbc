//! The gateway as a whole: its parts in the order in which they start, and how they stop.

use crate::allocator;
use crate::audit_log;
use crate::auth::reload::Reload;
use crate::auth::{Auth, AuthError};
use crate::config::{Config, Refusals};
use crate::data_dir::{DataDir, DataDirError};
use crate::deduplication::Deduplicator;
use crate::ingress::Notices;
use crate::ingress::embedded::EmbeddedIngress;
use crate::ingress::external_mqtt::ExternalIngress;
use crate::log_sampling;
use crate::modules::{Modules, ModulesError};
use crate::programs::{ProgramError, Programs};
use crate::request::{Parts, Requests};
use crate::source::SourceBackend;
use crate::status::Status;
use crate::suspects::{PlannedStop, Suspects};
use crate::wasm::workers::Workers;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// A running gateway. Stop it with [`Gateway::shutdown`]; dropping it stops taking requests, without draining.
pub struct Gateway {
    ingress: Ingress,
    requests: Arc<Requests>,
    workers: Arc<Workers>,
    drain: Duration,
    url: String,
    /// Given up first when the gateway stops.
    planned_stop: Option<PlannedStop>,
    /// Looks after the password file and the certificates.
    reload: Reload,
    /// Keeps the status true while we live.
    _following: AbortOnDropHandle<()>,
    /// Gives back the memory of modules that nobody asks for.
    _dropping_idle: AbortOnDropHandle<()>,
    /// Counts what the log leaves out.
    _reporting: AbortOnDropHandle<()>,
    /// Keeps the directory locked while we live.
    _data_dir: DataDir,
}

enum Ingress {
    Embedded(EmbeddedIngress),
    External(ExternalIngress),
}

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not one to run with.
    #[error(transparent)]
    Config(#[from] Refusals),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The compiled modules of the data directory cannot be used.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// A program of the configuration, or the built-in one, cannot be offered.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// wasmtime cannot be set up, most likely because address space is short.
    #[error(
        "cannot set up the workers: {0:#}; fewer [workers] slots or a smaller count need less address space"
    )]
    Engine(wasmtime::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}{}", hint(.error))]
    Listen {
        /// The address.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// Strangers could reach it.
    #[error(
        "cannot listen on {0}: strangers could reach it, and nothing keeps them out; say who may by `access.passwords` \
         or `tls.client_ca`, or let everyone in with --allow-anonymous"
    )]
    Exposed(SocketAddr),
    /// The password file or the certificates cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The broker of the configuration cannot be joined.
    #[error(transparent)]
    External(#[from] crate::ingress::external_mqtt::ExternalError),
    /// Something else that the operating system refused.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
}

/// Whether only this machine can send requests.
async fn is_local(config: &Config) -> bool {
    let tls = config.tls.as_ref().map(|tls| &tls.address);
    let websocket = config.websocket.as_ref().map(|websocket| &websocket.address);
    for address in [Some(&config.listen.address), tls, websocket].into_iter().flatten() {
        let addresses = tokio::net::lookup_host(address.to_string()).await;
        if !addresses.is_ok_and(|mut all| all.all(|address| address.ip().is_loopback())) {
            return false;
        }
    }
    config.broker.is_none()
}

/// What another broker delivers again. Without it the gateway does all but know what has crashed it.
fn open_suspects(data_dir: &DataDir) -> Option<Arc<Suspects>> {
    match Suspects::open(data_dir) {
        Ok(suspects) => Some(suspects),
        Err(error) => {
            tracing::warn!(
                %error,
                "a request that crashes the gateway will not be known again: the data directory has no place for a file in \
                 shared memory"
            );
            None
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; is another broker running? `--listen 127.0.0.1:0` picks a free port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 are for root",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address; 0.0.0.0 is all that it has",
        _ => "",
    }
}

impl Gateway {
    /// Starts a gateway on the current tokio runtime, which must be a multi-threaded one with I/O and time enabled.
    /// When this returns, requests are taken.
    ///
    /// # Errors
    ///
    /// [`StartError`] says which part could not start, and what may help.
    pub async fn start(mut config: Config) -> Result<Gateway, StartError> {
        config.settle()?;
        allocator::give_back_what_is_free();
        let runtime = Handle::current();
        let path = config.data_dir.clone();
        let data_dir = tokio::task::spawn_blocking(move || DataDir::open(&path))
            .await
            .map_err(|panic| StartError::Io("data directory", io::Error::other(panic)))??;

        let suspects = config.broker.is_some().then(|| open_suspects(&data_dir)).flatten();
        let planned_stop = suspects.clone().map(PlannedStop);
        let modules = Arc::new(Modules::open(&config, &data_dir, suspects.clone())?);
        let source = Arc::new(SourceBackend::start(&config, is_local(&config).await, &data_dir).await);
        let programs = Programs::load(&config.program, &config.modules.preload, &modules).await?;

        let (baseline, warm) = (modules.baseline_linkers(), programs.artifacts());
        let workers = Workers::start(&config, baseline, &warm, suspects.clone(), &runtime);
        let workers = Arc::new(workers.map_err(StartError::Engine)?);
        let status = Status::new(&config.name, &data_dir, &programs, source.clone(), workers.clone());
        let (status_sender, status_now) = watch::channel(status.online());
        let (audit_log, audit_lines) = audit_log::start(&config.name, &config.mirror);
        let notices = Notices {
            status: status_now,
            offline: status.offline(),
            audit_log: audit_lines,
            instance: Some(data_dir.instance()),
        };
        let (auth, reload) = Auth::new(&config)?;
        let dropping_idle = AbortOnDropHandle::new(tokio::spawn(modules.clone().drop_idle()));
        let requests = Arc::new(Requests::new(Parts {
            access: auth.access.clone(),
            programs,
            modules,
            native: source,
            workers: workers.clone(),
            deduplicator: Arc::new(Deduplicator::new(config.idempotency.clone())),
            suspects,
            limits: config.limits.clone(),
            answers: config.answers.clone(),
            audit_log,
            runtime,
        }));

        let (ingress, url) = match &config.broker {
            None => {
                let ingress = EmbeddedIngress::start(&config, auth, requests.clone(), notices).await?;
                let url = format!("mqtt://{}", ingress.address());
                (Ingress::Embedded(ingress), url)
            }
            Some(broker) => {
                let client_id = data_dir.client_id();
                let ingress = ExternalIngress::start(broker, &client_id, requests.clone(), notices).await?;
                (Ingress::External(ingress), broker.url.to_string())
            }
        };
        let follow = status.follow(status_sender, config.status.interval.duration());
        let following = AbortOnDropHandle::new(tokio::spawn(follow));
        let reporting = AbortOnDropHandle::new(tokio::spawn(log_sampling::report_left_out()));
        let drain = config.drain.duration();
        Ok(Gateway {
            ingress,
            requests,
            workers,
            drain,
            url,
            planned_stop,
            reload,
            _following: following,
            _dropping_idle: dropping_idle,
            _reporting: reporting,
            _data_dir: data_dir,
        })
    }

    /// Where the embedded broker listens; `None` on an external broker.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.ingress {
            Ingress::Embedded(ingress) => Some(ingress.address()),
            Ingress::External(_) => None,
        }
    }

    /// The URL that clients connect to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Reads the password file and the certificates again, which otherwise happens within seconds of a change.
    pub fn reload(&self) {
        self.reload.now();
    }

    /// Stops: takes no more requests, lets those that are here finish for up to the configured `drain` time, publishes
    /// their answers, and closes the connections.
    pub async fn shutdown(mut self) {
        drop(self.planned_stop.take());
        if let Ingress::External(ingress) = &self.ingress {
            ingress.stop_taking().await;
        }
        self.requests.stop_taking();
        if tokio::time::timeout(self.drain, self.workers.idle()).await.is_err() {
            tracing::warn!(requests = self.workers.in_flight(), "stopped before all requests were done");
        }
        self.requests.stop_tasks().await;
        let workers = self.workers.clone();
        // Ends within a slice, but it waits for threads.
        let _ = tokio::task::spawn_blocking(move || workers.stop()).await;
        match self.ingress {
            Ingress::Embedded(ingress) => ingress.shutdown().await,
            Ingress::External(ingress) => ingress.shutdown().await,
        }
    }
}
