//! Guests that do one thing only, which no guest example does.

use anyhow::Result;
use bytes::Bytes;

/// Prints this text, and then does what these instructions say; `$exit` ends it with a code.
pub fn prints_and(text: &str, instructions: &str) -> Result<Bytes> {
    let module = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "{text}")
            (func $main (export "_start")
                (i32.store (i32.const 0) (i32.const 16))
                (i32.store (i32.const 4) (i32.const {length}))
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                {instructions}))"#,
        length = text.len(),
    );
    Ok(wat::parse_str(module)?.into())
}
