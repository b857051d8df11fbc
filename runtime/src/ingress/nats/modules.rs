//! The modules that clients have sent, in an object store, which all gateways share.

use super::jetstream::{JetStream, NatsError, bytes};
use super::objects::Objects;
use crate::log_sampling::sampled;
use crate::modules::Owner;
use crate::random::random;
use crate::shared::{Fetched, OnRemoved, SharedModules};
use async_nats::jetstream::object_store::{GetError, GetErrorKind, ObjectInfo, ObjectStore};
use async_nats::jetstream::stream::{self, DiscardPolicy};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use offload_broker::BoxFuture;
use offload_policy::Backoff;
use offload_protocol::request::{Digest, StoredModule};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// How long a module may take to be fetched or stored.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one attempt to fetch it may take, and waits between attempts.
const ATTEMPT: Duration = Duration::from_secs(5);
const FETCH_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Lists at once: each reads the names of all that the store has.
const LISTS: usize = 2;
/// Waits between attempts to hear of what is removed.
const FOLLOW_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// See the module's documentation.
pub(super) struct NatsModules {
    store: ObjectStore,
    /// The same, written to.
    objects: Objects,
    /// Largest module that is fetched, in bytes.
    max: u64,
    lists: Semaphore,
    following: OnceLock<AbortOnDropHandle<()>>,
}

impl NatsModules {
    /// Finds or creates the object store; `max` is the size of the largest module.
    pub async fn open(jetstream: &JetStream, max: u64) -> Result<NatsModules, NatsError> {
        let bucket = format!("{}-modules", jetstream.share);
        let wanted = stream::Config {
            name: format!("OBJ_{bucket}"),
            description: Some("modules that clients have sent".to_owned()),
            subjects: vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
            max_bytes: bytes(jetstream.config.module_bytes),
            discard: DiscardPolicy::New,
            allow_rollup: true,
            // Asked for directly, a replica that is behind has no module that another gateway has just stored.
            allow_direct: false,
            num_replicas: jetstream.replicas(),
            ..stream::Config::default()
        };
        let stream = jetstream.stream(wanted).await?;
        jetstream.check_replicas(&format!("the object store {bucket}"), &stream.cached_info().config)?;
        let store = jetstream.object_store(&bucket).await;
        let objects = Objects::new(jetstream.context.clone(), stream, bucket);
        Ok(NatsModules { store, objects, max, lists: Semaphore::new(LISTS), following: OnceLock::new() })
    }

    async fn read(&self, name: &str) -> Result<Bytes, async_nats::Error> {
        let object = self.store.get(name).await?;
        let mut module = Vec::new();
        object.take(self.max).read_to_end(&mut module).await?;
        Ok(module.into())
    }

    /// Whether there is an object of this name: of one that was removed the name is left.
    async fn has(&self, name: &str) -> bool {
        self.store.info(name).await.is_ok_and(|object| !object.deleted)
    }

    async fn of(&self, owner: Owner) -> Result<Vec<StoredModule>, async_nats::Error> {
        let _list = self.lists.acquire().await?;
        let mut own = Vec::new();
        let mut all = self.store.list().await?;
        while let Some(object) = all.try_next().await? {
            if let Some((_, digest)) = parse(&object.name).filter(|(of, _)| *of == owner) {
                own.push(StoredModule { digest, bytes: object.size as u64, last_used: stored_at(&object) });
            }
        }
        Ok(own)
    }
}

/// Tells of all that was removed, and is removed, for ever.
async fn follow_removals(store: ObjectStore, on_removed: OnRemoved) {
    let mut retry = Backoff::new(FOLLOW_RETRY.0, FOLLOW_RETRY.1);
    loop {
        match store.watch_with_history().await {
            Ok(mut objects) => {
                while let Some(Ok(object)) = objects.next().await {
                    retry.reset();
                    if let Some((owner, digest)) = parse(&object.name).filter(|_| object.deleted) {
                        on_removed(owner, digest).await;
                    }
                }
            }
            Err(error) => {
                _ = sampled!(warn, %error, "what other gateways remove of modules is not heard of; trying again");
            }
        }
        sleep(retry.wait(random())).await;
    }
}

impl SharedModules for NatsModules {
    fn fetch(&self, owner: Owner, digest: Digest) -> BoxFuture<'_, Fetched> {
        Box::pin(async move {
            let (name, begin) = (name(owner, digest), Instant::now());
            let mut retry = Backoff::new(FETCH_RETRY.0, FETCH_RETRY.1);
            // While servers elect their leaders an attempt can wait for what never comes.
            while begin.elapsed() < PATIENCE {
                match timeout(ATTEMPT, self.read(&name)).await {
                    Ok(Ok(module)) if Digest::of(&module) == digest => return Fetched::Found(module),
                    Ok(Err(error)) if is_missing(&error) => return Fetched::Missing,
                    _ => sleep(retry.wait(random())).await,
                }
            }
            Fetched::Unavailable
        })
    }

    fn store(&self, owner: Owner, digest: Digest, module: Bytes) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let name = name(owner, digest);
            let problem = match timeout(PATIENCE, self.objects.put(&name, &module)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(elapsed) => elapsed.to_string(),
            };
            _ = sampled!(warn, %digest, problem, "a module is not shared: other gateways do not have it");
        })
    }

    fn list(&self, owner: Owner) -> BoxFuture<'_, Option<Vec<StoredModule>>> {
        Box::pin(async move {
            match timeout(PATIENCE, self.of(owner)).await {
                Ok(Ok(list)) => Some(list),
                Ok(Err(error)) => {
                    _ = sampled!(warn, %error, "the modules in the object store cannot be listed");
                    None
                }
                Err(_) => None,
            }
        })
    }

    fn follow_removals(&self, on_removed: OnRemoved) {
        let following = tokio::spawn(follow_removals(self.store.clone(), on_removed));
        let _ = self.following.set(AbortOnDropHandle::new(following));
    }

    fn remove(&self, owner: Owner, digest: Digest) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let name = name(owner, digest);
            let removing = async { self.has(&name).await && self.store.delete(&name).await.is_ok() };
            timeout(PATIENCE, removing).await.unwrap_or(false)
        })
    }
}

fn is_missing(error: &async_nats::Error) -> bool {
    error.downcast_ref::<GetError>().is_some_and(|error| error.kind() == GetErrorKind::NotFound)
}

/// What a module of this owner is called.
fn name(owner: Owner, digest: Digest) -> String {
    format!("{}/{}", owner.hash().hex(), digest.hex())
}

/// Whose a module of this name is, and which one.
fn parse(name: &str) -> Option<(Owner, Digest)> {
    let (owner, digest) = name.split_once('/')?;
    let hash = |hex: &str| format!("sha256:{hex}").parse::<Digest>().ok();
    Some((Owner::of_hash(hash(owner)?), hash(digest)?))
}

/// In milliseconds since 1970.
fn stored_at(object: &ObjectInfo) -> u64 {
    let since = object.modified.map(|at| at.unix_timestamp_nanos() / 1_000_000);
    since.and_then(|since| since.try_into().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_and_which() {
        let (owner, digest) = (Owner::of_hash(Digest([7; 32])), Digest([9; 32]));
        assert_eq!(parse(&name(owner, digest)), Some((owner, digest)));
        for other in ["", "a/b", &digest.hex(), &format!("{}/", digest.hex())] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
