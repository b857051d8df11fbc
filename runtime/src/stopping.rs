//! What a request is told by a gateway that stops.

use offload_protocol::error::{ErrorKind, WireError};

/// A gateway that stops has not failed.
pub fn stopping_error() -> WireError {
    WireError::new(ErrorKind::Busy, "the gateway is stopping, try again after 5 s")
}
