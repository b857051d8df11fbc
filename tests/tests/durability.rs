//! What was acknowledged outlives the gateway, however that ends: requests are run again, outcomes are known again.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use offload_tests::built;
use offload_tests::device::{Device, Version};
use offload_tests::envelope;
use offload_tests::gateway::Gateway;
use offload_tests::guest::{self, RANDOM};
use rustix::process::Signal;
use serde_json::{Value, json};

const ON_ANY_PORT: [&str; 2] = ["--listen", "127.0.0.1:0"];
const OFF: &str = "durability = \"off\"\n";

async fn device(gateway: &Gateway, version: Version) -> Result<Device> {
    let mut device = Device::connect(gateway.address()?, version, "d").await?;
    device.subscribe("result/d").await?;
    Ok(device)
}

fn sleeping(id: &str, milliseconds: u32, code: &Value) -> String {
    let mut request = json!({ "id": id, "args": [milliseconds.to_string()] });
    request.as_object_mut().expect("an object").extend(code.as_object().cloned().unwrap_or_default());
    request.to_string()
}

/// 64 requests that are acknowledged and on their way when the process is killed are run, and answered when their ids
/// are repeated, always with the same bytes.
#[tokio::test]
async fn what_was_acknowledged_is_run_after_kill_9() -> Result<()> {
    let gateway = Gateway::embedded("").await?;
    let mut asker = device(&gateway, Version::V5).await?;
    let module = guest::module("sleep")?;
    let code = json!({ "module": envelope::bytes(&module) });
    // The first one is compiled before it can run.
    envelope::ask(&mut asker, "inputCode/d", sleeping("first", 0, &code)).await?;
    let code = json!({ "digest": guest::digest(&module).await? });
    let requests: BTreeMap<String, String> =
        (0..64).map(|number| (format!("r{number}"), sleeping(&format!("r{number}"), 300, &code))).collect();
    for request in requests.values() {
        asker.publish("inputCode/d", request.clone()).await?;
    }
    for _ in &requests {
        asker.acknowledged().await?;
    }
    let gateway = gateway.crash(Signal::KILL, &ON_ANY_PORT, "").await?;
    let mut answers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut asker = device(&gateway, Version::V5).await?;
    for _ in 0..2 {
        for request in requests.values() {
            asker.publish("inputCode/d", request.clone()).await?;
        }
    }
    // Those that are run again have an answer of their own, which may come before the device is back.
    while answers.len() < 64 || answers.values().any(|answers| answers.len() < 2) {
        let message = asker.message().await?;
        let answer = envelope::read(&message)?;
        let id = answer["id"].as_str().context("an id")?.to_owned();
        if requests.contains_key(&id) {
            ensure!(answer["status"] == "ok", "{answer}");
            answers.entry(id).or_default().push(message.text());
        }
    }
    for (id, answers) in &answers {
        ensure!(answers.iter().all(|answer| *answer == answers[0]), "{id}: {answers:?}");
    }
    gateway.logged(&["requests that an earlier process has accepted are run again"]).await?;
    Ok(())
}

/// An outcome that somebody got is what everybody gets, after any end of the process; without a journal it is not.
#[tokio::test]
async fn an_id_has_one_outcome_across_restarts() -> Result<()> {
    for (configuration, signal, is_kept) in
        [("", Signal::KILL, true), ("", Signal::TERM, true), (OFF, Signal::KILL, false)]
    {
        let mut gateway = Gateway::embedded(configuration).await?;
        let module = envelope::bytes(wat::parse_str(RANDOM)?);
        let request = json!({ "id": "one", "module": module }).to_string();
        let mut asker = device(&gateway, Version::V311).await?;
        let mut asked: Vec<Value> = vec![envelope::ask(&mut asker, "inputCode/d", &request).await?];
        for _ in 0..2 {
            gateway = gateway.crash(signal, &ON_ANY_PORT, configuration).await?;
            let mut asker = device(&gateway, Version::V5).await?;
            asked.push(envelope::ask(&mut asker, "inputCode/d", &request).await?);
            let other = json!({ "id": "one", "module": module, "args": ["other"] });
            let conflict = envelope::ask(&mut asker, "inputCode/d", other).await?;
            assert_eq!(envelope::error_kind(&conflict), "malformed", "{conflict}");
        }
        assert_eq!(asked.iter().all(|answer| *answer == asked[0]), is_kept, "{configuration} {asked:?}");
    }
    Ok(())
}

/// QoS 0 too: its outcome is durable before it is answered.
#[tokio::test]
async fn an_outcome_is_kept_whatever_the_qos_and_the_size() -> Result<()> {
    let gateway = Gateway::embedded("").await?;
    let mut asker = device(&gateway, Version::V5).await?;
    let stdin = vec![b'x'; 200_000];
    let request =
        json!({ "id": "large", "module": envelope::bytes(guest::module("echo")?), "stdin": envelope::bytes(&stdin) })
            .to_string();
    asker.publish_at(0, "inputCode/d", request.clone()).await?;
    let first = envelope::read(&asker.message().await?)?;
    let gateway = gateway.crash(Signal::KILL, &ON_ANY_PORT, "").await?;
    let mut asker = device(&gateway, Version::V5).await?;
    assert_eq!(envelope::ask(&mut asker, "inputCode/d", request).await?, first);
    Ok(())
}

/// What a gateway that stops has not done is neither lost nor refused: the next one does it.
#[tokio::test]
async fn what_a_planned_stop_leaves_is_run_after_the_next_start() -> Result<()> {
    let gateway = Gateway::embedded("drain = \"0s\"\n").await?;
    let mut asker = device(&gateway, Version::V311).await?;
    let module = envelope::bytes(guest::module("sleep")?);
    let request = sleeping("left", 100_000, &json!({ "module": module }));
    asker.publish("inputCode/d", request).await?;
    asker.acknowledged().await?;
    gateway.signal(Signal::TERM)?;
    let told = gateway.logged(&["requests that were accepted are run after the next start"]).await?;
    assert!(told.contains("requests=1"), "{told}");
    let gateway = gateway.crash(Signal::TERM, &ON_ANY_PORT, "[limits]\nwall = \"200ms\"\n").await?;
    ensure!(asker.message_there().is_none(), "it was answered");
    gateway.logged(&["requests that an earlier process has accepted are run again"]).await?;
    let mut asker = device(&gateway, Version::V311).await?;
    let again = sleeping("left", 100_000, &json!({ "module": module }));
    let answer = envelope::ask(&mut asker, "inputCode/d", again).await?;
    assert_eq!(envelope::error_kind(&answer), "timeout", "{answer}");
    Ok(())
}

/// What the journal has no room for is answered `busy`, with the keys to raise, and runs when there is room.
#[tokio::test]
async fn a_full_journal_answers_busy() -> Result<()> {
    let gateway = Gateway::embedded("[journal]\nrecords = 64\n[workers]\nslots = 200\n").await?;
    let mut asker = device(&gateway, Version::V5).await?;
    let code = json!({ "module": envelope::bytes(guest::module("sleep")?) });
    envelope::ask(&mut asker, "inputCode/d", sleeping("first", 0, &code)).await?;
    for number in 0..80 {
        let request = sleeping(&format!("r{number}"), 1_000, &code);
        asker.publish("inputCode/d", request).await?;
    }
    let mut busy = 0;
    for _ in 0..80 {
        let answer = envelope::read(&asker.message().await?)?;
        match envelope::error_kind(&answer) {
            "busy" => {
                let message = answer["error"]["message"].as_str().unwrap_or_default();
                assert!(message.contains("journal.records"), "{answer}");
                busy += 1;
            }
            kind => assert_eq!(kind, "", "{answer}"),
        }
    }
    assert!((1..80).contains(&busy), "{busy}");
    Ok(())
}

/// `offload-rt journal` tells what is left in the journal of a gateway that was killed, and leaves a running one alone.
#[tokio::test]
async fn the_journal_can_be_read_when_its_gateway_does_not_run() -> Result<()> {
    let mut gateway = Gateway::embedded("").await?;
    let journal = |arguments: &[&str], gateway: &Gateway| -> Result<(Option<i32>, String)> {
        let program = built::program("offload-rt")?;
        let mut command = Command::new(program);
        command.arg("journal").args(arguments).arg("--data-dir").arg(gateway.data_dir());
        let output = command.output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8(text)?))
    };
    let mut asker = device(&gateway, Version::V311).await?;
    let code = json!({ "module": envelope::bytes(guest::module("sleep")?) });
    asker.publish("inputCode/d", sleeping("left", 100_000, &code)).await?;
    asker.acknowledged().await?;
    let (code, text) = journal(&["check"], &gateway)?;
    assert!(code == Some(1) && text.contains("runs: stop it first"), "{code:?} {text}");
    gateway.signal(Signal::KILL)?;
    gateway.ended_with().await?;
    let (code, text) = journal(&["check"], &gateway)?;
    assert!(code == Some(0) && text.contains("request: 1; nothing is damaged"), "{code:?} {text}");
    let (code, text) = journal(&["check", "--json"], &gateway)?;
    let found: Value = serde_json::from_str(&text)?;
    assert_eq!((code, &found["records"]["request"], &found["damage"]), (Some(0), &json!(1), &json!([])));
    let (code, text) = journal(&["show"], &gateway)?;
    assert!(code == Some(0) && text.contains("of `d` on `inputCode/d`"), "{code:?} {text}");
    let into = tempfile::tempdir()?;
    let folder = into.path().join("salvaged");
    let (code, text) = journal(&["salvage", folder.to_str().context("UTF-8")?], &gateway)?;
    assert!(code == Some(0) && folder.join("segment-0000").exists(), "{code:?} {text}");
    let nowhere = Command::new(built::program("offload-rt")?)
        .args(["journal", "check", "--data-dir"])
        .arg(into.path())
        .output()?;
    assert_eq!(nowhere.status.code(), Some(1));
    Ok(())
}
