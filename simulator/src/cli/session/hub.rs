//! The process that has the network: it carries out the commands of its own terminal and of all others, one after the
//! other.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::Carrier;
use super::screen::Screen;
use crate::session::command::MAX_LINE;
use crate::session::display::View;
use crate::session::network::Network;
use crate::session::shell::{Reply, Shell};

/// Terminals at once.
const MAX_TERMINALS: usize = 32;

/// A terminal that takes nothing for this long is not waited for: the others would wait with it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of what a terminal sends at once: a line as JSON, in which a byte can take six.
const MAX_MESSAGE: u64 = 6 * MAX_LINE as u64 + 64;

/// What the network's process says to another terminal, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// To its command.
    Reply(Reply),
    /// What other terminals' commands let its sessions see.
    Seen(String),
}

/// The network and its terminals.
struct Hub {
    network: Network,
    terminals: BTreeMap<u32, Terminal>,
    next: u32,
}

struct Terminal {
    shell: Shell,
    output: Output,
}

/// Where what happens is shown.
enum Output {
    /// Nobody else causes anything.
    None,
    Screen(Screen),
    Socket(UnixStream),
}

/// The terminal of the process that has the network.
pub struct Host {
    hub: Arc<Mutex<Hub>>,
    terminal: u32,
    /// Removed at the end.
    socket: Option<PathBuf>,
}

impl Host {
    /// Without other terminals.
    pub fn alone(seed: u64, view: View) -> Self {
        Self::new(seed, view, Output::None)
    }

    /// With others, which join by the socket.
    ///
    /// # Errors
    /// If there can be no socket.
    pub fn shared(seed: u64, view: View, path: &Path, screen: Screen) -> anyhow::Result<Self> {
        let cannot =
            || format!("cannot make the socket {}: name a new file in a folder of your own", path.display());
        if let Ok(file) = std::fs::symlink_metadata(path) {
            ensure!(
                file.file_type().is_socket(),
                "{} is there and no socket: name another file",
                path.display()
            );
            // Its process has ended, or it would have answered.
            std::fs::remove_file(path).with_context(cannot)?;
        }
        let listener = UnixListener::bind(path).with_context(cannot)?;
        let mut host = Self::new(seed, view, Output::Screen(screen));
        host.socket = Some(path.to_owned());
        let hub = host.hub.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let hub = hub.clone();
                // A terminal that goes wrong ends by itself.
                std::thread::spawn(move || serve(&hub, stream));
            }
        });
        Ok(host)
    }

    fn new(seed: u64, view: View, output: Output) -> Self {
        let mut hub = Hub { network: Network::new(seed), terminals: BTreeMap::new(), next: 0 };
        let terminal = hub.add(view, output);
        Self { hub: Arc::new(Mutex::new(hub)), terminal, socket: None }
    }
}

impl Carrier for Host {
    fn carry_out(&mut self, line: &str) -> anyhow::Result<Reply> {
        Ok(lock(&self.hub).carry_out(self.terminal, line))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(path) = &self.socket {
            // Whoever comes next would remove it, too.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// No command leaves the network half changed, so one that panicked is no reason for the others to end.
fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries out the commands of another process's terminal.
fn serve(hub: &Mutex<Hub>, stream: UnixStream) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut output = stream.try_clone()?;
    let mut lines = BufReader::new(stream);
    let view: View = receive(&mut lines)?;
    let terminal = {
        let mut hub = lock(hub);
        if hub.terminals.len() >= MAX_TERMINALS {
            let text =
                format!("error: the network has {MAX_TERMINALS} terminals, and no more are possible\n");
            let reply = Reply { text, exit: true, failed: true, ..Reply::default() };
            return send(&mut output, &Message::Reply(reply));
        }
        hub.add(view, Output::Socket(output.try_clone()?))
    };
    let result = (|| {
        loop {
            let line: String = receive(&mut lines)?;
            let mut hub = lock(hub);
            let reply = hub.carry_out(terminal, &line);
            // While the hub is held, so that replies and what is seen come in their order.
            send(&mut output, &Message::Reply(reply))?;
        }
    })();
    lock(hub).remove(terminal);
    result
}

/// Reads a line of JSON.
fn receive<T: serde::de::DeserializeOwned>(lines: &mut impl io::BufRead) -> io::Result<T> {
    let mut line = Vec::new();
    lines.take(MAX_MESSAGE).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&line).map_err(io::Error::from)
}

/// Writes a line of JSON.
pub fn send(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

impl Hub {
    fn add(&mut self, view: View, output: Output) -> u32 {
        let number = self.next;
        self.next += 1;
        self.terminals.insert(number, Terminal { shell: Shell::new(view), output });
        number
    }

    fn carry_out(&mut self, number: u32, line: &str) -> Reply {
        let Some(terminal) = self.terminals.get_mut(&number) else { return Reply::default() };
        let outcome = terminal.shell.carry_out(line, &mut self.network);
        let seen = self.tell(number);
        let Some(terminal) = self.terminals.get(&number) else { return Reply::default() };
        terminal.shell.reply(seen, outcome, &self.network)
    }

    /// Shows the other terminals what has happened, and returns what this one sees.
    fn tell(&mut self, number: u32) -> String {
        let events = self.network.take_events();
        let mut own = String::new();
        for (id, terminal) in &mut self.terminals {
            let seen: String =
                events.iter().filter_map(|event| terminal.shell.sees(event, &self.network)).collect();
            if *id == number {
                own = seen;
            } else if !seen.is_empty() {
                // Who cannot be told has gone, and the thread that reads its commands removes it.
                let _ = match &mut terminal.output {
                    Output::None => Ok(()),
                    Output::Screen(screen) => screen.interrupt(&seen),
                    Output::Socket(stream) => {
                        let sent = send(stream, &Message::Seen(seen));
                        // A message that was half written leaves nothing that could be read behind it.
                        sent.inspect_err(|_| drop(stream.shutdown(std::net::Shutdown::Both)))
                    }
                };
            }
        }
        own
    }

    fn remove(&mut self, number: u32) {
        if let Some(mut terminal) = self.terminals.remove(&number) {
            terminal.shell.end(&mut self.network);
            self.tell(number);
        }
    }
}
