//! A service on Mosquitto that starts a process for each request, with the payload's words as its arguments.

use super::mosquitto::Mosquitto;
use super::{announce, service};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use std::ffi::OsString;
use std::process::Stdio;
use std::sync::Arc;
use tokio::process::Command;
use tokio::sync::Semaphore;

/// Processes at once; more requests wait.
const CONCURRENCY: usize = 64;

pub async fn serve(command: Vec<OsString>) -> Result<()> {
    let mosquitto = Mosquitto::start().await?;
    let address = mosquitto.address();
    let (command, turns) = (Arc::new(command), Arc::new(Semaphore::new(CONCURRENCY)));
    let answer = |client: &AsyncClient, topic, payload| {
        let (client, command, turns) = (client.clone(), command.clone(), turns.clone());
        tokio::spawn(async move {
            let answered = async {
                let _turn = turns.acquire().await?;
                let stdout = run(&command, &payload).await?;
                anyhow::Ok(client.publish(topic, QoS::AtLeastOnce, false, stdout).await?)
            };
            if let Err(error) = answered.await {
                eprintln!("a request was not answered: {error:#}");
            }
        });
        Ok(())
    };
    service::serve(address, || announce(address), answer).await
}

async fn run(command: &[OsString], payload: &Bytes) -> Result<Vec<u8>> {
    let (program, args) = command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(args).args(str::from_utf8(payload)?.split_whitespace());
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        bail!("{}: {}", program.display(), output.status);
    }
    Ok(output.stdout)
}
