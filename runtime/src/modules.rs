//! From a module's digest to its artifact: compiled once, kept, shared between the workers' engines.

mod library;
mod store;

use crate::compiler::{Compiler, Failure};
use crate::ingress::Client;
use crate::telemetry;
use crate::wasm::linking::Linkers;
use bytes::Bytes;
pub use library::Library;
use lru::LruCache;
use offload_protocol::error::{ErrorKind, WireError};
pub use offload_protocol::request::Digest;
use std::sync::{Arc, Mutex};
pub use store::ArtifactStore;
use tokio::sync::OnceCell;

/// A compiled module: what an engine loads.
pub struct Artifact {
    /// Of the module that it was compiled from.
    pub digest: Digest,
    /// Produced by our compile child in this process's life, or read from the store and authenticated: what
    /// `Module::deserialize` demands.
    pub(crate) code: Box<[u8]>,
}

/// Outcome of a compile. Failures that are the module's own are kept too: it is not tried again at every request.
type Outcome = Result<Arc<Artifact>, WireError>;

/// The gateway's modules.
pub struct Modules {
    compiler: Compiler,
    store: ArtifactStore,
    library: Library,
    /// Of an engine that runs nothing.
    linkers: Arc<Linkers>,
    /// Bytes of artifacts that are kept in memory.
    max_bytes: u64,
    cache: Mutex<Cache>,
}

struct Cache {
    entries: LruCache<Digest, Entry>,
    bytes: u64,
}

#[derive(Clone, Default)]
struct Entry {
    cell: Arc<OnceCell<Outcome>>,
    /// What of `Cache::bytes` is this entry's: nothing while it is compiled.
    counted: u64,
}

/// What a cache entry costs beside its code, so that failures are bounded too.
const ENTRY_COST: u64 = 4 << 10;

fn cost(outcome: &Outcome) -> u64 {
    ENTRY_COST + outcome.as_ref().map_or(0, |artifact| artifact.code.len() as u64)
}

/// A digest is not enough.
pub fn not_found(digest: &Digest) -> WireError {
    let message = format!("no module {digest} of yours: send the module itself");
    WireError::new(ErrorKind::NotFound, message)
}

impl Modules {
    /// Modules of `library`, compiled by `compiler`, their artifacts kept in memory up to `max_bytes` and in `store`.
    /// What `linkers` cannot load is refused: no worker could either.
    pub fn new(
        compiler: Compiler,
        store: ArtifactStore,
        library: Library,
        linkers: Linkers,
        max_bytes: u64,
    ) -> Modules {
        let cache = Mutex::new(Cache { entries: LruCache::unbounded(), bytes: 0 });
        Modules { compiler, store, library, linkers: Arc::new(linkers), max_bytes, cache }
    }

    /// The artifact, if it is at hand: the way of all but a module's first requests.
    pub fn ready(&self, digest: &Digest) -> Option<Outcome> {
        self.lock().entries.get(digest)?.cell.get().cloned()
    }

    /// Whether this client has sent this module: then the digest is enough.
    pub fn has(&self, client: &Client, digest: &Digest) -> bool {
        self.library.has(client, digest)
    }

    /// The artifact of a module that a client has sent, now or before. One that it sends now is kept for it.
    ///
    /// # Errors
    ///
    /// See [`Modules::compile`]; `not-found` when the module was evicted in the meantime.
    pub async fn prepare(&self, client: &Client, digest: Digest, module: Option<Bytes>) -> Outcome {
        let artifact = self.compile(client, digest, module.clone()).await?;
        if let Some(module) = module {
            self.library.keep(client, digest, module).await;
        }
        Ok(artifact)
    }

    /// The artifact of a module, from the store or compiled now; without the module's bytes from those in the library.
    /// Concurrent calls for one digest compile it once.
    ///
    /// # Errors
    ///
    /// See [`Compiler::compile`] and [`Linkers::load`]; `not-found` without bytes.
    pub async fn compile(&self, client: &Client, digest: Digest, module: Option<Bytes>) -> Outcome {
        let cell = self.lock().entries.get_or_insert(digest, Entry::default).cell.clone();
        // Set by whoever of those that wait for it compiles it.
        let mut lasting = None;
        let outcome = cell
            .get_or_init(|| async {
                match self.load_or_compile(client, digest, module).await {
                    Ok(artifact) => {
                        lasting = Some(true);
                        Ok(artifact)
                    }
                    Err(failure) => {
                        lasting = Some(failure.lasting);
                        Err(failure.error)
                    }
                }
            })
            .await
            .clone();
        if let Some(lasting) = lasting {
            self.account(digest, &cell, &outcome, lasting);
        }
        outcome
    }

    async fn load_or_compile(
        &self,
        client: &Client,
        digest: Digest,
        module: Option<Bytes>,
    ) -> Result<Arc<Artifact>, Failure> {
        if let Some(code) = self.store.load(&digest).await {
            // The slots may have been larger when it was compiled.
            return self.loadable(Artifact { digest, code }).await;
        }
        let module = match module {
            Some(module) => Some(module),
            None => self.library.load(&digest).await,
        };
        let module = module.ok_or_else(|| Failure::passing(not_found(&digest)))?;
        let code = self.compiler.compile(client, module).await?.into_boxed_slice();
        let artifact = self.loadable(Artifact { digest, code }).await?;
        self.store.save(&digest, &artifact.code).await;
        Ok(artifact)
    }

    /// Loads an artifact once, so that a module which no worker can load is refused here, as one that cannot be compiled.
    async fn loadable(&self, artifact: Artifact) -> Result<Arc<Artifact>, Failure> {
        let (linkers, artifact) = (self.linkers.clone(), Arc::new(artifact));
        let loaded = artifact.clone();
        tokio::task::spawn_blocking(move || linkers.load(&loaded).map(drop))
            .await
            .map_err(|panic| Failure::passing(telemetry::internal_error(&format!("loading: {panic}"))))?
            .map_err(Failure::lasting)?;
        Ok(artifact)
    }

    /// Counts a new entry, or forgets it if it says nothing about the module, and evicts what was used least recently.
    fn account(&self, digest: Digest, cell: &Arc<OnceCell<Outcome>>, outcome: &Outcome, lasting: bool) {
        let mut cache = self.lock();
        let Cache { entries, bytes } = &mut *cache;
        let entry = match entries.peek_mut(&digest) {
            Some(entry) if Arc::ptr_eq(&entry.cell, cell) => entry,
            // Evicted while it was compiled.
            _ => return,
        };
        if !lasting {
            entries.pop(&digest);
            return;
        }
        entry.counted = cost(outcome);
        *bytes += entry.counted;
        while *bytes > self.max_bytes {
            let Some((_, evicted)) = entries.pop_lru() else { break };
            *bytes -= evicted.counted;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().expect("no panic while the lock is held")
    }
}
