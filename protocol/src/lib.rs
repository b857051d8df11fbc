//! The wire contract of offload-rt: topics, request forms, answers and error kinds.
//!
//! Pure: bytes in, values out. No sockets, no clock, no engine; `docs/protocol.md` is the contract for users and
//! this crate is its one implementation, shared by gateway, clients and tests.

pub mod answer;
pub mod digest;
mod envelope;
pub mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod request;
pub mod sealed;
pub mod topic;

/// The user properties of an MQTT 5 PUBLISH packet, in their order; a name may occur more than once.
pub type UserProperties = Vec<(String, String)>;
