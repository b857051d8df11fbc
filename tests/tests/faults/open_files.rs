//! No descriptor is left: new connections are closed at once, those that are there are served, what needs a child is
//! answered with an error, and all is as before when there are descriptors again.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use offload_tests::answer::refused;
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Version};
use offload_tests::gateway::Gateway;
use offload_tests::{PATIENCE, guest};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What a worker has loaded it can run without a descriptor; another one would need some to load it.
const ONE_WORKER: &str = "[workers]\ncount = 1\n";

/// The first descriptor that the gateway does not have open: with this limit it gets no other.
fn lowest_free(gateway: &Gateway) -> Result<u64> {
    let open = fs::read_dir(format!("/proc/{}/fd", gateway.id()?))?;
    let open: Vec<u64> =
        open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    (0..).find(|number| !open.contains(number)).context("numbers do not end")
}

/// Lets the gateway open descriptors below this number alone.
fn limit(gateway: &Gateway, current: Option<u64>) -> Result<()> {
    let id = Pid::from_raw(gateway.id()?.cast_signed());
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(id, Resource::Nofile, Rlimit { current, maximum })?;
    Ok(())
}

#[tokio::test]
async fn without_descriptors_clients_that_are_there_are_served_and_others_are_told() -> Result<()> {
    let deployment = Deployment::embedded(ONE_WORKER).await?;
    let gateway = &deployment.gateway;
    let mut device = deployment.device(Version::V5, "there").await?;
    assert_eq!(device.ask("localCode/there", "5 7").await?.text(), "12\n");

    limit(gateway, Some(lowest_free(gateway)?))?;
    let deadline = Instant::now() + PATIENCE;
    let mut newcomer = TcpStream::connect(deployment.address()).await?;
    let heard = timeout(PATIENCE, newcomer.read(&mut [0])).await.context("it hears nothing")?;
    ensure!(!matches!(heard, Ok(1..)), "it is served, without a descriptor");
    let told = gateway.logged(&["cannot accept connections", "LimitNOFILE"]).await?;
    ensure!(told.contains("Too many open files"), "{told}");
    assert_eq!(device.ask("localCode/there", "5 8").await?.text(), "13\n");
    // Its compile child would need pipes.
    let module = guest::module("hello")?;
    refused(&device.ask("inputCode/there", module.clone()).await?, "internal", "the gateway failed")?;
    gateway.logged(&["internal error: compile child", "Too many open files"]).await?;
    ensure!(Instant::now() < deadline, "each of these waits had an end of its own");

    limit(gateway, Some(1 << 10))?;
    let mut late = deployment.device(Version::V5, "late").await?;
    assert_eq!(late.ask("localCode/late", "5 9").await?.text(), "14\n");
    let answer = device.ask("inputCode/there", module).await?;
    ensure!(!answer.text().starts_with("error"), "{}", answer.text());
    Ok(())
}

/// On an external broker the one connection is there; what needs a descriptor is refused in the same way.
#[tokio::test]
async fn on_mosquitto_requests_are_answered_without_descriptors() -> Result<()> {
    let deployment = Deployment::on_mosquitto(ONE_WORKER).await?;
    let mut device: Device = deployment.device(Version::V311, "there").await?;
    assert_eq!(device.ask("localCode/there", "5 7").await?.text(), "12\n");
    limit(&deployment.gateway, Some(lowest_free(&deployment.gateway)?))?;
    assert_eq!(device.ask("localCode/there", "5 8").await?.text(), "13\n");
    let module = guest::module("hello")?;
    refused(&device.ask("inputCode/there", module.clone()).await?, "internal", "the gateway failed")?;
    limit(&deployment.gateway, Some(1 << 10))?;
    let answer = device.ask("inputCode/there", module).await?;
    ensure!(!answer.text().starts_with("error"), "{}", answer.text());
    Ok(())
}
