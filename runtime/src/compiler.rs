//! Compilation, in a child process: bytes in, artifact out.
//!
//! wasmtime bounds neither the time nor the memory of a compile, so the gateway never compiles in its own process.
//! The child is this same program in another role ([`child`]); here it is started, fed, watched and judged.

pub mod child;
pub mod precheck;
mod serve;

use crate::client::Client;
use crate::config;
use crate::fair_semaphore::{self, FairSemaphore, Permit};
use crate::log_sampling::sampled;
use crate::once_cache::MakeError;
use crate::stopping::stopping_error;
use crate::telemetry;
use crate::wasm::engine::Tier;
use bytes::Bytes;
use clap::ValueEnum;
use offload_policy::{PermitLimits, Stage, Time, Urgency};
use offload_protocol::error::{ErrorKind, WireError};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// Name of the child's role on the command line.
pub const CHILD_ROLE: &str = "compile-child";

/// What this process was started from, even when another file has taken its place since, as an upgrade does.
const THIS_EXECUTABLE: &str = "/proc/self/exe";

/// Bytes of the child's standard error that are read; a compiler's message fits.
const MAX_STDERR: u64 = 4 << 10;

/// What a child says on standard error before it ends like one without memory, when its stack has run out. (From Rust's
/// handler of the stack's guard page.)
const STACK_OVERFLOW: &str = "has overflowed its stack";

/// How long a compile that others waited for runs before another one of these goes on: long beside what stopping costs,
/// short beside what they take.
const ROUND: Time = Time::from_secs(1);

/// Compiles modules, a bounded number at a time, fairly between clients.
pub struct Compiler {
    config: config::Compiler,
    limits: config::Limits,
    program: PathBuf,
    permits: FairSemaphore,
}

impl Compiler {
    /// A compiler that starts `config.program`, or this executable if the configuration names none.
    pub fn new(config: config::Compiler, limits: config::Limits) -> Compiler {
        let program = config.program.clone().unwrap_or_else(|| THIS_EXECUTABLE.into());
        let permits = FairSemaphore::new(PermitLimits {
            concurrency: config.concurrency,
            quantum: config.hold.duration().into(),
            slots: config.children(),
            shares: fair_semaphore::SHARES,
            round: Some(ROUND),
        });
        Compiler { config, limits, program, permits }
    }

    /// Waits for a permit.
    pub async fn permit(&self, client: &Client, urgency: Urgency) -> Permit {
        self.permits.acquire(client, urgency).await
    }

    /// Whether this module's first answers are to come from baseline code. A component's are not: how much room it
    /// needs is known only from its optimized code.
    pub fn wants_baseline(&self, module: &[u8]) -> bool {
        self.config.baseline
            && module.len() as u64 >= self.config.baseline_from.bytes()
            && !wasmparser::Parser::is_component(module)
    }

    /// Refuses a module that would take a compiler too long, by counts.
    ///
    /// # Errors
    ///
    /// `malformed` for what is no valid command, `compile` where a limit is reached, `memory` for a module that can
    /// never start.
    pub async fn check(&self, module: Bytes) -> Result<(), MakeError> {
        let (config, limits) = (self.config.clone(), self.limits.clone());
        tokio::task::spawn_blocking(move || precheck::check(&module, &config, &limits))
            .await
            .map_err(|panic| MakeError::transient(telemetry::internal_error(&format!("pre-check: {panic}"))))?
            .map_err(MakeError::permanent)
    }

    /// Compiles one module that was checked, under a permit, and as that is served: while it is stopped no time runs.
    ///
    /// # Errors
    ///
    /// `malformed` for what is no valid command, `compile` where a limit on compiling was reached, `internal` where the
    /// child could not do its work.
    pub async fn compile(&self, permit: &Permit, module: Bytes, tier: Tier) -> Result<Vec<u8>, MakeError> {
        match self.run_child(permit.stage(), module, tier).await {
            Ok(Some(output)) => self.judge(output),
            Err(error) => {
                let what = format!("compile child {}: {error}", self.program.display());
                Err(MakeError::transient(telemetry::internal_error(&what)))
            }
            // A busy machine may have been the reason.
            Ok(None) => {
                let message =
                    format!("took longer than {} to compile, the limit compiler.wall", self.config.wall);
                Err(MakeError::transient(WireError::new(ErrorKind::Compile, message)))
            }
        }
    }

    /// Runs a child to its end, or for as long as a child may; then `None`.
    async fn run_child(
        &self,
        mut stage: watch::Receiver<Stage>,
        module: Bytes,
        tier: Tier,
    ) -> io::Result<Option<Output>> {
        // The sender goes with the permit, which the caller holds.
        let held = "a permit is served as long as it is held";
        // A child that does not run would only hold memory.
        stage.wait_for(|stage| *stage != Stage::Stopped).await.expect(held);
        let child = self.spawn(tier)?;
        let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32));
        let pid = pid.expect("a child that was not waited for has its id");
        // When it is ready the child has been waited for, and its id may be another's.
        let mut output = pin!(self.output(child, module));
        let mut left = self.config.wall.duration();
        loop {
            let now = *stage.borrow_and_update();
            serve::serve(pid, now);
            let runs = now != Stage::Stopped;
            let since = Instant::now();
            tokio::select! {
                output = &mut output => return output.map(Some),
                () = tokio::time::sleep(left), if runs => return Ok(None),
                changed = stage.changed() => changed.expect(held),
            }
            if runs {
                left = left.saturating_sub(since.elapsed());
            }
        }
    }

    fn spawn(&self, tier: Tier) -> io::Result<Child> {
        let tier = tier.to_possible_value().expect("every tier has a name");
        Command::new(&self.program)
            .arg(CHILD_ROLE)
            .arg(format!("--cpu-seconds={}", self.config.cpu.duration().as_secs().max(1)))
            .arg(format!("--memory={}", self.config.memory.bytes()))
            .arg(format!("--tier={}", tier.get_name()))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-c at a terminal is for the gateway, which drains.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    async fn output(&self, mut child: Child, module: Bytes) -> io::Result<Output> {
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let feed = async move {
            // A child that ends early closes the pipe; its exit status says more than this error.
            let _ = stdin.write_all(&module).await;
        };
        // One byte over the limit tells a full artifact from a cut one.
        let artifact = read_at_most(stdout, self.config.max_artifact.bytes() + 1);
        let ((), artifact, message) = tokio::join!(feed, artifact, read_at_most(stderr, MAX_STDERR));
        let (artifact, message) = (artifact?, message?);
        if artifact.len() as u64 > self.config.max_artifact.bytes() {
            child.start_kill()?;
        }
        let status = child.wait().await?;
        Ok(Output { status, artifact, message: String::from_utf8_lossy(&message).into_owned() })
    }

    fn judge(&self, output: Output) -> Result<Vec<u8>, MakeError> {
        let Output { status, artifact, message } = output;
        let max_artifact = self.config.max_artifact;
        if artifact.len() as u64 > max_artifact.bytes() {
            return Err(refused(format!(
                "compiles to more than {max_artifact}, the limit compiler.max_artifact"
            )));
        }
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(artifact),
            (Some(code), _) if code == i32::from(child::EXIT_INVALID) => {
                let message = format!("not valid wasm: {message}");
                Err(MakeError::permanent(WireError::new(ErrorKind::Malformed, message)))
            }
            (Some(code), _) if code == i32::from(child::EXIT_REFUSED) => Err(refused(message)),
            (_, Some(libc::SIGXCPU)) => {
                let cpu = self.config.cpu;
                Err(refused(format!("takes more than {cpu} of CPU time to compile, the limit compiler.cpu")))
            }
            (_, Some(libc::SIGABRT)) if message.contains(STACK_OVERFLOW) => {
                Err(refused("takes more stack to compile than there is: it is nested too deeply".to_string()))
            }
            (_, Some(libc::SIGABRT)) => {
                let memory = self.config.memory;
                Err(refused(format!("takes more than {memory} to compile, the limit compiler.memory")))
            }
            (_, Some(signal @ (libc::SIGSEGV | libc::SIGBUS))) => {
                sampled!(warn, signal, "a compile child crashed on its input");
                Err(refused("the compiler crashed on this module".to_string()))
            }
            // Who stops a service sends these to all its processes.
            (_, Some(libc::SIGTERM | libc::SIGINT | libc::SIGHUP)) => {
                Err(MakeError::transient(stopping_error()))
            }
            // SIGKILL among them: an operator's, or the kernel's when memory is short.
            _ => Err(MakeError::transient(telemetry::internal_error(&format!(
                "compile child: {status}: {message}"
            )))),
        }
    }
}

struct Output {
    status: ExitStatus,
    artifact: Vec<u8>,
    message: String,
}

fn refused(message: String) -> MakeError {
    MakeError::permanent(WireError::new(ErrorKind::Compile, message))
}

async fn read_at_most(pipe: impl AsyncRead + Unpin, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.take(limit).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_is_stopped_with_the_service_is_no_failure() {
        let compiler = Compiler::new(config::Compiler::default(), config::Limits::default());
        for signal in [libc::SIGTERM, libc::SIGINT] {
            let status = ExitStatus::from_raw(signal);
            let output = Output { status, artifact: Vec::new(), message: String::new() };
            let MakeError { error, permanent } = compiler.judge(output).unwrap_err();
            assert_eq!((error.kind, permanent), (ErrorKind::Busy, false));
            assert!(error.message.contains("stopping"), "{}", error.message);
        }
    }

    #[test]
    fn an_abort_says_what_has_run_out() {
        let compiler = Compiler::new(config::Compiler::default(), config::Limits::default());
        for (message, what) in [
            ("memory allocation of 16777216 bytes failed\n", "1GiB to compile, the limit compiler.memory"),
            (
                "\nthread 'main' (7) has overflowed its stack\nfatal runtime error: stack overflow, aborting\n",
                "stack to compile",
            ),
        ] {
            let status = ExitStatus::from_raw(libc::SIGABRT);
            let output = Output { status, artifact: Vec::new(), message: message.to_string() };
            let MakeError { error, permanent } = compiler.judge(output).unwrap_err();
            assert_eq!((error.kind, permanent), (ErrorKind::Compile, true));
            assert!(error.message.contains(what), "{}", error.message);
        }
    }
}
