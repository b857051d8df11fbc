//! One NATS server with JetStream and an MQTT listener.

use super::{announce, told_to_stop};
use anyhow::{Context, Result, bail, ensure};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

/// Longest time to the server's readiness.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is tried whether it listens yet.
const POLL: Duration = Duration::from_millis(10);

/// Serves until standard input ends; `addresses` are that of clients of NATS and that of devices.
pub async fn serve(addresses: &str) -> Result<()> {
    let (client, mqtt) = addresses.split_once(' ').context("two addresses")?;
    let (client, mqtt): (SocketAddr, SocketAddr) = (client.parse()?, mqtt.parse()?);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("nats.conf");
    let store = folder.path().join("store");
    std::fs::write(
        &file,
        format!(
            "server_name: bench\nlisten: \"{client}\"\njetstream {{ store_dir: \"{}\" }}\nmqtt {{ listen: \"{mqtt}\" }}\n",
            store.display()
        ),
    )?;
    let mut server = Command::new(program()?)
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start nats-server")?;
    let deadline = Instant::now() + PATIENCE;
    for address in [client, mqtt] {
        while TcpStream::connect(address).await.is_err() {
            ensure!(Instant::now() < deadline, "nats-server does not listen");
            if let Some(status) = server.try_wait()? {
                bail!("nats-server ended: {status}");
            }
            sleep(POLL).await;
        }
    }
    announce(mqtt)?;
    told_to_stop().await
}

/// The one that `cargo xtask setup` has installed, or Debian's.
fn program() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let installed = this.ancestors().nth(2).map(|target| target.join("python/bin/nats-server"));
    let files = [installed, Some(Path::new("/usr/sbin/nats-server").to_owned())];
    let mut files = files.into_iter().flatten();
    files.find(|file| file.is_file()).context("no nats-server: run `cargo xtask setup`")
}
