//! The servers under test, in a folder of their own: gateways, and the brokers, master and links that join them.

mod configuration;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::link::{Condition, Link};
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
    /// Three gateways on a cluster of three NATS servers
    Nats,
    /// Three sites that a master joins; devices ask their own site and the others
    Sites,
}

/// Servers of a cluster, gateways on it, and sites.
pub const MEMBERS: u8 = 3;

impl Target {
    /// Whether it is a network: of servers that go on while one is away.
    pub fn is_network(self) -> bool {
        matches!(self, Target::Nats | Target::Sites)
    }

    /// How many gateways there are.
    pub fn gateways(self) -> u8 {
        match self {
            Target::MosquittoPlain => 0,
            Target::Embedded | Target::Mosquitto => 1,
            Target::Nats | Target::Sites => MEMBERS,
        }
    }

    /// Whether ordinary and retained messages are checked too.
    pub fn has_messages(self) -> bool {
        !self.is_network()
    }
}

/// One of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// Mosquitto.
    Mosquitto,
    /// One of the servers of a NATS cluster, counted from 0.
    Nats(u8),
    /// `offload-rt master`.
    Master,
    /// One of the gateways, `offload-rt serve`, counted from 0; of sites the one of this site.
    Gateway(u8),
}

impl Server {
    /// What reports call it, and its files.
    pub fn name(self) -> String {
        match self {
            Server::Mosquitto => "mosquitto".to_owned(),
            Server::Nats(number) => format!("nats-{}", number + 1),
            Server::Master => "master".to_owned(),
            Server::Gateway(number) => format!("gateway-{}", number + 1),
        }
    }
}

/// The gate of the site of this number.
pub fn gate(site: u8) -> String {
    format!("site-{}", site + 1)
}

/// What is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is tested.
    pub target: Target,
    /// The program `offload-rt`.
    pub gateway: PathBuf,
    /// The program `nats-server`, if it is not where `cargo xtask setup` puts it.
    pub nats_server: Option<PathBuf>,
    /// The gateway's `durability`; its default if `None`.
    pub durability: Option<String>,
    /// Whether Mosquitto keeps its state.
    pub persistence: bool,
    /// More lines for the gateway's configuration.
    pub configuration: String,
}

/// A port that was free a moment ago can be taken by another one before the server asks for it.
const PORTS_TRIED: usize = 5;

/// Longest wait until a broker listens, and how often it is tried.
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

/// Where a server listens, and where a link does that leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Port {
    /// MQTT, of a broker, a gateway with its own broker, or the master.
    Mqtt(Server),
    /// Clients of NATS.
    Client(u8),
    /// Other servers of the cluster.
    Route(u8),
    /// The link from one server of the cluster to another.
    BetweenServers(u8, u8),
    /// The link from a site to the master.
    ToMaster(u8),
}

/// All of it is killed and removed when dropped.
pub struct Deployment {
    settings: Settings,
    addresses: BTreeMap<Port, SocketAddr>,
    processes: BTreeMap<Server, Process>,
    links: BTreeMap<Port, Link>,
    folder: TempDir,
}

impl Deployment {
    /// Starts all servers, and waits until they are ready. Call it within a `LocalSet`.
    ///
    /// # Errors
    ///
    /// A program is missing, or does not start.
    pub async fn start(settings: &Settings) -> Result<Deployment> {
        let mut last = None;
        for _ in 0..PORTS_TRIED {
            let mut deployment = Deployment {
                settings: settings.clone(),
                addresses: free_addresses(settings.target).await?,
                processes: BTreeMap::new(),
                links: BTreeMap::new(),
                folder: TempDir::with_prefix("offload-checker-")?,
            };
            match deployment.start_all().await {
                Ok(()) => return Ok(deployment),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no port was tried")?)
    }

    async fn start_all(&mut self) -> Result<()> {
        for (port, near) in self.addresses.clone() {
            let far = match port {
                Port::BetweenServers(_, to) => self.addresses[&Port::Route(to)],
                Port::ToMaster(_) => self.addresses[&Port::Mqtt(Server::Master)],
                _ => continue,
            };
            self.links.insert(port, Link::start(near, far).await?);
        }
        let servers = servers(self.settings.target);
        // The servers of a cluster wait for each other.
        let (cluster, others): (Vec<Server>, Vec<Server>) =
            servers.into_iter().partition(|server| matches!(server, Server::Nats(_)));
        for &server in &cluster {
            self.spawn(server)?;
        }
        for server in cluster {
            self.ready(server).await?;
        }
        for server in others {
            self.spawn(server)?;
            self.ready(server).await?;
        }
        Ok(())
    }

    /// Where devices can connect to: of a cluster to any of these, of sites each to its own.
    pub fn doors(&self) -> Vec<SocketAddr> {
        let doors = servers(self.settings.target).into_iter().filter(|server| *server != Server::Master);
        doors.filter_map(|server| self.addresses.get(&Port::Mqtt(server)).copied()).collect()
    }

    /// The numbers of the gateways that run, and their data directories.
    pub fn gateways(&self) -> Vec<(u32, PathBuf)> {
        let gateways = self.processes.iter().filter(|(server, _)| matches!(server, Server::Gateway(_)));
        gateways.filter_map(|(server, process)| Some((process.id()?, self.data(*server)))).collect()
    }

    /// The numbers of all that run.
    pub fn ids(&self) -> Vec<u32> {
        self.processes.values().filter_map(Process::id).collect()
    }

    fn data(&self, server: Server) -> PathBuf {
        self.folder.path().join(server.name())
    }

    /// The folder that servers get for temporary files.
    pub fn temporary(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    /// The last of all logs.
    pub fn logs(&self) -> String {
        let logs = servers(self.settings.target).into_iter();
        let logs = logs.map(|server| format!("{}:\n{}", server.name(), tail(&self.log(server))));
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
        if let Some(mut process) = self.processes.remove(&server) {
            process.kill().await?;
        }
        Ok(())
    }

    /// One that has ended by itself, and how.
    pub fn ended(&mut self) -> Option<String> {
        self.processes.iter_mut().find_map(|(server, process)| {
            let status = process.ended()?;
            Some(format!("{} ended by itself: {status}", server.name()))
        })
    }

    /// From now on the way of this site to the master is so.
    pub fn set_way_to_master(&self, site: u8, condition: Condition) {
        self.links[&Port::ToMaster(site)].set(condition);
    }

    /// From now on the ways of this server to and from the rest of its cluster are so.
    pub fn set_ways_of_server(&self, server: u8, condition: Condition) {
        for (port, link) in &self.links {
            if matches!(port, Port::BetweenServers(from, to) if *from == server || *to == server) {
                link.set(condition);
            }
        }
    }

    /// Starts one, and does not wait until it is ready.
    ///
    /// # Errors
    ///
    /// There is no such program, or the folder cannot be written.
    pub fn spawn(&mut self, server: Server) -> Result<()> {
        std::fs::create_dir_all(self.temporary())?;
        let mut command = self.command(server)?;
        command.env("TMPDIR", self.temporary());
        self.processes.insert(server, Process::start(command, &self.log(server))?);
        Ok(())
    }

    /// Waits until one is ready.
    ///
    /// # Errors
    ///
    /// It ends, or takes too long.
    pub async fn ready(&mut self, server: Server) -> Result<()> {
        let (addresses, log) = (self.listens_at(server), self.log(server));
        let process = self.processes.get_mut(&server).context("it was not started")?;
        match server {
            Server::Gateway(_) | Server::Master => {
                process.line().await?;
            }
            Server::Mosquitto | Server::Nats(_) => {
                let deadline = Instant::now() + PATIENCE;
                for address in addresses {
                    while TcpStream::connect(address).await.is_err() {
                        let waits = process.ended().is_none() && Instant::now() < deadline;
                        ensure!(waits, "it does not listen; its log: {}", tail(&log));
                        sleep(POLL).await;
                    }
                }
            }
        }
        // Whoever listens there might be another one, who was faster.
        ensure!(process.ended().is_none(), "it ended; its log: {}", tail(&log));
        Ok(())
    }

    /// Where one listens for clients.
    fn listens_at(&self, server: Server) -> Vec<SocketAddr> {
        let client = match server {
            Server::Nats(number) => Some(Port::Client(number)),
            _ => None,
        };
        let ports = client.into_iter().chain([Port::Mqtt(server)]);
        ports.filter_map(|port| self.addresses.get(&port).copied()).collect()
    }

    fn log(&self, server: Server) -> PathBuf {
        self.folder.path().join(format!("{}.log", server.name()))
    }
}

/// The servers of this target, in the order in which they start.
fn servers(target: Target) -> Vec<Server> {
    let mut servers = match target {
        Target::Embedded => Vec::new(),
        Target::Mosquitto | Target::MosquittoPlain => vec![Server::Mosquitto],
        Target::Nats => (0..MEMBERS).map(Server::Nats).collect(),
        Target::Sites => vec![Server::Master],
    };
    servers.extend((0..target.gateways()).map(Server::Gateway));
    servers
}

/// Where all of them listen, and the links between them.
async fn free_addresses(target: Target) -> Result<BTreeMap<Port, SocketAddr>> {
    let others = |of: u8| (0..MEMBERS).filter(move |other| *other != of);
    let ports: Vec<Port> = match target {
        Target::Embedded => vec![Port::Mqtt(Server::Gateway(0))],
        Target::Mosquitto | Target::MosquittoPlain => vec![Port::Mqtt(Server::Mosquitto)],
        Target::Nats => (0..MEMBERS)
            .flat_map(|server| {
                let ways = others(server).map(move |other| Port::BetweenServers(server, other));
                [Port::Mqtt(Server::Nats(server)), Port::Client(server), Port::Route(server)]
                    .into_iter()
                    .chain(ways)
            })
            .collect(),
        Target::Sites => (0..MEMBERS)
            .flat_map(|site| [Port::Mqtt(Server::Gateway(site)), Port::ToMaster(site)])
            .chain([Port::Mqtt(Server::Master)])
            .collect(),
    };
    let host = own_loopback_address();
    // All at once, so that each is another one.
    let mut listeners = Vec::new();
    for port in ports {
        listeners.push((port, TcpListener::bind((host, 0)).await?));
    }
    listeners.into_iter().map(|(port, listener)| Ok((port, listener.local_addr()?))).collect()
}

/// A program that Debian keeps where not everyone's `PATH` leads.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let mut files = folders.map(|folder| folder.join(name));
    files.find(|file| Path::is_file(file)).with_context(|| format!("no {name}: run `cargo xtask setup`"))
}
