//! Memory is short: at the start, where the gateway serves with less or says what it lacks, and while it runs, where it
//! ends by a signal and serves again when it is started again.

use anyhow::{Context, Result, ensure};
use offload_tests::device::{Device, Options, PubAckReason, Version};
use offload_tests::gateway::{Gateway, Launch};
use offload_tests::{envelope, guest};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;
use tempfile::TempDir;

const EMBEDDED: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// Few guests, so that little address space is enough; each slot takes 4 GiB of it.
const SMALL: &str = "native = \"off\"\n[workers]\ncount = 1\nslots = 8\n";

/// A gateway in so much address space.
fn limited<'a>(wrapper: &'a [&'a str]) -> Launch<'a> {
    Launch { wrapper, ..Launch::default() }
}

#[tokio::test]
async fn with_little_address_space_there_are_fewer_slots_and_the_log_says_so() -> Result<()> {
    let wrapper = ["prlimit", "--as=24000000000"];
    let gateway = Gateway::launch(TempDir::new()?, &EMBEDDED, SMALL, limited(&wrapper)).await?;
    let told = gateway.logged(&["room for fewer guests at once than wanted", "ulimit -v"]).await?;
    ensure!(told.contains("address space can be reserved"), "{told}");
    let mut device = Device::connect(gateway.address()?, Version::V5, "dev").await?;
    device.subscribe("result/dev").await?;
    assert_eq!(device.ask("localCode/dev", "5 7").await?.text(), "12\n");
    Ok(())
}

#[tokio::test]
async fn without_room_for_one_guest_it_does_not_start_and_says_what_would_do() -> Result<()> {
    let wrapper = ["prlimit", "--as=3000000000"];
    let mut gateway = Gateway::spawn(TempDir::new()?, &EMBEDDED, SMALL, limited(&wrapper))?;
    let status = gateway.ended_with().await?;
    assert_eq!(status.code(), Some(1), "{}", gateway.log());
    let log = gateway.whole_log()?;
    let error = log.lines().find(|line| line.starts_with("error: ")).context("an error")?;
    ensure!(
        error.contains("cannot set up the workers") && error.contains("fewer [workers] slots"),
        "{error}"
    );
    Ok(())
}

/// Rust's allocator cannot be asked to do with less: the process ends, with the reason as its last line, and whatever
/// starts it again finds all that was kept.
#[tokio::test]
async fn without_memory_it_ends_says_why_and_serves_again_after_a_start() -> Result<()> {
    const PAYLOAD: usize = 16 << 20;
    let mut gateway = Gateway::embedded("[listen]\nmax_packet = \"32MiB\"\n").await?;
    let options = Options { max_packet: 2 * PAYLOAD as u32, ..Options::default() };
    let mut device = Device::connect_with(gateway.address()?, Version::V5, "dev", options).await?;
    device.subscribe("result/dev").await?;
    assert_eq!(device.ask("localCode/dev", "5 7").await?.text(), "12\n");
    let module = envelope::bytes(guest::module("sleep")?);
    let kept = json!({ "id": "kept", "module": module, "args": ["2000"], "reply": "stdout" }).to_string();
    device.publish("inputCode/dev", kept.clone()).await?;
    for _ in 0..2 {
        assert_eq!(device.acknowledged().await?, PubAckReason::Success);
    }
    let id = Pid::from_raw(gateway.id()?.cast_signed());
    // Nothing more is mapped from here on.
    let none = Rlimit { current: Some(1 << 30), ..getrlimit(Resource::As) };
    prlimit(id, Resource::As, none)?;
    device.publish("localCode/dev", vec![b'1'; PAYLOAD]).await?;
    let status = gateway.ended_with().await?;
    ensure!(std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGABRT), "{status}");
    let log = gateway.whole_log()?;
    ensure!(log.contains("memory allocation of ") && log.contains(" bytes failed"), "{log}");

    let gateway = gateway.replace(&EMBEDDED, "", Launch::default()).await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "dev").await?;
    device.subscribe("result/dev").await?;
    // It runs again, or has run: either way this is the same request.
    device.publish("inputCode/dev", kept).await?;
    assert_eq!(device.message().await?.text(), "awake\n");
    Ok(())
}
