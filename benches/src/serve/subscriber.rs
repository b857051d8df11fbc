//! A service on Mosquitto that is a program of its own: it is told host and port, and prints a line when it serves.

use super::mosquitto::Mosquitto;
use super::{announce, told_to_stop};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

/// Longest time to the service's readiness.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn serve(command: Vec<OsString>) -> Result<()> {
    let mosquitto = Mosquitto::start().await?;
    let address = mosquitto.address();
    let (program, args) = command.split_first().context("no command")?;
    let mut process = Command::new(program)
        .args(args)
        .args([address.ip().to_string(), address.port().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let mut stdout = BufReader::new(process.stdout.take().context("stdout is a pipe")?);
    let mut ready = String::new();
    if timeout(PATIENCE, stdout.read_line(&mut ready)).await?? == 0 {
        bail!("the service ended instead of serving");
    }
    announce(address)?;
    tokio::select! {
        ended = process.wait() => bail!("the service ended: {}", ended?),
        told = told_to_stop() => told,
    }
}
