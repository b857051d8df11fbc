//! A worker that panics takes nothing with it but what it had in hand.
//!
//! Nothing that a client can send is known to make one panic: it is told to, at points of its loop.

use anyhow::{Context, Result, ensure};
use offload_tests::device::{Device, Version};
use offload_tests::gateway::Gateway;
use offload_tests::{envelope, guest};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt;

const CONFIGURATION: &str = "name = \"panicking\"\n[status]\ninterval = \"100ms\"\n";
const STATUS: &str = "gateway/panicking/status";
/// Guests that sleep on the worker when it panics.
const SLEEPERS: usize = 8;

/// A gateway with one worker, and a device that hears its answers and the status.
struct Scene {
    gateway: Gateway,
    device: Device,
    sleep: Value,
}

impl Scene {
    async fn begin() -> Result<Scene> {
        let gateway =
            Gateway::rehearsing(&["--listen", "127.0.0.1:0", "--workers", "1"], CONFIGURATION).await?;
        let mut device = Device::connect(gateway.address()?, Version::V5, "device").await?;
        device.subscribe("result/device").await?;
        device.subscribe(STATUS).await?;
        let module = guest::module("sleep")?;
        let sleep = json!({ "digest": guest::digest(&module).await? });
        let mut scene = Scene { gateway, device, sleep };
        // Compiled, and kept: from here on its digest will do.
        scene.device.publish("inputCode/device", module).await?;
        scene.device.publish("localCode/device", "1 1").await?;
        scene.answers(2).await?;
        Ok(scene)
    }

    async fn sleeper(&mut self, id: &str, milliseconds: &str) -> Result<()> {
        let mut request = self.sleep.clone();
        request["id"] = id.into();
        request["args"] = json!([milliseconds]);
        self.device.publish("inputCode/device", request.to_string()).await
    }

    async fn add(&mut self, id: &str) -> Result<()> {
        let request = json!({ "id": id, "program": "add", "args": ["1", "1"] });
        self.device.publish("localCode/device", request.to_string()).await
    }

    /// That many sleepers, which have begun.
    async fn sleepers(&mut self, round: u64) -> Result<()> {
        for number in 0..SLEEPERS {
            self.sleeper(&format!("sleeper {number} of {round}"), "1500").await?;
        }
        self.status("they sleep", |load| load["running"] == SLEEPERS).await
    }

    /// The next answers, in the order of their ids; the status is passed over.
    async fn answers(&mut self, count: usize) -> Result<Vec<(String, Value)>> {
        let mut answers = Vec::new();
        while answers.len() < count {
            let message = self.device.message().await.context(self.gateway.log())?;
            if message.topic != STATUS {
                let answer = envelope::read(&message).unwrap_or_default();
                answers.push((answer["id"].as_str().unwrap_or_default().to_owned(), answer));
            }
        }
        answers.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(answers)
    }

    async fn status(&mut self, what: &str, enough: impl Fn(&Value) -> bool) -> Result<()> {
        loop {
            let message = self.device.message().await.with_context(|| format!("waiting: {what}"))?;
            if message.topic == STATUS && enough(&envelope::read(&message)?["load"]) {
                return Ok(());
            }
        }
    }

    /// Everything works, on the worker that has taken the place of others.
    async fn end(mut self) -> Result<()> {
        self.add("last").await?;
        let answers = self.answers(1).await?;
        assert_eq!(answers[0].1["stdout"], envelope::bytes("2\n"), "{answers:?}");
        self.gateway.stop(Signal::TERM).await
    }
}

fn sleepers_are_answered(answers: &[(String, Value)]) -> Result<()> {
    let sleepers: Vec<_> = answers.iter().filter(|(id, _)| id.starts_with("sleeper")).collect();
    ensure!(sleepers.len() == SLEEPERS, "{answers:?}");
    ensure!(sleepers.iter().all(|(_, answer)| answer["stdout"] == envelope::bytes("awake\n")), "{answers:?}");
    Ok(())
}

/// The others were asleep on the same worker: their guests are gone with it, and they are run again.
#[tokio::test]
async fn what_a_worker_has_in_hand_is_answered_internal_and_its_other_guests_are_run_again() -> Result<()> {
    let mut scene = Scene::begin().await?;
    for (restarts, point) in [(1, "start"), (2, "answer")] {
        scene.sleepers(restarts).await?;
        scene.gateway.panic_at(point)?;
        scene.add(&format!("culprit of {restarts}")).await?;
        let mut answers = scene.answers(SLEEPERS + 1).await?;
        let (id, culprit) = answers.remove(0);
        ensure!(id.starts_with("culprit") && envelope::error_kind(&culprit) == "internal", "{culprit}");
        sleepers_are_answered(&answers)?;
        scene.gateway.logged(&["it is restarted", &format!("rehearsed, at {point}")]).await?;
        scene.status("a restart", |load| load["workers_restarted"] == restarts).await?;
    }
    scene.end().await
}

/// A guest that was not in hand is run again too, whatever it did when the worker panicked.
#[tokio::test]
async fn a_guest_whose_slice_has_ended_is_run_again_and_not_a_second_time() -> Result<()> {
    let mut scene = Scene::begin().await?;
    scene.sleepers(1).await?;
    scene.gateway.panic_at("slice")?;
    scene.sleeper("late", "1500").await?;
    let answers = scene.answers(SLEEPERS + 1).await?;
    assert_eq!(answers[0].1["stdout"], envelope::bytes("awake\n"), "{answers:?}");
    sleepers_are_answered(&answers)?;

    // Long enough to be there for two panics.
    scene.sleeper("unlucky", "20000").await?;
    scene.status("it sleeps", |load| load["running"] == 1).await?;
    for (restarts, answered, running) in [(2, 1, 1), (3, 2, 0)] {
        scene.gateway.panic_at("start")?;
        scene.add(&format!("culprit {restarts}")).await?;
        for (id, answer) in scene.answers(answered).await? {
            assert_eq!(envelope::error_kind(&answer), "internal", "{id}: {answer}");
        }
        let is_restarted = |load: &Value| load["workers_restarted"] == restarts && load["running"] == running;
        scene.status("the restart", is_restarted).await?;
    }
    scene.end().await
}

/// A short request runs on the thread of the connection that brought it, and that goes on.
#[tokio::test]
async fn a_connection_whose_thread_was_in_the_worker_lives_on() -> Result<()> {
    let mut scene = Scene::begin().await?;
    for _ in 0..3 {
        scene.add("short").await?;
        scene.answers(1).await?;
    }
    scene.gateway.panic_at("answer")?;
    scene.add("culprit").await?;
    scene.add("next").await?;
    let answers = scene.answers(2).await?;
    // Whichever was in hand.
    let count = |is: &dyn Fn(&Value) -> bool| answers.iter().filter(|(_, answer)| is(answer)).count();
    assert_eq!(count(&|answer| envelope::error_kind(answer) == "internal"), 1, "{answers:?}");
    assert_eq!(count(&|answer| answer["stdout"] == envelope::bytes("2\n")), 1, "{answers:?}");
    scene.gateway.logged(&["a worker panicked: it is restarted"]).await?;
    scene.end().await
}

#[tokio::test]
async fn a_panic_that_keeps_coming_ends_the_process() -> Result<()> {
    let mut scene = Scene::begin().await?;
    for number in 0..3 {
        scene.gateway.panic_at("start")?;
        scene.add(&format!("culprit {number}")).await?;
        scene.answers(1).await?;
    }
    scene.gateway.panic_at("start")?;
    scene.add("last culprit").await?;
    let ended = scene.gateway.ended_with().await?;
    assert_eq!(ended.signal(), Some(Signal::ABORT.as_raw()), "{ended}");
    scene.gateway.logged(&["is not restarted: it is the fourth within a minute"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_panic_that_leaves_the_scheduler_torn_ends_the_process() -> Result<()> {
    let mut scene = Scene::begin().await?;
    scene.gateway.panic_at("scheduler")?;
    scene.add("culprit").await?;
    let ended = scene.gateway.ended_with().await?;
    assert_eq!(ended.signal(), Some(Signal::ABORT.as_raw()), "{ended}");
    scene.gateway.logged(&["is not restarted", "in disorder", "rehearsed, at scheduler"]).await?;
    Ok(())
}
