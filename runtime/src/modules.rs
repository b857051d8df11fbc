//! From a module's digest to its artifact: compiled once, kept, shared between the workers' engines.

pub mod library;
mod store;

use crate::client::Client;
use crate::compiler::Compiler;
use crate::config::capacity::Idle;
use crate::config::{Config, Durability};
use crate::data_dir::DataDir;
use crate::fair_semaphore::Permit;
use crate::log_sampling::sampled;
use crate::once_cache::{Cached, Cell, MakeError, OnceCache};
use crate::shared::{Fetched, SharedModules};
use crate::suspects::Suspects;
use crate::telemetry;
pub use crate::wasm::artifact::Artifact;
use crate::wasm::engine::{self, Tier};
use crate::wasm::linking::Linkers;
use crate::wasm::metering;
use bytes::Bytes;
use library::{Library, NotKept};
pub use library::{Owner, Pin};
use offload_policy::Urgency;
use offload_protocol::error::{ErrorKind, WireError};
pub use offload_protocol::request::Digest;
use offload_protocol::request::StoredModule;
use std::io::{self, ErrorKind::QuotaExceeded, ErrorKind::StorageFull};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
pub use store::{ArtifactStore, compatibility};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval};
use wasmtime::Engine;

/// Name of the artifacts' folder in the data directory.
const ARTIFACTS: &str = "artifacts";

/// Name of the folder of the modules that clients have sent.
const MODULES: &str = "modules";

/// Time between two searches for artifacts that are not used any more.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// Such searches between two notes on the disk of when modules were used.
const SEARCHES_PER_NOTE: u32 = 60;

/// Why the modules of a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// wasmtime cannot be set up.
    #[error("cannot set up an engine that checks modules: {0:#}")]
    Engine(wasmtime::Error),
    /// The folder of artifacts cannot be made.
    #[error("artifact store: {0}")]
    Artifacts(io::Error),
    /// The folder of the modules that clients have sent cannot be made or read.
    #[error("modules: {0}")]
    Library(io::Error),
}

/// The gateway's modules.
pub struct Modules {
    compiler: Compiler,
    store: ArtifactStore,
    library: Library,
    /// Whether a module that is stored outlives a power cut.
    is_durable: bool,
    /// The linkers of an engine that runs nothing: what they load, the workers can load.
    validator: Arc<Linkers>,
    /// `None` where there is no baseline compiler.
    baseline: Option<Baseline>,
    /// Recognizes an artifact whose loading has crashed the gateway; `None` where no request is delivered again.
    suspects: Option<Arc<Suspects>>,
    /// Those of other gateways, where several are one service.
    shared: OnceLock<Arc<dyn SharedModules>>,
    /// The artifacts in memory.
    cache: OnceCache<Arc<Artifact>>,
    /// When artifacts in memory are dropped.
    idle: Idle,
}

/// Where the bytes of a module are.
pub enum Content {
    /// They came with the request.
    Sent(Bytes),
    /// They came before. They are kept while a request waits for them, also where their owner removes them.
    Kept(Pin),
    /// Another gateway has them for this client, or none.
    Elsewhere,
}

/// What it takes to answer requests for a module before it is optimized.
struct Baseline {
    /// The baseline artifacts on disk.
    store: ArtifactStore,
    /// The linkers of an engine that runs nothing, with the limits of the workers.
    validator: Arc<Linkers>,
    /// The linkers of the engine that runs baseline code.
    linkers: Arc<Linkers>,
    /// One permit for each module that runs on baseline code until it is optimized.
    background: Arc<Semaphore>,
}

/// What is still to be done for a module that has its baseline code.
struct Unoptimized {
    module: Bytes,
    _permit: OwnedSemaphorePermit,
}

/// The compatibility of the optimized code that this engine runs.
fn optimized_by(engine: &Engine) -> u64 {
    compatibility(engine.precompile_compatibility_hash())
}

/// The compatibility of the baseline code that this engine runs. Its modules are rewritten first: see [`metering`].
fn baseline_by(engine: &Engine) -> u64 {
    compatibility((engine.precompile_compatibility_hash(), metering::MODULE))
}

/// The error of a request that names a module which its client has not sent.
pub fn not_found(digest: &Digest) -> WireError {
    let message = format!("no module {digest} of yours: send the module itself");
    WireError::new(ErrorKind::NotFound, message)
}

/// The error of a request whose module other gateways may have, while nobody can tell.
fn unavailable() -> WireError {
    WireError::new(ErrorKind::Busy, "the store of modules does not answer, try again after 5 s")
}

/// The error of a module that is to be kept and is not.
fn not_kept(error: &NotKept) -> WireError {
    match error {
        NotKept::TooLarge { .. } => WireError::new(ErrorKind::TooLarge, error.to_string()),
        NotKept::NoRoom => WireError::new(ErrorKind::Busy, error.to_string()),
        NotKept::Disk(full) if matches!(full.kind(), StorageFull | QuotaExceeded) => {
            sampled!(warn, error = %full, "cannot keep a module");
            WireError::new(ErrorKind::Busy, "the gateway's disk is full, try again after 60 s")
        }
        NotKept::Disk(error) => telemetry::internal_error(&format!("keeping a module: {error}")),
    }
}

impl Modules {
    /// Opens the modules of a data directory.
    ///
    /// # Errors
    ///
    /// When a folder cannot be made or read, or wasmtime cannot be set up.
    pub fn open(
        config: &Config,
        data_dir: &DataDir,
        suspects: Option<Arc<Suspects>>,
    ) -> Result<Modules, ModulesError> {
        let Config { compiler: settings, limits, .. } = config;
        let compiler = Compiler::new(settings.clone(), limits.clone());
        let linkers = |engine| Linkers::new(engine).map(Arc::new).map_err(ModulesError::Engine);
        let engine = engine::validator(Tier::Optimized, limits, settings).map_err(ModulesError::Engine)?;
        let artifacts = data_dir.path().join(ARTIFACTS);
        let store = ArtifactStore::open(
            artifacts,
            *data_dir.mac_key(),
            optimized_by(&engine),
            settings.disk_cache.bytes(),
        )
        .map_err(ModulesError::Artifacts)?;
        let library = Library::open(data_dir.path().join(MODULES), config.modules.clone())
            .map_err(ModulesError::Library)?;
        let baseline = match settings.baseline.then(engine::baseline) {
            Some(Ok(engine)) => Some(Baseline {
                store: store.with_compatibility(baseline_by(&engine)),
                validator: linkers(
                    engine::validator(Tier::Baseline, limits, settings).map_err(ModulesError::Engine)?,
                )?,
                linkers: linkers(engine)?,
                background: Arc::new(Semaphore::new(settings.background)),
            }),
            Some(Err(error)) => {
                tracing::info!(
                    "there is no baseline compiler, so modules run once they are optimized: {error:#}"
                );
                None
            }
            None => None,
        };
        Ok(Modules {
            compiler,
            store,
            library,
            is_durable: config.durability != Durability::Off,
            validator: linkers(engine)?,
            baseline,
            suspects,
            shared: OnceLock::new(),
            cache: OnceCache::new(settings.memory_cache.bytes(), |artifact| artifact.size() as u64),
            idle: settings.idle(),
        })
    }

    /// The linkers that workers load baseline code by, where there is a baseline compiler.
    pub fn baseline_linkers(&self) -> Option<Arc<Linkers>> {
        self.baseline.as_ref().map(|baseline| baseline.linkers.clone())
    }

    /// Drops artifacts from memory that are not used any more, and notes when modules were used. Never returns.
    pub async fn drop_idle(self: Arc<Self>) {
        let intervals = self.idle.after.as_nanos().div_ceil(IDLE_INTERVAL.as_nanos()) as u64;
        let mut interval = interval(IDLE_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let since = SystemTime::now();
            for _ in 0..SEARCHES_PER_NOTE {
                interval.tick().await;
                self.cache.drop_idle(intervals, self.idle.bytes as u64);
            }
            self.library.note_uses(since).await;
        }
    }

    /// The artifact, if it is at hand: the way of all but a module's first requests.
    pub fn ready(&self, digest: &Digest) -> Option<Cached<Arc<Artifact>>> {
        self.cache.ready(digest)
    }

    /// From now on modules are shared with other gateways.
    pub fn share(&self, shared: Arc<dyn SharedModules>) {
        let _ = self.shared.set(shared);
    }

    /// Whether this client may have sent this module to another gateway.
    pub fn are_shared(&self) -> bool {
        self.shared.get().is_some()
    }

    /// Whether this client has sent this module, and may name it by its digest.
    pub fn has(&self, client: &Client, digest: &Digest) -> bool {
        self.library.has(client, digest)
    }

    /// A module that this client has sent, for a request that waits for its artifact.
    pub fn pin(&self, client: &Client, digest: &Digest) -> Option<Content> {
        self.library.pin(client, digest).map(Content::Kept)
    }

    /// The modules that this client has sent, the last used first.
    pub async fn list(&self, client: &Client) -> Vec<StoredModule> {
        self.library.list(client).await
    }

    /// Compiles a module and keeps it for this client. Unless the configuration says otherwise, it outlives a power cut
    /// when this returns.
    ///
    /// # Errors
    ///
    /// See [`Modules::compile`]; `too-large` for one that is not kept, `busy` where there is no room for it.
    pub async fn store(
        self: &Arc<Self>,
        client: &Client,
        digest: Digest,
        module: Bytes,
    ) -> Result<StoredModule, WireError> {
        self.library.takes(module.len() as u64).map_err(|error| not_kept(&error))?;
        self.compile(client, digest, Some(module.clone()), Tier::Baseline).await?;
        let kept = self.library.keep(client, digest, module.clone(), self.is_durable).await;
        if let (Ok(_), Some(shared)) = (&kept, self.shared.get()) {
            shared.store(self.library.owner(client), digest, module).await;
        }
        kept.map_err(|error| not_kept(&error))
    }

    /// Forgets a module of this client. Requests that wait for it run still.
    ///
    /// # Errors
    ///
    /// `not-found` where the client has none of this digest; `internal` where the disk refuses.
    pub async fn remove(&self, client: &Client, digest: Digest) -> Result<(), WireError> {
        let was_shared = match self.shared.get() {
            Some(shared) => shared.remove(self.library.owner(client), digest).await,
            None => false,
        };
        match self.library.remove(client, digest, self.is_durable).await {
            Ok(is_removed) if is_removed || was_shared => Ok(()),
            Ok(_) => {
                let message = format!("no module {digest} of yours");
                Err(WireError::new(ErrorKind::NotFound, message))
            }
            Err(error) => Err(telemetry::internal_error(&format!("removing a module: {error}"))),
        }
    }

    /// The module itself, if this client has sent it and it is kept.
    pub async fn module(&self, client: &Client, digest: &Digest) -> Option<Bytes> {
        if self.has(client, digest) { self.library.load(digest).await } else { None }
    }

    /// The artifact of a module that a client has sent, now or before. One that it sends now is kept for it.
    ///
    /// # Errors
    ///
    /// See [`Modules::compile`]; `not-found` when the module was evicted in the meantime.
    pub async fn prepare(
        self: &Arc<Self>,
        client: &Client,
        digest: Digest,
        content: Content,
    ) -> Cached<Arc<Artifact>> {
        let sent = match (&content, self.shared.get()) {
            (Content::Sent(module), _) => Some(module.clone()),
            (Content::Elsewhere, Some(shared)) => {
                match shared.fetch(self.library.owner(client), digest).await {
                    Fetched::Found(module) => Some(module),
                    Fetched::Missing => return Err(not_found(&digest)),
                    Fetched::Unavailable => return Err(unavailable()),
                }
            }
            (Content::Kept(_), _) => None,
            (Content::Elsewhere, None) => return Err(not_found(&digest)),
        };
        let artifact = self.compile(client, digest, sent.clone(), Tier::Baseline).await?;
        let Some(module) = sent else { return Ok(artifact) };
        if let Some(shared) = self.shared.get() {
            shared.store(self.library.owner(client), digest, module.clone()).await;
        }
        // A module that cannot be kept costs the next request its short cut, not this one.
        if let Err(NotKept::Disk(error)) = self.library.keep(client, digest, module, false).await {
            sampled!(warn, %error, "cannot keep a module");
        }
        Ok(artifact)
    }

    /// The artifact of a module, from the store or compiled now; without the module's bytes from those in the library.
    /// Concurrent calls for one digest compile it once. Where `least` is less than the optimized tier and the module is
    /// large, it may be baseline code, which is replaced in the background.
    ///
    /// # Errors
    ///
    /// See [`Compiler::check`], [`Compiler::compile`] and [`Linkers::load`]; `not-found` without bytes.
    pub async fn compile(
        self: &Arc<Self>,
        client: &Client,
        digest: Digest,
        module: Option<Bytes>,
        least: Tier,
    ) -> Cached<Arc<Artifact>> {
        let mut unoptimized = None;
        let make = async {
            let (artifact, rest) = self.load_or_compile(client, digest, module, least).await?;
            unoptimized = rest;
            Ok(artifact)
        };
        let (outcome, cell) = self.cache.get_or_make(digest, make).await;
        if let Some(rest) = unoptimized {
            tokio::spawn(self.clone().optimize(client.clone(), digest, cell, rest));
        }
        outcome
    }

    async fn load_or_compile(
        &self,
        client: &Client,
        digest: Digest,
        module: Option<Bytes>,
        least: Tier,
    ) -> Result<(Arc<Artifact>, Option<Unoptimized>), MakeError> {
        if let Some(code) = self.store.load(&digest).await {
            // The slots may have been larger when it was compiled.
            let artifact = self.loadable(client, digest, code, Tier::Optimized).await?;
            return Ok((artifact, None));
        }
        let module = match module {
            Some(module) => Some(module),
            None => self.library.load(&digest).await,
        };
        let module = module.ok_or_else(|| MakeError::transient(not_found(&digest)))?;
        let permit = self.compiler.permit(client, Urgency::Awaited).await;
        self.compiler.check(module.clone()).await?;
        if least == Tier::Baseline && self.compiler.wants_baseline(&module) {
            match self.baseline(client, &permit, digest, module.clone()).await? {
                Some((artifact, permit)) => {
                    return Ok((artifact, Some(Unoptimized { module, _permit: permit })));
                }
                None => tracing::debug!(%digest, "no baseline code"),
            }
        }
        Ok((self.optimized(client, &permit, digest, module).await?, None))
    }

    async fn optimized(
        &self,
        client: &Client,
        permit: &Permit,
        digest: Digest,
        module: Bytes,
    ) -> Result<Arc<Artifact>, MakeError> {
        let code = self.compiler.compile(permit, module, Tier::Optimized).await?.into_boxed_slice();
        let artifact = self.loadable(client, digest, code, Tier::Optimized).await?;
        self.store.save(&digest, &artifact.code).await;
        Ok(artifact)
    }

    /// Baseline code, and leave to run on it for a while. `None` where there is none: the baseline compiler does
    /// not know all of WebAssembly.
    async fn baseline(
        &self,
        client: &Client,
        permit: &Permit,
        digest: Digest,
        module: Bytes,
    ) -> Result<Option<(Arc<Artifact>, OwnedSemaphorePermit)>, MakeError> {
        let Some(Baseline { store, background, .. }) = &self.baseline else { return Ok(None) };
        let Ok(allowed) = background.clone().try_acquire_owned() else { return Ok(None) };
        if let Some(code) = store.load(&digest).await {
            return Ok(Some((self.loadable(client, digest, code, Tier::Baseline).await?, allowed)));
        }
        let Ok(code) = self.compiler.compile(permit, module, Tier::Baseline).await else { return Ok(None) };
        let artifact = self.loadable(client, digest, code.into_boxed_slice(), Tier::Baseline).await?;
        store.save(&digest, &artifact.code).await;
        Ok(Some((artifact, allowed)))
    }

    /// Replaces a module's baseline code. What cannot be optimized within the limits stays as it is.
    async fn optimize(
        self: Arc<Self>,
        client: Client,
        digest: Digest,
        baseline: Cell<Arc<Artifact>>,
        rest: Unoptimized,
    ) {
        // Behind all first answers, and stopped whenever one is waited for.
        let permit = self.compiler.permit(&client, Urgency::Background).await;
        match self.optimized(&client, &permit, digest, rest.module).await {
            Ok(artifact) => self.cache.replace(digest, &baseline, artifact),
            Err(MakeError { error, .. }) => {
                sampled!(info, %digest, %error, "a module stays on its baseline code");
            }
        }
    }

    /// Loads an artifact once, so that a module which no worker can load is refused here, as one that cannot be
    /// compiled.
    async fn loadable(
        &self,
        client: &Client,
        digest: Digest,
        code: Box<[u8]>,
        tier: Tier,
    ) -> Result<Arc<Artifact>, MakeError> {
        let validator = match (tier, &self.baseline) {
            (Tier::Baseline, Some(baseline)) => baseline.validator.clone(),
            _ => self.validator.clone(),
        };
        let artifact = Arc::new(Artifact { digest, tier, code });
        let loaded = artifact.clone();
        let execution = match &self.suspects {
            Some(suspects) => Some(suspects.load(client, &digest, tier).await.map_err(MakeError::permanent)?),
            None => None,
        };
        let load = move || {
            let _until_loaded = execution;
            validator.load(&loaded).map(drop)
        };
        tokio::task::spawn_blocking(load)
            .await
            .map_err(|panic| MakeError::transient(telemetry::internal_error(&format!("loading: {panic}"))))?
            .map_err(MakeError::permanent)?;
        Ok(artifact)
    }
}
