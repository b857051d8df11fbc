//! The servers under test, in a folder of their own: a gateway with its own broker, a gateway that joined Mosquitto, or
//! Mosquitto alone.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::sleep;

use crate::process::{Process, tail};

/// What is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// A gateway with its own broker
    Embedded,
    /// A gateway that joined Mosquitto
    Mosquitto,
    /// Mosquitto alone: messages, and no requests
    MosquittoPlain,
}

/// One of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// `offload-rt serve`.
    Gateway,
    /// Mosquitto.
    Broker,
}

impl Server {
    /// What reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Server::Gateway => "the gateway",
            Server::Broker => "Mosquitto",
        }
    }
}

/// What is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is tested.
    pub target: Target,
    /// The program `offload-rt`.
    pub gateway: PathBuf,
    /// The gateway's `durability`; its default if `None`.
    pub durability: Option<String>,
    /// Whether Mosquitto keeps its state.
    pub persistence: bool,
    /// More lines for the gateway's configuration.
    pub configuration: String,
}

/// A port that was free a moment ago can be taken by another one before the server asks for it.
const PORTS_TRIED: usize = 5;

/// Longest wait until Mosquitto listens, and how often it is tried.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// A loopback address that no other checker uses now: while a server is down, nobody else gets its port.
fn own_loopback_address() -> Ipv4Addr {
    /// 127.128.0.0: its last 23 bits are free.
    const FIRST: u32 = 0x7F80_0000;
    /// Deployments of one process at a time.
    const DEPLOYMENTS: u32 = 8;
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let number = STARTED.fetch_add(1, Ordering::Relaxed) % DEPLOYMENTS;
    Ipv4Addr::from_bits(FIRST | ((std::process::id() * DEPLOYMENTS + number) & !FIRST))
}

/// All of it is killed and removed when dropped.
pub struct Deployment {
    settings: Settings,
    address: SocketAddr,
    gateway: Option<Process>,
    broker: Option<Process>,
    folder: TempDir,
}

impl Deployment {
    /// Starts all servers, and waits until they are ready.
    ///
    /// # Errors
    ///
    /// A program is missing, or does not start.
    pub async fn start(settings: &Settings) -> Result<Deployment> {
        let mut last = None;
        for _ in 0..PORTS_TRIED {
            let address = TcpListener::bind((own_loopback_address(), 0)).await?.local_addr()?;
            let folder = TempDir::with_prefix("offload-checker-")?;
            let settings = settings.clone();
            let mut deployment = Deployment { settings, address, gateway: None, broker: None, folder };
            match deployment.start_all().await {
                Ok(()) => return Ok(deployment),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no port was tried")?)
    }

    async fn start_all(&mut self) -> Result<()> {
        for server in self.servers() {
            self.spawn(server)?;
            self.ready(server).await?;
        }
        Ok(())
    }

    /// The servers of this target, in the order in which they start.
    pub fn servers(&self) -> Vec<Server> {
        match self.settings.target {
            Target::Embedded => vec![Server::Gateway],
            Target::Mosquitto => vec![Server::Broker, Server::Gateway],
            Target::MosquittoPlain => vec![Server::Broker],
        }
    }

    /// Where devices connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The gateway's number, while it runs.
    pub fn gateway_id(&self) -> Option<u32> {
        self.gateway.as_ref()?.id()
    }

    /// The numbers of all that run.
    pub fn ids(&self) -> Vec<u32> {
        self.gateway.iter().chain(&self.broker).filter_map(Process::id).collect()
    }

    /// The gateway's data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The folder that servers get for temporary files.
    pub fn temporary(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    /// The last of all logs.
    pub fn logs(&self) -> String {
        let logs = self.servers().into_iter().map(|server| tail(&self.log(server)));
        logs.collect::<Vec<_>>().join("\n")
    }

    /// Keeps the folder, and says where it is.
    pub fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// Kills one.
    ///
    /// # Errors
    ///
    /// The system does not let us.
    pub async fn kill(&mut self, server: Server) -> Result<()> {
        if let Some(mut process) = self.process(server).take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// One that has ended by itself, and how.
    pub fn ended(&mut self) -> Option<String> {
        self.servers().into_iter().find_map(|server| {
            let status = self.process(server).as_mut()?.ended()?;
            Some(format!("{} ended by itself: {status}", server.name()))
        })
    }

    /// Starts one, and does not wait until it is ready.
    ///
    /// # Errors
    ///
    /// There is no such program, or the folder cannot be written.
    pub fn spawn(&mut self, server: Server) -> Result<()> {
        std::fs::create_dir_all(self.temporary())?;
        let mut command = match server {
            Server::Gateway => self.gateway_command()?,
            Server::Broker => self.broker_command()?,
        };
        command.env("TMPDIR", self.temporary());
        *self.process(server) = Some(Process::start(command, &self.log(server))?);
        Ok(())
    }

    /// Waits until one is ready.
    ///
    /// # Errors
    ///
    /// It ends, or takes too long.
    pub async fn ready(&mut self, server: Server) -> Result<()> {
        let (address, log) = (self.address, self.log(server));
        let process = self.process(server).as_mut().context("it was not started")?;
        match server {
            Server::Gateway => {
                process.line().await?;
            }
            Server::Broker => {
                let deadline = Instant::now() + PATIENCE;
                while TcpStream::connect(address).await.is_err() {
                    let waits = process.ended().is_none() && Instant::now() < deadline;
                    ensure!(waits, "it does not listen; its log: {}", tail(&log));
                    sleep(POLL).await;
                }
            }
        }
        // Whoever listens there might be another one, who was faster.
        ensure!(process.ended().is_none(), "it ended; its log: {}", tail(&log));
        Ok(())
    }

    fn gateway_command(&self) -> Result<Command> {
        let durability = self.settings.durability.as_ref();
        let durability = durability.map_or(String::new(), |value| format!("durability = \"{value}\"\n"));
        let configuration = format!(
            "name = \"checked\"\n{durability}{}[status]\ninterval = \"100ms\"\n",
            self.settings.configuration
        );
        let file = self.folder.path().join("offload-rt.toml");
        std::fs::write(&file, configuration)?;
        let mut command = Command::new(&self.settings.gateway);
        command.arg("serve").arg("--config").arg(file).arg("--data-dir").arg(self.data());
        match self.settings.target {
            Target::Embedded => command.arg("--listen").arg(self.address.to_string()),
            Target::Mosquitto | Target::MosquittoPlain => {
                command.arg("--broker").arg(format!("mqtt://{}", self.address))
            }
        };
        Ok(command)
    }

    fn broker_command(&self) -> Result<Command> {
        let folder = self.folder.path();
        let file = folder.join("mosquitto.conf");
        // Without the user line root's Mosquitto becomes another user, who cannot write here. Nothing is dropped for
        // want of room: what is lost then is lost by a crash.
        let text = format!(
            "listener {port} {host}\nallow_anonymous true\nset_tcp_nodelay true\npersistence {persistence}\n\
             persistence_location {folder}/\nmax_queued_messages 0\nuser root\nlog_dest stderr\nlog_type error\n\
             log_type warning\n",
            port = self.address.port(),
            host = self.address.ip(),
            persistence = self.settings.persistence,
            folder = folder.display(),
        );
        std::fs::write(&file, text)?;
        let mut command = Command::new(mosquitto()?);
        command.arg("-c").arg(file);
        Ok(command)
    }

    fn process(&mut self, server: Server) -> &mut Option<Process> {
        match server {
            Server::Gateway => &mut self.gateway,
            Server::Broker => &mut self.broker,
        }
    }

    fn log(&self, server: Server) -> PathBuf {
        let name = match server {
            Server::Gateway => "gateway.log",
            Server::Broker => "mosquitto.log",
        };
        self.folder.path().join(name)
    }
}

/// Debian keeps it where not everyone's `PATH` leads.
fn mosquitto() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let mut files = folders.map(|folder| folder.join("mosquitto"));
    files.find(|file| Path::is_file(file)).context("no mosquitto: run `cargo xtask setup`")
}
