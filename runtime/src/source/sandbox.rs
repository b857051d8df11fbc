//! The sandbox that builds and runs source on this machine, with all that it needs to answer requests.

use super::buildable::Buildable;
use super::built::{BuiltProgram, BuiltPrograms};
use super::mode::Mode;
use super::outcome::{build_error, run_result, unauthorized, wire_error};
use super::permits::{Purpose, SourcePermits};
use crate::client::Client;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::once_cache::MakeError;
use crate::wasm::guest::{Budget, Ended, Input};
use crate::wasm::workers::RunOutcome;
use offload_native::{MAX_FOLDER, OnStdout, Platform, Sandbox, SandboxLimits, Wasi};
use offload_protocol::error::{ErrorKind, WireError};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The sandbox, what it has built, and who may use it when.
pub struct SourceSandbox {
    sandbox: Sandbox,
    /// What builds for WASI need.
    wasi: Result<Wasi, WireError>,
    permits: SourcePermits,
    built: BuiltPrograms,
    /// Limits of a run that asks for no less.
    run: SandboxLimits,
    /// Bytes that a module may have.
    max_module: usize,
    /// Programs that run now.
    running: AtomicUsize,
}

/// When a request came, and when its answer is no longer of use.
#[derive(Clone, Copy)]
pub struct RequestTimes {
    /// When it arrived.
    pub arrived: Instant,
    /// Before the start the request has expired then; a run ends then.
    pub deadline: Option<Instant>,
}

/// Why no source is built or run on this machine.
#[derive(Debug, thiserror::Error)]
pub enum SourceUnavailable {
    /// What is built cannot be kept.
    #[error("the folder of built programs: {0}")]
    BuiltPrograms(io::Error),
    /// This machine cannot contain programs.
    #[error("{0}")]
    Sandbox(String),
}

impl SourceUnavailable {
    /// What clients are told: the reason is for the operator alone.
    pub fn told(&self) -> WireError {
        unauthorized(match self {
            SourceUnavailable::BuiltPrograms(_) => {
                "this gateway cannot keep built programs: its log says why"
            }
            SourceUnavailable::Sandbox(_) => {
                "this gateway cannot contain native programs: its log says what is missing"
            }
        })
    }
}

impl SourceSandbox {
    /// Finds out whether this machine can contain and compile source, for WASI too where `wasi`; logs what it can.
    ///
    /// # Errors
    ///
    /// When it cannot contain programs, or keep what is built.
    pub async fn start(
        config: &Config,
        data_dir: &DataDir,
        wasi: bool,
    ) -> Result<SourceSandbox, SourceUnavailable> {
        let built = BuiltPrograms::open(config, data_dir).map_err(SourceUnavailable::BuiltPrograms)?;
        let probed = sandbox_config(config);
        let probe = move || {
            let sandbox = Sandbox::probe(probed).map_err(|unavailable| unavailable.to_string())?;
            let wasi = wasi.then(|| sandbox.probe_wasi());
            Ok((sandbox, wasi))
        };
        let probed = tokio::task::spawn_blocking(probe).await;
        let probed = probed.unwrap_or_else(|panic| Err(panic.to_string()));
        let (ready, wasi) = probed.map_err(SourceUnavailable::Sandbox)?;
        tracing::info!(sandbox = %ready.report(), "source is built and run");
        if let Some(program) = config.sandbox.compilers.missing() {
            tracing::warn!(
                "`[sandbox] compilers` asks for {program}, which is not installed: compilers run as they are called"
            );
        }
        match &wasi {
            Some(Ok(wasi)) => tracing::info!(compiler = wasi.compiler(), "source can be built for WASI"),
            Some(Err(why)) => tracing::warn!(
                "source is refused where `native` is \"wasm\" or \"compare\": it cannot be built for WASI: {why} ({})",
                Wasi::REMEDY
            ),
            None => {}
        }
        let no_wasi =
            || unauthorized("this gateway cannot build source for WASI: its log says what is missing");
        let Config { sandbox, limits, .. } = config;
        Ok(SourceSandbox {
            sandbox: ready,
            wasi: wasi.and_then(Result::ok).ok_or_else(no_wasi),
            permits: SourcePermits::new(sandbox),
            built,
            run: SandboxLimits {
                memory: sandbox.memory.bytes(),
                processes: sandbox.processes,
                file_size: sandbox.work_dir.bytes(),
                work_dir: sandbox.work_dir.bytes(),
                ..SandboxLimits::run()
            },
            max_module: limits.module.as_usize(),
            running: AtomicUsize::new(0),
        })
    }

    /// Whether source can be run in this mode.
    ///
    /// # Errors
    ///
    /// `unauthorized`, where it cannot be built for WASI and has to be.
    pub fn can(&self, mode: Mode) -> Result<(), WireError> {
        if mode.needs_wasi() { self.wasi().map(drop) } else { Ok(()) }
    }

    /// Programs that run natively now.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// This client's source as wasm, if it has been built and is at hand; or why it cannot be built.
    pub fn ready_wasm(&self, client: &Client, source: &Buildable) -> Option<Result<BuiltProgram, WireError>> {
        self.built.ready(client, source, Platform::Wasi(self.wasi.as_ref().ok()?))
    }

    /// This client's source as wasm, built unless it has been built before. Dropping the future ends the build.
    ///
    /// # Errors
    ///
    /// `build`, `unauthorized`, `internal`.
    pub async fn wasm(
        &self,
        client: &Client,
        source: &Buildable,
        purpose: Purpose,
    ) -> Result<BuiltProgram, WireError> {
        let platform = Platform::Wasi(self.wasi()?);
        let build = async {
            let _permit = self.permits.acquire(client, purpose).await;
            let program = source.build(&self.sandbox, platform).await.map_err(build_error)?;
            let size = program.bytes().len();
            if size > self.max_module {
                let message = format!("error: as wasm it has {size} bytes, the limit is {}", self.max_module);
                return Err(MakeError::permanent(WireError::new(ErrorKind::Build, message)));
            }
            Ok(program)
        };
        self.built.get(client, source, platform, build).await
    }

    /// Builds the source, unless it has been built before, and runs the program, within `budget`'s times and at most
    /// `memory` bytes, where the request asks for less than the sandbox gives. Dropping the future ends both.
    ///
    /// # Errors
    ///
    /// Where there is nothing to run: `build`, `too-large` for arguments, `internal`.
    pub async fn run(
        &self,
        client: &Client,
        source: &Buildable,
        input: Input,
        budget: &Budget,
        memory: Option<u64>,
        times: RequestTimes,
    ) -> Result<RunOutcome, WireError> {
        let ready = async {
            let build = async {
                let _permit = self.permits.acquire(client, Purpose::Answer).await;
                source.build(&self.sandbox, Platform::Native).await.map_err(build_error)
            };
            let program = self.built.get(client, source, Platform::Native, build).await?.program;
            Ok((self.permits.acquire(client, Purpose::Answer).await, program))
        };
        let ready = match times.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), ready).await,
            None => Ok(ready.await),
        };
        let Ok(ready) = ready else { return Ok(RunOutcome::Expired) };
        let (_permit, program) = ready?;

        let started = Instant::now();
        let left = times.deadline.map(|deadline| deadline.saturating_duration_since(started));
        let requested = left.is_some_and(|left| left < budget.wall);
        let limits = SandboxLimits {
            cpu: budget.cpu,
            wall: left.unwrap_or(budget.wall).min(budget.wall),
            stdout: budget.stdout,
            stderr: budget.stderr,
            memory: memory.map_or(self.run.memory, |asked| asked.min(self.run.memory)),
            ..self.run.clone()
        };
        let Input { args, env, stdin, stream, .. } = input;
        let on_stdout = stream.map_or_else(OnStdout::default, |stream| {
            stream.begin();
            OnStdout::new(move |bytes| stream.write(bytes))
        });
        let given = offload_native::Input { args, env, stdin: stdin.to_vec(), on_stdout };
        let running = Running::begin(&self.running);
        let outcome = self.sandbox.run(&program, given, limits.clone()).await.map_err(wire_error)?;
        drop(running);
        let result = run_result(outcome.ending, &limits, requested);
        let (stdout, stderr) = (outcome.stdout.into(), outcome.stderr.into());
        let ended = Ended { result, stdout, stderr, fuel: 0 };
        Ok(RunOutcome::Ran { ended, run: outcome.wall, queued: started.duration_since(times.arrived) })
    }

    fn wasi(&self) -> Result<&Wasi, WireError> {
        self.wasi.as_ref().map_err(Clone::clone)
    }
}

/// One program that runs, counted until it is dropped.
struct Running<'a>(&'a AtomicUsize);

impl Running<'_> {
    fn begin(count: &AtomicUsize) -> Running<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        Running(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The sandbox as `config` has it.
pub fn sandbox_config(config: &Config) -> offload_native::Config {
    let sandbox = &config.sandbox;
    let folder = sandbox.work_dir.bytes().min(MAX_FOLDER);
    offload_native::Config {
        bubblewrap: sandbox.bubblewrap.clone(),
        accept: sandbox.accept.clone(),
        compilers: sandbox.compilers,
        build: SandboxLimits {
            cpu: sandbox.build_cpu.duration(),
            wall: sandbox.build_wall.duration(),
            memory: sandbox.build_memory.bytes(),
            stdout: SandboxLimits::build().stdout + folder as usize,
            ..SandboxLimits::build()
        },
        folder,
        ..offload_native::Config::default()
    }
}
