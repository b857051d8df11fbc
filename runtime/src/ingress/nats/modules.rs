//! The modules that clients have sent, in an object store, which all gateways share.

use super::jetstream::{JetStream, NatsError, bytes, random};
use crate::log_sampling::sampled;
use crate::modules::Owner;
use crate::shared::{Fetched, SharedModules};
use async_nats::jetstream::object_store::{GetError, GetErrorKind, ObjectStore};
use async_nats::jetstream::stream::{self, DiscardPolicy};
use bytes::Bytes;
use offload_broker::BoxFuture;
use offload_policy::Backoff;
use offload_protocol::request::Digest;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout};

/// How long a module may take to be fetched or stored.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one attempt to fetch it may take, and waits between attempts.
const ATTEMPT: Duration = Duration::from_secs(5);
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// See the module's documentation.
pub(super) struct NatsModules {
    store: ObjectStore,
    /// Largest module that is fetched, in bytes.
    max: u64,
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
        Ok(NatsModules { store: jetstream.object_store(&bucket).await, max })
    }

    async fn read(&self, name: &str) -> Result<Bytes, async_nats::Error> {
        let object = self.store.get(name).await?;
        let mut module = Vec::new();
        object.take(self.max).read_to_end(&mut module).await?;
        Ok(module.into())
    }
}

impl SharedModules for NatsModules {
    fn fetch(&self, owner: Owner, digest: Digest) -> BoxFuture<'_, Fetched> {
        Box::pin(async move {
            let (name, begin) = (name(owner, digest), Instant::now());
            let mut retry = Backoff::new(RETRY.0, RETRY.1);
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
            let storing = async {
                if self.store.info(&name).await.is_ok() {
                    return Ok(());
                }
                self.store.put(&*name, &mut &module[..]).await.map(drop)
            };
            let problem = match timeout(PATIENCE, storing).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(elapsed) => elapsed.to_string(),
            };
            _ = sampled!(warn, %digest, problem, "a module is not shared: other gateways do not have it");
        })
    }

    fn remove(&self, owner: Owner, digest: Digest) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let name = name(owner, digest);
            let removing = async { self.store.delete(&name).await.is_ok() };
            timeout(PATIENCE, removing).await.unwrap_or(false)
        })
    }
}

fn is_missing(error: &async_nats::Error) -> bool {
    error.downcast_ref::<GetError>().is_some_and(|error| error.kind() == GetErrorKind::NotFound)
}

/// What a module of this owner is called.
fn name(owner: Owner, digest: Digest) -> String {
    format!("{}/{}", Digest(owner.bytes()).hex(), digest.hex())
}
