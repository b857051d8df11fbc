//! Configurations that say one thing alone: each of them works.

use anyhow::{Context, Result, ensure};
use offload_tests::built;
use offload_tests::device::{Device, Version};
use offload_tests::gateway::Gateway;
use serde_json::json;
use tokio::process::Command;

/// Each key at its least and at its most: requests are answered, be it with an error of what is limited.
#[tokio::test]
async fn every_key_goes_alone_from_its_least_to_its_most() -> Result<()> {
    let printed = Command::new(built::program("offload-rt")?).arg("config").output().await?;
    let configurations = extremes(&String::from_utf8(printed.stdout)?);
    ensure!(configurations.len() > 100, "keys with a range: {configurations:?}");
    for configuration in configurations {
        let gateway = Gateway::embedded(&configuration).await.with_context(|| configuration.clone())?;
        let answer = ask(&gateway).await;
        answer.with_context(|| format!("{configuration}: {}", gateway.log()))?;
    }
    Ok(())
}

/// The least packet that has to be delivered needs room in what is derived from it.
#[tokio::test]
async fn what_is_not_said_follows_what_is() -> Result<()> {
    for configuration in [
        "[listen]\nmax_packet = \"32MiB\"\n",
        "[listen]\nsession_queue_bytes = \"1MiB\"\n",
        "[queue]\ntotal = 10\n",
        "[limits]\nmodule = \"64MiB\"\n",
        "[workers]\ncount = 1\nmemory = \"16MiB\"\n",
    ] {
        let gateway = Gateway::embedded(configuration).await.with_context(|| configuration.to_owned())?;
        assert_eq!(ask(&gateway).await.context(configuration)?, "12\n");
    }
    Ok(())
}

/// A request that no empty queue would take is not asked to come again.
#[tokio::test]
async fn a_request_that_never_fits_is_too_large() -> Result<()> {
    let gateway = Gateway::embedded("[queue]\naccount_share = 0.01\nbytes_total = \"1MiB\"\n").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "large").await?;
    device.subscribe("result/large").await?;
    let request = json!({ "program": "add", "stdin": "A".repeat(20_000), "reply": "stdout" });
    let answer = device.ask("localCode/large", request.to_string()).await?.text();
    assert!(answer.starts_with("error: too-large: request: 200"), "{answer}");
    Ok(())
}

async fn ask(gateway: &Gateway) -> Result<String> {
    let mut device = Device::connect(gateway.address()?, Version::V5, "dev1").await?;
    device.subscribe("result/dev1").await?;
    Ok(device.ask("localCode/dev1", "5 7").await?.text())
}

/// Configurations of one key each, from the ranges that `offload-rt config` prints.
fn extremes(printed: &str) -> Vec<String> {
    let (mut table, mut range, mut found) = (String::new(), None, Vec::new());
    for line in printed.lines() {
        let bare = line.trim_start_matches("# ");
        if bare.starts_with('[') && bare.ends_with(']') {
            table = line.to_owned();
        } else if let Some(accepted) = line.strip_prefix("# Accepted: ") {
            let last =
                accepted.trim_end_matches('.').rsplit(", ").next().and_then(|last| last.split_once(" to "));
            range = last.map(|(least, most)| [least.to_owned(), most.to_owned()]);
        } else if let (Some((key, _)), Some(values)) = (bare.split_once(" ="), range.take()) {
            // Tables that are absent want more than one key.
            if table.starts_with('#') {
                continue;
            }
            for value in values {
                let is_number = value.bytes().all(|c| c.is_ascii_digit() || c == b'.');
                let value = if is_number { value } else { format!("\"{value}\"") };
                found.push(format!("native = \"off\"\n{table}\n{key} = {value}\n"));
            }
        }
    }
    found
}
