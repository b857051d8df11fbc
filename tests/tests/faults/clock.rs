//! The wall clock jumps, by years, ahead and back: what was agreed in spans of time goes by a clock that does not jump;
//! guests and certificates go by the wall clock, as it is now.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use offload_tests::device::{Device, Options, Version};
use offload_tests::envelope;
use offload_tests::{PATIENCE, built};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::injected::{Control, Faults};

const YEAR: i64 = 31_556_952;
const EMBEDDED: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// A guest whose exit code is the number of years since 2000, by the wall clock.
fn years_since_2000() -> Vec<u8> {
    wat::parse_str(
        r#"(module
            (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (func (export "_start")
                (drop (call $time (i32.const 0) (i64.const 1) (i32.const 0)))
                (call $exit (i32.wrap_i64 (i64.sub
                    (i64.div_u (i64.load (i32.const 0)) (i64.const 31556952000000000)) (i64.const 30))))))"#,
    )
    .expect("a valid guest")
}

/// The year that a guest finds, and whether it is asked under this `id`.
async fn year(device: &mut Device, id: Option<&str>) -> Result<i64> {
    let request = json!({ "id": id, "module": envelope::bytes(years_since_2000()) });
    let request = match id {
        Some(_) => request,
        None => json!({ "module": request["module"] }),
    };
    let answer = envelope::ask(device, "inputCode/dev", &request).await?;
    answer["exit_code"].as_i64().with_context(|| answer.to_string())
}

#[tokio::test]
async fn ids_sessions_and_limits_do_not_go_by_the_wall_clock_and_guests_do() -> Result<()> {
    let faults = Faults::none()?;
    let gateway = faults.launch(TempDir::new()?, &EMBEDDED, "").await?;
    let address = gateway.address()?;
    let mut device = Device::connect(address, Version::V5, "dev").await?;
    device.subscribe("result/dev").await?;
    let now = year(&mut device, Some("first")).await?;
    for (jump, asleep) in [(20 * YEAR, "ahead"), (-10 * YEAR, "back")] {
        let persistent = Options { clean: false, ..Options::default() };
        let mut sleeper = Device::connect_with(address, Version::V5, asleep, persistent).await?;
        sleeper.subscribe(&format!("result/{asleep}")).await?;
        drop(sleeper);
        device.publish(&format!("localCode/{asleep}"), "5 7").await?;
        // The answer waits when the next one is there.
        assert_eq!(device.ask("localCode/dev", "1 1").await?.text(), "2\n");

        faults.set(Control::ClockSeconds, jump)?;
        assert_eq!(year(&mut device, None).await?, now + jump / YEAR, "a guest has the clock as it is");
        assert_eq!(year(&mut device, Some("first")).await?, now, "an outcome is remembered");
        let mut awake = Device::connect_with(address, Version::V5, asleep, persistent).await?;
        assert_eq!(awake.message().await?.text(), "12\n", "its session is there, and its answer");
        // Limits of time are spans.
        let request =
            json!({ "program": "add", "args": ["5", "8"], "timeout_ms": 60_000, "reply": "stdout" });
        assert_eq!(device.ask("localCode/dev", request.to_string()).await?.text(), "13\n");
    }
    Ok(())
}

/// How old an outcome is, the time since the machine's start tells, as long as that is the same.
#[tokio::test]
async fn an_outcome_is_remembered_over_a_restart_wherever_the_clock_has_gone() -> Result<()> {
    let faults = Faults::none()?;
    let mut gateway = faults.launch(TempDir::new()?, &EMBEDDED, "").await?;
    let mut outcome = None;
    for jump in [0, -10 * YEAR, 20 * YEAR] {
        faults.set(Control::ClockSeconds, jump)?;
        if jump != 0 {
            gateway = faults.restart(gateway, &EMBEDDED, "").await?;
        }
        let mut device = Device::connect(gateway.address()?, Version::V5, "dev").await?;
        device.subscribe("result/dev").await?;
        let request = json!({ "id": "once", "module": envelope::bytes(years_since_2000()) });
        let answer = envelope::ask(&mut device, "inputCode/dev", &request).await?;
        assert_eq!(*outcome.get_or_insert_with(|| answer.clone()), answer, "the clock jumped by {jump} s");
    }
    Ok(())
}

/// A certificate is judged by the time of the handshake; who is connected stays so.
#[tokio::test]
async fn certificates_are_judged_by_the_clock_as_it_is() -> Result<()> {
    let folder = TempDir::new()?;
    let keys = folder.path().join("keys");
    let keys = keys.to_str().context("a path is not UTF-8")?;
    let mut keygen = Command::new(built::program("offload-rt")?);
    let output = keygen.args(["keygen", keys, "--device", "dev1"]).output().await?;
    ensure!(output.status.success(), "{output:?}");
    let faults = Faults::none()?;
    let configuration = format!(
        "[tls]\naddress = \"127.0.0.1:0\"\ncertificate = \"{keys}/server.pem\"\nkey = \"{keys}/server.key\"\n\
         client_ca = \"{keys}/ca.pem\"\n"
    );
    let gateway = faults.launch(folder, &EMBEDDED, &configuration).await?;
    let told = gateway.logged(&["MQTT over TLS", "address="]).await?;
    let address = told.trim().rsplit_once("address=").context("an address")?.1;
    let url = format!("mqtts://{}", address.replace("127.0.0.1", "localhost"));
    assert_eq!(add(&url, Path::new(keys)).await?, (Some(0), "12".to_owned()));
    faults.set(Control::ClockSeconds, 200 * YEAR)?;
    let (code, said) = add(&url, Path::new(keys)).await?;
    ensure!(code == Some(125) && said.to_lowercase().contains("expired"), "{code:?}: {said}");
    gateway.logged(&["expired"]).await?;
    faults.set(Control::ClockSeconds, -10 * YEAR)?;
    let (code, said) = add(&url, Path::new(keys)).await?;
    ensure!(code == Some(125), "valid before it was made: {code:?}: {said}");
    faults.set(Control::ClockSeconds, 0)?;
    assert_eq!(add(&url, Path::new(keys)).await?, (Some(0), "12".to_owned()));
    Ok(())
}

/// Has the client add 5 and 7; returns its exit code, and the first line that it printed.
async fn add(url: &str, keys: &Path) -> Result<(Option<i32>, String)> {
    let mut client = Command::new(built::program("offload-client")?);
    client.args(["--broker", url, "--cafile"]).arg(keys.join("ca.pem"));
    client.arg("--cert").arg(keys.join("dev1.pem")).arg("--key").arg(keys.join("dev1.key"));
    client
        .args(["--id", "dev1", "send", "--timeout", "5s", "add", "5", "7"])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(PATIENCE, client.output()).await.context("it does not end")??;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).trim().to_owned()))
}
