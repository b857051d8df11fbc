//! A request with an `id` is run once: repetitions join it or get the stored answer, in their own form and on their own
//! topic.

use anyhow::{Context, Result};
use bytes::Bytes;
use offload_tests::answer::{error_line_problems, refused_in_envelope};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Properties, Version};
use offload_tests::envelope;
use offload_tests::on_each_broker;
use serde_json::{Value, json};

on_each_broker! {
    an_id_runs_once,
    what_was_no_run_is_not_remembered,
    an_id_belongs_to_one_request,
    a_trap_is_an_outcome,
    after_the_retention_time_it_runs_again with NO_RETENTION,
}

/// Sleeps for a fifth of a second, then prints eight random bytes: no two runs print the same.
const DIFFERENT_EACH_TIME: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        ;; A subscription at 0 to clock 1 (monotonic), timeout at 24; the event goes to 64, their number to 128.
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 200000000))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
        (drop (call $random (i32.const 256) (i32.const 8)))
        (i32.store (i32.const 160) (i32.const 256))
        (i32.store (i32.const 164) (i32.const 8))
        (drop (call $write (i32.const 1) (i32.const 160) (i32.const 1) (i32.const 168)))))"#;

fn module() -> Result<Bytes> {
    Ok(wat::parse_str(DIFFERENT_EACH_TIME)?.into())
}

/// An envelope with these fields besides the module.
fn request(fields: Value) -> Result<String> {
    let mut request = json!({ "module": envelope::bytes(module()?) });
    for (name, value) in fields.as_object().into_iter().flatten() {
        request[name] = value.clone();
    }
    Ok(request.to_string())
}

/// What came back for each of these requests, published at once, in the order of the answers.
async fn stdouts(device: &mut Device, topic: &str, requests: &[String]) -> Result<Vec<Vec<u8>>> {
    for request in requests {
        device.publish(topic, request.clone()).await?;
    }
    let mut stdouts = Vec::new();
    for _ in requests {
        let answer = envelope::read(&device.message().await?)?;
        assert_eq!(answer["status"], "ok", "{answer}");
        stdouts.push(envelope::bytes_of(&answer, "stdout")?);
    }
    Ok(stdouts)
}

/// The same principal, reply id and `id` within the retention time is run once: a duplicate while it runs joins it, a
/// later one gets the stored answer; every accepted delivery gets its answer. Limits and `reply` do not count. Without
/// an `id` nothing is joined.
async fn an_id_runs_once(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "once").await?;
    let topic = "inputCode/once";
    let one = request(json!({ "id": "1", "args": ["x"], "env": { "A": "1", "B": "2" } }))?;
    // Neither the limits nor the order of variables make it another request.
    let same = request(
        json!({ "env": { "B": "2", "A": "1" }, "id": "1", "args": ["x"], "fuel": 1_000_000, "timeout_ms": 20_000 }),
    )?;

    let joined = stdouts(&mut device, topic, &[one.clone(), same.clone(), one.clone()]).await?;
    assert_eq!(joined[0].len(), 8);
    assert!(joined.iter().all(|stdout| *stdout == joined[0]), "{joined:?}");
    let stored = stdouts(&mut device, topic, &[same]).await?;
    assert_eq!(stored[0], joined[0], "the stored answer");

    // The answer's form and topic are the repetition's own.
    let as_stdout =
        request(json!({ "id": "1", "args": ["x"], "env": { "A": "1", "B": "2" }, "reply": "stdout" }))?;
    device.subscribe("result/once/elsewhere").await?;
    let elsewhere =
        Properties { response_topic: Some("result/once/elsewhere".into()), ..Properties::default() };
    device.publish_with(topic, as_stdout, elsewhere, false).await?;
    let answer = device.message().await?;
    assert_eq!((answer.topic.as_str(), &answer.payload[..]), ("result/once/elsewhere", &joined[0][..]));
    assert_eq!(answer.property("id"), Some("1"));

    // Form 1 takes the id from a user property; here it is another request, for it has no arguments.
    device.publish_with(topic, module()?, Properties::user(&[("id", "1")]), false).await?;
    let answer = device.message().await?;
    assert_eq!(error_line_problems(&answer.payload, "malformed"), Vec::<String>::new());
    assert!(answer.text().contains("id: "), "{}", answer.text());

    // Another id, and none.
    let other = request(json!({ "id": "2", "args": ["x"] }))?;
    let none = request(json!({ "args": ["x"] }))?;
    let mut runs = stdouts(&mut device, topic, &[other, none.clone(), none]).await?;
    runs.push(joined[0].clone());
    runs.sort_unstable();
    runs.dedup();
    assert_eq!(runs.len(), 4, "each has run");

    // Another reply id is another request.
    let mut another = deployment.device(Version::V5, "another").await?;
    let theirs = stdouts(&mut another, "inputCode/another", &[one]).await?;
    assert_ne!(theirs[0], joined[0]);
    Ok(())
}

/// Only outcomes of a run are remembered, never `busy`, `not-found`, `unauthorized`, `expired`.
async fn what_was_no_run_is_not_remembered(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "norun").await?;
    let add = json!({ "id": "1", "program": "add", "args": ["1", "2"] });
    for (other, kind) in [
        (json!({ "program": "missing" }), "not-found"),
        (json!({ "digest": format!("sha256:{}", "0".repeat(64)) }), "not-found"),
        (json!({ "program": "add", "timeout_ms": 0 }), "expired"),
        (json!({ "program": "add", "fuel": -1 }), "malformed"),
    ] {
        let mut refused = other;
        refused["id"] = "1".into();
        let answer = envelope::read(&device.ask("localCode/norun", refused.to_string()).await?)?;
        assert_eq!(envelope::error_kind(&answer), kind, "{answer}");
    }
    let misdirected = Properties { response_topic: Some("elsewhere".into()), ..Properties::default() };
    device.publish_with("localCode/norun", add.to_string(), misdirected, false).await?;
    assert_eq!(envelope::error_kind(&envelope::read(&device.message().await?)?), "unauthorized");
    // The same id with what there is.
    let answer = envelope::read(&device.ask("localCode/norun", add.to_string()).await?)?;
    assert_eq!(envelope::bytes_of(&answer, "stdout")?, b"3\n");
    Ok(())
}

/// The same `id` with another request (code, args, env, stdin) is `malformed`.
async fn an_id_belongs_to_one_request(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "same").await?;
    let fields = json!({ "id": "1", "args": ["x"], "env": { "A": "1" }, "stdin": envelope::bytes("in") });
    let ran = envelope::read(&device.ask("inputCode/same", request(fields.clone())?).await?)?;
    assert_eq!(ran["status"], "ok", "{ran}");
    let hello = envelope::bytes(offload_tests::guest::module("hello")?);
    for (field, value) in [
        ("module", hello),
        ("args", json!(["x", "x"])),
        ("args", json!([])),
        ("env", json!({ "A": "2" })),
        ("env", json!({ "A": "1", "B": "" })),
        ("stdin", envelope::bytes("other")),
    ] {
        let mut other = fields.clone();
        other[field] = value;
        let answer = envelope::read(&device.ask("inputCode/same", request(other)?).await?)?;
        refused_in_envelope(answer, "malformed", "id: ").with_context(|| field.to_owned())?;
    }
    assert_eq!(envelope::read(&device.ask("inputCode/same", request(fields)?).await?)?, ran);
    Ok(())
}

/// Outcomes are what is remembered, also those that are errors.
async fn a_trap_is_an_outcome(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "trap").await?;
    let module = envelope::bytes(offload_tests::guest::module("trap")?);
    let request = json!({ "id": "1", "module": module }).to_string();
    let first = envelope::read(&device.ask("inputCode/trap", request.clone()).await?)?;
    assert_eq!(envelope::error_kind(&first), "trap");
    let second = envelope::read(&device.ask("inputCode/trap", request).await?)?;
    assert_eq!(first, second, "down to the microseconds");
    Ok(())
}

/// No time at all: what joins the request that runs is all there is.
const NO_RETENTION: &str = "[idempotency]\nretention = \"0s\"\n";

async fn after_the_retention_time_it_runs_again(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "again").await?;
    let one = request(json!({ "id": "1" }))?;
    let joined = stdouts(&mut device, "inputCode/again", &[one.clone(), one.clone()]).await?;
    assert_eq!(joined[0], joined[1]);
    assert_ne!(stdouts(&mut device, "inputCode/again", &[one]).await?[0], joined[0]);
    Ok(())
}

/// Two devices whose broker names them, on the embedded broker: what one calls `1` is not what the other does.
#[tokio::test]
async fn an_empty_reply_id_is_the_connections_own_on_the_embedded_broker() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let one = request(json!({ "id": "1" }))?;
    let mut stdout = Vec::new();
    for _ in 0..2 {
        let mut device = Device::connect(deployment.address(), Version::V311, "").await?;
        device.subscribe("result/").await?;
        let own = stdouts(&mut device, "inputCode/", &[one.clone(), one.clone()]).await?;
        assert_eq!(own[0], own[1]);
        stdout.push(own[0].clone());
    }
    assert_ne!(stdout[0], stdout[1]);
    Ok(())
}

/// With an empty reply id on an external broker, which does not say who asks, nothing is joined.
#[tokio::test]
async fn an_empty_reply_id_joins_nothing_on_mosquitto() -> Result<()> {
    let deployment = Deployment::on_mosquitto("").await?;
    let mut device = Device::connect(deployment.address(), Version::V311, "").await?;
    device.subscribe("result/").await?;
    let one = request(json!({ "id": "1" }))?;
    let runs = stdouts(&mut device, "inputCode/", &[one.clone(), one]).await?;
    assert_ne!(runs[0], runs[1]);
    Ok(())
}
