//! What a client is told whose module is refused before it is compiled.

use offload_protocol::error::{ErrorKind, WireError};
use wasmparser::BinaryReaderError;

/// The error of a module that is no WASI command.
pub fn malformed(message: impl Into<String>) -> WireError {
    WireError::new(ErrorKind::Malformed, message)
}

/// The error of a module that starts with more memory or table elements than a guest may have.
pub fn memory(what: &str, found: u64, key: &str, limit: u64) -> WireError {
    let message = format!("the module starts with {found} {what}, the limit limits.{key} is {limit}");
    WireError::new(ErrorKind::Memory, message)
}

/// The error of what is not valid wasm.
pub fn not_wasm(error: BinaryReaderError) -> WireError {
    malformed(format!("not valid wasm: {} (at offset {:#x})", error.message(), error.offset()))
}
