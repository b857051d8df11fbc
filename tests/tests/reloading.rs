//! What changes without a restart: SIGHUP has the gateway read its configuration again, whole or not at all.

use anyhow::{Context, Result, ensure};
use offload_tests::answer::error_line_problems;
use offload_tests::device::{Device, Version};
use offload_tests::gateway::Gateway;
use offload_tests::guest;
use tempfile::TempDir;

async fn device(gateway: &Gateway) -> Result<Device> {
    let mut device = Device::connect(gateway.address()?, Version::V5, "dev").await?;
    device.subscribe("result/dev").await?;
    Ok(device)
}

/// Asks, and expects an error of this kind.
async fn refused(device: &mut Device, topic: &str, payload: Vec<u8>, kind: &str) -> Result<()> {
    let answer = device.ask(topic, payload).await?;
    let problems = error_line_problems(&answer.payload, kind);
    ensure!(problems.is_empty(), "{problems:?}: {}", answer.text());
    Ok(())
}

#[tokio::test]
async fn rules_count_for_the_next_request_of_whoever_is_connected() -> Result<()> {
    let gateway = Gateway::embedded("").await?;
    let mut device = device(&gateway).await?;
    let hello = guest::module("hello")?.to_vec();
    let greeting = device.ask("inputCode/dev", hello.clone()).await?.text();
    gateway.reload("[access]\noffload = []\n").await?;
    refused(&mut device, "inputCode/dev", hello.clone(), "unauthorized").await?;
    assert_eq!(device.ask("localCode/dev", "5 7").await?.text(), "12\n");
    gateway.logged(&["is in force", "access.offload"]).await?;
    gateway.reload("[access]\nprograms = []\n").await?;
    refused(&mut device, "localCode/dev", b"5 7".to_vec(), "unauthorized").await?;
    assert_eq!(device.ask("inputCode/dev", hello).await?.text(), greeting);
    Ok(())
}

#[tokio::test]
async fn programs_come_and_go() -> Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("hello.wasm");
    std::fs::write(&file, guest::module("hello")?)?;
    let gateway = Gateway::embedded("").await?;
    let mut device = device(&gateway).await?;
    let hello = || br#"{"program": "hello", "reply": "stdout"}"#.to_vec();
    refused(&mut device, "localCode/dev", hello(), "not-found").await?;
    gateway.reload(&format!("[[program]]\nname = \"hello\"\nfile = {file:?}\n")).await?;
    let greeting = device.ask("localCode/dev", hello()).await?;
    ensure!(!greeting.text().starts_with("error"), "{}", greeting.text());
    // Another program of the same name takes its place.
    std::fs::write(&file, guest::module("echo")?)?;
    gateway.hang_up().await?;
    ensure!(device.ask("localCode/dev", hello()).await?.text() != greeting.text());
    gateway.reload("").await?;
    refused(&mut device, "localCode/dev", hello(), "not-found").await?;
    Ok(())
}

#[tokio::test]
async fn limits_count_for_the_next_request() -> Result<()> {
    let gateway = Gateway::embedded("").await?;
    let mut device = device(&gateway).await?;
    assert_eq!(device.ask("localCode/dev", "5 7").await?.text(), "12\n");
    gateway.reload("[limits]\nargs = 1\n").await?;
    refused(&mut device, "localCode/dev", b"5 7".to_vec(), "too-large").await?;
    gateway.reload("[limits]\nfuel = 1\n").await?;
    refused(&mut device, "localCode/dev", b"5 7".to_vec(), "fuel").await?;
    gateway.reload("").await?;
    assert_eq!(device.ask("localCode/dev", "5 7").await?.text(), "12\n");
    Ok(())
}

/// The old configuration stays in force, and the log says what is wrong with the new one, and in which line.
#[tokio::test]
async fn a_bad_file_is_refused_as_a_whole() -> Result<()> {
    let good = "[limits]\nargs = 1\n";
    let gateway = Gateway::embedded(good).await?;
    let mut device = device(&gateway).await?;
    let file = gateway.configuration().display().to_string();
    let folder = TempDir::new()?;
    let missing = folder.path().join("missing.wasm");
    let broken = folder.path().join("broken.wat");
    std::fs::write(&broken, "(module")?;
    let invalid = folder.path().join("invalid.wasm");
    std::fs::write(&invalid, b"\0asm\x01\0\0\0what is no section")?;
    for (bad, words) in [
        ("[limits]\nargs = 2\nwalls = \"1s\"\n".to_owned(), ["SIGHUP: ", ":3:1: limits.walls: unknown key"]),
        ("[limits]\nargs = 2\nwall = \"1".to_owned(), ["SIGHUP: ", ":3:"]),
        (
            format!("[limits]\nargs = 2\n[[program]]\nname = \"p\"\nfile = {missing:?}\n"),
            [":5:8: program[0].file: ", "No such file"],
        ),
        (
            format!("[limits]\nargs = 2\n[[program]]\nname = \"p\"\nfile = {broken:?}\n"),
            [":5:8: program[0].file: ", "neither a module nor WebAssembly text"],
        ),
        (
            format!("[limits]\nargs = 2\n[[program]]\nname = \"p\"\nfile = {invalid:?}\n"),
            ["SIGHUP: program `p`", "not valid wasm"],
        ),
        (
            format!("[limits]\nargs = 2\n[access]\npasswords = {missing:?}\noffload = [\"code\"]\n"),
            ["SIGHUP: ", ":5:"],
        ),
    ] {
        gateway.reload(&bad).await?;
        let line = gateway.logged(&words).await?;
        ensure!(line.contains("ERROR"), "{line}");
        refused(&mut device, "localCode/dev", b"5 7".to_vec(), "too-large").await?;
    }
    ensure!(gateway.whole_log()?.contains(&format!("{file}:3:1:")), "the file is named");
    std::fs::remove_file(gateway.configuration())?;
    gateway.hang_up().await?;
    gateway.logged(&["cannot read the configuration", "No such file"]).await?;
    refused(&mut device, "localCode/dev", b"5 7".to_vec(), "too-large").await?;
    gateway.reload("").await?;
    assert_eq!(device.ask("localCode/dev", "5 7").await?.text(), "12\n");
    Ok(())
}

/// What is decided at the start is named, and the rest of the file is taken over.
#[tokio::test]
async fn what_needs_a_restart_is_told() -> Result<()> {
    let gateway = Gateway::embedded("").await?;
    let mut device = device(&gateway).await?;
    gateway
        .reload("[workers]\ncount = 1\n[limits]\nargs = 1\nmemory = \"65MiB\"\n[watchdog]\nenabled = false\n")
        .await?;
    for key in ["workers.count", "limits.memory", "watchdog.enabled"] {
        let line = gateway.logged(&[key, "needs a restart"]).await.with_context(|| key.to_owned())?;
        ensure!(line.contains("WARN"), "{line}");
    }
    refused(&mut device, "localCode/dev", b"5 7".to_vec(), "too-large").await?;
    Ok(())
}
