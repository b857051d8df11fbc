//! The compile child: wasm on standard input, an artifact on standard output, within limits it sets on itself.
//!
//! Compilers are large and their input is a stranger's, so this process holds nothing worth stealing: no environment,
//! no descriptors but three pipes, and from the moment the module is parsed no system call but those that computing
//! needs.

use crate::wasm::engine::{self, Tier};
use crate::wasm::metering::metered;
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::io::{Read, Write};
use std::process::ExitCode;
use wasmparser::{Parser, Validator};

/// Exit code of a child whose input is not valid wasm; standard error says why.
pub const EXIT_INVALID: u8 = 2;

/// Exit code of a child whose input is valid and could not be compiled; standard error says why.
pub const EXIT_REFUSED: u8 = 3;

/// Scheduling priority of a compile: requests that run go first, on whatever thread.
const NICENESS: i32 = 15;

/// What the parent tells its child on the command line.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ChildLimits {
    /// CPU time in seconds.
    #[arg(long)]
    pub cpu_seconds: u64,
    /// Address space in bytes.
    #[arg(long)]
    pub memory: u64,
    /// Which compiler.
    #[arg(long)]
    pub tier: Tier,
}

/// The role of `offload-rt compile-child`.
pub fn run(limits: ChildLimits) -> ExitCode {
    match compile(limits) {
        Ok(artifact) => match std::io::stdout().write_all(&artifact) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(ChildFailure { code, message }) => {
            // The parent bounds what it reads; a failure to tell it changes nothing.
            let _ = std::io::stderr().write_all(message.as_bytes());
            ExitCode::from(code)
        }
    }
}

struct ChildFailure {
    code: u8,
    message: String,
}

/// With all causes: what a compiler says first is only where it was.
fn failure(code: u8) -> impl Fn(&dyn std::fmt::Display) -> ChildFailure {
    move |error| ChildFailure { code, message: format!("{error:#}") }
}

fn compile(limits: ChildLimits) -> Result<Vec<u8>, ChildFailure> {
    let ours = failure(1);
    confine(limits).map_err(|error| ours(&error))?;
    let engine = engine::compiler(limits.tier).map_err(|error| ours(&error))?;
    let mut wasm = Vec::new();
    std::io::stdin().read_to_end(&mut wasm).map_err(|error| ours(&error))?;
    forbid_system_calls().map_err(|error| ours(&error))?;
    if Parser::is_component(&wasm) {
        // wasmtime validates a component only while it compiles it.
        let mut validator = Validator::new_with_features(engine::wasm_features());
        validator.validate_all(&wasm).map_err(|error| failure(EXIT_INVALID)(&error))?;
        engine.precompile_component(&wasm)
    } else {
        wasmtime::Module::validate(&engine, &wasm).map_err(|error| failure(EXIT_INVALID)(&error))?;
        let wasm = match limits.tier {
            Tier::Baseline => metered(&wasm).map_err(|error| failure(EXIT_REFUSED)(&error))?,
            Tier::Optimized => wasm.as_slice().into(),
        };
        engine.precompile_module(&wasm)
    }
    .map_err(|error| failure(EXIT_REFUSED)(&error))
}

/// Dies with the parent, yields to requests, and bounds CPU time and memory.
fn confine(limits: ChildLimits) -> rustix::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::nice(NICENESS)?;
    let hard = |value| Rlimit { current: Some(value), maximum: Some(value) };
    // The soft limit's SIGXCPU tells the parent why; SIGKILL at the hard one would not.
    let cpu = Rlimit { current: Some(limits.cpu_seconds), maximum: Some(limits.cpu_seconds + 1) };
    setrlimit(Resource::Cpu, cpu)?;
    setrlimit(Resource::As, hard(limits.memory))?;
    setrlimit(Resource::Core, hard(0))?;
    setrlimit(Resource::Fsize, hard(0))
}

/// Everything that a compile needs from here on: memory, pipes that are open, the end.
fn forbid_system_calls() -> Result<(), seccompiler::Error> {
    let allowed = [
        libc::SYS_brk,
        libc::SYS_clock_gettime,
        libc::SYS_close,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_futex,
        libc::SYS_getpid,
        libc::SYS_getrandom,
        libc::SYS_gettid,
        libc::SYS_madvise,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_read,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_yield,
        libc::SYS_sigaltstack,
        // abort() when memory runs out: an honest SIGABRT, not SIGSYS.
        libc::SYS_tgkill,
        libc::SYS_write,
        libc::SYS_writev,
    ];
    let filter = SeccompFilter::new(
        allowed.into_iter().map(|call| (call, Vec::new())).collect(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)
}
