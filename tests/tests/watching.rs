//! What a gateway says of itself: its retained status, and the mirror of its requests.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Message, PubAckReason, Version};
use offload_tests::gateway::Gateway;
use offload_tests::mosquitto::Mosquitto;
use offload_tests::source::{COMMAND, program};
use offload_tests::{built, envelope, guest, on_each_broker};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::process::Command;

const CONFIGURATION: &str = r#"
name = "bench-1"
[status]
interval = "100ms"
# What the watchdog sends itself nobody else sees.
[watchdog]
interval = "100ms"
"#;

const MIRROR: &str = r#"
name = "bench-1"
[mirror]
enabled = true
"#;

const STATUS: &str = "gateway/bench-1/status";
const JOBS: &str = "gateway/bench-1/jobs";

on_each_broker! {
    whoever_comes_later_finds_the_status with CONFIGURATION,
    a_gateway_that_stops_says_so with CONFIGURATION,
    the_client_lists_the_gateway with CONFIGURATION,
    the_load_is_seen with CONFIGURATION,
    the_mirror_shows_requests_and_outcomes_without_payloads with MIRROR,
}

async fn watcher(address: SocketAddr, topic: &str) -> Result<Device> {
    let mut watcher = Device::connect(address, Version::V5, "watcher").await?;
    watcher.subscribe(topic).await?;
    Ok(watcher)
}

fn document(message: &Message) -> Result<Value> {
    serde_json::from_slice(&message.payload).with_context(|| format!("not JSON: {}", message.text()))
}

/// Waits for a status that is what is wanted.
async fn status(watcher: &mut Device, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    loop {
        let message = watcher.message().await?;
        let status = document(&message)?;
        if message.topic == STATUS && wanted(&status) {
            return Ok(status);
        }
    }
}

fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["state"] == state
}

/// `gateway/<name>/status`: retained JSON with state, version, capabilities and load.
async fn whoever_comes_later_finds_the_status(deployment: Deployment) -> Result<()> {
    let mut watcher = watcher(deployment.address(), STATUS).await?;
    let message = watcher.message().await?;
    ensure!(message.retain, "not stored");
    let status = document(&message)?;
    assert_eq!(status["state"], "online");
    assert_eq!(status["name"], "bench-1");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["capabilities"]["wasm"], json!(["module", "component"]));
    assert_eq!(status["capabilities"]["programs"], json!(["add"]));
    assert_eq!(
        status["capabilities"]["native"],
        deployment.mosquitto.is_none(),
        "only on loopback by default"
    );
    assert_eq!(status["load"]["running"], 0);
    Ok(())
}

/// The status says `offline` when the gateway goes.
async fn a_gateway_that_stops_says_so(deployment: Deployment) -> Result<()> {
    let Deployment { gateway, mosquitto, .. } = deployment;
    let address = match &mosquitto {
        Some(mosquitto) => mosquitto.address(),
        None => gateway.address()?,
    };
    let mut watcher = watcher(address, STATUS).await?;
    status(&mut watcher, is("online")).await?;
    gateway.stop(Signal::TERM).await?;
    let left = status(&mut watcher, is("offline")).await?;
    assert_eq!(left["name"], "bench-1");
    Ok(())
}

/// The status follows the load.
async fn the_load_is_seen(deployment: Deployment) -> Result<()> {
    let mut watcher = watcher(deployment.address(), STATUS).await?;
    let device = deployment.device(Version::V311, "hog").await?;
    let request = json!({ "module": envelope::bytes(guest::module("spin")?), "timeout_ms": 3000 });
    device.publish("inputCode/hog", request.to_string()).await?;
    status(&mut watcher, |status| status["load"]["running"] == 1).await?;
    status(&mut watcher, |status| status["load"]["running"] == 0).await?;
    Ok(())
}

/// A native program that has started is running, and its request waits no longer.
#[tokio::test]
async fn a_native_program_is_part_of_the_load() -> Result<()> {
    let deployment = Deployment::embedded(CONFIGURATION).await?;
    let mut watcher = watcher(deployment.address(), STATUS).await?;
    let device = deployment.device(Version::V311, "hog").await?;
    let source = program("for (;;);");
    let request = json!({ "source": source, "makefile": COMMAND, "name": "hog", "timeout_ms": 3000 });
    device.publish("inputCode/hog", request.to_string()).await?;
    let running = status(&mut watcher, |status| status["load"]["running"] == 1).await?;
    assert_eq!(running["load"]["waiting"], 0);
    let is_idle = |status: &Value| status["load"]["running"] == 0 && status["load"]["waiting"] == 0;
    status(&mut watcher, is_idle).await?;
    Ok(())
}

/// The mirror shows each request and its answer under `gateway/<name>/jobs`, without what they carry.
async fn the_mirror_shows_requests_and_outcomes_without_payloads(deployment: Deployment) -> Result<()> {
    let mut watcher = watcher(deployment.address(), JOBS).await?;
    let mut device = deployment.device(Version::V5, "shown").await?;
    let request =
        json!({ "id": "one", "program": "add", "args": ["40", "2"], "stdin": envelope::bytes(b"secret") });
    device.ask("localCode/shown", request.to_string()).await?;
    let line = document(&watcher.message().await?)?;
    assert_eq!(line["event"], "request");
    assert_eq!(line["topic"], "localCode/shown");
    assert_eq!(line["id"], "one");
    assert_eq!((&line["code"], &line["name"]), (&json!("program"), &json!("add")));
    assert_eq!(line["payload_bytes"], request.to_string().len());
    let answer = document(&watcher.message().await?)?;
    assert_eq!(answer["event"], "answer");
    assert_eq!(answer["job"], line["job"], "one job, two lines");
    assert_eq!(answer["stdout_bytes"], 3);
    assert_eq!(answer["answer"]["status"], "ok");
    for line in [&line, &answer] {
        ensure!(line.get("payload").is_none() && line["answer"].get("stdout").is_none(), "{line}");
    }

    // What is no request is shown too, with its error.
    device.ask("localCode/shown", "{\"args\": 5}").await?;
    let line = document(&watcher.message().await?)?;
    assert_eq!(line["code"], Value::Null);
    let answer = document(&watcher.message().await?)?;
    assert_eq!(answer["answer"]["error"]["kind"], "malformed");
    Ok(())
}

/// `offload-client gateways` lists who is there.
async fn the_client_lists_the_gateway(deployment: Deployment) -> Result<()> {
    let url = format!("mqtt://{}", deployment.address());
    let client = |flags: &'static [&str]| {
        let mut command = Command::new(built::program("offload-client")?);
        command.args(["--broker", &url, "gateways"]).args(flags).kill_on_drop(true);
        anyhow::Ok(command)
    };
    let output = client(&["--json"])?.output().await?;
    ensure!(output.status.success(), "{output:?}");
    let listed: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!((&listed[0]["name"], &listed[0]["state"]), (&json!("bench-1"), &json!("online")));
    let output = client(&[])?.output().await?;
    let table = String::from_utf8(output.stdout)?;
    let line = table.lines().nth(1).context("a heading, and the gateway")?;
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..2], ["bench-1", "online"], "{table}");
    Ok(())
}

/// On an external broker the status goes `offline` by the gateway's will, in both versions of MQTT.
#[tokio::test]
async fn a_gateway_that_dies_is_offline_by_its_will() -> Result<()> {
    for version in ["5", "3.1.1"] {
        let mosquitto = Mosquitto::start().await?;
        let configuration =
            format!("{CONFIGURATION}[broker]\nurl = \"{}\"\nprotocol = \"{version}\"\n", mosquitto.url());
        let gateway = Gateway::start(&[], &configuration).await?;
        let mut watcher = watcher(mosquitto.address(), STATUS).await?;
        status(&mut watcher, is("online")).await?;
        // Killed without a chance to say anything.
        drop(gateway);
        status(&mut watcher, is("offline")).await?;
    }
    Ok(())
}

/// A broker that forgot everything hears the status again.
#[tokio::test]
async fn the_status_is_published_again_when_the_broker_comes_back() -> Result<()> {
    let mut deployment = Deployment::on_mosquitto(CONFIGURATION).await?;
    let mosquitto = deployment.mosquitto.as_mut().context("there is a Mosquitto")?;
    let eraser = Device::connect(mosquitto.address(), Version::V5, "eraser").await?;
    eraser.publish_with(STATUS, "", offload_tests::device::Properties::default(), true).await?;
    mosquitto.pause().await?;
    mosquitto.resume().await?;
    let mut watcher = watcher(mosquitto.address(), STATUS).await?;
    status(&mut watcher, is("online")).await?;
    Ok(())
}

/// On the embedded broker only the gateway publishes to `gateway/…`.
#[tokio::test]
async fn nobody_else_speaks_for_the_gateway() -> Result<()> {
    let deployment = Deployment::embedded(MIRROR).await?;
    let mut device = Device::connect(deployment.address(), Version::V5, "liar").await?;
    for topic in [STATUS, JOBS] {
        device.publish(topic, "{\"state\":\"offline\"}").await?;
        assert_eq!(device.acknowledged().await?, PubAckReason::NotAuthorized, "{topic}");
    }
    Ok(())
}

/// The embedded broker's counters are under `$SYS`, by Mosquitto's names.
#[tokio::test]
async fn the_brokers_counters_are_under_sys() -> Result<()> {
    let deployment = Deployment::embedded("[listen]\nsys_interval = \"100ms\"\n").await?;
    let mut watcher = watcher(deployment.address(), "$SYS/broker/clients/connected").await?;
    let _other = deployment.device(Version::V311, "other").await?;
    // The watchdog is one, too.
    while watcher.message().await?.text() != "3" {}
    Ok(())
}

/// What requests carry is shown where the configuration asks for it, as far as it says.
#[tokio::test]
async fn payloads_are_mirrored_only_when_asked_for_and_only_in_part() -> Result<()> {
    let configuration = format!("{MIRROR}payloads = true\npayload_bytes = 4\n");
    let deployment = Deployment::embedded(&configuration).await?;
    let mut watcher = watcher(deployment.address(), JOBS).await?;
    let mut device = deployment.device(Version::V311, "shown").await?;
    device.ask("localCode/shown", "123456 2").await?;
    let line = document(&watcher.message().await?)?;
    assert_eq!(line["payload"], STANDARD.encode("1234"));
    assert_eq!(line["payload_bytes"], 8);
    let answer = document(&watcher.message().await?)?;
    assert_eq!(answer["answer"]["stdout"], STANDARD.encode("1234"));
    assert_eq!(answer["stdout_bytes"], 7);
    Ok(())
}

/// Without `[mirror]` there is none.
#[tokio::test]
async fn by_default_nothing_is_mirrored() -> Result<()> {
    let deployment = Deployment::embedded(CONFIGURATION).await?;
    let mut watcher = watcher(deployment.address(), "gateway/#").await?;
    status(&mut watcher, is("online")).await?;
    let mut device = deployment.device(Version::V311, "hidden").await?;
    device.ask("localCode/hidden", "1 2").await?;
    deployment.gateway.stop(Signal::TERM).await?;
    // Everything that came until the end is about the status.
    loop {
        let message = watcher.message().await?;
        assert_eq!(message.topic, STATUS);
        if document(&message)?["state"] == "offline" {
            return Ok(());
        }
    }
}
