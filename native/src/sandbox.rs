//! The sandbox: it builds and runs. What this machine gives has been found out before (`probe.rs`).

use crate::bwrap_args::{BwrapArgs, FileInside, WORK_DIR};
use crate::error::Error;
use crate::folder::{Folder, MAX_ENTRIES, MAX_FOLDER};
use crate::hints::Hints;
use crate::job::{Job, Work};
use crate::landlock::Domain;
use crate::left::Left;
use crate::measurer::Measured;
use crate::outcome::{Ending, Outcome};
use crate::output::{Excess, OnStdout};
use crate::platform::Platform;
use crate::project::Project;
use crate::report::Report;
use crate::source::{Source, safe_name};
use crate::syscalls::{Calls, Filters};
use crate::tools::shell;
use crate::{Config, NativeProgram, SandboxLimits, diagnostics};
use std::io::{self, PipeReader};
use std::path::PathBuf;

/// Arguments and variables, together, that one run may have; bubblewrap takes 9000 words in all.
const MAX_WORDS: usize = 2048;

/// Bytes of one of them, a variable's name and its `=` included: what Linux takes, with the zero at its end.
const MAX_WORD: usize = 128 * 1024 - 1;

/// Bytes of all of them together: half of what Linux takes with the usual limit on stacks.
const MAX_WORDS_SIZE: usize = 1024 * 1024;

/// What unpacks a folder before a program starts, where its archive is, and how. It is this machine's tar: the
/// libraries that it needs are among those that a run sees.
const UNPACKER: &str = "/unpack";
const ARCHIVE: &str = "/folder.tar";
const UNPACK: &str = "TAR_OPTIONS= /unpack -x -f /folder.tar --warning=none </dev/null || exit\n";

/// Bytes of an archive's entry beside its contents: its header, those of a long name and a long target, and the rests
/// of their blocks.
const MAX_ENTRY_OVERHEAD: u64 = 4 * 1024;

/// What the sandboxes of a machine have in common.
#[derive(Debug)]
pub struct Sandbox {
    pub(crate) config: Config,
    pub(crate) bubblewrap: PathBuf,
    pub(crate) shell: PathBuf,
    /// User to become first, where the caller is root.
    pub(crate) uid: Option<u32>,
    pub(crate) filters: Filters,
    /// What unpacks a folder for a run. Without it a project is not built either.
    pub(crate) tar: Option<PathBuf>,
    pub(crate) domain: Domain,
    pub(crate) measured: Measured,
    pub(crate) report: Report,
}

/// What one run is given.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Arguments after the program's own name.
    pub args: Vec<String>,
    /// The whole environment but `PWD`, which bubblewrap sets. Dropped is what is no name of a variable in shells, and
    /// what would have programs loaded, or commands run, by the shell that the program waits in: `LD_…`, `SHELLOPTS`,
    /// `BASHOPTS`.
    pub env: Vec<(String, String)>,
    /// Standard input.
    pub stdin: Vec<u8>,
    /// Gets standard output as it is read, up to its limit, on a thread of the sandbox.
    pub on_stdout: OnStdout,
}

impl Sandbox {
    /// What this machine gives, as it was found out.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Builds a program of one file. Dropping the future ends the sandbox.
    pub async fn build(&self, source: Source, platform: Platform<'_>) -> Result<NativeProgram, Error> {
        let name = source.safe_name();
        let makefile = source.makefile().map(|makefile| ("Makefile".to_owned(), makefile));
        let code = source.file_names().into_iter().map(|file| (file, source.code.clone()));
        let sent: Vec<(String, Vec<u8>)> = makefile.into_iter().chain(code).collect();
        let hints = source.hints(sent.iter().map(|(file, text)| (file.as_str(), &text[..])).collect());
        let files =
            sent.iter().map(|(file, text)| (format!("{WORK_DIR}/{file}"), "0600", text.clone())).collect();
        let command = shell(&source.script(platform), &[name]);
        let output = self.make(files, command, Vec::new(), platform, &hints).await?;
        let left = Left::read(&output).unwrap_or_default();
        let is_script = matches!(platform, Platform::Native) && left.program.starts_with(b"#!");
        if !is_script {
            platform.check(left.program).map_err(|problem| refused(problem, platform))?;
        }
        Ok(NativeProgram::new(name, left.program).with_folder(self.folder(left.folder, platform)?))
    }

    /// Builds a program of several files. Dropping the future ends the sandbox.
    pub async fn build_project(
        &self,
        project: &Project<'_>,
        platform: Platform<'_>,
    ) -> Result<NativeProgram, Error> {
        let (command, archive) = (project.command(platform), project.archive()?);
        let output = self.make(Vec::new(), command, archive, platform, &project.hints()).await?;
        let left = Left::read(&output).unwrap_or_default();
        platform.check(left.program).map_err(|problem| refused(problem, platform))?;
        Ok(NativeProgram::new(safe_name(left.name), left.program)
            .with_folder(self.folder(left.folder, platform)?))
    }

    /// What runs are to find, if there is anything.
    fn folder(&self, archive: &[u8], platform: Platform<'_>) -> Result<Option<Folder>, Error> {
        if archive.is_empty() {
            return Ok(None);
        }
        let limit = self.config.folder.min(MAX_FOLDER);
        // Beside its contents an entry has headers, and a long path or target.
        let largest = limit + MAX_ENTRIES as u64 * MAX_ENTRY_OVERHEAD;
        let read = (archive.len() as u64 <= largest).then(|| Folder::read(archive)).flatten();
        let problem = match read {
            Some(folder) if folder.size() <= limit => return Ok(Some(folder)),
            Some(folder) => {
                format!(
                    "leaves {} bytes in its folder, the limit is {limit}: have it remove some",
                    folder.size()
                )
            }
            None => format!(
                "leaves too many files in its folder, the limit is {MAX_ENTRIES}, or paths that are too long"
            ),
        };
        Err(refused(&format!("the build {problem}"), platform))
    }

    /// Runs what makes a program, with these files and this standard input; returns what it leaves on standard output.
    async fn make(
        &self,
        files: Vec<FileInside>,
        command: Vec<String>,
        stdin: Vec<u8>,
        platform: Platform<'_>,
        hints: &Hints<'_>,
    ) -> Result<Vec<u8>, Error> {
        let outcome = self.start(self.making(files, command, stdin, platform)?).await?;
        match outcome.ending {
            Ending::Exit(0) => Ok(outcome.stdout),
            Ending::Limit(limit) => {
                Err(Error::BuildLimit { limit, output: diagnostics::cleaned(&outcome.stderr) })
            }
            _ if diagnostics::tells_of_a_kill(&outcome.stderr) => Err(Error::CompilerKilled),
            Ending::Exit(_) | Ending::Signal(_) => Err(hints.error(&outcome.stderr, platform)),
        }
    }

    /// What makes a program, as it is to be started.
    pub(crate) fn making(
        &self,
        mut files: Vec<FileInside>,
        command: Vec<String>,
        stdin: Vec<u8>,
        platform: Platform<'_>,
    ) -> io::Result<Work> {
        let limits = self.config.build.clone();
        let mut bwrap = BwrapArgs::new(&self.config.toolchain, limits.work_dir)?;
        bwrap.proc();
        for (name, value) in [("HOME", WORK_DIR), ("LC_ALL", "C")] {
            bwrap.env(name, value);
        }
        files.extend(platform.equip(self.config.compilers, &mut bwrap));
        // The pairs of sockets that compilers have are bounded by being measured.
        let calls = if self.measured.usage { Calls::Build } else { Calls::Run };
        Ok(Work {
            bwrap,
            calls,
            files,
            prepare: "",
            command,
            stdin,
            limits,
            stderr: Excess::Ends,
            on_stdout: OnStdout::default(),
        })
    }

    /// Runs a program. Dropping the future ends the sandbox.
    pub async fn run(
        &self,
        program: &NativeProgram,
        mut input: Input,
        limits: SandboxLimits,
    ) -> Result<Outcome, Error> {
        check(&input)?;
        let mut bwrap = BwrapArgs::new(&self.config.libraries, limits.work_dir)?;
        for (name, value) in input.env.iter().filter(|(name, _)| is_handed_on(name)) {
            bwrap.env(name, value);
        }
        let path = program.path();
        let mut files = vec![(path.clone(), "0555", program.bytes().to_vec())];
        let mut prepare = "";
        if let Some(folder) = program.folder() {
            let tar = self.tar.as_ref().ok_or_else(|| Error::Sandbox("tar is not there".to_owned()))?;
            bwrap.add([b"--ro-bind", tar.as_os_str().as_encoded_bytes(), UNPACKER.as_bytes()]);
            files.push((ARCHIVE.to_owned(), "0444", folder.archive().to_vec()));
            prepare = UNPACK;
        }
        let command = std::iter::once(path).chain(std::mem::take(&mut input.args)).collect();
        let (calls, stderr) = (Calls::Run, Excess::Dropped);
        let Input { stdin, on_stdout, .. } = input;
        self.start(Work { bwrap, calls, files, prepare, command, stdin, limits, stderr, on_stdout }).await
    }

    /// Starts it and blocks to its end.
    pub(crate) fn run_now(&self, work: Work) -> Result<Outcome, Error> {
        let (abandoned, _waiting) = io::pipe()?;
        self.job(work, abandoned).run()
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

    pub(crate) fn job(&self, work: Work, abandoned: PipeReader) -> Job {
        Job {
            bubblewrap: self.bubblewrap.clone(),
            shell: self.shell.clone(),
            uid: self.uid,
            filter: self.filters.of(work.calls).to_vec(),
            domain: self.domain.clone(),
            measured: self.measured,
            work,
            abandoned,
        }
    }
}

/// The error of a build that went well and left what is of no use.
fn refused(problem: &str, platform: Platform<'_>) -> Error {
    Hints::default().error(format!("error: {problem}").as_bytes(), platform)
}

/// The program waits in a shell for its limits and for what ends it. Nothing of a stranger's is to run before.
fn is_handed_on(name: &str) -> bool {
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    is_name && !name.starts_with("LD_") && !matches!(name, "SHELLOPTS" | "BASHOPTS")
}

fn check(input: &Input) -> Result<(), Error> {
    if input.args.len() + input.env.len() > MAX_WORDS {
        return Err(Error::Input("too many arguments and variables: at most 2048 together"));
    }
    let args = input.args.iter().map(String::len);
    let sizes = || args.clone().chain(input.env.iter().map(|(name, value)| name.len() + 1 + value.len()));
    if sizes().any(|size| size > MAX_WORD) || sizes().sum::<usize>() > MAX_WORDS_SIZE {
        return Err(Error::Input(
            "arguments and variables are too long: at most 128 KiB each, 1 MiB together",
        ));
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
