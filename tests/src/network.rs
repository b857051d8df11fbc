//! Sites that are joined by a master: `offload-rt master`, and gateways that are routers.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::cable::Cable;
use crate::gateway::{Gateway, Launch};
use crate::process::Process;
use crate::{PATIENCE, built};

/// How often the table of gates is looked at for what has to come.
const POLL: Duration = Duration::from_millis(50);

/// A master. Killed when dropped.
pub struct Master {
    process: Process,
    url: String,
    folder: TempDir,
}

impl Master {
    /// Starts one on a free port of loopback.
    pub async fn start() -> Result<Master> {
        Master::start_at("127.0.0.1:0").await
    }

    /// Starts one on loopback, at this address.
    pub async fn start_at(address: &str) -> Result<Master> {
        Master::start_with(TempDir::new()?, &["--listen", address]).await
    }

    /// Starts one with these flags.
    pub async fn start_with(folder: TempDir, flags: &[&str]) -> Result<Master> {
        let log = folder.path().join("log");
        let mut arguments = vec!["master"];
        arguments.extend(flags);
        let mut process = Process::start(&built::program("offload-rt")?, &arguments, &log)?;
        let line = process.line().await?;
        let url = line.strip_prefix("listening on ").with_context(|| format!("not the line: {line}"))?;
        Ok(Master { process, url: url.to_owned(), folder })
    }

    /// Its URL, as it printed it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub fn address(&self) -> Result<SocketAddr> {
        let address = self.url.rsplit("//").next();
        Ok(address.context("a URL has an address")?.parse()?)
    }

    /// All that it has logged.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.path().join("log"))?)
    }

    /// Kills it, and starts another one at its address.
    pub async fn crash(mut self) -> Result<Master> {
        let address = self.address()?.to_string();
        self.process.signal(rustix::process::Signal::KILL)?;
        self.process.end().await?;
        Master::start_at(&address).await
    }

    /// Kills it.
    pub async fn kill(mut self) -> Result<()> {
        self.process.signal(rustix::process::Signal::KILL)?;
        self.process.end().await?;
        Ok(())
    }

    /// Starts a gateway that is the router of this site, and waits until the master has it.
    pub async fn gateway(&self, gate: &str, configuration: &str) -> Result<Gateway> {
        let flags = ["--listen", "127.0.0.1:0", "--gate", gate, "--master", &self.url];
        let gateway = Gateway::start(&flags, configuration).await?;
        self.until(gate, "online").await?;
        Ok(gateway)
    }

    /// Waits until the master's table says so of this gate.
    pub async fn until(&self, gate: &str, state: &str) -> Result<()> {
        table_until(&["--master", &self.url], |table| table["gates"][gate]["state"] == state).await.map(drop)
    }
}

/// What `offload-rt routers --json` prints with these flags.
pub async fn table(flags: &[impl AsRef<OsStr>]) -> Result<Value> {
    let mut command = Command::new(built::program("offload-rt")?);
    command.args(["routers", "--json"]).args(flags).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.context("`routers` does not end")??;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Waits until the table is so.
pub async fn table_until(flags: &[impl AsRef<OsStr>], is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let table = table(flags).await;
        match table {
            Ok(table) if is_so(&table) => return Ok(table),
            table => ensure!(Instant::now() < deadline, "it does not come to that: {table:?}"),
        }
        sleep(POLL).await;
    }
}

/// Certificates that `offload-rt keygen` makes, and the configurations that name them.
pub struct Keys {
    folder: TempDir,
}

impl Keys {
    /// Of a master at these addresses, and of these gates.
    pub async fn make(hosts: &[&str], gates: &[&str]) -> Result<Keys> {
        let folder = TempDir::new()?;
        let mut command = Command::new(built::program("offload-rt")?);
        command.arg("keygen").arg(folder.path()).arg("--host").args(hosts).arg("--device").args(gates);
        let output = timeout(PATIENCE, command.output()).await.context("`keygen` does not end")??;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(Keys { folder })
    }

    /// The path of one of the files.
    pub fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Starts a master with them, at this address.
    pub async fn master(&self, address: &str) -> Result<Master> {
        let [certificate, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| self.file(name));
        let configuration = self.folder.path().join("master.toml");
        let text =
            format!("[master]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\nclient_ca = \"{ca}\"\n");
        std::fs::write(&configuration, text)?;
        let path = configuration.to_str().context("a path is not UTF-8")?;
        Master::start_with(TempDir::new()?, &["--config", path, "--listen", address]).await
    }

    /// Starts the router of this gate at the far end of the cable, where its master is on this side, at this port.
    ///
    /// # Errors
    ///
    /// A network namespace takes root.
    pub async fn gateway_behind(&self, cable: &Cable, gate: &str, port: u16, more: &str) -> Result<Gateway> {
        let url = format!("mqtts://{}:{port}", cable.near());
        let wrapper = cable.wrapper();
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let launch = Launch { wrapper: &wrapper, ..Launch::default() };
        let flags = ["--listen", "127.0.0.1:0", "--gate", gate, "--master", &url];
        let gateway = Gateway::launch(TempDir::new()?, &flags, &self.network(gate, more), launch).await;
        gateway.context("a network namespace takes root")
    }

    /// The configuration of a router that shows this certificate, with more behind it.
    pub fn network(&self, certificate: &str, more: &str) -> String {
        let ca = self.file("ca.pem");
        let [cert, key] = ["pem", "key"].map(|ending| self.file(&format!("{certificate}.{ending}")));
        format!("[network]\ncafile = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n{more}")
    }

    /// The flags with which `offload-rt routers` asks this master, as the owner of this certificate.
    pub fn flags(&self, master: &str, certificate: &str) -> Vec<String> {
        let [ca, cert, key] = ["ca.pem", &format!("{certificate}.pem"), &format!("{certificate}.key")]
            .map(|name| self.file(name));
        ["--master", master, "--cafile", &ca, "--cert", &cert, "--key", &key].map(str::to_owned).to_vec()
    }
}
