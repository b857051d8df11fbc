//! The sandbox: what this machine gives is found out once, then it builds and runs.

use crate::cage::{Cage, WORK_DIR};
use crate::domain::Domain;
use crate::error::{Error, Unavailable};
use crate::job::{Job, Work};
use crate::outcome::{Ending, Outcome};
use crate::output::Excess;
use crate::source::Source;
use crate::{Config, Limits, Program, diagnostics, syscalls};
use std::ffi::OsString;
use std::io::{self, PipeReader};
use std::path::{Path, PathBuf};

/// Arguments and variables, together, that one run may have; bubblewrap takes 9000 words in all.
const MAX_WORDS: usize = 2048;

/// What the sandboxes of a machine have in common.
#[derive(Debug)]
pub struct Sandbox {
    config: Config,
    bubblewrap: PathBuf,
    prlimit: PathBuf,
    shell: PathBuf,
    /// User to become first, where the caller is root.
    uid: Option<u32>,
    filter: Vec<u8>,
    domain: Domain,
}

/// What one run is given.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Arguments after the program's own name.
    pub args: Vec<String>,
    /// The whole environment but `PWD`, which bubblewrap sets. A shell hands it on, and drops what is no name of a
    /// variable in shells.
    pub env: Vec<(String, String)>,
    /// Standard input.
    pub stdin: Vec<u8>,
}

impl Sandbox {
    /// Finds out what this machine gives, by setting up two sandboxes (some 20 ms). Blocks.
    pub fn probe(config: Config) -> Result<Self, Unavailable> {
        let unavailable = |why: String, hint: &str| Unavailable { why, hint: hint.to_owned() };
        let bubblewrap = find(&config.bubblewrap)
            .ok_or_else(|| unavailable("bubblewrap is missing".into(), "apt-get install bubblewrap"))?;
        let prlimit = find(Path::new("prlimit"))
            .ok_or_else(|| unavailable("prlimit is missing".into(), "apt-get install util-linux"))?;
        let shell = std::fs::canonicalize("/bin/sh")
            .map_err(|error| unavailable(format!("/bin/sh: {error}"), "apt-get install dash"))?;
        let filter = syscalls::filter().map_err(|error| {
            unavailable(format!("no filter of system calls: {error}"), "x86_64, aarch64 or riscv64")
        })?;
        let is_root = rustix::process::geteuid().is_root();
        let uid = is_root.then_some(config.uid);
        let (domain, _) = Domain::new();
        let sandbox = Self { config, bubblewrap, prlimit, shell, uid, filter, domain };

        // Processes can be started, and those over the limit cannot.
        for (processes, started) in [(4, true), (2, false)] {
            let ending = sandbox.try_out(processes).map_err(|error| {
                unavailable(
                    error.to_string(),
                    "user namespaces must be allowed for ordinary users: see sysctl kernel.unprivileged_userns_clone, \
                     user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns; bubblewrap must be 0.8 \
                     or newer, the kernel 5.14 or newer with CONFIG_PROC_CHILDREN",
                )
            })?;
            if (ending == Ending::Exit(0)) != started {
                return Err(unavailable(
                    format!(
                        "processes cannot be limited: with at most {processes}, a shell ended with {ending:?}"
                    ),
                    "the kernel must be 5.14 or newer",
                ));
            }
        }
        Ok(sandbox)
    }

    /// What contains native programs here, for the log.
    pub fn describe(&self) -> String {
        let identity = match self.uid {
            Some(uid) => format!("user {uid}"),
            None => "the gateway's own user".to_owned(),
        };
        format!(
            "{} as {identity} in namespaces of their own, a filter of system calls, resource limits, memory and CPU time \
             measured",
            self.bubblewrap.display()
        )
    }

    /// Builds a program. Dropping the future ends the sandbox.
    pub async fn build(&self, source: Source) -> Result<Program, Error> {
        let limits = self.config.build.clone();
        let mut cage = Cage::new(&self.config.toolchain, limits.work_dir)?;
        cage.proc();
        for (name, value) in [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", WORK_DIR), ("LC_ALL", "C")] {
            cage.env(name, value);
        }
        let name = source.safe_name().to_owned();
        let mut files = Vec::new();
        if let Some(makefile) = source.makefile() {
            files.push((format!("{WORK_DIR}/Makefile"), "0600", makefile));
        }
        let command = shell(&source.script(), &name);
        for file in source.file_names() {
            files.push((format!("{WORK_DIR}/{file}"), "0600", source.code.clone()));
        }
        let work = Work { cage, files, command, stdin: Vec::new(), limits, stderr: Excess::Ends };
        let outcome = self.start(work).await?;
        let failed = |output: &[u8]| Error::Build {
            first: diagnostics::first_error(output),
            output: diagnostics::cleaned(output),
        };
        match outcome.ending {
            // What is neither could not be started, and would look like a fault of the sandbox.
            Ending::Exit(0)
                if outcome.stdout.starts_with(b"\x7fELF") || outcome.stdout.starts_with(b"#!") =>
            {
                Ok(Program::new(name, outcome.stdout))
            }
            Ending::Exit(0) => Err(failed(b"error: what the build left is no executable program")),
            Ending::Limit(limit) => {
                Err(Error::BuildLimit { limit, output: diagnostics::cleaned(&outcome.stderr) })
            }
            Ending::Exit(_) | Ending::Signal(_) => Err(failed(&outcome.stderr)),
        }
    }

    /// Runs a program. Dropping the future ends the sandbox.
    pub async fn run(&self, program: &Program, input: Input, limits: Limits) -> Result<Outcome, Error> {
        check(&input)?;
        let mut cage = Cage::new(&self.config.libraries, limits.work_dir)?;
        for (name, value) in &input.env {
            cage.env(name, value);
        }
        let path = format!("/program/{}", program.name());
        let files = vec![(path.clone(), "0555", program.bytes().to_vec())];
        let command = std::iter::once(path).chain(input.args).map(OsString::from).collect();
        self.start(Work { cage, files, command, stdin: input.stdin, limits, stderr: Excess::Dropped }).await
    }

    async fn start(&self, work: Work) -> Result<Outcome, Error> {
        // Hangs up when this future is dropped.
        let (abandoned, _waiting) = io::pipe()?;
        let job = self.job(work, abandoned);
        match tokio::task::spawn_blocking(|| job.run()).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::Io(io::Error::other(error))),
        }
    }

    fn job(&self, work: Work, abandoned: PipeReader) -> Job {
        Job {
            bubblewrap: self.bubblewrap.clone(),
            prlimit: self.prlimit.clone(),
            shell: self.shell.clone(),
            uid: self.uid,
            filter: self.filter.clone(),
            domain: self.domain.clone(),
            work,
            abandoned,
        }
    }

    /// A shell that starts one process, which makes three with the sandbox's own.
    fn try_out(&self, processes: u64) -> Result<Ending, Error> {
        let limits = Limits { processes, ..self.config.build.clone() };
        let mut cage = Cage::new(&self.config.toolchain, limits.work_dir)?;
        cage.proc();
        let (abandoned, _waiting) = io::pipe()?;
        let command = shell("/bin/true & wait $!", "probe");
        let (files, stdin) = (Vec::new(), Vec::new());
        let work = Work { cage, files, command, stdin, limits, stderr: Excess::Dropped };
        Ok(self.job(work, abandoned).run()?.ending)
    }
}

fn shell(script: &str, name: &str) -> Vec<OsString> {
    ["/bin/sh", "-c", script, "sh", name].map(OsString::from).to_vec()
}

fn check(input: &Input) -> Result<(), Error> {
    if input.args.len() + input.env.len() > MAX_WORDS {
        return Err(Error::Input("too many arguments and variables: at most 2048 together"));
    }
    if input.args.iter().any(|arg| arg.contains('\0')) {
        return Err(Error::Input("an argument holds a NUL"));
    }
    if input
        .env
        .iter()
        .any(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
    {
        return Err(Error::Input("a variable's name is empty or holds =, or there is a NUL"));
    }
    Ok(())
}

/// A path as it stands, a bare name in `PATH`: only here, since sandboxes are started without an environment.
fn find(command: &Path) -> Option<PathBuf> {
    if command.components().count() > 1 {
        return command.is_file().then(|| command.to_owned());
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(command))
        .find(|file| file.is_file())
}
