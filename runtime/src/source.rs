//! Strangers' source: whether this gateway builds it, and as what, how many at a time, and what the client is told of
//! how it ended where it ran natively. Containing it is the business of `offload_native`; what was built for WASI runs
//! as any module.

mod built;
mod comparison;

use crate::compiler::Failure;
use crate::config::{self, Config};
use crate::data_dir::DataDir;
use crate::fair_semaphore::{self, FairSemaphore};
use crate::ingress::Client;
use crate::telemetry;
use crate::wasm::guest::{Budget, Ended, Input};
use crate::wasm::workers::RunOutcome;
use built::Built;
pub use built::Made;
use comparison::Comparisons;
use offload_native::{
    Build, Ending, Error, Language, Limit, MAX_FOLDER, NativeProgram, Platform, Project, Sandbox,
    SandboxLimits, Source, Wasi,
};
use offload_policy::{PermitLimits, Urgency};
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// Builds at once that are for comparison alone, beside those of `[sandbox] concurrency`.
const BUILDS_TO_COMPARE: usize = 1;

/// To a client whose source nobody takes.
const TAKES_NONE: &str = "this gateway takes no source: send a wasm module, or ask its operator";

/// Builds and runs source, or says why not.
pub struct Native {
    /// Of whom no rule says otherwise; `None` where it takes none.
    by_default: Option<Mode>,
    local: bool,
    granted: Result<Granted, WireError>,
    takes_source: bool,
}

struct Granted {
    sandbox: Sandbox,
    /// What builds for WASI need.
    wasi: Result<Wasi, WireError>,
    permits: FairSemaphore,
    /// Of builds that nobody waits for: they keep none that somebody waits for from its own.
    compare_permits: FairSemaphore,
    comparisons: Comparisons,
    built: Built,
    run: SandboxLimits,
    /// Bytes that a module may have.
    max_module: usize,
}

/// What a request has built before it runs.
pub enum Buildable {
    /// One file, with a compiler command or a makefile.
    Source(request::Source),
    /// Several files, with a makefile.
    Files(request::Files),
}

/// When a request came, and when its answer is no longer of use.
#[derive(Clone, Copy)]
pub struct Timing {
    /// When it arrived.
    pub arrived: Instant,
    /// Before the start the request has expired then; a run ends then.
    pub deadline: Option<Instant>,
}

/// What is done with a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is built and run in the sandbox.
    Native,
    /// It is built for WASI, and runs as a module.
    Wasm,
    /// It is run natively, and compared with what it would be as wasm.
    Compare,
}

impl Native {
    /// Finds out what becomes of source here, and whether this machine can contain and compile it; logs all of that.
    /// `local` tells whether only this machine can send requests.
    pub async fn start(config: &Config, local: bool, data_dir: &DataDir) -> Native {
        let ruled = config.access.rule.iter().filter_map(|rule| rule.native);
        let modes: Vec<Mode> =
            ruled.chain([config.native]).filter_map(|chosen| mode(chosen, local)).collect();
        let granted = if modes.is_empty() {
            tracing::info!("source is refused (--allow-native, or `native` in the configuration, allows it)");
            Err(unauthorized(TAKES_NONE))
        } else {
            Granted::start(config, data_dir, modes.iter().any(|mode| mode.needs_wasi())).await
        };
        let takes_source =
            granted.as_ref().is_ok_and(|granted| modes.iter().any(|mode| granted.can(*mode).is_ok()));
        Native { by_default: mode(config.native, local), local, granted, takes_source }
    }

    /// Whether it builds and runs anybody's source.
    pub fn takes_source(&self) -> bool {
        self.takes_source
    }

    /// What is done with the source of a client of whom the rules say this, if they do.
    ///
    /// # Errors
    ///
    /// `unauthorized`, with what to do instead.
    pub fn mode(&self, ruled: Option<config::Native>) -> Result<Mode, WireError> {
        let mode = ruled.map_or(self.by_default, |chosen| mode(chosen, self.local));
        let mode = mode.ok_or_else(|| unauthorized(TAKES_NONE))?;
        self.granted()?.can(mode)?;
        Ok(mode)
    }

    fn granted(&self) -> Result<&Granted, WireError> {
        self.granted.as_ref().map_err(Clone::clone)
    }

    /// This client's source as wasm, if it has been built and is at hand; or why it cannot be built.
    pub fn ready_wasm(&self, client: &Client, source: &Buildable) -> Option<Result<Made, WireError>> {
        let granted = self.granted.as_ref().ok()?;
        granted.built.ready(client, source, Platform::Wasi(granted.wasi.as_ref().ok()?))
    }

    /// Builds this client's source as wasm, unless it has been built before. Dropping the future ends the build.
    ///
    /// # Errors
    ///
    /// `build`, `unauthorized`, `internal`.
    pub async fn wasm(&self, client: &Client, source: &Buildable) -> Result<Made, WireError> {
        let granted = self.granted()?;
        granted.wasm(client, source, &granted.permits).await
    }

    /// Leave to compare a run of this source with what it would be as wasm, until it is dropped. There is none while
    /// many are compared.
    pub fn compare(&self, client: &Client, source: &Buildable) -> Option<OwnedSemaphorePermit> {
        self.granted.as_ref().ok()?.comparisons.begin(client, source)
    }

    /// As [`Native::wasm`], for comparison alone.
    ///
    /// # Errors
    ///
    /// Those of [`Native::wasm`].
    pub async fn wasm_to_compare(&self, client: &Client, source: &Buildable) -> Result<Made, WireError> {
        let granted = self.granted()?;
        granted.wasm(client, source, &granted.compare_permits).await
    }

    /// Logs in what this source differs as wasm from what it is natively, if that is new.
    pub fn tell_difference(
        &self,
        client: &Client,
        source: &Buildable,
        native: &Ended,
        wasm: Result<&Ended, &WireError>,
    ) {
        if let Ok(granted) = &self.granted {
            granted.comparisons.tell(client, source, native, wasm);
        }
    }

    /// Builds the source, unless it has been built before, and runs the program, within `budget`'s times and at most
    /// `memory` bytes, where the request asks for less than the sandbox gives. Dropping the future ends both.
    ///
    /// # Errors
    ///
    /// Where there is nothing to run: `build`, `unauthorized`, `too-large` for arguments, `internal`.
    pub async fn run(
        &self,
        client: &Client,
        source: &Buildable,
        input: Input,
        budget: &Budget,
        memory: Option<u64>,
        timing: Timing,
    ) -> Result<RunOutcome, WireError> {
        let Granted { sandbox, permits, built, run, .. } = self.granted()?;
        let ready = async {
            let build = async {
                let _permit = permits.acquire(client, Urgency::Awaited).await;
                build(sandbox, source, Platform::Native).await.map_err(failure)
            };
            let program = built.get(client, source, Platform::Native, build).await?.program;
            Ok((permits.acquire(client, Urgency::Awaited).await, program))
        };
        let ready = match timing.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), ready).await,
            None => Ok(ready.await),
        };
        let Ok(ready) = ready else { return Ok(RunOutcome::Expired) };
        let (_permit, program) = ready?;

        let started = Instant::now();
        let left = timing.deadline.map(|deadline| deadline.saturating_duration_since(started));
        let requested = left.is_some_and(|left| left < budget.wall);
        let limits = SandboxLimits {
            wall: left.unwrap_or(budget.wall).min(budget.wall),
            memory: memory.map_or(run.memory, |asked| asked.min(run.memory)),
            ..run.clone()
        };
        let given = offload_native::Input { args: input.args, env: input.env, stdin: input.stdin.to_vec() };
        let outcome = sandbox.run(&program, given, limits.clone()).await.map_err(wire_error)?;
        let result = ended(outcome.ending, &limits, requested);
        let (stdout, stderr) = (outcome.stdout.into(), outcome.stderr.into());
        let ended = Ended { result, stdout, stderr, fuel: 0 };
        Ok(RunOutcome::Ran { ended, run: outcome.wall, queued: started.duration_since(timing.arrived) })
    }
}

impl Granted {
    /// The sandbox and, where `wasi`, the compiler for that; logs what there is of both.
    async fn start(config: &Config, data_dir: &DataDir, wasi: bool) -> Result<Granted, WireError> {
        let built = Built::open(config, data_dir).map_err(|error| {
            tracing::warn!("source is refused: the folder of built programs: {error}");
            unauthorized("this gateway cannot keep built programs: its log says why")
        })?;
        let probed = sandbox_config(config);
        let probe = move || {
            let sandbox = Sandbox::probe(probed).map_err(|unavailable| unavailable.to_string())?;
            let wasi = wasi.then(|| sandbox.probe_wasi());
            Ok((sandbox, wasi))
        };
        let joined = tokio::task::spawn_blocking(probe).await;
        let (ready, wasi) =
            joined.unwrap_or_else(|panic| Err(panic.to_string())).map_err(|why: String| {
                tracing::warn!("source is refused: {why}");
                unauthorized("this gateway cannot contain native programs: its log says what is missing")
            })?;
        tracing::info!(sandbox = %ready.report(), "source is built and run");
        if let Some(program) = config.sandbox.compilers.missing() {
            tracing::warn!(
                "`[sandbox] compilers` asks for {program}, which is missing: compilers are as called"
            );
        }
        match &wasi {
            Some(Ok(wasi)) => tracing::info!(compiler = wasi.compiler(), "source can be built for WASI"),
            Some(Err(why)) => tracing::warn!(
                "source is refused to whom `native` is \"wasm\" or \"compare\": it cannot be built for WASI: {why} ({})",
                Wasi::REMEDY
            ),
            None => {}
        }
        let no_wasi =
            || unauthorized("this gateway cannot build source for WASI: its log says what is missing");
        let Config { sandbox, limits, .. } = config;
        Ok(Granted {
            sandbox: ready,
            wasi: wasi.and_then(Result::ok).ok_or_else(no_wasi),
            permits: permits(sandbox, sandbox.concurrency, sandbox.places()),
            compare_permits: permits(sandbox, BUILDS_TO_COMPARE, BUILDS_TO_COMPARE),
            comparisons: Comparisons::new(sandbox.compared),
            built,
            run: SandboxLimits {
                cpu: limits.cpu.duration(),
                memory: sandbox.memory.bytes(),
                processes: sandbox.processes,
                file_size: sandbox.work_dir.bytes(),
                work_dir: sandbox.work_dir.bytes(),
                stdout: limits.stdout.as_usize(),
                stderr: limits.stderr.as_usize(),
                ..SandboxLimits::run()
            },
            max_module: limits.module.as_usize(),
        })
    }

    /// Whether it can do this with source.
    fn can(&self, mode: Mode) -> Result<(), WireError> {
        if mode.needs_wasi() { self.wasi().map(drop) } else { Ok(()) }
    }

    fn wasi(&self) -> Result<&Wasi, WireError> {
        self.wasi.as_ref().map_err(Clone::clone)
    }

    /// This source as wasm, built under one of these permits.
    async fn wasm(
        &self,
        client: &Client,
        source: &Buildable,
        permits: &FairSemaphore,
    ) -> Result<Made, WireError> {
        let platform = Platform::Wasi(self.wasi()?);
        let build = async {
            let _permit = permits.acquire(client, Urgency::Awaited).await;
            let program = build(&self.sandbox, source, platform).await.map_err(failure)?;
            let size = program.bytes().len();
            if size > self.max_module {
                let message = format!("error: as wasm it has {size} bytes, the limit is {}", self.max_module);
                return Err(Failure::permanent(WireError::new(ErrorKind::Build, message)));
            }
            Ok(program)
        };
        self.built.get(client, source, platform, build).await
    }
}

/// So many `at_once`, beside those that began earlier and go on: the sandbox stops none, since one that sleeps costs no
/// time, and one that computes gives way to all others.
fn permits(sandbox: &config::Sandbox, at_once: usize, places: usize) -> FairSemaphore {
    FairSemaphore::new(PermitLimits {
        concurrency: at_once,
        quantum: sandbox.hold.duration(),
        slots: places,
        shares: fair_semaphore::SHARES,
        round: None,
    })
}

impl Mode {
    fn needs_wasi(self) -> bool {
        matches!(self, Mode::Wasm | Mode::Compare)
    }
}

/// What the configuration's choice comes to; `None` where source is not taken.
fn mode(chosen: config::Native, local: bool) -> Option<Mode> {
    match chosen {
        config::Native::Auto => local.then_some(Mode::Native),
        config::Native::Native => Some(Mode::Native),
        config::Native::Wasm => Some(Mode::Wasm),
        config::Native::Compare => Some(Mode::Compare),
        config::Native::Off => None,
    }
}

fn unauthorized(message: &str) -> WireError {
    WireError::new(ErrorKind::Unauthorized, message)
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

/// What a compiler says of a source it says each time; anything else may have been the machine.
fn failure(error: Error) -> Failure {
    let permanent = matches!(error, Error::Build { .. });
    Failure { error: wire_error(error), permanent }
}

async fn build(
    sandbox: &Sandbox,
    source: &Buildable,
    platform: Platform<'_>,
) -> Result<NativeProgram, Error> {
    match source {
        Buildable::Source(source) => sandbox.build(one_file(source), platform).await,
        Buildable::Files(given) => {
            let project = Project {
                files: given.files.iter().map(|(path, contents)| (path.as_str(), &contents[..])).collect(),
                makefile: given.makefile.as_deref().map(str::as_bytes),
                target: given.target.as_deref(),
            };
            sandbox.build_project(&project, platform).await
        }
    }
}

fn one_file(source: &request::Source) -> Source {
    Source {
        name: source.name.clone(),
        code: source.text.to_vec(),
        language: match source.language() {
            request::Language::C => Language::C,
            request::Language::Cpp => Language::Cpp,
        },
        build: match &source.build {
            request::Build::Command(line) => Build::Command(line.clone()),
            request::Build::Makefile(text) => Build::Makefile(text.clone().into_bytes()),
        },
    }
}

fn wire_error(error: Error) -> WireError {
    match error {
        // What is cut from a long output is its beginning, and a line of an answer has the first error alone.
        Error::Build { first, output } if output.contains(&first) => WireError::new(ErrorKind::Build, output),
        Error::Build { first, output } => WireError::new(ErrorKind::Build, format!("{first}\n{output}")),
        Error::BuildLimit { limit, output } => {
            let what = match limit {
                Limit::Stdout => "the size of its program and of what is in its folder besides".to_owned(),
                limit => limit.to_string(),
            };
            let message = format!("error: the build went over its limit of {what}\n{output}");
            WireError::new(ErrorKind::Build, message)
        }
        Error::Input(problem) => WireError::new(ErrorKind::TooLarge, problem),
        Error::Sandbox(_) | Error::Io(_) => telemetry::internal_error(&format!("native: {error}")),
    }
}

/// The exit code, or what the client is told instead. `requested` tells whose limit the wall-clock time is.
fn ended(ending: Ending, limits: &SandboxLimits, requested: bool) -> Result<i32, WireError> {
    let (kind, message) = match ending {
        Ending::Exit(code) => return Ok(code),
        Ending::Signal(signal) => (ErrorKind::Trap, format!("killed by {}", signal_name(signal))),
        Ending::Limit(Limit::Cpu) => (ErrorKind::Timeout, format!("used its {:?} of CPU time", limits.cpu)),
        Ending::Limit(Limit::Wall) => {
            let whose = if requested { "the request's timeout" } else { "the gateway's limit" };
            (ErrorKind::Timeout, format!("still running after {:.1?}, {whose}", rounded(limits.wall)))
        }
        Ending::Limit(Limit::Memory) => {
            (ErrorKind::Memory, format!("used more than its {} bytes", limits.memory))
        }
        Ending::Limit(Limit::FileSize) => {
            (ErrorKind::Trap, format!("wrote a file of more than {} bytes", limits.file_size))
        }
        Ending::Limit(Limit::Files) => (ErrorKind::Trap, format!("made more than {} files", limits.files)),
        Ending::Limit(Limit::Stdout | Limit::Stderr) => {
            (ErrorKind::Output, format!("stdout is over the limit of {} bytes", limits.stdout))
        }
    };
    Err(WireError::new(kind, message))
}

/// To the millisecond, which is what a request can ask for.
fn rounded(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_millis() as u64)
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGABRT => "SIGABRT, which abort() raises",
        libc::SIGBUS => "SIGBUS, a bad memory access",
        libc::SIGFPE => "SIGFPE, an arithmetic error such as a division by zero",
        libc::SIGILL => "SIGILL, an illegal instruction",
        libc::SIGKILL => "SIGKILL",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGSEGV => "SIGSEGV, a bad memory access",
        libc::SIGSYS => "SIGSYS, a system call that the sandbox does not allow",
        libc::SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ending_has_its_kind() {
        let limits = SandboxLimits::run();
        let kind = |ending| ended(ending, &limits, true).unwrap_err().kind;
        assert_eq!(ended(Ending::Exit(3), &limits, false), Ok(3));
        assert_eq!(kind(Ending::Signal(libc::SIGSEGV)), ErrorKind::Trap);
        assert_eq!(kind(Ending::Limit(Limit::Cpu)), ErrorKind::Timeout);
        assert_eq!(kind(Ending::Limit(Limit::Wall)), ErrorKind::Timeout);
        assert_eq!(kind(Ending::Limit(Limit::Memory)), ErrorKind::Memory);
        assert_eq!(kind(Ending::Limit(Limit::FileSize)), ErrorKind::Trap);
        assert_eq!(kind(Ending::Limit(Limit::Files)), ErrorKind::Trap);
        assert_eq!(kind(Ending::Limit(Limit::Stdout)), ErrorKind::Output);
    }

    #[test]
    fn a_build_error_keeps_the_first_error_even_where_the_output_was_cut() {
        let error = |first: &str, output: &str| {
            wire_error(Error::Build { first: first.to_owned(), output: output.to_owned() })
        };
        assert_eq!(error("a.c:1: error: x", "a.c:1: error: x\nmore").message, "a.c:1: error: x\nmore");
        let cut = error("a.c:1: error: x", "a.c:9: error: y");
        assert_eq!(cut.line(), "error: build: a.c:1: error: x");
    }
}
