//! A server under test as a child process, which is killed and started again.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// Longest wait for a start: far above what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

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
    /// Starts it; its stderr is appended to this file.
    ///
    /// # Errors
    ///
    /// There is no such program, or the file cannot be written.
    pub fn start(mut command: Command, log: &Path) -> Result<Process> {
        let stderr = OpenOptions::new().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let lines = BufReader::new(child.stdout.take().context("stdout is a pipe")?).lines();
        Ok(Process { child, lines, log: log.to_owned() })
    }

    /// The next line on its stdout.
    ///
    /// # Errors
    ///
    /// It ends, or stays silent, instead.
    pub async fn line(&mut self) -> Result<String> {
        match timeout(PATIENCE, self.lines.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None)) => bail!("it ended instead of printing a line; its log: {}", tail(&self.log)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => bail!("it printed nothing; its log: {}", tail(&self.log)),
        }
    }

    /// Its number, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills it by SIGKILL, and waits until it is dead.
    ///
    /// # Errors
    ///
    /// The system does not let us.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}

/// The last of a log, in lines.
pub fn tail(log: &Path) -> String {
    /// Bytes that a report repeats.
    const SHOWN: usize = 6000;
    let log = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&log[log.len().saturating_sub(SHOWN)..]).into_owned()
}
