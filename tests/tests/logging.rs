//! What an operator sees: the log's filter, a line for each request, and what never stands in a message.

use anyhow::{Context, Result, ensure};
use offload_tests::device::{Device, Version};
use offload_tests::gateway::Gateway;
use offload_tests::{built, envelope, guest};
use rustix::process::Signal;
use serde_json::json;
use tokio::process::Command;

/// What a line about a request says.
const REQUEST: &str = " request client=";

#[tokio::test]
async fn at_debug_each_request_is_one_line_and_libraries_are_silent() -> Result<()> {
    let gateway = Gateway::logging("debug").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "dev1").await?;
    device.subscribe("result/dev1").await?;
    assert_eq!(device.ask("localCode/dev1", "5 7").await?.text(), "12\n");
    let request = json!({ "id": "a 1", "module": envelope::bytes(guest::module("spin")?), "fuel": 1000 });
    device.ask("inputCode/dev1", request.to_string()).await?;
    device.ask("localCode/dev1", json!({ "program": "none" }).to_string()).await?;
    device.ask("localCode/dev1", "\u{1}").await?;

    gateway.logged(&[REQUEST, "what=no request", "outcome=malformed: "]).await?;
    gateway.signal(Signal::TERM)?;
    let log = gateway.end().await?;
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(REQUEST)).collect();
    let expected: [&[&str]; 4] = [
        &["what=the default program", "payload=3", "outcome=exit code 0", "topic=localCode/dev1"],
        &["what=a module", "id=\"a 1\"", "outcome=fuel: ", "topic=inputCode/dev1"],
        &["what=program none", "outcome=not-found: "],
        &["what=no request", "outcome=malformed: "],
    ];
    ensure!(lines.len() == expected.len(), "{lines:#?}");
    for (line, parts) in lines.iter().zip(expected) {
        let all = [&["DEBUG", "client=dev1", "queue_us=", "run_us=", "total_us="], parts].concat();
        ensure!(all.iter().all(|part| line.contains(part)), "{line}: {all:?}");
    }
    for library in ["wasmtime", "cranelift", "rumqttc", "tungstenite"] {
        ensure!(!log.contains(library), "{library} in {log}");
    }
    Ok(())
}

#[tokio::test]
async fn by_default_no_request_is_logged() -> Result<()> {
    let gateway = Gateway::logging("").await?;
    let mut device = Device::connect(gateway.address()?, Version::V311, "dev1").await?;
    device.subscribe("result/dev1").await?;
    assert_eq!(device.ask("localCode/dev1", "5 7").await?.text(), "12\n");
    gateway.signal(Signal::TERM)?;
    let log = gateway.end().await?;
    ensure!(log.contains("SIGTERM: draining") && !log.contains(REQUEST), "{log}");
    Ok(())
}

/// Runs `offload-rt` to its end, which comes at once; returns exit code and stderr.
async fn run(arguments: &[&str], filter: &str) -> Result<(i32, String)> {
    let mut command = Command::new(built::program("offload-rt")?);
    let output = command.args(arguments).env("OFFLOAD_LOG", filter).kill_on_drop(true).output();
    let output = tokio::time::timeout(offload_tests::PATIENCE, output).await??;
    ensure!(output.stdout.is_empty());
    Ok((output.status.code().context("it exits")?, String::from_utf8(output.stderr)?))
}

#[tokio::test]
async fn a_log_filter_that_is_none_is_refused_with_what_would_be_one() -> Result<()> {
    for filter in ["verbose", "info,offload_broker=loud", "offload_rt"] {
        let (code, stderr) = run(&["serve", "--listen", "127.0.0.1:0"], filter).await?;
        assert_eq!(code, 1, "{stderr}");
        ensure!(
            stderr.starts_with("error: OFFLOAD_LOG: `") && stderr.contains("is no filter; accepted: "),
            "{stderr}"
        );
        ensure!(stderr.contains("`info,offload_broker=trace`"), "{stderr}");
    }
    Ok(())
}

#[tokio::test]
async fn a_password_in_a_brokers_url_is_refused_and_not_repeated() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("gateway.toml");
    let file = file.to_str().context("a path is text")?;
    for url in [
        "mqtt://alice:secret@plant",
        "mqtts://alice:secret@plant:1",
        "alice:secret@plant",
        "http://a:secret@b",
    ] {
        let (code, stderr) = run(&["serve", "--broker", url], "").await?;
        ensure!(code != 0 && stderr.contains("--broker") && stderr.contains("password_file"), "{stderr}");
        ensure!(!stderr.contains("secret"), "{stderr}");
        std::fs::write(file, format!("[broker]\nurl = {url:?}\n"))?;
        let (code, stderr) = run(&["serve", "--config", file], "").await?;
        ensure!(code != 0 && stderr.contains("broker.url") && !stderr.contains("secret"), "{stderr}");
    }
    Ok(())
}

/// Signals that mean nothing to a gateway do not end it.
#[tokio::test]
async fn a_signal_without_a_meaning_changes_nothing() -> Result<()> {
    let gateway = Gateway::logging("").await?;
    for signal in [Signal::USR1, Signal::USR2] {
        gateway.signal(signal)?;
    }
    let mut device = Device::connect(gateway.address()?, Version::V311, "dev1").await?;
    device.subscribe("result/dev1").await?;
    assert_eq!(device.ask("localCode/dev1", "5 7").await?.text(), "12\n");
    gateway.stop(Signal::TERM).await
}
