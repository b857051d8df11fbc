//! The error of a guest that a limit of the host has ended.

use offload_protocol::error::ErrorKind;

/// A limit of the host ended the guest.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct LimitReached {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
}
