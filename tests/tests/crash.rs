//! What the checker finds when gateways and brokers are killed under load, in a few rounds of a few seeds; as many as
//! one likes are run by `cargo xtask chaos --crash`, of networks by `--target nats` and `--target sites` with it.
//!
//! The checker is a program of its own (`tests/checker/`), which trusts neither the gateway nor these tests. So it is
//! shown here as well that it finds losses where there are some.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use offload_tests::built;
use offload_tests::process::Process;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

/// Of the checker: when it has found a contradiction, and when a signal ended it.
const FOUND: i32 = 1;
const INTERRUPTED: i32 = 130;

/// Runs the checker with these arguments: its exit code and its report.
async fn check(arguments: &[&str]) -> Result<(i32, Value)> {
    let mut command = Command::new(built::program("offload-checker")?);
    let output = command.args(arguments).arg("--json").kill_on_drop(true).output().await?;
    let code = output.status.code().context("it was killed")?;
    let report = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no report: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((code, report))
}

/// All rounds hold.
async fn holds(arguments: &[&str], rounds: u64) -> Result<()> {
    let (code, report) = check(arguments).await?;
    ensure!(code == 0, "{arguments:?}: {report:#}");
    // Whoever sends nothing loses nothing.
    assert_eq!(report["rounds"], rounds);
    for count in ["kills", "requests", "acknowledged", "answers"] {
        ensure!(report[count].as_u64().is_some_and(|count| count >= rounds), "no {count}: {report:#}");
    }
    Ok(())
}

/// At least one contradiction of each of these kinds is found.
async fn finds(arguments: &[&str], kinds: &[&str]) -> Result<()> {
    let (code, report) = check(arguments).await?;
    ensure!(code == FOUND, "{arguments:?} exits with {code}: {report:#}");
    for kind in kinds {
        ensure!(report["found"][kind].as_u64().is_some_and(|count| count > 0), "no {kind}: {report:#}");
    }
    // Enough to understand it: what was sent, and when what was killed.
    let history = &report["contradictions"][0]["history"];
    ensure!(history.as_array().is_some_and(|lines| !lines.is_empty()), "no history: {report:#}");
    assert!(report["contradictions"][0]["round"].is_u64());
    Ok(())
}

#[tokio::test]
async fn without_durability_losses_are_found() -> Result<()> {
    let arguments = ["--durability", "off", "--seed", "1", "--rounds", "5", "--patience", "5"];
    finds(&arguments, &["lost", "session-lost", "undelivered", "not-retained"]).await
}

#[tokio::test]
async fn without_durability_an_id_is_answered_twice_differently_on_mosquitto() -> Result<()> {
    let arguments = ["--target", "mosquitto", "--durability", "off", "--seed", "1", "--rounds", "10"];
    finds(&arguments, &["changed"]).await
}

/// Mosquitto writes its state now and then, and not before it acknowledges.
#[tokio::test]
async fn losses_of_mosquitto_are_found() -> Result<()> {
    let arguments = ["--target", "mosquitto-plain", "--seed", "1", "--rounds", "5", "--patience", "5"];
    finds(&arguments, &["session-lost", "undelivered", "not-retained"]).await
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_on_the_embedded_broker() -> Result<()> {
    for seed in ["1", "2", "3"] {
        holds(&["--seed", seed, "--rounds", "3"], 3).await?;
    }
    Ok(())
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_on_mosquitto() -> Result<()> {
    holds(&["--target", "mosquitto", "--seed", "1", "--rounds", "2"], 2).await
}

/// Ids are answered although Mosquitto loses requests and sessions: they are repeated.
#[tokio::test]
async fn ids_are_answered_once_when_mosquitto_is_killed() -> Result<()> {
    holds(&["--target", "mosquitto", "--kill", "either", "--seed", "1", "--rounds", "2"], 2).await
}

/// A NATS server and a gateway are killed at once, or a server is cut off for a while.
#[tokio::test]
async fn nothing_acknowledged_is_lost_on_a_cluster() -> Result<()> {
    holds(&["--target", "nats", "--seed", "2", "--rounds", "2", "--patience", "60"], 2).await
}

/// Sites whose ways to the master are cut, stalled or slow, while master and sites are killed.
#[tokio::test]
async fn nothing_acknowledged_is_lost_between_sites() -> Result<()> {
    holds(&["--target", "sites", "--seed", "1", "--rounds", "3", "--patience", "60"], 3).await
}

#[tokio::test]
async fn an_interrupted_run_leaves_nothing() -> Result<()> {
    let folder = TempDir::new()?;
    let log = folder.path().join("log");
    let temporary = folder.path().join("tmp");
    std::fs::create_dir(&temporary)?;
    let mut command = Command::new(built::program("offload-checker")?);
    command.args(["--seed", "1", "--rounds", "1000000", "--kill", "none"]).env("TMPDIR", &temporary);
    command.stdin(Stdio::null());
    let mut checker = Process::spawn(command, std::fs::File::create(&log)?.into(), &log)?;
    while running(&temporary)?.is_empty() {
        ensure!(checker.ended()?.is_none(), "it has ended: {}", checker.log());
        tokio::task::yield_now().await;
    }
    checker.signal(Signal::INT)?;
    assert_eq!(checker.end().await?.code(), Some(INTERRUPTED));
    assert_eq!(running(&temporary)?, Vec::<String>::new());
    assert_eq!(std::fs::read_dir(&temporary)?.count(), 0, "its folder is left");
    Ok(())
}

/// The processes whose command lines name this folder, but for those that have ended.
fn running(folder: &Path) -> Result<Vec<String>> {
    let folder = folder.to_str().context("a path is not UTF-8")?;
    let lines = std::fs::read_dir("/proc")?.flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(folder).then_some(line)
    });
    Ok(lines.collect())
}
