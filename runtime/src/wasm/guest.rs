//! One guest's life: a store with its limits, the instance, its start function, and how it ended.

use super::folder::Folder;
pub use super::guest_state::Context;
use super::guest_state::{Clock, GuestState, WallClock};
use super::limit_reached::LimitReached;
use super::limiter::{MemoryLimiter, Refusal};
use super::linking::LinkedProgram;
use super::memory::MemoryLease;
use super::metering;
use super::open_files::OpenFiles;
use super::preview1::HOSTCALL_BYTES;
use super::preview2::MAX_RESOURCES;
use super::standard_streams::StandardStreams;
use super::stdio::Stdio;
use crate::stream::Stream;
use bytes::Bytes;
use offload_protocol::error::{ErrorKind, WireError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use wasmtime::{Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::{I32Exit, WasiCtxBuilder, WasiView};

/// What a guest is given.
#[derive(Clone)]
pub struct Input {
    /// `argv[0]`: the program's name.
    pub name: Arc<str>,
    /// The arguments behind it.
    pub args: Vec<String>,
    /// Its environment: these variables and no others.
    pub env: Vec<(String, String)>,
    /// Its standard input.
    pub stdin: Bytes,
    /// The files that a module finds, where it was built from source; a component finds none.
    pub folder: Option<Arc<Folder>>,
    /// What a component may ask about its request.
    pub context: Context,
    /// Where stdout goes as it is written, beside the answer.
    pub stream: Option<Arc<Stream>>,
}

/// What one guest may use: the configuration's limits, lowered where the request asked for less.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Units of fuel: about one a wasm instruction, and one a byte or element of a bulk operation.
    pub fuel: u64,
    /// CPU time.
    pub cpu: Duration,
    /// Wall-clock time from its start.
    pub wall: Duration,
    /// Bytes of linear memory, of all memories together.
    pub memory: usize,
    /// Elements of all tables together.
    pub table_elements: usize,
    /// Bytes of standard output.
    pub stdout: usize,
    /// Bytes of standard error; what is over is dropped, since it is diagnostics and not the answer.
    pub stderr: usize,
}

/// How a guest ended.
#[derive(Clone, Debug)]
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

/// Runs one guest to its end. The future yields at the end of each slice and while the guest sleeps; dropping it ends
/// the guest, which the caller does at `deadline`.
/// `fuel_used` is brought up to date at the end of each slice, as far as the compiled code has written it back: a
/// tight loop without calls keeps its count in a register.
pub async fn run(
    program: LinkedProgram,
    input: Arc<Input>,
    budget: Budget,
    memory: MemoryLease,
    deadline: Instant,
    fuel_used: Arc<AtomicU64>,
) -> Ended {
    let mut store = match store(&program, input, budget, memory, deadline, fuel_used) {
        Ok(store) => store,
        Err(error) => return Ended::failed(internal(&error)),
    };
    let result = match call(&program, &mut store).await {
        Ok(code) => Ok(code),
        Err(error) => exit_code(&error, budget, store.data().limiter.refusal()),
    };
    let left = store.get_fuel().unwrap_or(0);
    // Compiled code checks its fuel at loops, at calls and at long bulk operations. The check at the end makes the
    // result the same wherever the compiler put those.
    let result = if left == 0 { result.and(Err(out_of_fuel(budget))) } else { result };
    let fuel = budget.fuel.saturating_sub(left);
    let (stdout, stderr) = Stdio::lock(&store.data().stdio).take_outputs();
    Ended { result, stdout, stderr, fuel }
}

impl Ended {
    /// Ended by the gateway: what it had printed is dropped with it.
    pub fn failed(error: WireError) -> Ended {
        Ended { result: Err(error), stdout: Bytes::new(), stderr: Bytes::new(), fuel: 0 }
    }
}

fn store(
    program: &LinkedProgram,
    input: Arc<Input>,
    budget: Budget,
    memory: MemoryLease,
    deadline: Instant,
    fuel_used: Arc<AtomicU64>,
) -> wasmtime::Result<Store<GuestState>> {
    let clock = Clock::start();
    let mut wasi = WasiCtxBuilder::new();
    wasi.arg(&*input.name).args(&input.args).envs(&input.env).monotonic_clock(clock).wall_clock(WallClock);
    // wasmtime-wasi gives no files and no addresses by default either; it does give sockets.
    wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
    let mut stdio = Stdio::new(input.stdin.clone(), budget.stdout, budget.stderr);
    if let Some(stream) = &input.stream {
        stdio.stdout.stream_to(stream.clone());
    }
    let mut state = GuestState {
        wasi: wasi.build_p1(),
        stdio: Arc::new(Mutex::new(stdio)),
        streams: StandardStreams::default(),
        files: OpenFiles::new(input.folder.clone()),
        clock,
        context: input.context.clone(),
        deadline,
        limiter: MemoryLimiter::new(budget.memory, budget.table_elements, memory),
    };
    state.ctx().table.set_max_capacity(MAX_RESOURCES);
    let mut store = Store::new(program.engine(), state);
    store.set_fuel(budget.fuel)?;
    store.limiter_async(|state| &mut state.limiter);
    store.set_hostcall_fuel(HOSTCALL_BYTES);
    store.set_max_component_handles(MAX_RESOURCES);
    // A slice ends at the next tick. The time that it took is accounted for by the worker.
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |store| {
        fuel_used.store(budget.fuel.saturating_sub(store.get_fuel()?), Ordering::Relaxed);
        Ok(UpdateDeadline::Yield(1))
    });
    Ok(store)
}

/// Runs the guest's start function; the exit code if it returns.
async fn call(program: &LinkedProgram, store: &mut Store<GuestState>) -> wasmtime::Result<i32> {
    match program {
        LinkedProgram::Module(module) => {
            let instance = module.instantiate_async(&mut *store).await?;
            instance.get_typed_func::<(), ()>(&mut *store, "_start")?.call_async(store, ()).await?;
            Ok(0)
        }
        LinkedProgram::Component(command) => {
            let command = command.instantiate_async(&mut *store).await?;
            let result = command.wasi_cli_run().call_run(store).await?;
            Ok(if result.is_ok() { 0 } else { 1 })
        }
    }
}

/// The exit code that an error stands for, or the wire's error. A program that was refused memory may trap because of
/// it.
fn exit_code(error: &wasmtime::Error, budget: Budget, refusal: Option<Refusal>) -> Result<i32, WireError> {
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return Ok(*code);
    }
    if let Some(LimitReached { kind, message }) = error.downcast_ref() {
        return Err(WireError::new(*kind, message.clone()));
    }
    let trap = error.downcast_ref::<Trap>();
    let message = match trap {
        Some(Trap::OutOfFuel) => return Err(out_of_fuel(budget)),
        Some(trap) => describe_trap(*trap, error),
        // What the system has refused us is no fault of the program.
        None if is_of_the_system(error) => return Err(internal(error)),
        // A host call that could not be made sense of: a pointer outside of memory, no memory at all.
        None => format!("{:#}", error.root_cause()),
    };
    Err(match refusal {
        Some(refusal) if trap.is_none_or(may_be_for_want_of_memory) => {
            WireError::new(ErrorKind::Memory, format!("{refusal}; then: {message}"))
        }
        _ => WireError::new(ErrorKind::Trap, message),
    })
}

fn is_of_the_system(error: &wasmtime::Error) -> bool {
    let cause = error.root_cause();
    cause.is::<std::io::Error>() || cause.is::<rustix::io::Errno>()
}

fn out_of_fuel(budget: Budget) -> WireError {
    WireError::new(ErrorKind::Fuel, format!("used its {} units of fuel", budget.fuel))
}

/// Whether a program that was refused memory may trap so: by `abort`, or by an access to what it did not get.
fn may_be_for_want_of_memory(trap: &Trap) -> bool {
    matches!(trap, Trap::UnreachableCodeReached | Trap::MemoryOutOfBounds | Trap::TableOutOfBounds)
}

/// Why and where: `wasm trap: integer divide by zero, in average <- main <- _start`.
fn describe_trap(trap: Trap, error: &wasmtime::Error) -> String {
    const FRAMES: usize = 4;
    /// What linkers name the trap that they put in the place of such a call.
    const MISMATCH: &str = "signature_mismatch:";
    let mut text = trap.to_string();
    if let Some(trace) = error.downcast_ref::<WasmBacktrace>() {
        let frames: Vec<String> = trace
            .frames()
            .iter()
            .take(FRAMES)
            .map(|frame| match frame.func_name() {
                Some(name) => name.to_string(),
                None => format!("function {}", metering::index_as_sent(frame)),
            })
            .collect();
        if let Some(called) = frames.first().and_then(|frame| frame.strip_prefix(MISMATCH)) {
            text = format!("`{called}` is called with other types than it is defined with");
        }
        if !frames.is_empty() {
            text = format!("{text}, in {}", frames.join(" <- "));
        }
    }
    text
}

fn internal(error: &wasmtime::Error) -> WireError {
    crate::telemetry::internal_error(&format!("{error:#}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::engine::{self, Tier};
    use super::super::linking::Linkers;
    use super::super::memory::GuestMemory;
    use super::*;
    use crate::config::{Compiler, Limits};
    use crate::wasm::artifact::Artifact;
    use offload_protocol::request::Digest;
    use std::pin::pin;
    use std::task::{Context as TaskContext, Waker};
    use wasmtime::Engine;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_the_system_refuses_is_no_trap() {
        let refused = rustix::io::Errno::MFILE;
        for error in [wasmtime::Error::from(refused), std::io::Error::from(refused).into()] {
            let told = exit_code(&error.context("the image of a memory"), budget(1), None).unwrap_err();
            assert_eq!(told.kind, ErrorKind::Internal);
        }
    }

    /// So much fuel, 64 MiB of memory, 100 elements of tables, and no output.
    pub fn budget(fuel: u64) -> Budget {
        Budget {
            fuel,
            cpu: Duration::MAX,
            wall: Duration::MAX,
            memory: 64 * MIB,
            table_elements: 100,
            stdout: 0,
            stderr: 0,
        }
    }

    /// Runs a module without a ticker, so that only growth ends a slice: how it ended, and how often it was polled.
    pub fn run_without_ticks(engine: Engine, tier: Tier, wasm: &[u8], budget: Budget) -> (Ended, usize) {
        let code = engine.precompile_module(wasm).unwrap().into_boxed_slice();
        let artifact = Artifact { digest: Digest::of(wasm), tier, code };
        let program = Linkers::new(engine).unwrap().load(&artifact).unwrap();
        let context = Context { reply_id: "a".into(), request_id: None };
        let input = Arc::new(Input {
            name: "a".into(),
            args: vec![],
            env: vec![],
            stdin: Bytes::new(),
            folder: None,
            context,
            stream: None,
        });
        let memory = Arc::new(GuestMemory::new(64 * MIB));
        let mut guest = pin!(run(
            program,
            input,
            budget,
            memory.lease("a".into()),
            Instant::now() + Duration::from_secs(3600),
            Arc::default()
        ));
        let mut polls = 0;
        loop {
            polls += 1;
            let poll = guest.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
            if let std::task::Poll::Ready(ended) = poll {
                assert_eq!(memory.taken(), 0, "all is given back");
                return (ended, polls);
            }
        }
    }

    fn run_optimized(text: &str) -> (Result<i32, WireError>, usize) {
        let engine = engine::worker(1, &Limits::default(), &Compiler::default()).unwrap();
        let wasm = wat::parse_str(text).unwrap();
        let (ended, polls) = run_without_ticks(engine, Tier::Optimized, &wasm, budget(1 << 40));
        (ended.result, polls)
    }

    #[test]
    fn whoever_is_refused_memory_goes_on_or_ends_for_want_of_it() {
        let refused = "(drop (memory.grow (i32.const 10000)))";
        let granted = "(drop (memory.grow (i32.const 1)))";
        let too_many_elements = "(drop (table.grow (ref.null func) (i32.const 101)))";
        let fault = "(i32.store (i32.const -4) (i32.const 1))";
        for (body, kind) in [
            (format!("{refused} {too_many_elements}"), None),
            (format!("{refused} unreachable"), Some(ErrorKind::Memory)),
            (format!("{too_many_elements} unreachable"), Some(ErrorKind::Memory)),
            (format!("{refused} {fault}"), Some(ErrorKind::Memory)),
            (format!("(loop {refused} (br 0))"), Some(ErrorKind::Memory)),
            // It has gone on, or ends for another reason.
            (format!("{refused} {granted} unreachable"), Some(ErrorKind::Trap)),
            (format!("{refused} (drop (i32.div_u (i32.const 1) (i32.const 0)))"), Some(ErrorKind::Trap)),
            (fault.to_owned(), Some(ErrorKind::Trap)),
        ] {
            let text = format!(
                r#"(module (memory (export "memory") 1) (table 0 funcref) (func (export "_start") {body}))"#
            );
            let (result, _) = run_optimized(&text);
            let expected = match kind {
                Some(kind) => Err(kind),
                None => Ok(0),
            };
            assert_eq!(result.as_ref().copied().map_err(|error| error.kind), expected, "{body}: {result:?}");
        }
    }

    #[test]
    fn growth_ends_a_slice_before_the_memory_is_written() {
        let grow_and_fill = |pages: u32| {
            format!(
                r#"(module (memory (export "memory") 1)
                    (func (export "_start")
                        (drop (memory.grow (i32.const {pages})))
                        (memory.fill (i32.const 65536) (i32.const 1)
                            (i32.mul (i32.const {pages}) (i32.const 65536)))))"#
            )
        };
        for (pages, polls) in [(30, 1), (150, 1), (160, 2), (1000, 2)] {
            assert_eq!(run_optimized(&grow_and_fill(pages)), (Ok(0), polls), "{pages} pages");
        }
        // Step by step: 1 000 pages are seven steps and a half beyond the two megabytes of the slot.
        let steps = r#"(module (memory (export "memory") 1)
            (func (export "_start") (local i32)
                (loop
                    (drop (memory.grow (i32.const 1)))
                    (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 1000))))))"#;
        assert_eq!(run_optimized(steps), (Ok(0), 8));
    }

    #[test]
    fn the_next_guest_of_a_slot_finds_nothing_of_the_last() {
        // Each finds its memory as the module says, and writes to every fourth page of the system: in less than what a
        // slot keeps, and in more.
        for pages in [1, 8, 100] {
            let text = format!(
                r#"(module (memory (export "memory") 1) (data (i32.const 100) "\01")
                    (func (export "_start") (local $i i32)
                        (drop (memory.grow (i32.const {pages})))
                        (if (i32.ne (i32.load8_u (i32.const 100)) (i32.const 1)) (then unreachable))
                        (i32.store8 (i32.const 100) (i32.const 0))
                        (loop $next
                            (if (i32.load (local.get $i)) (then unreachable))
                            (i32.store (local.get $i) (i32.const -1))
                            (local.set $i (i32.add (local.get $i) (i32.const 16384)))
                            (br_if $next (i32.lt_u (local.get $i) (i32.const {})))))) "#,
                (pages + 1) << 16
            );
            let engine = engine::worker(1, &Limits::default(), &Compiler::default()).unwrap();
            let wasm = wat::parse_str(text).unwrap();
            for _ in 0..3 {
                let (ended, _) = run_without_ticks(engine.clone(), Tier::Optimized, &wasm, budget(1 << 40));
                assert_eq!(ended.result, Ok(0), "{pages} pages");
            }
        }
    }
}
