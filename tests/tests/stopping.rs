//! A gateway that is told to stop leaves no request that it has acknowledged without an answer.

use anyhow::{Context, Result, ensure};
use offload_tests::answer::error_line_problems;
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Version};
use offload_tests::envelope;
use offload_tests::gateway::Gateway;
use offload_tests::guest;
use offload_tests::on_each_broker;
use rustix::process::Signal;
use serde_json::json;

/// A module that takes a compiler seconds, within all limits.
fn slow_to_compile() -> Result<Vec<u8>> {
    let function = "(func (param i32) (result i32) local.get 0 i32.const 1 i32.add i32.const 3 i32.mul)";
    Ok(wat::parse_str(format!("(module (func (export \"_start\")) {})", function.repeat(40_000)))?)
}

on_each_broker! {
    whoever_runs_may_finish_after_sigterm,
    whoever_runs_may_finish_after_ctrl_c,
}

async fn whoever_runs_may_finish_after_sigterm(deployment: Deployment) -> Result<()> {
    whoever_runs_may_finish(deployment, Signal::TERM).await
}

async fn whoever_runs_may_finish_after_ctrl_c(deployment: Deployment) -> Result<()> {
    whoever_runs_may_finish(deployment, Signal::INT).await
}

/// SIGTERM and ctrl-c drain, and exit 0: what runs may end by itself.
async fn whoever_runs_may_finish(deployment: Deployment, signal: Signal) -> Result<()> {
    let mut device = deployment.device(Version::V311, "steady").await?;
    let sleep = guest::module("sleep")?;
    // The first one is compiled before it can run.
    assert_eq!(device.ask("inputCode/steady", sleep.clone()).await?.text(), "awake\n");
    let asleep = json!({ "module": envelope::bytes(sleep), "args": ["1500"], "reply": "stdout" });
    device.publish("inputCode/steady", asleep.to_string()).await?;
    // The gateway has it when it answers what came after it.
    assert_eq!(device.ask("localCode/steady", "1 1").await?.text(), "2\n");
    let (stopped, answer) = tokio::join!(deployment.gateway.stop(signal), device.message());
    stopped.context("the gateway's end")?;
    assert_eq!(answer?.text(), "awake\n");
    Ok(())
}

#[tokio::test]
async fn whoever_waits_for_a_compile_is_told_to_come_back() -> Result<()> {
    // With a journal it would be run after the next start.
    let gateway = Gateway::embedded("drain = \"0s\"\ndurability = \"off\"\n").await?;
    let mut device = Device::connect(gateway.address()?, Version::V311, "late").await?;
    device.subscribe("result/late").await?;
    device.publish("inputCode/late", slow_to_compile()?).await?;
    device.acknowledged().await?;
    let (stopped, answer) = tokio::join!(gateway.stop(Signal::TERM), device.message());
    stopped.context("the gateway's end")?;
    let problems = error_line_problems(&answer?.payload, "busy");
    ensure!(problems.is_empty(), "{problems:?}");
    Ok(())
}

/// A second SIGTERM, or a second ctrl-c, ends a gateway that drains: 143 and 130, as a shell would say.
#[tokio::test]
async fn a_second_signal_ends_it_at_once() -> Result<()> {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut gateway =
            Gateway::embedded("drain = \"1h\"\n[limits]\nwall = \"1h\"\ncpu = \"1h\"\n").await?;
        let mut device = Device::connect(gateway.address()?, Version::V311, "hog").await?;
        device.subscribe("result/hog").await?;
        let spin = guest::module("spin")?;
        // The first one is compiled before it can run.
        let limited = json!({ "module": envelope::bytes(&spin), "fuel": 1000 });
        device.ask("inputCode/hog", limited.to_string()).await?;
        device.publish("inputCode/hog", spin).await?;
        assert_eq!(device.ask("localCode/hog", "1 1").await?.text(), "2\n");
        gateway.signal(signal)?;
        gateway.logged(&["draining; a second one stops the gateway at once"]).await?;
        // It takes no new work, and what runs goes on.
        let refused = device.ask("localCode/hog", "1 1").await?;
        ensure!(error_line_problems(&refused.payload, "busy").is_empty(), "{}", refused.text());
        ensure!(gateway.ended()?.is_none(), "what runs may finish");
        gateway.signal(signal)?;
        assert_eq!(gateway.ended_with().await?.code(), Some(code));
    }
    Ok(())
}

on_each_broker! {
    whoever_runs_when_the_time_to_drain_is_up_is_told with "drain = \"0s\"\ndurability = \"off\"\n",
}

/// A planned stop is no failure: neither to who asked, nor in the log. (With a journal the embedded broker's requests
/// are run after the next start.)
async fn whoever_runs_when_the_time_to_drain_is_up_is_told(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V311, "hog").await?;
    let spin = guest::module("spin")?;
    // The first one is compiled before it can run.
    let limited = json!({ "module": envelope::bytes(&spin), "fuel": 1000 });
    device.ask("inputCode/hog", limited.to_string()).await?;
    device.publish("inputCode/hog", spin).await?;
    // Answered by the same worker or another: the endless one has long begun.
    assert_eq!(device.ask("localCode/hog", "1 1").await?.text(), "2\n");
    deployment.gateway.signal(Signal::TERM)?;
    let answer = device.message().await?;
    let problems = error_line_problems(&answer.payload, "busy");
    ensure!(problems.is_empty(), "{problems:?}");
    ensure!(answer.text().contains("stopping, try again after "), "{}", answer.text());
    let log = deployment.gateway.end().await?;
    ensure!(!log.contains("ERROR"), "{log}");
    Ok(())
}
