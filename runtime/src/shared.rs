//! What the gateways of one service share, so that a request may come to any of them: outcomes of requests with an
//! `id`, and the modules that clients have sent.

use crate::fingerprint::Fingerprint;
use crate::modules::library::Owner;
use bytes::Bytes;
use offload_broker::BoxFuture;
use offload_protocol::request::Digest;
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

/// The outcomes of requests with an `id`, on all gateways: a request is run by the one that has claimed it.
pub trait SharedOutcomes: Send + Sync {
    /// Claims a request. Waits while another gateway runs it, and takes it over from one that is not heard of any more.
    fn claim(&self, name: SharedName, fingerprint: Fingerprint) -> BoxFuture<'_, Claim>;

    /// Ends a claim with an outcome that is to be remembered.
    fn keep(&self, name: SharedName, fingerprint: Fingerprint, outcome: Bytes, then: WhenKept);

    /// Bytes of the largest outcome that can be kept.
    fn max_outcome(&self) -> usize;

    /// Ends a claim without an outcome: whoever asks again runs the request.
    fn release(&self, name: SharedName);

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

    /// Forgets a module of this owner; whether there was one. Other gateways may have a copy.
    fn remove(&self, owner: Owner, digest: Digest) -> BoxFuture<'_, bool>;
}
