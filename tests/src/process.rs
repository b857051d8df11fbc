//! A program under test as a child process: its lines, its log, its end.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::PATIENCE;

/// The most of a log that an error repeats, in bytes.
const LOG_SHOWN: usize = 4096;

/// Killed when dropped, and dead after that.
pub struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        let id = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let (Some(id), Ok(())) = (id, self.child.start_kill()) {
            // Alive for a moment longer it would still write to the folder that is removed next. That it is dead is
            // left for tokio to collect.
            let _ = waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        }
    }
}

impl Process {
    /// Starts it with stderr going to the file `log`.
    pub fn start(program: &Path, arguments: &[&str], log: &Path) -> Result<Process> {
        let file = std::fs::File::create(log)?;
        Process::start_with(program, arguments, &[], file.into(), log)
    }

    /// Starts it with these variables, too, and this as its stderr; `log` is the file that it is, if it is one.
    pub fn start_with(
        program: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
        stderr: Stdio,
        log: &Path,
    ) -> Result<Process> {
        let mut command = Command::new(program);
        command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null());
        Process::spawn(command, stderr, log)
    }

    /// Starts what this command says, with this as its stderr; `log` is the file that it is, if it is one.
    pub fn spawn(mut command: Command, stderr: Stdio, log: &Path) -> Result<Process> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let lines = BufReader::new(child.stdout.take().context("stdout is a pipe")?).lines();
        Ok(Process { child, lines, log: log.to_owned() })
    }

    /// The next line on its stdout; an error if it ends or stays silent instead.
    pub async fn line(&mut self) -> Result<String> {
        match timeout(PATIENCE, self.lines.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None)) => bail!("it ended instead of printing a line; its log: {}", self.log()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => bail!("it printed nothing; its log: {}", self.log()),
        }
    }

    /// Its number.
    pub fn id(&self) -> Result<u32> {
        self.child.id().context("it has ended already")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_raw(self.id()?.cast_signed()).context("a process has a number")?;
        Ok(kill_process(id, signal)?)
    }

    /// Waits for its end.
    pub async fn end(&mut self) -> Result<ExitStatus> {
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("it does not end; its log: {}", self.log()),
        }
    }

    /// `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The last of what it wrote to stderr.
    pub fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_SHOWN)..]).into_owned()
    }
}
