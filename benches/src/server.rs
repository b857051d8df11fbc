//! A server in a process of its own: this program in another role.

use crate::serve::{Arguments, Kind, READY};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Longest time that a server may take to start, or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether a server has stopped.
const POLL: Duration = Duration::from_millis(5);

/// The longest line that a server may announce itself with, in bytes.
const MAX_READY: u64 = 256;

/// Stopped when dropped.
pub struct Server {
    process: Child,
    /// Its end tells the server to stop, also when we do not live to drop this.
    stdin: Option<ChildStdin>,
    address: SocketAddr,
}

impl Server {
    /// Starts one that needs nothing else, and waits until it takes requests.
    pub fn start(kind: Kind) -> Result<Server> {
        Server::launch(Arguments::new(kind))
    }

    /// Starts a gateway with this configuration.
    pub fn gateway(configuration: &str) -> Result<Server> {
        Server::configured(Kind::Gateway, configuration.to_owned())
    }

    /// Starts one that is configured.
    pub fn configured(kind: Kind, configuration: String) -> Result<Server> {
        Server::launch(Arguments { configuration: Some(configuration), ..Arguments::new(kind) })
    }

    /// Starts a gateway with its defaults in a data directory that outlives it.
    pub fn gateway_in(data_dir: &Path) -> Result<Server> {
        Server::launch(Arguments { data_dir: Some(data_dir.to_owned()), ..Arguments::new(Kind::Gateway) })
    }

    /// Starts a service that runs `command`.
    pub fn with_command(kind: Kind, command: Vec<OsString>) -> Result<Server> {
        Server::launch(Arguments { command, ..Arguments::new(kind) })
    }

    fn launch(arguments: Arguments) -> Result<Server> {
        let kind = arguments.server;
        Server::spawn(arguments).with_context(|| format!("{kind:?}"))
    }

    fn spawn(arguments: Arguments) -> Result<Server> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(arguments.to_command_line())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().context("stdout is a pipe")?;
        // From here on it is stopped whatever happens.
        let mut server = Server { process, stdin, address: SocketAddr::from(([0, 0, 0, 0], 0)) };
        let (sender, line) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout.take(MAX_READY)).read_line(&mut line);
            let _ = sender.send(read.map(|_| line));
        });
        let line = line.recv_timeout(PATIENCE).context("it does not start")??;
        let address = line.trim_end().strip_prefix(READY).context("it ended instead of taking requests")?;
        server.address = address.parse()?;
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while let Ok(None) = self.process.try_wait() {
            if Instant::now() > deadline {
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            thread::sleep(POLL);
        }
    }
}
