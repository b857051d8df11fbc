//! The gateway that is attacked, and who is known to it.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use offload_tests::built;
use offload_tests::gateway::Gateway;
use tempfile::TempDir;

/// Everyone's: one hash serves all lines of the password file.
pub const PASSWORD: &str = "secret";

pub const BYSTANDER: &str = "bystander";
/// Listens where others' answers must not come.
pub const WATCHER: &str = "walter";
/// The ordinary accounts of the abusers.
pub const ABUSERS: [&str; 4] = ["mallory", "mallet", "marvin", "maud"];
/// Visitors with an account of their own; a later one is one that comes back.
pub const VISITORS: usize = 200;

/// The memory of workers on a machine with 4 GB, for which the targets are made, whatever machine this is.
const WORKERS_MEMORY: &str = "1GiB";

/// Name of the n-th visitor.
pub fn visitor(number: usize) -> String {
    format!("visitor-{number}")
}

/// Whether the gateway knows who its clients are.
#[derive(Clone, Copy, PartialEq)]
pub enum Door {
    /// By a password file.
    Passwords,
    /// Not at all.
    Open,
}

/// Ends when dropped.
pub struct Stage {
    pub gateway: Gateway,
    pub address: SocketAddr,
    pub door: Door,
    pub passwords: PathBuf,
}

impl Stage {
    /// Starts a gateway with a data directory of its own.
    pub async fn open(door: Door, hash: &PasswordHash) -> Result<Stage> {
        let folder = TempDir::new()?;
        let passwords = folder.path().join("passwords");
        fs::write(&passwords, hash.file())?;
        let mut configuration = format!("native = \"native\"\n[workers]\nmemory = \"{WORKERS_MEMORY}\"\n");
        if door == Door::Passwords {
            // Topics of its own for each user, as installations give them that use the broker for more than code.
            configuration += &format!(
                "[access]\npasswords = {passwords:?}\n\
                 [[access.rule]]\nusers = [\"#\"]\npublish = [\"own/%u/#\"]\nsubscribe = [\"own/%u/#\"]\n"
            );
        }
        let gateway = Gateway::start_in(folder, &["--listen", "127.0.0.1:0"], &configuration).await?;
        Ok(Stage { address: gateway.address()?, gateway, door, passwords })
    }

    /// The bystander's name, where there are names.
    pub fn bystander(&self) -> Option<&'static str> {
        (self.door == Door::Passwords).then_some(BYSTANDER)
    }
}

/// The hash of everyone's password, as the password file has it.
pub struct PasswordHash(String);

impl PasswordHash {
    /// By `offload-rt passwd`.
    pub fn make() -> Result<PasswordHash> {
        let folder = TempDir::new()?;
        let file = folder.path().join("passwords");
        let mut passwd = Command::new(built::program("offload-rt")?)
            .args([Path::new("passwd"), &file, Path::new("user")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        passwd.stdin.take().context("stdin is a pipe")?.write_all(PASSWORD.as_bytes())?;
        ensure!(passwd.wait()?.success(), "`offload-rt passwd` failed");
        let text = fs::read_to_string(&file)?;
        let (_, hash) = text.trim_end().split_once(':').context("no line of a password file")?;
        Ok(PasswordHash(hash.to_owned()))
    }

    /// The whole file.
    fn file(&self) -> String {
        let visitors = (0..VISITORS).map(visitor);
        let users = [BYSTANDER, WATCHER].into_iter().chain(ABUSERS).map(str::to_owned).chain(visitors);
        users.map(|user| self.line(&user)).collect()
    }

    /// A user's line.
    pub fn line(&self, user: &str) -> String {
        format!("{user}:{}\n", self.0)
    }
}
