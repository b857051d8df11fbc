//! What the gateways of one service share, so that a request may come to any of them: outcomes of requests with an
//! `id`, and the modules that clients have sent.

use crate::fingerprint::Fingerprint;
use crate::modules::library::Owner;
use bytes::Bytes;
use offload_broker::BoxFuture;
use offload_protocol::request::{Digest, RequestKind, StoredModule};
use std::sync::Arc;

/// What the gateways have together.
#[derive(Clone)]
pub struct Shared {
    /// Outcomes.
    pub outcomes: Arc<dyn SharedOutcomes>,
    /// Those of sealed requests, none of which is forgotten early.
    pub sealed: Arc<dyn SharedOutcomes>,
    /// Modules.
    pub modules: Arc<dyn SharedModules>,
}

/// What a request with an `id` is called among the gateways: the hash of whose it is and its `id`, in hex digits.
pub type SharedName = Arc<str>;

impl Shared {
    /// Waits until all that was asked for is done.
    pub async fn flush(&self) {
        self.outcomes.flush().await;
        self.sealed.flush().await;
    }
}

/// Is told what has become of an outcome.
pub type WhenKept = Box<dyn FnOnce(KeptOutcome) + Send>;

/// What has become of an outcome.
pub enum KeptOutcome {
    /// All gateways would give it.
    Ours,
    /// Another gateway was faster, with this one.
    Theirs(Bytes),
    /// It cannot be shared: the other gateways do not know it.
    Unshared,
}

/// Is called when another gateway has cancelled a request that is claimed here.
pub type OnCancelled = Arc<dyn Fn() + Send + Sync>;

/// The outcomes of requests with an `id`, on all gateways: a request is run by the one that has claimed it.
pub trait SharedOutcomes: Send + Sync {
    /// Claims a request. Waits while another gateway runs it, and takes it over from one that is not heard of any more.
    /// With `on_cancelled` it can be cancelled by another gateway until it is kept or released.
    fn claim(
        &self,
        name: SharedName,
        fingerprint: Fingerprint,
        on_cancelled: Option<OnCancelled>,
    ) -> BoxFuture<'_, Claim>;

    /// Ends a claim with an outcome that is to be remembered.
    fn keep(&self, name: SharedName, fingerprint: Fingerprint, outcome: Bytes, then: WhenKept);

    /// Bytes of the largest outcome that can be kept.
    fn max_outcome(&self) -> usize;

    /// Ends a claim without an outcome: whoever asks again runs the request.
    fn release(&self, name: SharedName);

    /// Gives a request that has no outcome yet the one that it was cancelled, wherever it waits or runs.
    fn cancel(&self, target: Target) -> BoxFuture<'_, Cancelling>;

    /// Waits until all that was asked for is done.
    fn flush(&self) -> BoxFuture<'_, ()>;
}

/// What becomes of a request that is known to all gateways.
pub enum Claim {
    /// This gateway is to run it.
    Ours,
    /// It was run, with this outcome.
    Done(Bytes),
    /// Another request had its name.
    Conflict,
    /// Nobody can tell for now.
    Unavailable,
}

/// Tells the request of a [`Target`] by a message that no gateway has answered yet.
pub type Recognize = Box<dyn Fn(RequestKind, &Bytes) -> Option<Fingerprint> + Send + Sync>;

/// A request that is to be cancelled, on whichever gateway it is.
pub struct Target {
    /// What it is called.
    pub name: SharedName,
    /// The reply id of its topic.
    pub reply_id: Arc<str>,
    /// The fingerprint of a message that no gateway has answered yet, if that is the request.
    pub recognize: Recognize,
    /// The outcome that it was cancelled.
    pub outcome: Box<dyn Fn(Fingerprint) -> Bytes + Send + Sync>,
}

/// What becomes of a request that cancels another one, on all gateways.
pub enum Cancelling {
    /// The other one never starts, or is ended: that is its outcome on all gateways.
    Done,
    /// No such request waits or runs.
    NotFound,
    /// Nobody can tell for now.
    Unavailable,
}

/// Is told that a module was removed by its owner, on whichever gateway.
pub type OnRemoved = Box<dyn Fn(Owner, Digest) -> BoxFuture<'static, ()> + Send + Sync>;

/// What becomes of a module that is looked for.
pub enum Fetched {
    /// There it is.
    Found(Bytes),
    /// This owner has sent no such module.
    Missing,
    /// Nobody can tell for now.
    Unavailable,
}

/// The modules that clients have sent to any gateway.
pub trait SharedModules: Send + Sync {
    /// The module with this digest, if this owner has sent it.
    fn fetch(&self, owner: Owner, digest: Digest) -> BoxFuture<'_, Fetched>;

    /// Keeps a module of this owner. Where that fails, other gateways do not have it.
    fn store(&self, owner: Owner, digest: Digest, module: Bytes) -> BoxFuture<'_, ()>;

    /// What this owner has sent to any gateway; `None` while that cannot be told.
    fn list(&self, owner: Owner) -> BoxFuture<'_, Option<Vec<StoredModule>>>;

    /// From now on `on_removed` is told of what is removed, and of what was removed before. Call it once, within a
    /// tokio runtime.
    fn follow_removals(&self, on_removed: OnRemoved);

    /// Forgets a module of this owner; whether there was one. Gateways that have a copy are told.
    fn remove(&self, owner: Owner, digest: Digest) -> BoxFuture<'_, bool>;
}
