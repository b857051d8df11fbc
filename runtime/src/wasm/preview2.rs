//! What a component may import: WASI 0.2, bounded as preview 1 is.
//!
//! Most of it is wasmtime-wasi's, without files and without a network: sockets and names are refused before anything is
//! opened. Standard input and outputs are streams over the same memory as a module's, and randomness costs fuel.
//! A call copies no more than `HOSTCALL_BYTES` from the guest, and what it holds is bounded by [`MAX_RESOURCES`].

use super::guest_state::GuestState;
use super::random;
use super::stdio::{MAX_READ, Output, Stdio};
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use wasmtime::component::{Linker, Resource};
use wasmtime::{Result, StoreContextMut, bail};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};
use wasmtime_wasi::{WasiView, async_trait};

/// Streams, pollables and whatever else a guest holds at once, on either side of the call. A program with more is
/// ended by a trap.
pub const MAX_RESOURCES: usize = 4_096;

/// Bytes that a stream says it has room for; less than a call may copy.
const WRITE_PERMIT: usize = 32 << 10;

/// Bytes that one call for randomness may ask for. They are made on the host before the guest has them.
const MAX_RANDOM: u64 = 1 << 20;

/// The packages of WASI 0.2 that there are: wasmtime-wasi's.
pub const PACKAGES: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];

/// The version that wasmtime-wasi serves; a guest may have been built for any other 0.2.
macro_rules! wasi {
    ($interface:literal) => {
        concat!("wasi:", $interface, "@0.2.12")
    };
}

/// Adds WASI 0.2 to a linker.
pub fn add_to_linker(linker: &mut Linker<GuestState>) -> Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    linker.instance(wasi!("cli/stdin"))?.func_wrap("get-stdin", get_stdin)?;
    linker
        .instance(wasi!("cli/stdout"))?
        .func_wrap("get-stdout", |store, ()| get_output(store, |stdio| &mut stdio.stdout))?;
    linker
        .instance(wasi!("cli/stderr"))?
        .func_wrap("get-stderr", |store, ()| get_output(store, |stdio| &mut stdio.stderr))?;
    linker
        .instance(wasi!("random/random"))?
        .func_wrap_async("get-random-bytes", |store, (len,)| Box::new(random_bytes(store, len)))?;
    linker
        .instance(wasi!("random/insecure"))?
        .func_wrap_async("get-insecure-random-bytes", |store, (len,)| Box::new(random_bytes(store, len)))?;
    linker.allow_shadowing(false);
    Ok(())
}

fn get_stdin(mut store: StoreContextMut<'_, GuestState>, (): ()) -> Result<(Resource<DynInputStream>,)> {
    let state = store.data_mut();
    let stream: DynInputStream = Box::new(Stdin(state.stdio.clone()));
    Ok((state.ctx().table.push(stream)?,))
}

fn get_output(
    mut store: StoreContextMut<'_, GuestState>,
    which: fn(&mut Stdio) -> &mut Output,
) -> Result<(Resource<DynOutputStream>,)> {
    let state = store.data_mut();
    let stream: DynOutputStream = Box::new(OutputEnd { stdio: state.stdio.clone(), which });
    Ok((state.ctx().table.push(stream)?,))
}

async fn random_bytes(mut store: StoreContextMut<'_, GuestState>, len: u64) -> Result<(Vec<u8>,)> {
    if len > MAX_RANDOM {
        bail!("asked for {len} random bytes, the limit of one call is {MAX_RANDOM}");
    }
    let mut bytes = vec![0; len as usize];
    for (n, chunk) in bytes.chunks_mut(random::CHUNK).enumerate() {
        // Not for the few bytes that most programs ask for at their start.
        if n > 0 {
            tokio::task::yield_now().await;
        }
        random::charge(&mut store, chunk.len())?;
        random::fill(chunk)?;
    }
    Ok((bytes,))
}

/// A stream of what is left of standard input. Never blocks.
struct Stdin(Arc<Mutex<Stdio>>);

#[async_trait]
impl Pollable for Stdin {
    async fn ready(&mut self) {}
}

#[async_trait]
impl InputStream for Stdin {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let stdin = &mut Stdio::lock(&self.0).stdin;
        if stdin.is_empty() {
            return Err(StreamError::Closed);
        }
        Ok(stdin.split_to(size.min(MAX_READ).min(stdin.len())))
    }
}

/// A stream into one of the outputs. Never blocks.
struct OutputEnd {
    stdio: Arc<Mutex<Stdio>>,
    which: fn(&mut Stdio) -> &mut Output,
}

#[async_trait]
impl Pollable for OutputEnd {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for OutputEnd {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        (self.which)(&mut Stdio::lock(&self.stdio)).write(&bytes).map_err(StreamError::Trap)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_PERMIT)
    }
}
