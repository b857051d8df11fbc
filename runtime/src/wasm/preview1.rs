//! The host calls of WASI preview 1 through which a guest's bytes and time pass, bounded.
//!
//! Everything else is wasmtime-wasi's. These few are ours because there a call's length is the guest's choice and
//! costs it next to no fuel: 16 MB of random bytes, a 64 MB write, a poll on a million subscriptions would each hold
//! the worker for milliseconds. Here each does a bounded piece of work and then gives the worker back.
//! Layouts are those of the `wasi_snapshot_preview1` witx.

use super::guest::{Clock, GuestState, WallClock};
use super::random;
use super::stdio::{MAX_READ, Stdio};
use std::future::Future;
use std::time::{Duration, SystemTime};
use wasmtime::{AsContextMut, Caller, Extern, Linker, Memory, Result, bail};
use wasmtime_wasi::I32Exit;

/// The import module of WASI preview 1.
pub const MODULE: &str = "wasi_snapshot_preview1";

/// Bytes that wasmtime-wasi, or a component's call, may copy from the guest at once (paths, writes, lists of pollables).
pub const HOSTCALL_BYTES: usize = 64 << 10;

/// Vectors that one `fd_read` or `fd_write` looks at; POSIX's usual `IOV_MAX`. A longer list is a short read or write.
const MAX_IO_VECTORS: u32 = 1024;

/// Subscriptions that one `poll_oneoff` may wait on; there are three file descriptors and the clocks.
const MAX_SUBSCRIPTIONS: u32 = 64;

const SUCCESS: i32 = 0;
const ERRNO_BADF: i32 = 8;
const ERRNO_FAULT: i32 = 21;
const ERRNO_INVAL: i32 = 28;
const ERRNO_NOTSOCK: i32 = 57;

const STDIN: i32 = 0;
const STDOUT: i32 = 1;
const STDERR: i32 = 2;

/// Adds WASI preview 1 to a linker.
pub fn add_to_linker(linker: &mut Linker<GuestState>) -> Result<()> {
    wasmtime_wasi::p1::add_to_linker_async(linker, |state: &mut GuestState| &mut state.wasi)?;
    linker.allow_shadowing(true);
    linker.func_wrap(MODULE, "proc_exit", |code: i32| -> Result<()> { Err(I32Exit(code).into()) })?;
    linker.func_wrap(MODULE, "fd_read", fd_read)?;
    linker.func_wrap(MODULE, "fd_write", fd_write)?;
    linker.func_wrap_async(MODULE, "random_get", random_get)?;
    linker.func_wrap_async(MODULE, "poll_oneoff", poll_oneoff)?;
    linker.func_wrap(MODULE, "sock_accept", |fd: i32, _: i32, _: i32| no_socket(fd))?;
    linker.func_wrap(MODULE, "sock_recv", |fd: i32, _: i32, _: i32, _: i32, _: i32, _: i32| no_socket(fd))?;
    linker.func_wrap(MODULE, "sock_send", |fd: i32, _: i32, _: i32, _: i32, _: i32| no_socket(fd))?;
    linker.func_wrap(MODULE, "sock_shutdown", |fd: i32, _: i32| no_socket(fd))?;
    linker.allow_shadowing(false);
    Ok(())
}

/// There are no sockets. wasmtime-wasi says the same, and writes it to the log at each call.
fn no_socket(fd: i32) -> i32 {
    match fd {
        STDIN | STDOUT | STDERR => ERRNO_NOTSOCK,
        _ => ERRNO_BADF,
    }
}

fn memory(caller: &mut Caller<'_, GuestState>) -> Result<Memory> {
    match caller.get_export("memory") {
        Some(Extern::Memory(memory)) => Ok(memory),
        _ => bail!("the module exports no memory named `memory`"),
    }
}

fn slice(data: &[u8], at: u32, len: u32) -> Option<&[u8]> {
    data.get(at as usize..)?.get(..len as usize)
}

fn slice_mut(data: &mut [u8], at: u32, len: u32) -> Option<&mut [u8]> {
    data.get_mut(at as usize..)?.get_mut(..len as usize)
}

fn read_u32(data: &[u8], at: u32) -> Option<u32> {
    Some(u32::from_le_bytes(slice(data, at, 4)?.try_into().ok()?))
}

fn write_u32(data: &mut [u8], at: u32, value: u32) -> Option<()> {
    slice_mut(data, at, 4)?.copy_from_slice(&value.to_le_bytes());
    Some(())
}

/// The n-th `(pointer, length)` of a list of vectors.
fn io_vector(data: &[u8], list: u32, n: u32) -> Option<(u32, u32)> {
    let at = list.checked_add(n.checked_mul(8)?)?;
    Some((read_u32(data, at)?, read_u32(data, at.checked_add(4)?)?))
}

fn fd_read(mut caller: Caller<'_, GuestState>, fd: i32, list: i32, count: i32, read: i32) -> Result<i32> {
    if fd != STDIN {
        return Ok(ERRNO_BADF);
    }
    let memory = memory(&mut caller)?;
    let (data, state) = memory.data_and_store_mut(&mut caller);
    let stdin = &mut Stdio::lock(&state.stdio).stdin;
    let mut copy = || -> Option<u32> {
        let mut total = 0u32;
        for n in 0..(count as u32).min(MAX_IO_VECTORS) {
            let (at, len) = io_vector(data, list as u32, n)?;
            let len = len.min(MAX_READ as u32 - total).min(stdin.len() as u32);
            slice_mut(data, at, len)?.copy_from_slice(&stdin.split_to(len as usize));
            total += len;
        }
        write_u32(data, read as u32, total)?;
        Some(total)
    };
    Ok(if copy().is_some() { SUCCESS } else { ERRNO_FAULT })
}

fn fd_write(mut caller: Caller<'_, GuestState>, fd: i32, list: i32, count: i32, written: i32) -> Result<i32> {
    let memory = memory(&mut caller)?;
    let (data, state) = memory.data_and_store_mut(&mut caller);
    let mut stdio = Stdio::lock(&state.stdio);
    let output = match fd {
        STDOUT => &mut stdio.stdout,
        STDERR => &mut stdio.stderr,
        _ => return Ok(ERRNO_BADF),
    };
    let mut total = 0u32;
    for n in 0..(count as u32).min(MAX_IO_VECTORS) {
        let Some(bytes) = io_vector(data, list as u32, n).and_then(|(at, len)| slice(data, at, len)) else {
            return Ok(ERRNO_FAULT);
        };
        // Past its limit an output ends the guest, so this copies no more than the limit in all.
        output.write(bytes)?;
        total = total.saturating_add(bytes.len() as u32);
    }
    Ok(if write_u32(data, written as u32, total).is_some() { SUCCESS } else { ERRNO_FAULT })
}

fn random_get(
    mut caller: Caller<'_, GuestState>,
    (at, len): (i32, i32),
) -> Box<dyn Future<Output = Result<i32>> + Send + '_> {
    Box::new(async move {
        let memory = memory(&mut caller)?;
        let (mut at, mut left) = (at as u32 as usize, len as u32 as usize);
        if at.checked_add(left).is_none_or(|end| end > memory.data_size(&caller)) {
            return Ok(ERRNO_FAULT);
        }
        loop {
            let chunk = left.min(random::CHUNK);
            random::charge(&mut caller.as_context_mut(), chunk)?;
            random::fill(&mut memory.data_mut(&mut caller)[at..at + chunk])?;
            at += chunk;
            left -= chunk;
            if left == 0 {
                return Ok(SUCCESS);
            }
            tokio::task::yield_now().await;
        }
    })
}

/// What a subscription waits for.
enum Subscription {
    Clock(Duration),
    Descriptor,
}

fn poll_oneoff(
    mut caller: Caller<'_, GuestState>,
    (subscriptions, events, count, ready): (i32, i32, i32, i32),
) -> Box<dyn Future<Output = Result<i32>> + Send + '_> {
    Box::new(async move {
        let count = count as u32;
        if count == 0 || count > MAX_SUBSCRIPTIONS {
            return Ok(ERRNO_INVAL);
        }
        let memory = memory(&mut caller)?;
        let clock = caller.data().clock;
        let mut waits = Vec::with_capacity(count as usize);
        for n in 0..count {
            match subscription(memory.data(&caller), subscriptions as u32, n, clock) {
                Ok(wait) => waits.push(wait),
                Err(errno) => return Ok(errno),
            }
        }
        // stdin, stdout and stderr never block here, so with one of them there is nothing to wait for.
        let sleep = waits
            .iter()
            .map(|(_, wait)| match wait {
                Subscription::Clock(timeout) => *timeout,
                Subscription::Descriptor => Duration::ZERO,
            })
            .min()
            .unwrap_or_default();
        if !sleep.is_zero() {
            tokio::time::sleep(sleep).await;
        }
        let mut written = 0;
        for (userdata, wait) in &waits {
            let (kind, due) = match wait {
                Subscription::Clock(timeout) => (0u8, *timeout <= sleep),
                Subscription::Descriptor => (1u8, true),
            };
            if !due {
                continue;
            }
            // event: userdata u64, errno u16, type u8, padding, nbytes u64, flags u16, padding.
            let mut event = [0u8; 32];
            event[..8].copy_from_slice(userdata);
            event[10] = kind;
            event[16] = kind;
            let at = (events as u32).checked_add(written * 32);
            match at.and_then(|at| slice_mut(memory.data_mut(&mut caller), at, 32)) {
                Some(place) => place.copy_from_slice(&event),
                None => return Ok(ERRNO_FAULT),
            }
            written += 1;
        }
        let wrote = write_u32(memory.data_mut(&mut caller), ready as u32, written);
        Ok(if wrote.is_some() { SUCCESS } else { ERRNO_FAULT })
    })
}

/// Decodes the n-th subscription: its user data, and what it waits for. `clock` is the guest's monotonic clock.
fn subscription(data: &[u8], list: u32, n: u32, clock: Clock) -> Result<([u8; 8], Subscription), i32> {
    const SIZE: u32 = 48;
    const ABSOLUTE: u16 = 1;
    let at = list.checked_add(n * SIZE).ok_or(ERRNO_FAULT)?;
    let raw = slice(data, at, SIZE).ok_or(ERRNO_FAULT)?;
    let u64_at = |at: usize| u64::from_le_bytes(raw[at..at + 8].try_into().expect("eight bytes"));
    let u32_at = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().expect("four bytes"));
    let userdata = raw[..8].try_into().expect("eight bytes");
    let wait = match raw[8] {
        0 => {
            let id = u32_at(16);
            let timeout = Duration::from_nanos(u64_at(24));
            let absolute = u16::from_le_bytes([raw[40], raw[41]]) & ABSOLUTE != 0;
            Subscription::Clock(match (id, absolute) {
                (0 | 1, false) => timeout,
                (0, true) => timeout.saturating_sub(WallClock::since_epoch(SystemTime::now())),
                (1, true) => timeout.saturating_sub(clock.elapsed()),
                _ => return Err(ERRNO_INVAL),
            })
        }
        kind @ (1 | 2) => match (kind, u32_at(16) as i32) {
            (1, STDIN) | (2, STDOUT | STDERR) => Subscription::Descriptor,
            _ => return Err(ERRNO_BADF),
        },
        _ => return Err(ERRNO_INVAL),
    };
    Ok((userdata, wait))
}
