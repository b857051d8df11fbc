//! A log or an output that cannot be written: nothing else is lost with it.

use std::fs::File;
use std::io::{PipeWriter, pipe};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use offload_tests::built;
use offload_tests::device::{Device, Version};
use offload_tests::process::Process;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

/// The exit code of a command whose output could not be written.
const UNPRINTABLE: i32 = 125;

fn full() -> Result<File> {
    Ok(File::options().write(true).open("/dev/full")?)
}

/// A pipe whose reader has left.
fn left() -> Result<PipeWriter> {
    let (reader, writer) = pipe()?;
    drop(reader);
    Ok(writer)
}

async fn serve_and_stop(stderr: Stdio) -> Result<()> {
    let folder = TempDir::new()?;
    let (data, file) = (folder.path().join("data"), folder.path().join("gateway.toml"));
    std::fs::write(&file, "[status]\ninterval = \"100ms\"\n")?;
    let (data, file) = (data.to_str().context("UTF-8")?, file.to_str().context("UTF-8")?);
    let arguments = ["serve", "--config", file, "--listen", "127.0.0.1:0", "--data-dir", data];
    let mut gateway = Process::start_with(
        &built::program("offload-rt")?,
        &arguments,
        &[],
        stderr,
        &folder.path().join("log"),
    )?;
    let line = gateway.line().await?;
    let address =
        line.strip_prefix("listening on mqtt://").context("not the line of the contract")?.parse()?;
    gateway.signal(Signal::HUP)?;
    let mut device = Device::connect(address, Version::V5, "dev").await?;
    device.subscribe("result/dev").await?;
    // Each of these is a line of the log.
    for _ in 0..20 {
        device.publish("result/dev", "refused").await?;
        device.acknowledged().await?;
    }
    assert_eq!(device.ask("localCode/dev", "5 7").await?.text(), "12\n");
    device.subscribe("gateway/+/status").await?;
    let lost =
        |status: &[u8]| anyhow::Ok(serde_json::from_slice::<Value>(status)?["lost_log_lines"].as_u64());
    while lost(&device.message().await?.payload)?.is_none() {}
    gateway.signal(Signal::TERM)?;
    let status = gateway.end().await?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[tokio::test]
async fn a_gateway_serves_and_drains_with_its_log_on_a_full_disk() -> Result<()> {
    serve_and_stop(full()?.into()).await
}

#[tokio::test]
async fn a_gateway_serves_and_drains_when_the_reader_of_its_log_has_left() -> Result<()> {
    serve_and_stop(left()?.into()).await
}

#[tokio::test]
async fn a_gateway_serves_and_drains_when_the_reader_of_its_log_has_stopped_reading() -> Result<()> {
    let (reader, mut writer) = pipe()?;
    rustix::io::ioctl_fionbio(&writer, true)?;
    while std::io::Write::write(&mut writer, &[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false)?;
    serve_and_stop(writer.into()).await?;
    drop(reader);
    Ok(())
}

async fn run(arguments: &[&str], folder: &Path, stdout: impl Into<Stdio>) -> Result<(ExitStatus, String)> {
    let output = Command::new(built::program("offload-rt")?)
        .args(arguments)
        .current_dir(folder)
        .env("HOME", folder)
        .stdin(File::open(folder.join("password"))?)
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()
        .await?;
    Ok((output.status, String::from_utf8(output.stderr)?))
}

#[tokio::test]
async fn a_command_whose_output_cannot_be_written_ends_without_a_panic() -> Result<()> {
    for (number, arguments) in [
        &["config"][..],
        &["doctor", "--json"],
        &["doctor"],
        &["keygen", "keys"],
        &["passwd", "users", "anna"],
        &["demo"],
        &["--help"],
        &["--version"],
        &["serve", "--help"],
    ]
    .iter()
    .enumerate()
    {
        let folder = TempDir::new()?;
        std::fs::write(folder.path().join("password"), "secret\n")?;
        // Who has read enough and left is told nothing.
        let (status, stderr) = run(arguments, folder.path(), left()?).await?;
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
        let again = folder.path().join(number.to_string());
        std::fs::create_dir(&again)?;
        std::fs::write(again.join("password"), "secret\n")?;
        let (status, stderr) = run(arguments, &again, full()?).await?;
        assert_eq!(status.code(), Some(UNPRINTABLE), "{arguments:?}: {stderr}");
        assert_eq!(stderr, "error: output: No space left on device (os error 28)\n", "{arguments:?}");
    }
    Ok(())
}
