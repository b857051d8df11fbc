//! A compiled module: what an engine loads.

use super::engine::Tier;
use offload_protocol::request::Digest;

/// A compiled module.
pub struct Artifact {
    /// Of the module that it was compiled from.
    pub digest: Digest,
    /// What it was compiled by, and so which engine runs it.
    pub tier: Tier,
    /// Produced by our compile child in this process's life, or read from the store and authenticated: what
    /// `Module::deserialize` demands.
    pub(crate) code: Box<[u8]>,
}

impl Artifact {
    /// What names it among those that are loaded.
    pub fn key(&self) -> (Digest, Tier) {
        (self.digest, self.tier)
    }

    /// Bytes of its code.
    pub fn size(&self) -> usize {
        self.code.len()
    }
}
