//! What host calls of WASI preview 1 share: error numbers, bounds, and the guest's memory.

use crate::wasm::guest_state::GuestState;
use wasmtime::{Caller, Extern, Memory, Result, bail};
pub use wasmtime_wasi::p1::wasi_snapshot_preview1 as wasmtime_preview1;

/// The import module of WASI preview 1.
pub const MODULE: &str = "wasi_snapshot_preview1";

/// Bytes that wasmtime-wasi, or a component's call, may copy from the guest at once (paths, writes, lists of
/// pollables).
pub const HOSTCALL_BYTES: usize = 64 << 10;

/// Vectors that one `fd_read` or `fd_write` looks at; POSIX's usual `IOV_MAX`. A longer list is a short read or write.
pub const MAX_IO_VECTORS: u32 = 1024;

pub const SUCCESS: i32 = 0;
pub const ERRNO_BADF: i32 = 8;
pub const ERRNO_FAULT: i32 = 21;
pub const ERRNO_INVAL: i32 = 28;

/// What a host call is called by.
pub type Guest<'a> = Caller<'a, GuestState>;

pub fn memory(caller: &mut Guest<'_>) -> Result<Memory> {
    match caller.get_export("memory") {
        Some(Extern::Memory(memory)) => Ok(memory),
        _ => bail!("the module exports no memory named `memory`"),
    }
}

pub fn slice(data: &[u8], at: u32, len: u32) -> Option<&[u8]> {
    data.get(at as usize..)?.get(..len as usize)
}

pub fn slice_mut(data: &mut [u8], at: u32, len: u32) -> Option<&mut [u8]> {
    data.get_mut(at as usize..)?.get_mut(..len as usize)
}

fn read_u32(data: &[u8], at: u32) -> Option<u32> {
    Some(u32::from_le_bytes(slice(data, at, 4)?.try_into().ok()?))
}

pub fn write_u32(data: &mut [u8], at: u32, value: u32) -> Option<()> {
    slice_mut(data, at, 4)?.copy_from_slice(&value.to_le_bytes());
    Some(())
}

/// The n-th `(pointer, length)` of a list of vectors.
pub fn io_vector(data: &[u8], list: u32, n: u32) -> Option<(u32, u32)> {
    let at = list.checked_add(n.checked_mul(8)?)?;
    Some((read_u32(data, at)?, read_u32(data, at.checked_add(4)?)?))
}
