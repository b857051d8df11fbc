//! The host calls of WASI preview 1 through which a guest's bytes and time pass, bounded.
//!
//! Everything else is wasmtime-wasi's. These few are ours because there a call's length is the guest's choice and
//! costs it next to no fuel: 16 MB of random bytes, a 64 MB write, a poll on a million subscriptions would each hold
//! the worker for milliseconds. Here each does a bounded piece of work and then gives the worker back.
//! Layouts are those of the `wasi_snapshot_preview1` witx. Descriptors are wasmtime-wasi's: what closes or renumbers
//! one is passed on to it, and followed in `standard_streams`. Only those of a module's folder are ours (`files`).

mod abi;
mod files;

use super::guest_state::{GuestState, WallClock};
use super::random;
use super::standard_streams::Stream;
use super::stdio::{MAX_READ, Stdio};
use abi::{
    ERRNO_BADF, ERRNO_FAULT, ERRNO_INVAL, Guest, MAX_IO_VECTORS, SUCCESS, io_vector, memory, slice,
    slice_mut, wasmtime_preview1, write_u32,
};
pub use abi::{HOSTCALL_BYTES, MODULE};
use std::future::Future;
use std::time::{Duration, SystemTime};
use wasmtime::{AsContextMut, Linker, Result};
use wasmtime_wasi::I32Exit;
use wiggle::GuestMemory;

/// Subscriptions that one `poll_oneoff` may wait on; there are three file descriptors and the clocks.
const MAX_SUBSCRIPTIONS: u32 = 64;

const ERRNO_NOTSOCK: i32 = 57;

/// The types of an event, and of what is subscribed to.
const CLOCK: u8 = 0;
const FD_READ: u8 = 1;
const FD_WRITE: u8 = 2;

/// Flag of an event: nothing more will come.
const HANGUP: u16 = 1;

/// Adds WASI preview 1 to a linker.
pub fn add_to_linker(linker: &mut Linker<GuestState>) -> Result<()> {
    wasmtime_wasi::p1::add_to_linker_async(linker, |state: &mut GuestState| &mut state.wasi)?;
    linker.allow_shadowing(true);
    linker.func_wrap(MODULE, "proc_exit", |code: i32| -> Result<()> { Err(I32Exit(code).into()) })?;
    linker.func_wrap_async(MODULE, "fd_close", fd_close)?;
    linker.func_wrap(MODULE, "fd_read", fd_read)?;
    linker.func_wrap_async(MODULE, "fd_renumber", fd_renumber)?;
    linker.func_wrap(MODULE, "fd_write", fd_write)?;
    linker.func_wrap_async(MODULE, "random_get", random_get)?;
    linker.func_wrap_async(MODULE, "poll_oneoff", poll_oneoff)?;
    linker.func_wrap(MODULE, "sock_accept", |caller: Guest<'_>, fd: i32, _: i32, _: i32| {
        no_socket(&caller, fd)
    })?;
    linker.func_wrap(
        MODULE,
        "sock_recv",
        |caller: Guest<'_>, fd: i32, _: i32, _: i32, _: i32, _: i32, _: i32| no_socket(&caller, fd),
    )?;
    linker.func_wrap(MODULE, "sock_send", |caller: Guest<'_>, fd: i32, _: i32, _: i32, _: i32, _: i32| {
        no_socket(&caller, fd)
    })?;
    linker.func_wrap(MODULE, "sock_shutdown", |caller: Guest<'_>, fd: i32, _: i32| no_socket(&caller, fd))?;
    files::add_to_linker(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// There are no sockets. wasmtime-wasi says the same, and writes it to the log at each call.
fn no_socket(caller: &Guest<'_>, fd: i32) -> i32 {
    if caller.data().streams.at(fd).is_some() { ERRNO_NOTSOCK } else { ERRNO_BADF }
}

fn fd_close(mut caller: Guest<'_>, (fd,): (i32,)) -> Box<dyn Future<Output = Result<i32>> + Send + '_> {
    Box::new(async move {
        let memory = memory(&mut caller)?;
        let (data, state) = memory.data_and_store_mut(&mut caller);
        if state.files.close(fd) {
            return Ok(SUCCESS);
        }
        let errno =
            wasmtime_preview1::fd_close(&mut state.wasi, &mut GuestMemory::Unshared(data), fd).await?;
        if errno == SUCCESS {
            state.streams.closed(fd);
        }
        Ok(errno)
    })
}

fn fd_renumber(
    mut caller: Guest<'_>,
    (from, to): (i32, i32),
) -> Box<dyn Future<Output = Result<i32>> + Send + '_> {
    Box::new(async move {
        let memory = memory(&mut caller)?;
        let (data, state) = memory.data_and_store_mut(&mut caller);
        let data = &mut GuestMemory::Unshared(data);
        match (state.files.has(from), state.files.has(to)) {
            (true, true) => {
                state.files.renumber(from, to);
                Ok(SUCCESS)
            }
            // A file takes the place of a stream: `freopen`.
            (true, false) => {
                let errno = wasmtime_preview1::fd_close(&mut state.wasi, data, to).await?;
                if errno == SUCCESS {
                    state.streams.closed(to);
                    state.files.renumber(from, to);
                }
                Ok(errno)
            }
            (false, _) => {
                let errno = wasmtime_preview1::fd_renumber(&mut state.wasi, data, from, to).await?;
                if errno == SUCCESS {
                    state.streams.renumbered(from, to);
                }
                Ok(errno)
            }
        }
    })
}

fn fd_read(mut caller: Guest<'_>, fd: i32, list: i32, count: i32, read: i32) -> Result<i32> {
    if caller.data().files.has(fd) {
        let memory = memory(&mut caller)?;
        let (data, state) = memory.data_and_store_mut(&mut caller);
        return Ok(files::fd_read(data, state, fd, list, count, read));
    }
    if caller.data().streams.at(fd) != Some(Stream::Stdin) {
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

fn fd_write(mut caller: Guest<'_>, fd: i32, list: i32, count: i32, written: i32) -> Result<i32> {
    let memory = memory(&mut caller)?;
    let (data, state) = memory.data_and_store_mut(&mut caller);
    let mut stdio = Stdio::lock(&state.stdio);
    let output = match state.streams.at(fd) {
        Some(Stream::Stdout) => &mut stdio.stdout,
        Some(Stream::Stderr) => &mut stdio.stderr,
        Some(Stream::Stdin) | None => return Ok(ERRNO_BADF),
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
    mut caller: Guest<'_>,
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
enum Wait {
    Clock(Duration),
    /// Descriptors never block here, so their events are due at once.
    Descriptor(Event),
}

/// What `poll_oneoff` reports of a subscription.
#[derive(Clone, Copy, Default)]
struct Event {
    kind: u8,
    errno: i32,
    /// Bytes that can be read or written at least.
    bytes: u64,
    flags: u16,
}

impl Event {
    const SIZE: u32 = 32;

    fn encode(&self, userdata: [u8; 8]) -> [u8; Event::SIZE as usize] {
        // userdata u64, errno u16, type u8, padding, nbytes u64, flags u16, padding.
        let mut event = [0; Event::SIZE as usize];
        event[..8].copy_from_slice(&userdata);
        event[8..10].copy_from_slice(&(self.errno as u16).to_le_bytes());
        event[10] = self.kind;
        event[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        event[24..26].copy_from_slice(&self.flags.to_le_bytes());
        event
    }
}

fn poll_oneoff(
    mut caller: Guest<'_>,
    (subscriptions, events, count, ready): (i32, i32, i32, i32),
) -> Box<dyn Future<Output = Result<i32>> + Send + '_> {
    Box::new(async move {
        let count = count as u32;
        if count == 0 || count > MAX_SUBSCRIPTIONS {
            return Ok(ERRNO_INVAL);
        }
        let memory = memory(&mut caller)?;
        let mut waits = Vec::with_capacity(count as usize);
        for n in 0..count {
            match subscription(memory.data(&caller), subscriptions as u32, n, caller.data()) {
                Ok(wait) => waits.push(wait),
                Err(errno) => return Ok(errno),
            }
        }
        let sleep = waits
            .iter()
            .map(|(_, wait)| match wait {
                Wait::Clock(timeout) => *timeout,
                Wait::Descriptor(_) => Duration::ZERO,
            })
            .min()
            .unwrap_or_default();
        if !sleep.is_zero() {
            tokio::time::sleep(sleep).await;
        }
        let mut written = 0;
        for (userdata, wait) in waits {
            let event = match wait {
                Wait::Clock(timeout) if timeout > sleep => continue,
                Wait::Clock(_) => Event { kind: CLOCK, ..Event::default() },
                Wait::Descriptor(event) => event,
            };
            let at = (events as u32).checked_add(written * Event::SIZE);
            match at.and_then(|at| slice_mut(memory.data_mut(&mut caller), at, Event::SIZE)) {
                Some(place) => place.copy_from_slice(&event.encode(userdata)),
                None => return Ok(ERRNO_FAULT),
            }
            written += 1;
        }
        let wrote = write_u32(memory.data_mut(&mut caller), ready as u32, written);
        Ok(if wrote.is_some() { SUCCESS } else { ERRNO_FAULT })
    })
}

/// Decodes the n-th subscription: its user data, and what it waits for.
fn subscription(data: &[u8], list: u32, n: u32, state: &GuestState) -> Result<([u8; 8], Wait), i32> {
    const SIZE: u32 = 48;
    const ABSOLUTE: u16 = 1;
    let at = list.checked_add(n * SIZE).ok_or(ERRNO_FAULT)?;
    let raw = slice(data, at, SIZE).ok_or(ERRNO_FAULT)?;
    let u64_at = |at: usize| u64::from_le_bytes(raw[at..at + 8].try_into().expect("eight bytes"));
    let u32_at = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().expect("four bytes"));
    let userdata = raw[..8].try_into().expect("eight bytes");
    let wait = match raw[8] {
        CLOCK => {
            let id = u32_at(16);
            let timeout = Duration::from_nanos(u64_at(24));
            let absolute = u16::from_le_bytes([raw[40], raw[41]]) & ABSOLUTE != 0;
            Wait::Clock(match (id, absolute) {
                (0 | 1, false) => timeout,
                (0, true) => timeout.saturating_sub(WallClock::since_epoch(SystemTime::now())),
                (1, true) => timeout.saturating_sub(state.clock.elapsed()),
                _ => return Err(ERRNO_INVAL),
            })
        }
        kind @ (FD_READ | FD_WRITE) => Wait::Descriptor(readiness(kind, u32_at(16) as i32, state)),
        _ => return Err(ERRNO_INVAL),
    };
    Ok((userdata, wait))
}

/// The event of a descriptor that is to be read or written. What is wrong with one descriptor is said in its event,
/// since C's `poll` has `POLLNVAL` for it and goes on with the others.
fn readiness(kind: u8, fd: i32, state: &GuestState) -> Event {
    let event = Event { kind, ..Event::default() };
    match (kind, state.streams.at(fd)) {
        (FD_READ, Some(Stream::Stdin)) => {
            let left = Stdio::lock(&state.stdio).stdin.len();
            Event { bytes: left as u64, flags: if left == 0 { HANGUP } else { 0 }, ..event }
        }
        (FD_WRITE, Some(Stream::Stdout | Stream::Stderr)) => Event { bytes: 1, ..event },
        (FD_READ, None) if state.files.has(fd) => Event { bytes: 1, ..event },
        _ => Event { errno: ERRNO_BADF, ..event },
    }
}
