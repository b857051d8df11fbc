//! The disk of the data directory: read-only, full, slow, or failing.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use offload_tests::device::{Device, Version};
use offload_tests::gateway::{Gateway, Launch};
use offload_tests::guest;
use tempfile::TempDir;

use crate::injected::{Control, Faults};

const EMBEDDED: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// Becomes the gateway with a file system of its own, in memory, on the folder `$2`, mounted with the options `$1`. It
/// goes with the process.
const MOUNTED: &str = "set -e; options=$1; folder=$2; shift 2; mount -t tmpfs -o \"$options\" none \"$folder\"; \
                       exec \"$@\"";

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path is not UTF-8")
}

/// A gateway that has just been started, with its data directory on such a file system.
fn spawn_on(options: &str, configuration: &str) -> Result<Gateway> {
    let folder = TempDir::new()?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data)?;
    let data = path(&data)?.to_owned();
    let options = format!("mode=700,{options}");
    let wrapper = ["unshare", "--mount", "sh", "-c", MOUNTED, "sh", &options, &data];
    Gateway::spawn(folder, &EMBEDDED, configuration, Launch { wrapper: &wrapper, ..Launch::default() })
}

#[tokio::test]
async fn a_gateway_does_not_start_on_a_read_only_directory_and_says_what_to_do() -> Result<()> {
    let mut gateway = spawn_on("ro", "")?;
    let status = gateway.ended_with().await?;
    assert_eq!(status.code(), Some(1), "{}", gateway.log());
    let log = gateway.whole_log()?;
    ensure!(
        log.contains("error: cannot use the data directory: ") && log.contains("Read-only file system"),
        "{log}"
    );
    ensure!(log.contains("--data-dir or `data_dir` names another one"), "{log}");
    Ok(())
}

/// What is kept for later, and cannot be, costs later requests a compile, and this one nothing.
#[tokio::test]
async fn modules_are_run_where_they_cannot_be_kept() -> Result<()> {
    let faults = Faults::none()?;
    let gateway = faults.launch(TempDir::new()?, &EMBEDDED, "").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "dev").await?;
    device.subscribe("result/dev").await?;
    faults.set(Control::ChangeErrno, libc::EROFS.into())?;
    let module = guest::module("hello")?;
    let answer = device.ask("inputCode/dev", module.clone()).await?;
    ensure!(!answer.text().starts_with("error"), "{}", answer.text());
    ensure!(faults.injected()? > 0, "nothing was to be kept");
    let told = gateway.logged(&["cannot keep an artifact", "Read-only file system"]).await?;
    ensure!(told.contains("data"), "{told}");
    Ok(())
}
