//! Limits: the gateway's, and what a request asks for.

use anyhow::{Context, Result};
use offload_tests::answer::{refused, refused_in_envelope};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Properties, Version};
use offload_tests::on_each_broker;
use offload_tests::{envelope, guest};
use serde_json::{Map, Value, json};

use crate::guests::prints_and;

/// Small limits, so that it takes little to be over them. CPU time is shorter than the sleep of a test, wall-clock time
/// longer.
const CONFIGURATION: &str = "[limits]\nmodule = \"1MiB\"\nstdin = \"100KB\"\nargs = 20\nargs_bytes = 1000\nenv = 5\n\
                             env_bytes = 1000\ncpu = \"250ms\"\nwall = \"60s\"\nfuel = 1_000_000_000_000_000\n";

on_each_broker! {
    what_is_over_a_limit_is_too_large with CONFIGURATION,
    limits_can_be_lowered_and_not_raised with CONFIGURATION,
    growth_over_the_limit_is_refused_and_ends_who_cannot_or_will_not_go_on with CONFIGURATION,
    time_that_is_up_before_the_start_is_expired_and_after_it_timeout with CONFIGURATION,
    time_on_a_core_and_on_the_wall_are_two_limits with CONFIGURATION,
    time_on_the_wall_ends_a_sleeper with NEAR_WALL,
}

/// `too-large`: module, source, args, env or stdin over the limit (both figures in the message). Source is
/// `native_source.rs`'s.
async fn what_is_over_a_limit_is_too_large(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "large").await?;
    let mut module = guest::module("hello")?.to_vec();
    module.resize(1_100_000, 0);
    let answer = device.ask("inputCode/large", module).await?;
    refused(&answer, "too-large", "1100000")?;
    refused(&answer, "too-large", "1048576")?;
    let numbers = vec!["1"; 21];
    let answer = device.ask("localCode/large", numbers.join(" ")).await?;
    refused(&answer, "too-large", "21")?;
    refused(&answer, "too-large", "20")?;
    let variables: Map<String, Value> = (0..6).map(|n| (format!("V{n}"), "".into())).collect();
    for (field, value, found, limit) in [
        ("args", json!(["x".repeat(1001)]), "1001", "1000"),
        ("env", variables.into(), "6", "5"),
        ("env", json!({ "V": "x".repeat(1000) }), "1001", "1000"),
        ("stdin", envelope::bytes(vec![b'x'; 100_001]), "100001", "100000"),
    ] {
        let mut request = json!({ "program": "add" });
        request[field] = value;
        let answer = envelope::read(&device.ask("localCode/large", request.to_string()).await?)?;
        refused_in_envelope(answer.clone(), "too-large", field)?;
        refused_in_envelope(answer.clone(), "too-large", found)?;
        refused_in_envelope(answer, "too-large", limit)?;
    }
    Ok(())
}

/// `fuel`, `memory`, `timeout_ms` may lower the gateway's limits, never raise them.
async fn limits_can_be_lowered_and_not_raised(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "raised").await?;
    let most = u64::MAX.to_string();
    let limits = Properties::user(&[("memory", &most), ("fuel", &most), ("timeout-ms", &most)]);
    device.publish_with("inputCode/raised", guest::module("grow")?, limits, false).await?;
    refused(&device.message().await?, "memory", "")?;
    for (program, field, limit, kind) in [
        ("spin", "fuel", 1000, "fuel"),
        ("grow", "memory", 1 << 20, "memory"),
        ("sleep", "timeout_ms", 3000, "timeout"),
    ] {
        let module = envelope::bytes(guest::module(program)?);
        let mut request = json!({ "module": module, "args": ["60000"] });
        // The first one is compiled before it can run.
        request["fuel"] = 1.into();
        device.ask("inputCode/raised", request.to_string()).await?;
        request["fuel"] = Value::from(u64::MAX);
        request[field] = limit.into();
        let answer = envelope::read(&device.ask("inputCode/raised", request.to_string()).await?)?;
        refused_in_envelope(answer, kind, "").with_context(|| field.to_owned())?;
    }
    Ok(())
}

/// A guest whose `memory.grow` goes over its limit gets -1; `memory` ends it only when it cannot or will not go on.
async fn growth_over_the_limit_is_refused_and_ends_who_cannot_or_will_not_go_on(
    deployment: Deployment,
) -> Result<()> {
    let mut device = deployment.device(Version::V5, "growing").await?;
    let own_limit = json!(2 << 16);
    for (limit, growth) in [(Value::Null, "(i32.const 65000)"), (own_limit, "(i32.const 2)")] {
        let is_refused = format!("(i32.eq (memory.grow {growth}) (i32.const -1))");
        for (instructions, kind) in [
            (format!("(if {is_refused} (then (call $exit (i32.const 0))))"), None),
            // Less is still to be had.
            (
                format!(
                    "(drop {is_refused}) (if (i32.ne (memory.grow (i32.const 1)) (i32.const 1)) (then unreachable))"
                ),
                None,
            ),
            (format!("(if {is_refused} (then unreachable))"), Some("memory")),
            (format!("(loop (br_if 0 {is_refused}))"), Some("memory")),
            ("unreachable".to_owned(), Some("trap")),
        ] {
            let module = envelope::bytes(prints_and("here", &instructions)?);
            let mut request = json!({ "module": module });
            if !limit.is_null() {
                request["memory"] = limit.clone();
            }
            let answer = envelope::ask(&mut device, "inputCode/growing", &request).await?;
            match kind {
                Some(kind) => refused_in_envelope(answer, kind, "").context(instructions)?,
                None => assert_eq!(answer["status"], "ok", "{instructions}: {answer}"),
            }
        }
    }
    Ok(())
}

/// `timeout_ms` counts from arrival. It ran out before the start: `expired`; after: `timeout`.
async fn time_that_is_up_before_the_start_is_expired_and_after_it_timeout(
    deployment: Deployment,
) -> Result<()> {
    let mut device = deployment.device(Version::V5, "late").await?;
    let request = json!({ "program": "add", "timeout_ms": 0 });
    let answer = envelope::read(&device.ask("localCode/late", request.to_string()).await?)?;
    refused_in_envelope(answer, "expired", "")?;
    let sleep = guest::module("sleep")?;
    assert_eq!(device.ask("inputCode/late", sleep.clone()).await?.text(), "awake\n");
    let sleeping = Properties::user(&[("timeout-ms", "3000"), ("arg", "60000")]);
    device.publish_with("inputCode/late", sleep, sleeping, false).await?;
    refused(&device.message().await?, "timeout", "")
}

/// The gateway's own limits on CPU and on wall-clock time are separate: who sleeps longer than it may compute is not
/// ended, who computes longer is, though wall-clock time is left.
async fn time_on_a_core_and_on_the_wall_are_two_limits(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "times").await?;
    let asleep =
        json!({ "module": envelope::bytes(guest::module("sleep")?), "args": ["1000"], "reply": "stdout" });
    assert_eq!(device.ask("inputCode/times", asleep.to_string()).await?.text(), "awake\n");
    refused(&device.ask("inputCode/times", guest::module("spin")?).await?, "timeout", "CPU")
}

/// A wall that is soon reached.
const NEAR_WALL: &str = "[limits]\nwall = \"300ms\"\n";

/// Who sleeps past the gateway's limit on wall-clock time is ended, though it has used no CPU time.
async fn time_on_the_wall_ends_a_sleeper(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "sleeper").await?;
    let asleep = json!({ "module": envelope::bytes(guest::module("sleep")?), "args": ["600000"] });
    let answer = envelope::read(&device.ask("inputCode/sleeper", asleep.to_string()).await?)?;
    refused_in_envelope(answer, "timeout", "")
}

/// By default one principal may have 4 096 requests waiting; `busy` is for those above. (On an external broker its
/// Receive Maximum of as many holds back what is above.)
#[tokio::test]
async fn by_default_4096_requests_of_one_principal_may_wait() -> Result<()> {
    const WAITING: usize = 4096;
    const ABOVE: usize = 5;
    // One of the two slots is the most that a principal may hold, and a sleeper holds it to the end of the test.
    let configuration = "[workers]\ncount = 1\nslots = 2\n[limits]\nwall = \"1h\"\n";
    let deployment = Deployment::embedded(configuration).await?;
    let mut device = deployment.device(Version::V5, "many").await?;
    let mut other = deployment.device(Version::V5, "other").await?;
    let sleep = guest::module("sleep")?;
    assert_eq!(device.ask("inputCode/many", sleep.clone()).await?.text(), "awake\n");
    device.publish_with("inputCode/many", sleep, Properties::user(&[("arg", "3600000")]), false).await?;
    for _ in 0..2 {
        device.acknowledged().await?;
    }
    // Answered by the worker that has begun the sleeper before it.
    assert_eq!(other.ask("localCode/other", "1 1").await?.text(), "2\n");
    for number in 0..WAITING + ABOVE {
        let request = json!({ "id": number.to_string(), "program": "add" });
        device.publish("localCode/many", request.to_string()).await?;
    }
    for number in WAITING..WAITING + ABOVE {
        let answer = envelope::read(&device.message().await?)?;
        assert_eq!(answer["id"], number.to_string());
        refused_in_envelope(answer, "busy", "try again after ")?;
    }
    for _ in 0..WAITING + ABOVE {
        device.acknowledged().await?;
    }
    assert_eq!(other.ask("localCode/other", "2 2").await?.text(), "4\n");
    assert!(device.message_there().is_none(), "none of the others is refused");
    Ok(())
}
