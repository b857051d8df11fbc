//! From a module's digest to its artifact: compiled once, kept, shared between the workers' engines.

mod store;

use crate::compiler::Compiler;
use crate::ingress::Client;
use bytes::Bytes;
use lru::LruCache;
use offload_protocol::error::{ErrorKind, WireError};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::{Arc, Mutex};
pub use store::ArtifactStore;
use tokio::sync::OnceCell;

/// SHA-256 of a module's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(module: &[u8]) -> Digest {
        Digest(Sha256::digest(module).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{self}")
    }
}

/// A compiled module: what an engine loads.
pub struct Artifact {
    /// Of the module that it was compiled from.
    pub digest: Digest,
    /// Produced by our compile child in this process's life, or read from the store and authenticated: what
    /// `Module::deserialize` demands.
    pub(crate) code: Box<[u8]>,
}

/// Outcome of a compile. Failures are kept too: a module that cannot be compiled is not tried at every request.
type Outcome = Result<Arc<Artifact>, WireError>;

/// The gateway's modules.
pub struct Modules {
    compiler: Compiler,
    store: ArtifactStore,
    /// Bytes of artifacts that are kept in memory.
    max_bytes: u64,
    cache: Mutex<Cache>,
}

struct Cache {
    entries: LruCache<Digest, Arc<OnceCell<Outcome>>>,
    bytes: u64,
}

/// What a cache entry costs beside its code, so that failures are bounded too.
const ENTRY_COST: u64 = 4 << 10;

fn cost(outcome: &Outcome) -> u64 {
    ENTRY_COST + outcome.as_ref().map_or(0, |artifact| artifact.code.len() as u64)
}

impl Modules {
    /// Modules compiled by `compiler`, kept in memory up to `max_bytes` and in `store`.
    pub fn new(compiler: Compiler, store: ArtifactStore, max_bytes: u64) -> Modules {
        let cache = Mutex::new(Cache { entries: LruCache::unbounded(), bytes: 0 });
        Modules { compiler, store, max_bytes, cache }
    }

    /// The artifact, if it is at hand: the way of all but a module's first requests.
    pub fn ready(&self, digest: &Digest) -> Option<Outcome> {
        self.lock().entries.get(digest)?.get().cloned()
    }

    /// The artifact of a module, from the store or compiled now. Concurrent calls for one digest compile it once.
    ///
    /// # Errors
    ///
    /// See [`Compiler::compile`].
    pub async fn compile(&self, client: &Client, digest: Digest, module: Bytes) -> Outcome {
        let cell = self.lock().entries.get_or_insert(digest, Default::default).clone();
        let mut filled_now = false;
        let outcome = cell
            .get_or_init(|| {
                filled_now = true;
                self.load_or_compile(client, digest, module)
            })
            .await
            .clone();
        if filled_now {
            self.account(digest, &cell, &outcome);
        }
        outcome
    }

    async fn load_or_compile(&self, client: &Client, digest: Digest, module: Bytes) -> Outcome {
        if let Some(code) = self.store.load(&digest).await {
            return Ok(Arc::new(Artifact { digest, code }));
        }
        let code = self.compiler.compile(client, module).await?.into_boxed_slice();
        self.store.save(&digest, &code).await;
        Ok(Arc::new(Artifact { digest, code }))
    }

    /// Counts a new entry, forgets it again if it says nothing about the module, and evicts what was used least
    /// recently.
    fn account(&self, digest: Digest, cell: &Arc<OnceCell<Outcome>>, outcome: &Outcome) {
        let mut cache = self.lock();
        if !cache.entries.peek(&digest).is_some_and(|kept| Arc::ptr_eq(kept, cell)) {
            // Evicted while it was compiled.
            return;
        }
        if matches!(outcome, Err(error) if error.kind == ErrorKind::Internal) {
            cache.entries.pop(&digest);
            return;
        }
        cache.bytes += cost(outcome);
        while cache.bytes > self.max_bytes {
            let Some((_, cell)) = cache.entries.pop_lru() else { break };
            // An entry that is still being compiled has not been counted; its waiters hold it.
            cache.bytes -= cell.get().map_or(0, cost);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().expect("no panic while the lock is held")
    }
}
