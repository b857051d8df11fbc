//! The gateway as a whole: its parts in the order in which they start, and how they stop.

mod reload;

pub use reload::{ReloadError, Reloaded};

use crate::allocator;
use crate::audit_log;
use crate::auth::reload::Reload as WatchedFiles;
use crate::auth::{Auth, AuthError};
use crate::config::{Config, Durability, Refusals};
use crate::data_dir::{DataDir, DataDirError};
use crate::deduplication::{Deduplicator, OnForgotten};
use crate::durability::sessions::BrokerStorage;
use crate::durability::{self, DurabilityError, Failure, kind};
use crate::ingress::embedded::{self, EmbeddedError, EmbeddedIngress};
use crate::ingress::external_mqtt::{self, ExternalError, ExternalIngress, Group};
use crate::ingress::nats::{self, JetStream, NatsError, NatsIngress};
use crate::ingress::{Ingress, Intake, Notices, Statistics};
use crate::keys::{self, Keys, KeysError};
use crate::log_sampling;
use crate::modules::{Modules, ModulesError};
use crate::network::gates::Load;
use crate::network::{NetworkError, Router, RouterSettings};
use crate::programs::{ProgramError, Programs};
use crate::request::journal::RequestJournal;
use crate::request::open::Opener;
use crate::request::recovery;
use crate::request::request_log::RequestLog;
use crate::request::{Observer, Pipeline, Services, Settings};
use crate::set_aside::SetAside;
use crate::set_aside::retries::Retries;
use crate::shared::Shared;
use crate::site::Site;
use crate::source::SourceBackend;
use crate::status::Status;
use crate::suspects::{PlannedStop, Suspects};
use crate::systemd::{InheritedSockets, Notifier, SocketError, Systemd};
use crate::wasm::occupancy::Occupancy;
use crate::wasm::workers::Workers;
use arc_swap::ArcSwap;
use offload_journal::Journal;
use reload::Reloading;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

/// How long a gateway that stops waits for a disk that does not take the last outcomes.
const FLUSH_WAIT: Duration = Duration::from_secs(10);

/// A running gateway. Stop it with [`Gateway::shutdown`]; dropping it stops taking requests, without draining.
pub struct Gateway {
    ingress: Arc<dyn Ingress>,
    /// The way to other sites.
    router: Leaving,
    pipeline: Arc<Pipeline>,
    workers: Arc<Workers>,
    /// Given up first when the gateway stops.
    planned_stop: Option<PlannedStop>,
    /// Hears that the gateway stops.
    notifier: Arc<Notifier>,
    /// Takes over another configuration.
    reloading: Reloading,
    /// Looks after the password file and the certificates, and after the keys.
    _watched: Vec<WatchedFiles>,
    /// Notes for other gateways which keys there are.
    _following_keys: Option<AbortOnDropHandle<()>>,
    /// Keeps the status true while we live.
    following: AbortOnDropHandle<()>,
    /// Gives back the memory of modules that nobody asks for.
    _dropping_idle: AbortOnDropHandle<()>,
    /// Takes up requests that were set aside and are to be run again.
    _retrying: AbortOnDropHandle<()>,
    /// Counts what the log leaves out.
    _reporting: AbortOnDropHandle<()>,
    /// Keeps requests.
    kept: Option<Arc<RequestJournal>>,
    /// Has what other gateways know too.
    shared: Option<Shared>,
    /// Runs what an earlier process has left.
    running_again: Option<AbortOnDropHandle<()>>,
    /// Closed before the directory can be another's.
    journal: Closing,
    /// Tells when the journal has failed.
    failure: Failure,
    /// Keeps the directory locked while we live.
    _data_dir: DataDir,
}

/// The router, which leaves its masters with the gateway.
struct Leaving(Option<Router>);

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(router) = &self.0 {
            router.abort();
        }
    }
}

/// The journal, which is closed with the gateway, whoever still holds it.
struct Closing(Option<Arc<Journal>>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(journal) = &self.0 {
            // One that has failed has said so.
            let _ = journal.close();
        }
    }
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
    /// The journal of the data directory cannot be used.
    #[error(transparent)]
    Journal(#[from] DurabilityError),
    /// The keys that requests are sealed to cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
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
    /// The password file or the certificates cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// Sockets were handed over to a gateway that listens nowhere.
    #[error(transparent)]
    Sockets(#[from] SocketError),
    /// The gateway's own broker cannot serve.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The broker of the configuration cannot be joined.
    #[error(transparent)]
    External(#[from] ExternalError),
    /// The masters of the configuration cannot be joined.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// NATS cannot be joined.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// Something else that the operating system refused.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
}

impl Gateway {
    /// Starts a gateway on the current tokio runtime, which must be a multi-threaded one with I/O and time enabled.
    /// When this returns, requests are taken.
    ///
    /// # Errors
    ///
    /// [`StartError`] says which part could not start, and what may help.
    pub async fn start(config: Config) -> Result<Gateway, StartError> {
        Gateway::start_observed(config, Vec::new()).await
    }

    /// Like [`Gateway::start`], with observers of requests and answers beside the gateway's own.
    ///
    /// # Errors
    ///
    /// As for [`Gateway::start`].
    pub async fn start_observed(
        config: Config,
        observers: Vec<Arc<dyn Observer>>,
    ) -> Result<Gateway, StartError> {
        Gateway::start_with(config, observers, Systemd::default()).await
    }

    /// Like [`Gateway::start`], for a service: on sockets that are open already, and whose manager hears that the
    /// embedded broker lives and that the gateway stops. That it is ready is for the caller to tell.
    ///
    /// # Errors
    ///
    /// As for [`Gateway::start`], and when a socket was handed over that is for no listener of this configuration.
    pub async fn start_service(config: Config, systemd: Systemd) -> Result<Gateway, StartError> {
        Gateway::start_with(config, Vec::new(), systemd).await
    }

    async fn start_with(
        mut config: Config,
        mut observers: Vec<Arc<dyn Observer>>,
        systemd: Systemd,
    ) -> Result<Gateway, StartError> {
        config.settle()?;
        if config.broker.is_some() {
            systemd.sockets.none_left()?;
        }
        allocator::give_back_what_is_free();
        let runtime = Handle::current();
        let for_disk = config.clone();
        let (data_dir, opened, storage, own_keys) =
            tokio::task::spawn_blocking(move || open_data_dir(&for_disk))
                .await
                .map_err(|panic| StartError::Io("data directory", io::Error::other(panic)))??;
        let durability::Opened { journal, mut recovered, failure, .. } = opened;

        let suspects = delivers_again(&config).then(|| open_suspects(&data_dir)).flatten();
        let set_aside = Arc::new(SetAside::of(data_dir.path()));
        let planned_stop = suspects.clone().map(PlannedStop);
        let modules = Arc::new(Modules::open(&config, &data_dir, suspects.clone())?);
        let is_local = is_local(&config, &systemd.sockets).await;
        let source = Arc::new(SourceBackend::start(&config, is_local, &data_dir).await);
        let programs = Programs::load(&config.program, &config.modules.preload, &modules).await?;

        let jetstream = match config.broker.as_ref().filter(|broker| broker.url.is_nats()) {
            Some(broker) => Some(JetStream::connect(&config, broker).await?),
            None => None,
        };
        let (shared, group, sealing) = match &jetstream {
            Some(jetstream) => {
                let (shared, group) = jetstream.share(&config).await?;
                let sealing = group.agree(&config, own_keys.map(|own| (own.keys, own.are_new))).await?;
                (Some(shared), Some(group), sealing)
            }
            None => (None, None, own_keys.map(|own| (own.keys, own.accepted_after))),
        };
        let keys = sealing.as_ref().map(|(keys, _)| keys.clone());
        let following_keys = group.zip(keys.clone()).map(|(group, keys)| group.follow(keys));
        let following_keys = following_keys.map(|follow| AbortOnDropHandle::new(tokio::spawn(follow)));
        if let Some(shared) = &shared {
            modules.share(shared.modules.clone());
        }

        let (baseline, warm) = (modules.baseline_linkers(), programs.artifacts());
        let workers = Workers::start(&config, baseline, &warm, suspects.clone(), &runtime);
        let workers = Arc::new(workers.map_err(StartError::Engine)?);
        let settings = Arc::new(ArcSwap::from_pointee(Settings::new(&config, programs)));
        let (sources, running) = (source.clone(), workers.clone());
        let status = Arc::new(Status::new(
            &config.name,
            &data_dir,
            settings.clone(),
            sources,
            running,
            keys.clone(),
            failure.clone(),
        ));
        let (audit_log, audit_lines) = audit_log::start(&config.name, &config.mirror);
        observers.extend(audit_log.map(|audit_log| Arc::new(audit_log) as _));
        observers.extend(RequestLog::if_enabled().map(|request_log| Arc::new(request_log) as _));
        let online = status.online();
        let notices = Notices {
            status: online.clone(),
            offline: status.offline(),
            audit_log: audit_lines,
            instance: Some(data_dir.instance()),
        };
        let site = Arc::new(site(&config, is_local));
        let router = router(&config, &site, &workers)?;
        let (auth, watched) = Auth::new(&config, site.clone())?;
        let reloading = Reloading {
            started: config.clone(),
            running: Mutex::new(config.clone()),
            auth: auth.clone(),
            settings: settings.clone(),
            modules: modules.clone(),
            keys: keys.clone(),
        };
        let watched = std::iter::once(watched).chain(keys.as_ref().map(Keys::watch)).collect();
        let dropping_idle = AbortOnDropHandle::new(tokio::spawn(modules.clone().drop_idle()));
        let kept = journal.clone().map(|journal| {
            let max_payloads = config.journal.payloads.bytes();
            Arc::new(RequestJournal::new(journal, max_payloads, runtime.clone()).sealing(data_dir.mac_key()))
        });
        let on_forgotten = kept.clone();
        let on_forgotten: OnForgotten = Box::new(move |records| {
            if let Some(kept) = &on_forgotten {
                kept.remove(records);
            }
        });
        let deduplicator = Arc::new(Deduplicator::new(config.idempotency.clone(), on_forgotten));
        let (outcomes, sealed) = (recovered.take(kind::OUTCOME), recovered.take(kind::SEALED_OUTCOME));
        if let Some(kept) = kept.clone() {
            let deduplicator = deduplicator.clone();
            let restore = move || {
                recovery::restore_outcomes(&outcomes, &kept, &deduplicator);
                recovery::restore_sealed(&sealed, &kept, &deduplicator);
            };
            tokio::task::spawn_blocking(restore)
                .await
                .map_err(|panic| StartError::Io("outcomes in the journal", io::Error::other(panic)))?;
        }
        let opener = sealing.map(|(keys, after)| Arc::new(Opener::new(keys, &config.idempotency, after)));
        let pipeline = Pipeline::new(Services {
            access: auth.access.clone(),
            settings,
            modules,
            source_backend: source,
            workers: workers.clone(),
            deduplicator,
            suspects: suspects.clone(),
            set_aside: set_aside.clone(),
            journal: kept.clone(),
            site,
            router: router.clone(),
            shared: shared.clone(),
            opener,
            observers,
            runtime,
        });

        let (intake, notifier) = (Intake::new(pipeline.clone()), systemd.notifier.clone());
        let (intake_of_retries, intake_of_router) = (intake.clone(), intake.clone());
        let tap = router.as_ref().and_then(Router::tap);
        let ingress: Arc<dyn Ingress> = match (&config.broker, jetstream) {
            (None, _) => {
                let settings = embedded::Settings { config: &config, auth, systemd, storage, tap };
                Arc::new(EmbeddedIngress::start(settings, intake, notices).await?)
            }
            (Some(broker), Some(jetstream)) => {
                let settings = nats::Settings { jetstream, broker, client_id: &data_dir.client_id() };
                Arc::new(NatsIngress::start(settings, intake, notices).await?)
            }
            (Some(broker), None) => {
                let settings = external_mqtt::Settings {
                    broker,
                    urls: &broker.url,
                    client_id: &data_dir.client_id(),
                    takes_requests: true,
                    asks_others: router.is_some(),
                    tap,
                    group: keys.map(|keys| {
                        let status = status.clone();
                        let status = Box::new(move || status.online());
                        Group { keys, instance: data_dir.instance(), status }
                    }),
                };
                Arc::new(ExternalIngress::start(settings, intake, notices).await?)
            }
        };
        if let Some(router) = &router {
            router.start(intake_of_router, ingress.clone());
        }
        let requests = recovered.take(kind::REQUEST);
        recovered.end();
        let running_again = kept.clone().map(|kept| {
            let running = recovery::run_again(requests, kept, pipeline.clone(), ingress.clone());
            AbortOnDropHandle::new(tokio::spawn(running))
        });
        let follow = status.follow(ingress.clone(), online, config.status.interval.duration());
        let following = AbortOnDropHandle::new(tokio::spawn(follow));
        let retries = Retries::new(set_aside, suspects, intake_of_retries, ingress.clone());
        let retrying = AbortOnDropHandle::new(tokio::spawn(retries.follow()));
        let reporting = AbortOnDropHandle::new(tokio::spawn(log_sampling::report_left_out()));
        Ok(Gateway {
            ingress,
            router: Leaving(router),
            pipeline,
            workers,
            planned_stop,
            notifier,
            reloading,
            _watched: watched,
            _following_keys: following_keys,
            following,
            _dropping_idle: dropping_idle,
            _retrying: retrying,
            _reporting: reporting,
            kept,
            shared,
            running_again,
            journal: Closing(journal),
            failure,
            _data_dir: data_dir,
        })
    }

    /// Where the embedded broker listens; `None` on an external broker.
    pub fn address(&self) -> Option<SocketAddr> {
        self.ingress.address()
    }

    /// The URL that clients connect to.
    pub fn url(&self) -> String {
        self.ingress.url()
    }

    /// Says where requests are taken: `listening on mqtt://HOST:PORT`, or `serving via URL` on an external broker.
    pub fn serving(&self) -> String {
        match self.address() {
            Some(address) => format!("listening on mqtt://{address}"),
            None => format!("serving via {}", self.url()),
        }
    }

    /// Takes over what can change in `config` while the gateway runs, with what its files hold now: rules, passwords,
    /// certificates, programs, limits of requests to come. The rest stays as it was at the start, and is named.
    ///
    /// # Errors
    ///
    /// When anything of it cannot be used: then all stays as it was.
    pub async fn reload(&self, config: Config) -> Result<Reloaded, ReloadError> {
        self.reloading.reload(config).await
    }

    /// Returns when the journal has failed: the gateway accepts nothing more, and is to be shut down. Never returns
    /// otherwise.
    pub async fn journal_failed(&self) {
        self.failure.failed().await;
    }

    /// Stops: takes no more requests, lets those that are here finish for up to the configured `drain` time, publishes
    /// their answers, and closes the connections.
    pub async fn shutdown(mut self) {
        drop(self.planned_stop.take());
        self.ingress.stop_taking().await;
        self.pipeline.stop_taking();
        if let Leaving(Some(router)) = &self.router {
            router.stop_waiting();
        }
        self.notifier.stopping();
        let drain = self.reloading.running.lock().await.drain.duration();
        if tokio::time::timeout(drain, self.workers.idle()).await.is_err() {
            tracing::warn!(requests = self.workers.in_flight(), "stopped before all requests were done");
        }
        if let Some(running_again) = self.running_again.take() {
            let _ = running_again.await;
        }
        if let Leaving(Some(router)) = &self.router {
            router.stop_sending();
        }
        self.pipeline.stop_tasks().await;
        let workers = self.workers.clone();
        // Ends within a slice, but it waits for threads.
        let _ = tokio::task::spawn_blocking(move || workers.stop()).await;
        if let Some(shared) = &self.shared
            && tokio::time::timeout(FLUSH_WAIT, shared.flush()).await.is_err()
        {
            tracing::warn!("the other gateways do not have the last outcomes: their requests are run again");
        }
        if let Some(kept) = &self.kept {
            // Outcomes that are on their way to the disk are answered.
            if tokio::time::timeout(FLUSH_WAIT, kept.flush()).await.is_err() {
                tracing::warn!("the disk does not take the last outcomes: their requests are run again");
            }
            if kept.left() > 0 {
                let requests = kept.left();
                tracing::info!(requests, "requests that were accepted are run after the next start");
            }
        }
        if let Leaving(Some(router)) = &self.router {
            router.shutdown().await;
        }
        // The last status is that of a gateway that is gone.
        self.following.abort();
        let _ = (&mut self.following).await;
        self.ingress.shutdown().await;
        let closing = std::mem::replace(&mut self.journal, Closing(None));
        let _ = tokio::task::spawn_blocking(move || drop(closing)).await;
        let Statistics { connections, messages_in, messages_out, dropped } = self.ingress.statistics();
        tracing::debug!(connections, messages_in, messages_out, dropped, "the ingress has shut down");
    }
}

/// The gateway's site. The network is on this machine where the gateway and all masters are.
fn site(config: &Config, is_local: bool) -> Site {
    let network = config.network.as_ref();
    let masters_are_local =
        network.is_none_or(|network| network.master.0.iter().all(|url| !url.scheme.is_tls()));
    Site::new(network.map(|network| network.gate.clone()), is_local && masters_are_local)
}

/// The way to other sites, where the configuration names any.
fn router(config: &Config, site: &Arc<Site>, workers: &Arc<Workers>) -> Result<Option<Router>, NetworkError> {
    let Some(network) = &config.network else { return Ok(None) };
    let workers = workers.clone();
    let load = Box::new(move || {
        let Occupancy { workers, running, waiting, runnable, .. } = workers.load();
        Load { workers, running, waiting, runnable }
    });
    Router::new(RouterSettings { network, name: &config.name, site: site.clone(), load }).map(Some)
}

/// What is on the disk: see [`open_data_dir`].
type OnDisk = (DataDir, durability::Opened, Option<BrokerStorage>, Option<OwnKeys>);

/// The keys of this gateway's file.
struct OwnKeys {
    keys: Arc<Keys>,
    /// Whether they have just been made.
    are_new: bool,
    /// From when on the journal knows what was sealed to them.
    accepted_after: u64,
}

/// The data directory, the journal in it, what the embedded broker has there, and the keys. Where several gateways are
/// one service, no keys are made in the default place before it is known whether the others have some.
fn open_data_dir(config: &Config) -> Result<OnDisk, StartError> {
    let data_dir = DataDir::open(&config.data_dir)?;
    let mut opened = durability::open(config, &data_dir)?;
    let is_on_nats = config.broker.as_ref().is_some_and(|broker| broker.url.is_nats());
    let may_make = config.broker.is_none() || config.keys.path.is_some() || keys::path(config).exists();
    let (keys, are_new) = if may_make { Keys::open(config)? } else { (Keys::none(config), true) };
    let own_keys = match is_on_nats {
        // There it is the group that knows what was sealed to them.
        true => may_make.then_some(OwnKeys { keys, are_new, accepted_after: 0 }),
        false => {
            let accepted_after =
                keys::accepted_after(data_dir.path(), config.durability, opened.is_whole, are_new)?;
            Some(OwnKeys { keys, are_new, accepted_after })
        }
    };
    let embedded = opened.journal.as_ref().filter(|_| config.broker.is_none());
    let storage = embedded.map(|journal| {
        BrokerStorage::recover(journal, opened.recovered.take_range(durability::kind::BROKER))
    });
    Ok((data_dir, opened, storage, own_keys))
}

/// Whether only this machine can send requests.
async fn is_local(config: &Config, sockets: &InheritedSockets) -> bool {
    let is_loopback =
        |address: io::Result<SocketAddr>| address.is_ok_and(|address| address.ip().is_loopback());
    if !sockets.addresses().all(is_loopback) {
        return false;
    }
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

/// Whether a request that crashes the gateway comes again by itself: another broker delivers it again, and so does the
/// journal.
fn delivers_again(config: &Config) -> bool {
    config.broker.is_some() || config.durability != Durability::Off
}

/// What comes again by itself. Without it the gateway does all but know what has crashed it.
fn open_suspects(data_dir: &DataDir) -> Option<Arc<Suspects>> {
    match Suspects::open(data_dir) {
        Ok(suspects) => Some(suspects),
        Err(error) => {
            tracing::warn!(
                %error,
                "a request that crashes the gateway will not be known again: the data directory has no place for a \
                 file in shared memory"
            );
            None
        }
    }
}
