//! A gateway: `offload-rt serve` on a free port, with a data directory of its own.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::process::Process;
use crate::{PATIENCE, built};

/// Name of its configuration file.
const CONFIGURATION: &str = "offload-rt.toml";

/// Name of the file that it logs to.
const LOG: &str = "log";

/// Name of the file that tells a worker to panic, and of the variable with its path.
const PANIC: &str = "panic";
const REHEARSED_PANIC: &str = "OFFLOAD_REHEARSED_PANIC";

/// What it logs of a configuration that it has read again and taken over, and of one that it has not.
const READ_AGAIN: &str = "the configuration was read again";
const REFUSED: &str = "the configuration is refused as a whole";

/// How often the log is looked at for what has to come.
const POLL: Duration = Duration::from_millis(20);

/// How a gateway is started where the usual does not do.
#[derive(Clone, Copy, Default)]
pub struct Launch<'a> {
    /// A command that becomes the gateway when the gateway's own command line is behind it.
    pub wrapper: &'a [&'a str],
    /// Variables of its environment.
    pub variables: &'a [(&'a str, &'a str)],
}

/// Killed when dropped, and its data directory removed.
pub struct Gateway {
    process: Process,
    /// What it printed when it was ready.
    ready: String,
    folder: TempDir,
}

impl Gateway {
    /// Starts one with further flags and this configuration (TOML; empty for none), and waits until it takes requests.
    pub async fn start(flags: &[&str], configuration: &str) -> Result<Gateway> {
        Gateway::start_in(TempDir::new()?, flags, configuration).await
    }

    /// As [`Gateway::start`], in this folder: the data directory is `data` in it, and may be there already.
    pub async fn start_in(folder: TempDir, flags: &[&str], configuration: &str) -> Result<Gateway> {
        Gateway::start_with(folder, flags, configuration, &[]).await
    }

    /// Starts one with the embedded broker, no configuration, and this filter for its log.
    pub async fn logging(filter: &str) -> Result<Gateway> {
        Gateway::start_with(TempDir::new()?, &["--listen", "127.0.0.1:0"], "", &[("OFFLOAD_LOG", filter)])
            .await
    }

    /// Starts one whose workers [can be made to panic](Gateway::panic_at).
    pub async fn rehearsing(flags: &[&str], configuration: &str) -> Result<Gateway> {
        let folder = TempDir::new()?;
        let file = folder.path().join(PANIC);
        let variable = (REHEARSED_PANIC, file.to_str().context("a path is not UTF-8")?);
        Gateway::start_with(folder, flags, configuration, &[variable]).await
    }

    /// Has the next worker that comes to this point panic there, once (`runtime/src/wasm/rehearsal.rs`).
    pub fn panic_at(&self, point: &str) -> Result<()> {
        let new = self.folder.path().join("new panic");
        std::fs::write(&new, point)?;
        Ok(std::fs::rename(new, self.folder.path().join(PANIC))?)
    }

    async fn start_with(
        folder: TempDir,
        flags: &[&str],
        configuration: &str,
        variables: &[(&str, &str)],
    ) -> Result<Gateway> {
        Gateway::launch(folder, flags, configuration, Launch { variables, ..Launch::default() }).await
    }

    /// As [`Gateway::start_in`], launched so.
    pub async fn launch(
        folder: TempDir,
        flags: &[&str],
        configuration: &str,
        launch: Launch<'_>,
    ) -> Result<Gateway> {
        Gateway::spawn(folder, flags, configuration, launch)?.when_ready().await
    }

    /// Waits until it takes requests.
    pub async fn when_ready(mut self) -> Result<Gateway> {
        self.ready = self.process.line().await?;
        Ok(self)
    }

    /// One that has just been started, and may never be ready: [`Gateway::ended_with`] says how it ends.
    pub fn spawn(
        folder: TempDir,
        flags: &[&str],
        configuration: &str,
        launch: Launch<'_>,
    ) -> Result<Gateway> {
        let file = folder.path().join(CONFIGURATION);
        std::fs::write(&file, configuration)?;
        let data = folder.path().join("data");
        let mut arguments = vec!["serve", "--config", file.to_str().context("a path is not UTF-8")?];
        arguments.extend(["--data-dir", data.to_str().context("a path is not UTF-8")?]);
        arguments.extend(flags);
        let log = folder.path().join(LOG);
        let stderr = std::fs::File::create(&log)?.into();
        let program = built::program("offload-rt")?;
        let words = launch.wrapper.iter().map(OsStr::new).chain([program.as_os_str()]);
        let mut words = words.chain(arguments.into_iter().map(OsStr::new));
        let mut command = Command::new(words.next().context("there is the program")?);
        command.args(words).envs(launch.variables.iter().copied()).stdin(Stdio::null());
        let process = Process::spawn(command, stderr, &log)?;
        Ok(Gateway { process, ready: String::new(), folder })
    }

    /// Stops it, and starts another one in its data directory.
    pub async fn restart(self, flags: &[&str], configuration: &str) -> Result<Gateway> {
        self.crash(Signal::TERM, flags, configuration).await
    }

    /// Ends it by this signal, however it takes that, and starts another one in its data directory.
    pub async fn crash(self, signal: Signal, flags: &[&str], configuration: &str) -> Result<Gateway> {
        self.process.signal(signal)?;
        self.replace(flags, configuration, Launch::default()).await
    }

    /// Waits for its end, however it ends, and starts another one in its data directory.
    pub async fn replace(
        mut self,
        flags: &[&str],
        configuration: &str,
        launch: Launch<'_>,
    ) -> Result<Gateway> {
        self.process.end().await?;
        Gateway::launch(self.folder, flags, configuration, launch).await
    }

    /// Starts one with the embedded broker.
    pub async fn embedded(configuration: &str) -> Result<Gateway> {
        Gateway::start(&["--listen", "127.0.0.1:0"], configuration).await
    }

    /// The one line that it printed.
    pub fn ready(&self) -> &str {
        &self.ready
    }

    /// Where its embedded broker listens.
    pub fn address(&self) -> Result<SocketAddr> {
        let address = self.ready.strip_prefix("listening on mqtt://");
        Ok(address.with_context(|| format!("not the line of the contract: {}", self.ready))?.parse()?)
    }

    /// The last of what it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// How many bytes it has logged.
    pub fn log_bytes(&self) -> Result<u64> {
        Ok(std::fs::metadata(self.folder.path().join(LOG))?.len())
    }

    /// Waits until it has logged a line with all these words, which is returned.
    pub async fn logged(&self, words: &[&str]) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = std::fs::read_to_string(self.folder.path().join(LOG))?;
            // The last line may be written in this moment.
            let mut whole = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            if let Some(line) = whole.find(|line| words.iter().all(|part| line.contains(part))) {
                return Ok(line.to_owned());
            }
            ensure!(Instant::now() < deadline, "{words:?} is not in its log: {log}");
            sleep(POLL).await;
        }
    }

    /// Gives it another configuration file, and asks it to read that; returns when it has, whatever came of it.
    pub async fn reload(&self, configuration: &str) -> Result<()> {
        let new = self.folder.path().join("new.toml");
        std::fs::write(&new, configuration)?;
        std::fs::rename(new, self.configuration())?;
        self.hang_up().await
    }

    /// Asks it to read its files again; returns when it has, whatever came of it.
    pub async fn hang_up(&self) -> Result<()> {
        let ended = |log: &str| log.matches(READ_AGAIN).count() + log.matches(REFUSED).count();
        let before = ended(&self.whole_log()?);
        self.signal(Signal::HUP)?;
        let deadline = Instant::now() + PATIENCE;
        while ended(&self.whole_log()?) == before {
            ensure!(Instant::now() < deadline, "it does not read its files again: {}", self.log());
            sleep(POLL).await;
        }
        Ok(())
    }

    /// The configuration file.
    pub fn configuration(&self) -> std::path::PathBuf {
        self.folder.path().join(CONFIGURATION)
    }

    /// All that it has logged.
    pub fn whole_log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.path().join(LOG))?)
    }

    /// The data directory.
    pub fn data_dir(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// The requests that are set aside in its data directory, as `offload-rt jobs list --json` has them.
    pub async fn set_aside(&self) -> Result<Vec<serde_json::Value>> {
        let mut command = Command::new(built::program("offload-rt")?);
        command.args(["jobs", "list", "--json", "--data-dir"]).arg(self.data_dir()).kill_on_drop(true);
        let output = timeout(PATIENCE, command.output()).await.context("`jobs list` does not end")??;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && stderr.is_empty(), "{}: {stderr}", output.status);
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The number of its process.
    pub fn id(&self) -> Result<u32> {
        self.process.id()
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        self.process.ended()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits for its end, however it ends.
    pub async fn ended_with(&mut self) -> Result<std::process::ExitStatus> {
        self.process.end().await
    }

    /// Waits for its end, and expects that it succeeds; returns its log.
    pub async fn end(mut self) -> Result<String> {
        let status = self.process.end().await?;
        let log = std::fs::read_to_string(self.folder.path().join(LOG))?;
        ensure!(status.success(), "{status}; its log: {log}");
        Ok(log)
    }

    /// Asks it to stop by this signal, and expects that it says nothing more and succeeds.
    pub async fn stop(mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)?;
        let status = self.process.end().await?;
        ensure!(status.success(), "{status} after {signal:?}; its log: {}", self.process.log());
        ensure!(self.process.line().await.is_err(), "it printed more than one line");
        Ok(())
    }
}
