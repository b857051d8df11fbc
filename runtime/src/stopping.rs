//! What a request is told by a gateway that stops.

use offload_protocol::error::{ErrorKind, WireError};

/// Whether an error says that the gateway stops.
pub fn is_stopping(error: &WireError) -> bool {
    *error == stopping_error()
}

/// A gateway that stops has not failed.
pub fn stopping_error() -> WireError {
    WireError::new(ErrorKind::Busy, "the gateway is stopping, try again after 5 s")
}
