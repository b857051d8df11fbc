//! Many requests at once: every one is answered, and by its own answer.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Properties, Version};
use offload_tests::on_each_broker;
use tokio::task::JoinSet;

const CONNECTIONS: usize = 50;
/// 3000 in all: more than Mosquitto's window of 20 and its queue of 1000, which would lose some.
const REQUESTS_EACH: usize = 60;

on_each_broker! {
    three_thousand_in_flight_are_answered,
}

async fn three_thousand_in_flight_are_answered(deployment: Deployment) -> Result<()> {
    let mut devices = JoinSet::new();
    for number in 0..CONNECTIONS {
        let version = if number % 2 == 0 { Version::V311 } else { Version::V5 };
        let device = deployment.device(version, &format!("load-{number}")).await?;
        devices.spawn(ask_at_once(device, number, version));
    }
    while let Some(device) = devices.join_next().await {
        device??;
    }
    Ok(())
}

/// Sums that no two requests share; in MQTT 5 Correlation Data has to match as well.
async fn ask_at_once(mut device: Device, number: usize, version: Version) -> Result<()> {
    let base = number * 1_000_000;
    for request in 0..REQUESTS_EACH {
        let correlation_data = (version == Version::V5).then(|| Bytes::from(format!("{}", base + request)));
        let properties = Properties { correlation_data, ..Properties::default() };
        let payload = format!("{base} {request}");
        device.publish_with(&format!("localCode/load-{number}"), payload, properties, false).await?;
    }
    let mut answered = HashSet::new();
    for _ in 0..REQUESTS_EACH {
        let answer =
            device.message().await.with_context(|| format!("{} of device {number}", answered.len()))?;
        let text = answer.text();
        let sum: usize = text.trim_end().parse().with_context(|| text.clone())?;
        ensure!((base..base + REQUESTS_EACH).contains(&sum), "device {number} got {sum}");
        ensure!(answered.insert(sum), "device {number} got {sum} twice");
        if let Some(data) = &answer.correlation_data {
            ensure!(data[..] == *sum.to_string().as_bytes(), "{sum} came with {data:?}");
        } else {
            ensure!(version == Version::V311, "{sum} came without Correlation Data");
        }
    }
    Ok(())
}
