//! A Mosquitto of the test's own: its port, its folder, its process.

use std::fmt::Write;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Where Debian has it, which is not on everybody's path.
const PROGRAM: &str = "/usr/sbin/mosquitto";
const PASSWORD_PROGRAM: &str = "mosquitto_passwd";
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Mosquitto {
    pub port: u16,
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Mosquitto {
    /// With persistence, open to all on loopback.
    pub fn start() -> Mosquitto {
        Mosquitto::with("")
    }

    /// For one user alone.
    pub fn with_user(name: &str, password: &str) -> Mosquitto {
        let file = tempfile::NamedTempFile::new().unwrap();
        let made = Command::new(PASSWORD_PROGRAM)
            .arg("-b")
            .arg(file.path())
            .args([name, password])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Mosquitto::with(&format!("allow_anonymous false\npassword_file {}\n", file.path().display()))
    }

    /// With more lines of configuration, which are read before this returns.
    pub fn with(lines: &str) -> Mosquitto {
        // Another process can take the port between our look and Mosquitto's: then the next one is tried.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut broker = Mosquitto { port, folder: tempfile::tempdir().unwrap(), process: None };
            broker.configure(lines);
            if broker.try_restart() {
                return broker;
            }
        }
        panic!("no free port for {PROGRAM}");
    }

    fn configure(&self, lines: &str) {
        let anonymous = if lines.contains("allow_anonymous") { "" } else { "allow_anonymous true\n" };
        let mut text = format!("listener {} 127.0.0.1\npersistence true\n{anonymous}", self.port);
        writeln!(text, "persistence_location {}/", self.folder.path().display()).unwrap();
        // Started by root it would become a user that cannot write to the folder.
        if rustix::process::geteuid().is_root() {
            text.push_str("user root\n");
        }
        text.push_str(lines);
        std::fs::write(self.file(), text).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("mosquitto.conf")
    }

    /// Ends it as an administrator would: it writes down what it has.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It listens before its loop begins, and a signal in between is forgotten.
            while process.try_wait().unwrap().is_none() {
                kill_process(Pid::from_child(&process), Signal::TERM).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// On the same port, with what it had written down.
    pub fn restart(&mut self) {
        assert!(self.try_restart(), "{PROGRAM} does not start again");
    }

    fn try_restart(&mut self) -> bool {
        let mut command = Command::new(PROGRAM);
        command.arg("-c").arg(self.file()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap_or_else(|error| panic!("{PROGRAM}: {error}"));
        let process = self.process.insert(process);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{PROGRAM} does not listen");
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
