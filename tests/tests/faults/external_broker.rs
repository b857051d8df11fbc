//! A real Mosquitto is killed, forgets everything, or stops answering: what was asked is answered later, the log says
//! what is wrong, and the gateway joins again by itself. (An orderly restart is in `tests/tests/external_broker.rs`.)

use anyhow::{Context, Result, ensure};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Options, Version};
use offload_tests::{envelope, guest};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Attempts to connect come soon after each other; a broker that is silent is noticed after five seconds.
const CONFIGURATION: &str = r#"
name = "joined"
[status]
interval = "100ms"
[broker]
keep_alive = "5s"
reconnect_max = "500ms"
"#;

const STATUS: &str = "gateway/joined/status";

/// Sleeps for longer than a broker takes to come back.
const SLEEP_MS: &str = "4000";

/// A device whose session the broker keeps, that hears the answers to `asking` and the gateway's status.
async fn asking(deployment: &Deployment) -> Result<Device> {
    let options = Options { clean: false, ..Options::default() };
    let mut device = Device::connect_with(deployment.address(), Version::V5, "asking", options).await?;
    subscribe(&mut device).await?;
    Ok(device)
}

async fn subscribe(device: &mut Device) -> Result<()> {
    device.subscribe("result/asking").await?;
    device.subscribe(STATUS).await
}

/// Asks for something that is not done before the broker is gone.
async fn ask_for_sleep(device: &mut Device) -> Result<()> {
    let module = envelope::bytes(guest::module("sleep")?);
    let request = json!({ "id": "asleep", "module": module, "args": [SLEEP_MS] });
    device.publish("inputCode/asking", request.to_string()).await?;
    until(device, "it to run", |status| status["load"]["running"] == 1).await.map(drop)
}

/// Waits for a status like this.
async fn until(device: &mut Device, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    loop {
        let message = device.message().await.with_context(|| format!("waiting for {what}"))?;
        if message.topic != STATUS {
            continue;
        }
        let status = envelope::read(&message)?;
        if wanted(&status) {
            return Ok(status);
        }
    }
}

/// The envelope of the next answer with this `id`.
async fn answer(device: &mut Device, id: &str) -> Result<Value> {
    loop {
        let message = device.message().await.with_context(|| format!("waiting for {id}"))?;
        if message.topic == STATUS {
            continue;
        }
        let answer = envelope::read(&message)?;
        if answer["id"] == id {
            return Ok(answer);
        }
    }
}

/// Killed, and without anything when it comes back: what ran is answered to whoever subscribes in time, and what is
/// asked from then on is answered.
#[tokio::test]
async fn a_broker_that_is_killed_and_forgets_everything_is_joined_again() -> Result<()> {
    let mut deployment = Deployment::on_mosquitto(CONFIGURATION).await?;
    let mut device = asking(&deployment).await?;
    ask_for_sleep(&mut device).await?;
    let mosquitto = deployment.mosquitto.as_mut().context("there is a Mosquitto")?;
    mosquitto.kill().await?;
    let told = deployment.gateway.logged(&["no connection; trying again"]).await?;
    ensure!(told.contains("broker=\"mqtt://") && told.contains("reason="), "{told}");
    mosquitto.forget()?;
    mosquitto.resume().await?;
    device.connected_again().await?;
    subscribe(&mut device).await?;
    until(&mut device, "the gateway", |status| status["state"] == "online").await?;
    assert_eq!(answer(&mut device, "asleep").await?["status"], "ok");
    for number in 0..20 {
        let id = format!("after {number}");
        let request = json!({ "id": id, "program": "add", "args": ["5", "7"] });
        device.publish("localCode/asking", request.to_string()).await?;
        assert_eq!(answer(&mut device, &id).await?["status"], "ok");
    }
    Ok(())
}

/// Stopped for longer than a connection may be silent: both sides take each other for lost, and nothing is.
#[tokio::test]
async fn a_broker_that_is_paused_loses_no_request() -> Result<()> {
    let deployment = Deployment::on_mosquitto(CONFIGURATION).await?;
    let mut device = asking(&deployment).await?;
    ask_for_sleep(&mut device).await?;
    let mosquitto = deployment.mosquitto.as_ref().context("there is a Mosquitto")?;
    mosquitto.signal(Signal::STOP)?;
    let during = json!({ "id": "during", "program": "add", "args": ["5", "7"] });
    device.publish("localCode/asking", during.to_string()).await?;
    let told = deployment.gateway.logged(&["no connection; trying again"]).await?;
    ensure!(told.contains("reason="), "{told}");
    mosquitto.signal(Signal::CONT)?;
    let (mut asleep, mut summed) = (None, None);
    while asleep.is_none() || summed.is_none() {
        let message = device.message().await.context("waiting for both answers")?;
        let document = envelope::read(&message)?;
        match document["id"].as_str() {
            Some("asleep") => asleep = Some(document),
            Some("during") => summed = Some(document),
            _ => {}
        }
    }
    ensure!([asleep, summed].iter().flatten().all(|answer| answer["status"] == "ok"));
    deployment.gateway.logged(&["serving"]).await?;
    Ok(())
}
