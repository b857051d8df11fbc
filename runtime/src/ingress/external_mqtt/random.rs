//! Numbers for pauses and questions, by which gateways are told apart.

use std::hash::{BuildHasher, RandomState};

/// A number that no other gateway and no earlier call is likely to have got.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(())
}
