//! The disk of the data directory: read-only, full, slow, or failing.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use offload_tests::device::{Device, PubAckReason, Version};
use offload_tests::gateway::{Gateway, Launch};
use offload_tests::{PATIENCE, envelope, guest};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::injected::{Control, Faults};

const EMBEDDED: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// Between two looks at a folder.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The exit code of a gateway whose journal has failed.
const EXIT_JOURNAL_FAILED: i32 = 74;

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

/// What is answered `ok` to `store` and `remove` is on the disk: where it cannot be, or its sync fails, the answer says
/// so, and nothing has changed.
#[tokio::test]
async fn what_cannot_be_stored_or_removed_is_told() -> Result<()> {
    let faults = Faults::none()?;
    let gateway = faults.launch(TempDir::new()?, &EMBEDDED, "").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "dev").await?;
    device.subscribe("result/dev").await?;
    let (first, second) = (guest::module("hello")?, guest::module("echo")?);
    let store = |module: &[u8]| json!({ "modules": "store", "module": envelope::bytes(module) });
    let (remove, list) = (
        json!({ "modules": "remove", "digest": guest::digest(&first).await? }),
        json!({ "modules": "list", "reply": "stdout" }),
    );
    assert_eq!(ask_at_qos_0(&mut device, &store(&first)).await?["status"], "ok");
    let listed = async |device: &mut Device| -> Result<usize> {
        device.publish_at(0, "inputCode/dev", list.to_string()).await?;
        Ok(serde_json::from_slice::<Vec<serde_json::Value>>(&device.message().await?.payload)?.len())
    };
    for (control, errno, request, kind) in [
        (Control::ChangeErrno, libc::ENOSPC, &store(&second), "busy"),
        (Control::ChangeErrno, libc::EROFS, &store(&second), "internal"),
        (Control::ChangeErrno, libc::EROFS, &remove, "internal"),
        (Control::SyncErrno, libc::EIO, &store(&second), "internal"),
    ] {
        let before = faults.injected()?;
        faults.set(control, errno.into())?;
        let answer = ask_at_qos_0(&mut device, request).await?;
        faults.set(control, 0)?;
        assert_eq!(envelope::error_kind(&answer), kind, "{errno} {answer}");
        ensure!(faults.injected()? > before, "nothing was to be changed");
        assert_eq!(listed(&mut device).await?, 1, "{errno} {request}");
    }
    assert_eq!(ask_at_qos_0(&mut device, &store(&second)).await?["status"], "ok");
    assert_eq!(ask_at_qos_0(&mut device, &remove).await?["status"], "ok");
    assert_eq!(listed(&mut device).await?, 1);
    Ok(())
}

/// The journal has nothing of such a request, and no part in what becomes of it.
async fn ask_at_qos_0(device: &mut Device, request: &serde_json::Value) -> Result<serde_json::Value> {
    device.publish_at(0, "inputCode/dev", request.to_string()).await?;
    envelope::read(&device.message().await?)
}

/// An address that is the same after a restart.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A request with an `id` that takes so long.
fn asleep(id: &str, milliseconds: &str) -> Result<String> {
    let module = envelope::bytes(guest::module("sleep")?);
    Ok(json!({ "id": id, "module": module, "args": [milliseconds] }).to_string())
}

/// Each sync takes half a second: acknowledgements and outcomes wait for it, and nobody is lost meanwhile.
#[tokio::test]
async fn on_a_slow_disk_everything_is_answered() -> Result<()> {
    const REQUESTS: usize = 40;
    let faults = Faults::none()?;
    let gateway = faults.launch(TempDir::new()?, &EMBEDDED, "[watchdog]\ntimeout = \"5s\"\n").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "dev").await?;
    device.subscribe("result/dev").await?;
    faults.set(Control::SyncDelay, 500)?;
    for number in 0..REQUESTS {
        let request = match number % 2 {
            0 => json!({ "program": "add", "args": ["5", "7"] }),
            _ => json!({ "id": number.to_string(), "program": "add", "args": ["5", "7"] }),
        };
        device.publish("localCode/dev", request.to_string()).await?;
    }
    for _ in 0..REQUESTS {
        assert_eq!(envelope::read(&device.message().await?)?["status"], "ok");
    }
    for _ in 0..REQUESTS {
        assert_eq!(device.acknowledged().await?, PubAckReason::Success);
    }
    ensure!(faults.injected()? > 0, "no sync was slow");
    faults.set(Control::SyncDelay, 0)?;
    assert_eq!(device.ask("localCode/dev", "5 8").await?.text(), "13\n");
    gateway.stop(Signal::TERM).await
}

/// A disk that fails is not tried again. What was acknowledged is answered after the next start; what comes when it has
/// failed is not acknowledged.
async fn a_disk_that_fails_ends_the_gateway(errno: i32, controls: &[Control]) -> Result<()> {
    let faults = Faults::none()?;
    let listen = free_address()?.to_string();
    let flags = ["--listen", &listen];
    let mut gateway = faults.launch(TempDir::new()?, &flags, "").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "dev").await?;
    device.subscribe("result/dev").await?;
    device.publish("inputCode/dev", asleep("kept", "2000")?).await?;
    assert_eq!(device.acknowledged().await?, PubAckReason::Success);
    for control in controls {
        faults.set(*control, errno.into())?;
    }
    // This one needs the disk.
    device.publish("inputCode/dev", asleep("late", "1")?).await?;
    let status = gateway.ended_with().await?;
    assert_eq!(status.code(), Some(EXIT_JOURNAL_FAILED), "{}", gateway.log());
    ensure!(faults.injected()? > 0, "nothing has failed");
    let log = gateway.whole_log()?;
    ensure!(log.contains("the journal has failed") && log.contains("start the gateway again"), "{log}");
    drop(device);

    for control in controls {
        faults.set(*control, 0)?;
    }
    let gateway = gateway.replace(&flags, "", Launch::default()).await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "dev").await?;
    device.subscribe("result/dev").await?;
    // It runs, or has run: either way this is the same request.
    device.publish("inputCode/dev", asleep("kept", "2000")?).await?;
    loop {
        let answer = envelope::read(&device.message().await?)?;
        assert_eq!(answer["status"], "ok");
        if answer["id"] == "kept" {
            break;
        }
    }
    gateway.stop(Signal::TERM).await
}

#[tokio::test]
async fn a_failing_sync_ends_the_gateway_and_loses_nothing() -> Result<()> {
    a_disk_that_fails_ends_the_gateway(libc::EIO, &[Control::SyncErrno]).await
}

/// As ext4 makes itself after an error.
#[tokio::test]
async fn a_disk_that_becomes_read_only_ends_the_gateway_and_loses_nothing() -> Result<()> {
    let all = [Control::WriteErrno, Control::ChangeErrno, Control::SyncErrno];
    a_disk_that_fails_ends_the_gateway(libc::EROFS, &all).await
}

/// Room for records is reserved: small requests go on. One whose payload needs a new file is answered, and its
/// publisher hears that it is not safe meanwhile.
#[tokio::test]
async fn on_a_full_disk_small_requests_go_on_and_large_ones_are_not_called_safe() -> Result<()> {
    const SMALL: usize = 100;
    const LARGE: usize = 1 << 20;
    let gateway = spawn_on("size=64m", "")?.when_ready().await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "dev").await?;
    device.subscribe("result/dev").await?;
    let module = envelope::bytes(guest::module("sleep")?);
    let large = |id: &str| {
        let stdin = envelope::bytes(vec![b'1'; LARGE]);
        json!({ "id": id, "module": module, "args": ["1500"], "stdin": stdin }).to_string()
    };
    assert_eq!(envelope::ask(&mut device, "inputCode/dev", large("before")).await?["status"], "ok");
    // The gateway's own view of its directory.
    let data = format!("/proc/{}/root{}", gateway.id()?, path(&gateway.data_dir())?);
    let filler = format!("{data}/filler");
    // The payload goes soon after its answer, and is not to make room later.
    let payloads = format!("{data}/journal/blobs");
    let gone = async {
        while std::fs::read_dir(&payloads)?.next().is_some() {
            sleep(LOOK_AGAIN).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, gone).await.context("the payload of an answered request stays")??;
    fill(&filler)?;
    for number in 0..SMALL {
        let request = json!({ "id": format!("small {number}"), "program": "add", "args": ["5", "7"] });
        assert_eq!(envelope::ask(&mut device, "localCode/dev", request).await?["status"], "ok");
    }
    for _ in 0..=SMALL {
        assert_eq!(device.acknowledged().await?, PubAckReason::Success);
    }
    device.publish("inputCode/dev", large("during")).await?;
    assert_eq!(device.acknowledged().await?, PubAckReason::UnspecifiedError);
    let told = gateway.logged(&["the journal is full", "make room on the disk"]).await?;
    ensure!(told.contains("journal.payloads"), "{told}");
    assert_eq!(envelope::read(&device.message().await?)?["status"], "ok");

    std::fs::remove_file(&filler)?;
    device.publish("inputCode/dev", large("after")).await?;
    assert_eq!(device.acknowledged().await?, PubAckReason::Success);
    assert_eq!(envelope::read(&device.message().await?)?["status"], "ok");
    gateway.stop(Signal::TERM).await
}

/// Writes to a file until the disk is full.
fn fill(path: &str) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    for bytes in [1 << 20, 4096] {
        while std::io::Write::write_all(&mut file, &vec![0; bytes]).is_ok() {}
    }
    Ok(())
}

/// Without room for the journal's first files there is no start, and the error says what lacks.
#[tokio::test]
async fn a_gateway_does_not_start_on_a_full_disk_and_says_what_lacks() -> Result<()> {
    let mut gateway = spawn_on("size=8m", "")?;
    let status = gateway.ended_with().await?;
    assert_eq!(status.code(), Some(1), "{}", gateway.log());
    let log = gateway.whole_log()?;
    let error = log.lines().find(|line| line.starts_with("error: ")).context("an error")?;
    ensure!(error.contains("journal") && error.contains("No space left on device"), "{error}");
    Ok(())
}
