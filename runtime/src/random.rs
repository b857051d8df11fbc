//! Numbers for pauses and names, by which gateways are told apart. They are no secrets.

use std::hash::{BuildHasher, RandomState};

/// A number that no other gateway and no earlier call is likely to have got.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(())
}
