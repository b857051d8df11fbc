//! One guest's life: a store with its limits, the instance, `_start`, and how it ended.

use super::preview1;
use bytes::{Bytes, BytesMut};
use offload_protocol::error::{ErrorKind, WireError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wasmtime::{InstancePre, ResourceLimiter, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{HostMonotonicClock, WasiCtxBuilder};

/// What a guest is given.
#[derive(Clone, Debug)]
pub struct Input {
    /// `argv[0]`: the program's name.
    pub name: Arc<str>,
    /// The arguments behind it.
    pub args: Vec<String>,
    /// Its environment: these variables and no others.
    pub env: Vec<(String, String)>,
    /// Its standard input.
    pub stdin: Bytes,
}

/// What one guest may use: the configuration's limits, lowered where the request asked for less.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Units of fuel: about one a wasm instruction.
    pub fuel: u64,
    /// CPU time.
    pub cpu: Duration,
    /// Wall-clock time from its start.
    pub wall: Duration,
    /// Bytes of linear memory.
    pub memory: usize,
    /// Elements of a table.
    pub table_elements: usize,
    /// Bytes of standard output.
    pub stdout: usize,
    /// Bytes of standard error; what is over is dropped, since it is diagnostics and not the answer.
    pub stderr: usize,
}

/// How a guest ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, or why it was ended.
    pub result: Result<i32, WireError>,
    /// What it wrote to standard output.
    pub stdout: Bytes,
    /// What it wrote to standard error.
    pub stderr: Bytes,
    /// Fuel that it used.
    pub fuel: u64,
}

/// The guest called `proc_exit`.
#[derive(Debug, thiserror::Error)]
#[error("exit with code {0}")]
pub struct Exit(pub i32);

/// A limit of the host ended the guest.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct LimitReached {
    kind: ErrorKind,
    message: String,
}

/// The guest's monotonic clock: zero at its start.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Time since the guest's start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        self.elapsed().as_nanos() as u64
    }
}

/// A bounded output of the guest.
pub struct Output {
    buffer: BytesMut,
    limit: usize,
    /// Standard output over its limit is an error, standard error over its limit is cut.
    fails_when_full: bool,
}

impl Output {
    /// Takes what the guest writes.
    ///
    /// # Errors
    ///
    /// `output`, where more than the limit is no longer an answer.
    pub fn write(&mut self, bytes: &[u8]) -> wasmtime::Result<()> {
        let room = self.limit - self.buffer.len();
        self.buffer.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room && self.fails_when_full {
            let message = format!("stdout is over the limit of {} bytes", self.limit);
            return Err(LimitReached { kind: ErrorKind::Output, message }.into());
        }
        Ok(())
    }
}

/// Ends a guest that asks for more memory than it may have. Refusing the growth instead would let a loop that
/// ignores the refusal burn time, and a program that cannot have its memory rarely has a better answer to give.
struct MemoryLimiter {
    memory: usize,
    table_elements: usize,
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > self.memory {
            let message = format!("asked for {desired} bytes, the limit is {}", self.memory);
            return Err(LimitReached { kind: ErrorKind::Memory, message }.into());
        }
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > self.table_elements {
            let message =
                format!("asked for a table of {desired} elements, the limit is {}", self.table_elements);
            return Err(LimitReached { kind: ErrorKind::Memory, message }.into());
        }
        Ok(true)
    }
}

/// What a store holds for its guest.
pub struct GuestState {
    pub(super) wasi: WasiP1Ctx,
    pub(super) stdin: Bytes,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    pub(super) clock: Clock,
    limiter: MemoryLimiter,
}

/// Runs one guest to its end. The future yields at the end of each slice and while the guest sleeps; dropping it ends
/// the guest.
/// `fuel_used` is brought up to date at the end of each slice, as far as the compiled code has written it back: a
/// tight loop without calls keeps its count in a register.
pub async fn run(
    program: InstancePre<GuestState>,
    input: Input,
    budget: Budget,
    fuel_used: Arc<AtomicU64>,
) -> Ended {
    let mut store = match store(&program, input, budget, fuel_used) {
        Ok(store) => store,
        Err(error) => return Ended::failed(internal(&error)),
    };
    let result = match call(&program, &mut store).await {
        Ok(()) => Ok(0),
        Err(error) => exit_code(&error, budget),
    };
    let fuel = budget.fuel.saturating_sub(store.get_fuel().unwrap_or(0));
    let state = store.into_data();
    Ended { result, stdout: state.stdout.buffer.freeze(), stderr: state.stderr.buffer.freeze(), fuel }
}

impl Ended {
    /// Ended by the gateway: what it had printed is dropped with it.
    pub fn failed(error: WireError) -> Ended {
        Ended { result: Err(error), stdout: Bytes::new(), stderr: Bytes::new(), fuel: 0 }
    }
}

fn store(
    program: &InstancePre<GuestState>,
    input: Input,
    budget: Budget,
    fuel_used: Arc<AtomicU64>,
) -> wasmtime::Result<Store<GuestState>> {
    let clock = Clock(Instant::now());
    let mut wasi = WasiCtxBuilder::new();
    wasi.arg(&*input.name).args(&input.args).envs(&input.env).monotonic_clock(clock);
    let output = |limit, fails_when_full| Output { buffer: BytesMut::new(), limit, fails_when_full };
    let state = GuestState {
        wasi: wasi.build_p1(),
        stdin: input.stdin,
        stdout: output(budget.stdout, true),
        stderr: output(budget.stderr, false),
        clock,
        limiter: MemoryLimiter { memory: budget.memory, table_elements: budget.table_elements },
    };
    let mut store = Store::new(program.module().engine(), state);
    store.set_fuel(budget.fuel)?;
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(preview1::HOSTCALL_BYTES);
    // A slice ends at the next tick. The time that it took is accounted for by the worker.
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |store| {
        fuel_used.store(budget.fuel.saturating_sub(store.get_fuel()?), Ordering::Relaxed);
        Ok(UpdateDeadline::Yield(1))
    });
    Ok(store)
}

async fn call(program: &InstancePre<GuestState>, store: &mut Store<GuestState>) -> wasmtime::Result<()> {
    let instance = program.instantiate_async(&mut *store).await?;
    instance.get_typed_func::<(), ()>(&mut *store, "_start")?.call_async(store, ()).await
}

/// The exit code that an error stands for, or the wire's error.
fn exit_code(error: &wasmtime::Error, budget: Budget) -> Result<i32, WireError> {
    if let Some(Exit(code)) = error.downcast_ref() {
        return Ok(*code);
    }
    if let Some(LimitReached { kind, message }) = error.downcast_ref() {
        return Err(WireError::new(*kind, message.clone()));
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => {
            Err(WireError::new(ErrorKind::Fuel, format!("used its {} units of fuel", budget.fuel)))
        }
        Some(trap) => Err(WireError::new(ErrorKind::Trap, describe_trap(*trap, error))),
        // A host call that could not be made sense of: a pointer outside of memory, no memory at all.
        None => Err(WireError::new(ErrorKind::Trap, format!("{:#}", error.root_cause()))),
    }
}

/// Why and where: `wasm trap: integer divide by zero, in average <- main <- _start`.
fn describe_trap(trap: Trap, error: &wasmtime::Error) -> String {
    const FRAMES: usize = 4;
    let mut text = trap.to_string();
    if let Some(trace) = error.downcast_ref::<WasmBacktrace>() {
        let frames: Vec<String> = trace
            .frames()
            .iter()
            .take(FRAMES)
            .map(|frame| match frame.func_name() {
                Some(name) => name.to_string(),
                None => format!("function {}", frame.func_index()),
            })
            .collect();
        if !frames.is_empty() {
            text = format!("{text}, in {}", frames.join(" <- "));
        }
    }
    text
}

fn internal(error: &wasmtime::Error) -> WireError {
    crate::telemetry::internal_error(&format!("{error:#}"))
}
