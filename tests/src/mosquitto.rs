//! A real Mosquitto on a free port, which keeps its state when it is restarted.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use crate::PATIENCE;
use crate::process::Process;

/// How often it is tried whether it listens yet, or ends.
const POLL: Duration = Duration::from_millis(10);

/// Where it saves sessions and queues.
const DATABASE: &str = "mosquitto.db";

/// A port that was free a moment ago can be taken when Mosquitto, which takes no port 0, asks for it.
const PORTS_TRIED: usize = 5;

/// Killed when dropped, and its state removed.
pub struct Mosquitto {
    process: Option<Process>,
    address: SocketAddr,
    /// More of its configuration.
    lines: String,
    folder: TempDir,
}

impl Mosquitto {
    /// Starts one and waits until it listens.
    pub async fn start() -> Result<Mosquitto> {
        Mosquitto::start_with("").await
    }

    /// Starts one whose configuration has these lines, too.
    pub async fn start_with(lines: &str) -> Result<Mosquitto> {
        let mut last = None;
        for _ in 0..PORTS_TRIED {
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?;
            let mut mosquitto =
                Mosquitto { process: None, address, lines: lines.to_owned(), folder: TempDir::new()? };
            match mosquitto.resume().await {
                Ok(()) => return Ok(mosquitto),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no port was tried")?)
    }

    /// Where it listens; the same after a restart.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For the gateway's `--broker`.
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    /// Stops it in an orderly way: it saves sessions and queues.
    pub async fn pause(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            // It listens before its loop begins, and a signal in between is forgotten.
            let deadline = Instant::now() + PATIENCE;
            while process.ended()?.is_none() {
                ensure!(Instant::now() < deadline, "mosquitto does not end; its log: {}", process.log());
                process.signal(Signal::TERM)?;
                sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Ends it at once: what it has not saved is lost.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::KILL)?;
            process.end().await?;
        }
        Ok(())
    }

    /// Removes what it has saved, while it does not run.
    pub fn forget(&self) -> Result<()> {
        match std::fs::remove_file(self.folder.path().join(DATABASE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().context("it does not run")?.signal(signal)
    }

    /// Starts it again where it stopped.
    pub async fn resume(&mut self) -> Result<()> {
        let folder = self.folder.path();
        let configuration = folder.join("mosquitto.conf");
        // Without the user line root's Mosquitto becomes another user, who cannot write here.
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\npersistence true\n\
             persistence_location {folder}/\nuser root\nlog_dest stderr\nlog_type error\nlog_type warning\n{lines}\n",
            port = self.address.port(),
            folder = folder.display(),
            lines = self.lines,
        );
        std::fs::write(&configuration, text)?;
        let configuration = configuration.to_str().context("a path is not UTF-8")?;
        let mut process = Process::start(&program()?, &["-c", configuration], &folder.join("log"))?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).await.is_err() {
            if process.ended()?.is_some() || Instant::now() > deadline {
                bail!("mosquitto does not listen; its log: {}", process.log());
            }
            sleep(POLL).await;
        }
        // Whoever listens there might be another one, who was faster.
        if process.ended()?.is_some() {
            bail!("mosquitto ended; its log: {}", process.log());
        }
        self.process = Some(process);
        Ok(())
    }
}

/// Debian keeps it where not everyone's `PATH` leads.
fn program() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let mut files = folders.map(|folder| folder.join("mosquitto"));
    files.find(|file| file.is_file()).context("no mosquitto: run `cargo xtask setup`")
}
