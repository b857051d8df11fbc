//! The broker that one has without us.

use anyhow::{Context, Result, bail, ensure};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// Longest time to the broker's readiness.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is tried whether Mosquitto listens yet.
const POLL: Duration = Duration::from_millis(10);

/// A port that was free a moment ago may be taken when Mosquitto, which takes no port 0, asks for it.
const PORTS_TRIED: usize = 5;

/// Killed when dropped.
pub struct Mosquitto {
    address: SocketAddr,
    _process: Child,
    _folder: TempDir,
}

impl Mosquitto {
    /// Starts one on a free port and waits until it listens.
    pub async fn start() -> Result<Mosquitto> {
        let mut last = None;
        for _ in 0..PORTS_TRIED {
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?;
            match Mosquitto::listen(address).await {
                Ok(mosquitto) => return Ok(mosquitto),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no port was tried")?)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    async fn listen(address: SocketAddr) -> Result<Mosquitto> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("mosquitto.conf");
        std::fs::write(&file, configuration(address))?;
        let mut process = spawn(&file)?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            ensure!(Instant::now() < deadline, "mosquitto does not listen");
            sleep(POLL).await;
        }
        // Whoever listens there might be another one, who was faster.
        if let Some(status) = process.try_wait()? {
            bail!("mosquitto ended: {status}");
        }
        Ok(Mosquitto { address, _process: process, _folder: folder })
    }
}

fn configuration(address: SocketAddr) -> String {
    format!(
        "listener {} {}\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 0\n\
         max_queued_messages 0\npersistence false\nlog_dest none\n",
        address.port(),
        address.ip()
    )
}

fn spawn(configuration: &Path) -> Result<Child> {
    Command::new(program()?)
        .arg("-c")
        .arg(configuration)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start mosquitto")
}

/// Debian keeps it where not everyone's `PATH` leads.
fn program() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let mut files = folders.map(|folder| folder.join("mosquitto"));
    files.find(|file| file.is_file()).context("no mosquitto: run `cargo xtask setup`")
}
