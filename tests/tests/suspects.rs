//! A request that takes the gateway down, on a broker that delivers it again after each restart.
//!
//! Nothing that a client can send is known to do that: the gateway is killed while the request runs, which is the same
//! to the gateway that comes after it.

use anyhow::{Context, Result, ensure};
use offload_tests::device::{Device, Message, Version};
use offload_tests::gateway::Gateway;
use offload_tests::mosquitto::Mosquitto;
use offload_tests::{envelope, guest};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::HashMap;

const CONFIGURATION: &str = "name = \"crashing\"\n[status]\ninterval = \"100ms\"\n";
const STATUS: &str = "gateway/crashing/status";

/// Sleeps for as long as this test needs to kill the gateway, unless it is answered without being run.
const CULPRIT_MS: &str = "25000";
/// Sleeps for longer than a gateway takes from the first of two requests to the second.
const INNOCENT_MS: &str = "3000";

/// A device that hears all answers and the gateway's status, in the order in which the broker sends them.
struct Ear {
    device: Device,
    /// By `id`: the last answer of each.
    answers: HashMap<String, Value>,
    /// The last one.
    status: Value,
    /// Guests that ran at once, at the most, since this was last set to zero.
    most_running: u64,
}

impl Ear {
    async fn open(mosquitto: &Mosquitto) -> Result<Ear> {
        let mut device = Device::connect(mosquitto.address(), Version::V5, "ear").await?;
        device.subscribe("result/#").await?;
        device.subscribe(STATUS).await?;
        Ok(Ear { device, answers: HashMap::new(), status: Value::Null, most_running: 0 })
    }

    /// Listens until what was heard is enough.
    async fn until(&mut self, what: &str, enough: impl Fn(&Ear) -> bool) -> Result<()> {
        while !enough(self) {
            let message: Message = self
                .device
                .message()
                .await
                .with_context(|| format!("waiting for {what}: {} and {:?}", self.status, self.answers))?;
            let document = envelope::read(&message)?;
            if message.topic == STATUS {
                self.most_running = self.most_running.max(document["load"]["running"].as_u64().unwrap_or(0));
                self.status = document;
            } else {
                let id = document["id"].as_str().context("every request here has an id")?;
                self.answers.insert(id.to_owned(), document);
            }
        }
        Ok(())
    }

    fn load(&self, field: &str) -> u64 {
        self.status["load"][field].as_u64().unwrap_or(0)
    }

    /// Of these requests, how many are still to be answered.
    fn unanswered(&self, ids: &[&str]) -> u64 {
        ids.iter().filter(|id| !self.answers.contains_key(**id)).count() as u64
    }

    /// Waits until the culprit runs alone. A further request, sent when it is said to, has to wait for it: a status in
    /// which that one waits is none from before.
    async fn until_alone(&mut self, gateway: &Gateway, further: &str) -> Result<()> {
        gateway.logged(&["runs alone", "culprit"]).await?;
        let request = json!({ "id": further, "program": "add", "args": ["1", "1"] });
        self.device.publish("localCode/culprit", request.to_string()).await?;
        self.until("the culprit to run", |ear| {
            let waiting = ear.unanswered(&["innocent", "third"]) + u64::from(further != "third");
            ear.load("running") == 1 && ear.load("waiting") == waiting
        })
        .await
    }

    /// Listens until the gateway has gone.
    async fn until_offline(&mut self) -> Result<()> {
        self.until("the gateway's end", |ear| ear.status["state"] == "offline").await
    }
}

#[tokio::test]
async fn what_crashes_the_gateway_twice_while_it_runs_alone_is_not_run_again() -> Result<()> {
    let mosquitto = Mosquitto::start().await?;
    let (url, module) = (mosquitto.url(), guest::module("sleep")?);
    let flags = ["--broker", &url];
    let sleep = |id: &str, milliseconds: &str| {
        json!({ "id": id, "module": envelope::bytes(&module), "args": [milliseconds] }).to_string()
    };
    let mut ear = Ear::open(&mosquitto).await?;
    let gateway = Gateway::start(&flags, CONFIGURATION).await?;
    // Compiled before it is asked for in earnest.
    ear.device.publish("inputCode/culprit", sleep("first", "0")).await?;
    ear.until("a compile", |ear| ear.unanswered(&["first"]) == 0).await?;

    // Both run when the gateway crashes: both are suspects, and nothing counts yet.
    ear.device.publish("inputCode/culprit", sleep("culprit", CULPRIT_MS)).await?;
    ear.device.publish("inputCode/innocent", sleep("innocent", INNOCENT_MS)).await?;
    ear.until("both to run", |ear| ear.load("running") == 2).await?;
    let gateway = gateway.crash(Signal::KILL, &flags, CONFIGURATION).await?;
    ear.until_offline().await?;
    ear.most_running = 0;

    // Now each runs alone: one of the same client, which was not there, has to wait.
    ear.until_alone(&gateway, "third").await?;
    let gateway = gateway.crash(Signal::ABORT, &flags, CONFIGURATION).await?;
    ear.until_offline().await?;
    ensure!(ear.unanswered(&["third"]) == 1, "it ran beside the suspect: {:?}", ear.answers);

    ear.until_alone(&gateway, "fourth").await?;
    let mut gateway = gateway.crash(Signal::KILL, &flags, CONFIGURATION).await?;
    ear.until_offline().await?;

    // Twice while it ran alone: that is enough.
    ear.until("all answers", |ear| ear.unanswered(&["culprit", "innocent", "third", "fourth"]) == 0).await?;
    for id in ["innocent", "third", "fourth"] {
        assert_eq!(ear.answers[id]["status"], "ok");
    }
    let reference = reference(&ear.answers["culprit"])?;
    let told = gateway.logged(&["not run any more", &reference]).await?;
    let digest = guest::digest(&module).await?;
    ensure!(["culprit", "inputCode/culprit", &digest].iter().all(|part| told.contains(part)), "{told}");
    ensure!(ear.most_running <= 1, "{} guests ran beside each other", ear.most_running);

    let aside = gateway.set_aside().await?;
    ensure!(
        aside.len() == 1 && aside[0]["id"] == "culprit" && aside[0]["reference"] == reference,
        "{aside:?}"
    );

    // Whoever sends the same again under another name is told the same, by the next gateway as well; everything else
    // runs.
    for (id, other) in [("again", "5"), ("after a restart", "6")] {
        ear.device.publish("inputCode/culprit", sleep(id, CULPRIT_MS)).await?;
        ear.device.publish("inputCode/culprit", sleep(other, other)).await?;
        ear.until("both answers", |ear| ear.unanswered(&[id, other]) == 0).await?;
        assert_eq!(reference, self::reference(&ear.answers[id])?);
        assert_eq!(ear.answers[other]["status"], "ok");
        gateway = gateway.restart(&flags, CONFIGURATION).await?;
    }
    assert_eq!(gateway.set_aside().await?.len(), 1, "once, under whatever name it comes");
    gateway.stop(Signal::TERM).await
}

/// A stop while requests run accuses none of them, nor does a second signal that does not wait for them.
#[tokio::test]
async fn a_stop_that_was_planned_makes_no_suspects() -> Result<()> {
    let mosquitto = Mosquitto::start().await?;
    let (url, module) = (mosquitto.url(), guest::module("sleep")?);
    let flags = ["--broker", &url];
    let mut ear = Ear::open(&mosquitto).await?;
    let mut gateway = Gateway::start(&flags, CONFIGURATION).await?;
    let request =
        |id: &str| json!({ "id": id, "module": envelope::bytes(&module), "args": [CULPRIT_MS] }).to_string();
    ear.device.publish("inputCode/a", request("a")).await?;
    ear.until("it to run", |ear| ear.load("running") == 1).await?;
    gateway.signal(Signal::INT)?;
    gateway.logged(&["draining"]).await?;
    gateway = gateway.crash(Signal::INT, &flags, CONFIGURATION).await?;
    // Delivered again, and not alone: another one begins beside it.
    ear.device.publish("inputCode/b", request("b")).await?;
    ear.until("both to run", |ear| ear.load("running") == 2).await?;
    drop(gateway);
    Ok(())
}

/// What an `internal` error refers to.
fn reference(answer: &Value) -> Result<String> {
    assert_eq!(envelope::error_kind(answer), "internal", "{answer}");
    let message = answer["error"]["message"].as_str().context("an error has a message")?;
    let reference = message.split_once("under ").and_then(|(_, rest)| rest.split_once(':'));
    Ok(reference.with_context(|| format!("no reference: {message}"))?.0.to_owned())
}
