//! From a module's digest to its artifact: compiled once, kept, shared between the workers' engines.

mod store;

use crate::compiler::{Compiler, Failure};
use crate::ingress::Client;
use bytes::Bytes;
use lru::LruCache;
use offload_protocol::error::WireError;
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

/// Outcome of a compile. Failures that are the module's own are kept too: it is not tried again at every request.
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

impl Modules {
    /// Modules compiled by `compiler`, kept in memory up to `max_bytes` and in `store`.
    pub fn new(compiler: Compiler, store: ArtifactStore, max_bytes: u64) -> Modules {
        let cache = Mutex::new(Cache { entries: LruCache::unbounded(), bytes: 0 });
        Modules { compiler, store, max_bytes, cache }
    }

    /// The artifact, if it is at hand: the way of all but a module's first requests.
    pub fn ready(&self, digest: &Digest) -> Option<Outcome> {
        self.lock().entries.get(digest)?.cell.get().cloned()
    }

    /// The artifact of a module, from the store or compiled now. Concurrent calls for one digest compile it once.
    ///
    /// # Errors
    ///
    /// See [`Compiler::compile`].
    pub async fn compile(&self, client: &Client, digest: Digest, module: Bytes) -> Outcome {
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
        module: Bytes,
    ) -> Result<Arc<Artifact>, Failure> {
        if let Some(code) = self.store.load(&digest).await {
            return Ok(Arc::new(Artifact { digest, code }));
        }
        let code = self.compiler.compile(client, module).await?.into_boxed_slice();
        self.store.save(&digest, &code).await;
        Ok(Arc::new(Artifact { digest, code }))
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
