//! Requests that crash the gateway, on its own broker: they are set aside, and `offload-rt jobs` deals with them.
//!
//! As in `suspects.rs` the gateway is killed while the request runs. Its device sends it again after each restart,
//! under its `id`.

use anyhow::{Context, Result, ensure};
use offload_tests::device::{Device, Version};
use offload_tests::gateway::Gateway;
use offload_tests::mosquitto::Mosquitto;
use offload_tests::sealing::{self, Encoding, X25519};
use offload_tests::{PATIENCE, built, envelope, guest};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::time::timeout;

const CONFIGURATION: &str = "name = \"crashing\"\ndrain = \"0s\"\n[status]\ninterval = \"100ms\"\n";
const STATUS: &str = "gateway/crashing/status";
const EMBEDDED: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// What the gateway logs when a suspect has been left alone, and begins.
const RUNS_ALONE: &str = "a request that ran when the gateway crashed runs alone";

/// Long enough for a kill while it runs, and short enough to wait for its end.
const CULPRIT_MS: &str = "4000";
/// The pause between two looks for what a command has to show soon.
const POLL: Duration = Duration::from_millis(50);

/// What `offload-rt jobs` does in a gateway's data directory.
async fn jobs(gateway: &Gateway, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(built::program("offload-rt")?);
    command.arg("jobs").args(arguments).arg("--data-dir").arg(gateway.data_dir()).kill_on_drop(true);
    Ok(timeout(PATIENCE, command.output()).await.context("it does not end")??)
}

async fn succeeds(gateway: &Gateway, arguments: &[&str]) -> Result<String> {
    let output = jobs(gateway, arguments).await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && stderr.is_empty(), "{arguments:?}: {}: {stderr}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Waits until the list is so.
async fn list_until(gateway: &Gateway, what: &str, enough: impl Fn(&[Value]) -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list = gateway.set_aside().await?;
        if enough(&list) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "waiting for {what}: {list:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// A gateway, and its device.
struct Scene {
    gateway: Gateway,
    device: Device,
    digest: String,
    /// By id.
    answers: BTreeMap<String, Value>,
}

impl Scene {
    async fn begin() -> Result<Scene> {
        let gateway = Gateway::start(&EMBEDDED, CONFIGURATION).await?;
        let device = connect(&gateway).await?;
        let module = guest::module("sleep")?;
        let mut scene =
            Scene { gateway, device, digest: guest::digest(&module).await?, answers: BTreeMap::new() };
        // Compiled, and kept: from here on its digest will do.
        let first = json!({ "id": "first", "module": envelope::bytes(&module), "args": ["0"] });
        scene.device.publish("inputCode/device", first.to_string()).await?;
        scene.answer("first").await?;
        Ok(scene)
    }

    fn sleeper(&self, id: &str, milliseconds: &str) -> String {
        json!({ "id": id, "digest": self.digest, "args": [milliseconds], "env": { "FOR": id } }).to_string()
    }

    async fn send(&self, id: &str, milliseconds: &str) -> Result<()> {
        self.device.publish("inputCode/device", self.sleeper(id, milliseconds)).await
    }

    /// The same as the culprit, under another id: the same to whoever knows it again.
    async fn send_again(&self, id: &str) -> Result<()> {
        let culprit = self.sleeper("culprit", CULPRIT_MS).replacen(
            "\"id\":\"culprit\"",
            &format!("\"id\":\"{id}\""),
            1,
        );
        ensure!(culprit.contains(id), "{culprit}");
        self.device.publish("inputCode/device", culprit).await
    }

    /// The answer to this one that says that it has run; others to it came before.
    async fn answer_of_run(&mut self, id: &str) -> Result<Value> {
        loop {
            let answer = self.answer(id).await?;
            if answer["status"] == "ok" {
                return Ok(answer);
            }
            self.answers.remove(id);
        }
    }

    /// The answer to this one; what else comes is kept.
    async fn answer(&mut self, id: &str) -> Result<Value> {
        while !self.answers.contains_key(id) {
            let message = self.device.message().await.with_context(|| format!("waiting for {id}"))?;
            if message.topic != STATUS {
                let answer = envelope::read(&message)?;
                let id = answer["id"].as_str().context("every request here has an id")?.to_owned();
                self.answers.insert(id, answer);
            }
        }
        Ok(self.answers[id].clone())
    }

    async fn running(&mut self, count: usize) -> Result<()> {
        loop {
            let message =
                self.device.message().await.with_context(|| format!("waiting for {count} to run"))?;
            if message.topic == STATUS {
                if envelope::read(&message)?["load"]["running"] == count {
                    return Ok(());
                }
            } else {
                let answer = envelope::read(&message)?;
                self.answers.insert(answer["id"].as_str().unwrap_or_default().to_owned(), answer);
            }
        }
    }

    /// Ends the gateway by this signal, and starts the next one.
    async fn next(self, signal: Signal) -> Result<Scene> {
        let Scene { gateway, digest, answers, .. } = self;
        let gateway = gateway.crash(signal, &EMBEDDED, CONFIGURATION).await?;
        let device = connect(&gateway).await?;
        Ok(Scene { gateway, device, digest, answers })
    }

    /// Kills the gateway while this one runs alone.
    async fn crash_alone(self, signal: Signal) -> Result<Scene> {
        self.gateway.logged(&[RUNS_ALONE]).await?;
        self.next(signal).await
    }

    /// This one crashes the gateway beside others, then twice alone: three gateways later it is poison.
    async fn poison(mut self, id: &str) -> Result<Scene> {
        self.send(id, CULPRIT_MS).await?;
        self.running(1).await?;
        let scene = self.next(Signal::KILL).await?;
        scene.send(id, CULPRIT_MS).await?;
        let scene = scene.crash_alone(Signal::ABORT).await?;
        scene.send(id, CULPRIT_MS).await?;
        let scene = scene.crash_alone(Signal::KILL).await?;
        scene.send(id, CULPRIT_MS).await?;
        Ok(scene)
    }
}

async fn connect(gateway: &Gateway) -> Result<Device> {
    let mut device = Device::connect(gateway.address()?, Version::V5, "device").await?;
    device.subscribe("result/device").await?;
    device.subscribe(STATUS).await?;
    Ok(device)
}

/// What the operator does: lists it, looks at it, has it run again, and sees that it is gone when it ends well.
#[tokio::test]
async fn poison_is_set_aside_with_all_that_reproduces_it_and_can_be_run_again() -> Result<()> {
    let mut scene = Scene::begin().await?.poison("culprit").await?;
    let answer = scene.answer("culprit").await?;
    assert_eq!(envelope::error_kind(&answer), "internal", "{answer}");
    // It is set aside before it is answered.
    let (digest, request) = (scene.digest.clone(), scene.sleeper("culprit", CULPRIT_MS));
    let listed = scene.gateway.set_aside().await?;
    ensure!(listed.len() == 1, "{listed:?}");
    for (field, value) in [
        ("number", json!(1)),
        ("state", json!("set aside")),
        ("crashes", json!(2)),
        ("id", json!("culprit")),
        ("topic", json!("inputCode/device")),
        ("form", json!("JSON envelope")),
        ("code", json!(format!("module {digest}"))),
        ("payload_bytes", json!(request.len())),
    ] {
        assert_eq!(listed[0][field], value, "{field}: {listed:?}");
    }
    assert_eq!(listed[0]["client"]["flow"], "device");
    let reference = listed[0]["reference"].as_str().context("a reference")?;
    ensure!(answer["error"]["message"].as_str().is_some_and(|text| text.contains(reference)), "{answer}");
    scene.gateway.logged(&["set aside", "jobs show 1", reference]).await?;
    let folder = std::path::PathBuf::from(listed[0]["folder"].as_str().context("a folder")?);
    assert_eq!(std::fs::read_to_string(folder.join("payload"))?, request);
    assert_eq!(std::fs::read(folder.join("module.wasm"))?, guest::module("sleep")?);

    let shown: Value = serde_json::from_str(&succeeds(&scene.gateway, &["show", "1", "--json"]).await?)?;
    assert_eq!(shown, listed[0]);
    let text = succeeds(&scene.gateway, &["show", "1"]).await?;
    for part in ["inputCode/device", "2 while nothing else ran", reference, &digest] {
        ensure!(text.contains(part), "{part} is not in {text}");
    }
    let text = succeeds(&scene.gateway, &["list"]).await?;
    ensure!(text.starts_with("NUMBER") && text.lines().count() == 2, "{text}");

    // Sent again, it is refused, and set aside once.
    scene.send_again("again").await?;
    assert_eq!(envelope::error_kind(&scene.answer("again").await?), "internal");
    assert_eq!(scene.gateway.set_aside().await?.len(), 1);

    // Beside the running gateway: it ends well now, and is answered.
    assert_eq!(succeeds(&scene.gateway, &["retry", "1"]).await?, "request 1 is run again\n");
    let answer = scene.answer_of_run("culprit").await?;
    assert_eq!(answer["stdout"], envelope::bytes("awake\n"), "{answer}");
    list_until(&scene.gateway, "an empty list", <[Value]>::is_empty).await?;
    assert_eq!(succeeds(&scene.gateway, &["list"]).await?, "nothing is set aside\n");
    // It is no suspect any more.
    scene.send_again("once more").await?;
    scene.answer_of_run("once more").await?;
    scene.gateway.stop(Signal::TERM).await
}

/// A retry is no second life: what crashes the gateway again is found, runs alone, and is set aside again.
#[tokio::test]
async fn what_is_run_again_and_crashes_the_gateway_again_is_set_aside_again() -> Result<()> {
    let mut scene = Scene::begin().await?.poison("culprit").await?;
    scene.answer("culprit").await?;
    // Without a gateway: the next one takes it up at its start.
    let mut scene = {
        let Scene { gateway, digest, answers, .. } = scene;
        gateway.signal(Signal::TERM)?;
        succeeds(&gateway, &["retry", "1"]).await?;
        let gateway = gateway.crash(Signal::TERM, &EMBEDDED, CONFIGURATION).await?;
        let device = connect(&gateway).await?;
        Scene { gateway, device, digest, answers }
    };
    scene.running(1).await?;
    let state = scene.gateway.set_aside().await?;
    assert_eq!(state[0]["state"], "being run again", "{state:?}");
    let refused = jobs(&scene.gateway, &["drop", "1"]).await?;
    ensure!(refused.status.code() == Some(1), "{refused:?}");
    let scene = scene.next(Signal::KILL).await?;
    let scene = scene.crash_alone(Signal::KILL).await?;
    let mut scene = scene.crash_alone(Signal::KILL).await?;
    list_until(&scene.gateway, "another number", |jobs| {
        jobs.len() == 1 && jobs[0]["number"] == 2 && jobs[0]["state"] == "set aside"
    })
    .await?;
    scene.send_again("again").await?;
    assert_eq!(envelope::error_kind(&scene.answer("again").await?), "internal");
    assert_eq!(succeeds(&scene.gateway, &["drop", "2"]).await?, "request 2 is removed\n");
    ensure!(scene.gateway.set_aside().await?.is_empty());
    scene.gateway.stop(Signal::TERM).await
}

/// What was sealed was accepted when it came: a retry is not refused for its age, and is answered sealed.
#[tokio::test]
async fn what_was_sealed_can_be_run_again_long_after_it_was_accepted() -> Result<()> {
    let brief = format!("{CONFIGURATION}[idempotency]\nretention = \"5s\"\n");
    let crash = async |gateway: Gateway, signal| gateway.crash(signal, &EMBEDDED, &brief).await;
    let gateway = Gateway::start(&EMBEDDED, &brief).await?;
    let (mut device, keys) = sealing::device(gateway.address()?, Version::V5, "device").await?;
    device.subscribe(STATUS).await?;
    let module = envelope::bytes(guest::module("sleep")?);
    let asked = sealing::inner(json!({ "module": module, "args": [CULPRIT_MS] }));
    let key = sealing::newest(&keys, X25519)?;
    let sealed = sealing::seal(&key, &asked, "inputCode/device", Encoding::Json)?;
    device.publish("inputCode/device", sealed.payload()?).await?;
    until_any_runs(&mut device).await?;
    // The journal has it: each next gateway runs it by itself.
    let mut gateway = crash(gateway, Signal::KILL).await?;
    for _ in 0..2 {
        gateway.logged(&[RUNS_ALONE]).await?;
        gateway = crash(gateway, Signal::KILL).await?;
    }
    list_until(&gateway, "the sealed request", |jobs| jobs.len() == 1).await?;

    let mut device = Device::connect(gateway.address()?, Version::V5, "device").await?;
    device.subscribe("result/device").await?;
    let again = sealing::seal(&key, &asked, "inputCode/device", Encoding::Json)?;
    let again = again.ask(&mut device, "inputCode/device").await?;
    assert_eq!(envelope::error_kind(&again), "expired", "whoever sends it now is too late: {again}");
    assert_eq!(succeeds(&gateway, &["retry", "1"]).await?, "request 1 is run again\n");
    let answer = sealed.open(&device.message().await?)?;
    assert_eq!(answer["stdout"], envelope::bytes("awake\n"), "{answer}");
    list_until(&gateway, "an empty list", <[Value]>::is_empty).await?;
    gateway.stop(Signal::TERM).await
}

/// However often: a stop is no crash, whether the time to drain is up or not, and acquits nobody either.
#[tokio::test]
async fn stops_that_were_planned_set_nobody_aside() -> Result<()> {
    let mut scene = Scene::begin().await?;
    scene.send("unlucky", CULPRIT_MS).await?;
    scene.running(1).await?;
    let mut scene = scene.next(Signal::KILL).await?;
    for _ in 0..3 {
        scene.send("unlucky", CULPRIT_MS).await?;
        scene = scene.crash_alone(Signal::TERM).await?;
    }
    scene.answers.clear();
    scene.send("unlucky", CULPRIT_MS).await?;
    scene.gateway.logged(&[RUNS_ALONE]).await?;
    let answer = scene.answer("unlucky").await?;
    assert_eq!(answer["stdout"], envelope::bytes("awake\n"), "{answer}");
    ensure!(scene.gateway.set_aside().await?.is_empty());
    scene.gateway.stop(Signal::TERM).await
}

/// Requests in flight at each kill.
const IN_FLIGHT: usize = 64;
/// Each of them sleeps: they run at once.
const INNOCENT_MS: &str = "200";
/// Kills, each while one of them runs alone: the worst moment.
const KILLS: usize = 6;

/// Listens until the status says that something runs. What is answered before is sent again, or was heard of.
async fn until_any_runs(device: &mut Device) -> Result<()> {
    loop {
        let document = envelope::read(&device.message().await.context("waiting for any to run")?)?;
        if document["load"]["running"].as_u64().is_some_and(|running| running > 0) {
            return Ok(());
        }
    }
}

/// The next answer; the status is passed over.
async fn answer(device: &mut Device) -> Result<Value> {
    loop {
        let message = device.message().await?;
        if message.topic != STATUS {
            return envelope::read(&message);
        }
    }
}

#[tokio::test]
async fn of_many_that_run_at_each_kill_nobody_innocent_is_set_aside_on_the_embedded_broker() -> Result<()> {
    let mut scene = Scene::begin().await?;
    let ids: Vec<String> = (0..IN_FLIGHT).map(|number| format!("innocent {number}")).collect();
    for kill in 0..=KILLS {
        for id in ids.iter().filter(|id| !scene.answers.contains_key(*id)) {
            scene.send(id, INNOCENT_MS).await?;
        }
        if kill == 0 {
            until_any_runs(&mut scene.device).await?;
            scene = scene.next(Signal::KILL).await?;
        } else if kill < KILLS {
            scene = scene.crash_alone(Signal::KILL).await?;
        }
    }
    for id in &ids {
        let answer = scene.answer(id).await?;
        assert_eq!(answer["stdout"], envelope::bytes("awake\n"), "{answer}");
    }
    ensure!(scene.gateway.set_aside().await?.is_empty());
    scene.gateway.stop(Signal::TERM).await
}

#[tokio::test]
async fn of_many_that_run_at_each_kill_nobody_innocent_is_set_aside_on_mosquitto() -> Result<()> {
    let mosquitto = Mosquitto::start().await?;
    let (url, module) = (mosquitto.url(), guest::module("sleep")?);
    let flags = ["--broker", &url];
    let mut device = Device::connect(mosquitto.address(), Version::V5, "device").await?;
    device.subscribe("result/device").await?;
    device.subscribe(STATUS).await?;
    let mut gateway = Gateway::start(&flags, CONFIGURATION).await?;
    let sleeper = |id: &str, milliseconds: &str| {
        let module = envelope::bytes(&module);
        json!({ "id": id, "module": module, "args": [milliseconds], "env": { "FOR": id } }).to_string()
    };
    device.publish("inputCode/device", sleeper("first", "0")).await?;
    while answer(&mut device).await?["id"] != "first" {}
    for number in 0..IN_FLIGHT {
        device.publish("inputCode/device", sleeper(&format!("innocent {number}"), INNOCENT_MS)).await?;
    }
    until_any_runs(&mut device).await?;
    let mut answered = BTreeSet::new();
    gateway = gateway.crash(Signal::KILL, &flags, CONFIGURATION).await?;
    for _ in 0..KILLS {
        gateway.logged(&[RUNS_ALONE]).await?;
        gateway = gateway.crash(Signal::KILL, &flags, CONFIGURATION).await?;
    }
    while answered.len() < IN_FLIGHT {
        let answer = answer(&mut device).await.with_context(|| format!("{} are answered", answered.len()))?;
        assert_eq!(answer["stdout"], envelope::bytes("awake\n"), "{answer}");
        answered.insert(answer["id"].as_str().unwrap_or_default().to_owned());
    }
    ensure!(gateway.set_aside().await?.is_empty());
    gateway.stop(Signal::TERM).await
}

#[tokio::test]
async fn what_is_not_there_is_an_error_that_says_what_to_do() -> Result<()> {
    let gateway = Gateway::start(&EMBEDDED, CONFIGURATION).await?;
    for arguments in [["show", "7"], ["retry", "7"], ["drop", "7"]] {
        let output = jobs(&gateway, &arguments).await?;
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8(output.stderr)?;
        ensure!(
            stderr.starts_with("error: there is no request 7") && stderr.contains("jobs list"),
            "{stderr}"
        );
    }
    for arguments in [&["show"][..], &["show", "one"], &["throw", "1"], &[]] {
        assert_eq!(jobs(&gateway, arguments).await?.status.code(), Some(2), "{arguments:?}");
    }
    let nowhere = gateway.data_dir().join("nowhere");
    let mut command = Command::new(built::program("offload-rt")?);
    command.args(["jobs", "list", "--data-dir"]).arg(nowhere).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await??;
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr)?;
    ensure!(stderr.contains("there is no data directory") && stderr.contains("--data-dir"), "{stderr}");
    gateway.stop(Signal::TERM).await
}
