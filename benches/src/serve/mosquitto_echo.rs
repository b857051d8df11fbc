//! What one gets without us: Mosquitto, and a service on it that is as fast as its client library lets it be.

use super::{announce, told_to_stop};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use offload_protocol::topic::{self, LOCAL_CODE_FILTER};
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// Messages that Mosquitto may have on the way to the service, and answers that may wait in it: more than any load
/// has in flight, so that no window is what is measured.
const WINDOW: u16 = 8_192;

/// Longest time to the broker's and the service's readiness.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is tried whether Mosquitto listens yet.
const POLL: Duration = Duration::from_millis(10);

/// A port that was free a moment ago may be taken when Mosquitto, which takes no port 0, asks for it.
const PORTS_TRIED: usize = 5;

pub async fn serve() -> Result<()> {
    let mosquitto = Mosquitto::start().await?;
    let (client, events) = timeout(PATIENCE, subscribe(mosquitto.address)).await??;
    announce(mosquitto.address)?;
    tokio::select! {
        ended = echo(client, events) => ended,
        told = told_to_stop() => told,
    }
}

async fn subscribe(address: SocketAddr) -> Result<(AsyncClient, EventLoop)> {
    let mut options = MqttOptions::new("echo", address.ip().to_string(), address.port());
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    options.set_receive_maximum(Some(WINDOW));
    let (client, mut events) = AsyncClient::new(options, WINDOW.into());
    client.subscribe(LOCAL_CODE_FILTER, QoS::AtLeastOnce).await?;
    loop {
        if let Event::Incoming(Packet::SubAck(_)) = events.poll().await? {
            return Ok((client, events));
        }
    }
}

async fn echo(client: AsyncClient, mut events: EventLoop) -> Result<()> {
    loop {
        let Event::Incoming(Packet::Publish(publish)) = events.poll().await? else { continue };
        let request = str::from_utf8(&publish.topic)?;
        let request = topic::parse_request(request).context("a message that was not subscribed to")?;
        answer(&client, topic::result(request.reply_id), publish.payload)?;
    }
}

fn answer(client: &AsyncClient, topic: String, payload: Bytes) -> Result<()> {
    // Not awaited: only the loop above empties the channel.
    Ok(client.try_publish(topic, QoS::AtLeastOnce, false, payload)?)
}

/// Killed when dropped.
struct Mosquitto {
    address: SocketAddr,
    _process: Child,
    _folder: TempDir,
}

impl Mosquitto {
    async fn start() -> Result<Mosquitto> {
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
