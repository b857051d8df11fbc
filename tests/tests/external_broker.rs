//! Gateways on a Mosquitto: its restart, several gateways.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Options, PubAckReason, Version};
use offload_tests::gateway::Gateway;
use offload_tests::mosquitto::Mosquitto;
use offload_tests::{built, envelope, guest};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

/// Requests that wait in the gateway when the broker goes, beside those that were just acknowledged.
const SLEEPERS: usize = 10;
const SUMS: usize = 200;

#[tokio::test]
async fn a_restart_of_the_broker_loses_no_acknowledged_request() -> Result<()> {
    let mut deployment = Deployment::on_mosquitto("").await?;
    let options = Options { clean: false, ..Options::default() };
    let mut device = Device::connect_with(deployment.address(), Version::V311, "steady", options).await?;
    device.subscribe("result/steady").await?;

    let module = envelope::bytes(guest::module("sleep")?);
    for number in 0..SLEEPERS {
        // Without an `id` that the answer repeats, one could not tell the sleepers apart.
        let request = json!({ "id": format!("sleeper {number}"), "module": module, "args": ["1000"] });
        device.publish("inputCode/steady", request.to_string()).await?;
    }
    for number in 0..SUMS {
        device.publish("localCode/steady", format!("1000 {number}")).await?;
    }
    for _ in 0..SLEEPERS + SUMS {
        assert_eq!(device.acknowledged().await?, PubAckReason::Success);
    }
    let mosquitto = deployment.mosquitto.as_mut().context("there is a Mosquitto")?;
    mosquitto.pause().await?;
    mosquitto.resume().await?;

    // Answers whose acknowledgement the restart cut off come twice: that is QoS 1.
    let mut missing: HashSet<String> = (0..SUMS).map(|number| format!("{}\n", 1000 + number)).collect();
    missing.extend((0..SLEEPERS).map(|number| format!("sleeper {number}")));
    while !missing.is_empty() {
        let answer = device.message().await.with_context(|| format!("never answered: {missing:?}"))?;
        match envelope::read(&answer) {
            Ok(envelope) if envelope.is_object() => {
                assert_eq!(envelope["status"], "ok", "{envelope}");
                missing.remove(envelope["id"].as_str().unwrap_or_default());
            }
            _ => {
                missing.remove(&answer.text());
            }
        }
    }
    device.publish("localCode/steady", "70000 7").await?;
    while device.message().await?.text() != "70007\n" {}
    Ok(())
}

#[tokio::test]
async fn two_gateways_answer_each_request_once() -> Result<()> {
    const REQUESTS: usize = 300;
    let mosquitto = Mosquitto::start().await?;
    let first = Gateway::start(&["--broker", &mosquitto.url()], "").await?;
    let second = Gateway::start(&["--broker", &mosquitto.url()], "").await?;
    let mut device = Device::connect(mosquitto.address(), Version::V311, "asking").await?;
    device.subscribe("result/asking").await?;
    for number in 0..REQUESTS {
        device.publish("localCode/asking", format!("{number} 0")).await?;
    }
    let mut answers: HashMap<String, usize> = HashMap::new();
    for _ in 0..REQUESTS {
        *answers.entry(device.message().await?.text()).or_default() += 1;
    }
    assert_eq!(
        answers.len(),
        REQUESTS,
        "{:?}",
        answers.iter().filter(|(_, count)| **count > 1).collect::<Vec<_>>()
    );

    // One that stops gives its share back, and has answered all that it took: nothing comes twice, nothing is lost.
    first.stop(Signal::TERM).await?;
    for number in 0..REQUESTS {
        let answer = device.ask("localCode/asking", format!("{number} 5000")).await?;
        assert_eq!(answer.text(), format!("{}\n", 5000 + number));
    }
    second.stop(Signal::TERM).await
}

/// Two gateways of one name know of each other, are told apart, and the one that stays is there for its name.
#[tokio::test]
async fn gateways_of_one_name_are_told_apart() -> Result<()> {
    let mosquitto = Mosquitto::start().await?;
    let flags = ["--broker", &mosquitto.url()];
    let first = Gateway::start(&flags, "name = \"twin\"\n").await?;
    let second = Gateway::start(&flags, "name = \"twin\"\n").await?;
    for gateway in [&first, &second] {
        let line = gateway.logged(&["another gateway on this broker has the same name"]).await?;
        assert!(!line.contains("left_out"), "there is nothing to count: {line}");
    }
    assert_eq!(states(&mosquitto).await?, ["online", "online"]);
    first.stop(Signal::TERM).await?;
    let mut watcher = Device::connect(mosquitto.address(), Version::V5, "watcher").await?;
    watcher.subscribe("gateway/twin/status").await?;
    // What the first one left behind is replaced.
    while serde_json::from_slice::<Value>(&watcher.message().await?.payload)?["state"] != "online" {}
    assert_eq!(states(&mosquitto).await?, ["online"]);
    second.stop(Signal::TERM).await?;
    assert_eq!(states(&mosquitto).await?, ["offline"]);
    Ok(())
}

/// What the client tells of the state of each gateway that is there.
async fn states(mosquitto: &Mosquitto) -> Result<Vec<String>> {
    let mut client = Command::new(built::program("offload-client")?);
    let output = client.args(["--broker", &mosquitto.url(), "gateways", "--json"]).output().await?;
    let documents: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    Ok(documents.iter().map(|document| document["state"].as_str().unwrap_or_default().to_owned()).collect())
}

/// Of two brokers the second is joined when the first is lost, at once and with a word in the log, and the first is
/// tried before it when that is lost.
#[tokio::test]
async fn the_next_broker_is_joined_when_one_is_lost() -> Result<()> {
    let (mut first, mut second) = (Mosquitto::start().await?, Mosquitto::start().await?);
    let flags = ["--broker", &first.url(), "--broker", &second.url()];
    let gateway = Gateway::start(&flags, "").await?;
    assert_eq!(gateway.ready(), format!("serving via {}", first.url()));
    first.kill().await?;
    gateway.logged(&[&format!("serving via {}", second.url())]).await?;
    let mut device = Device::connect(second.address(), Version::V311, "moved").await?;
    device.subscribe("result/moved").await?;
    assert_eq!(device.ask("localCode/moved", "1 2").await?.text(), "3\n");

    // What the first one takes while nobody serves there is answered when it is the one again.
    first.resume().await?;
    second.kill().await?;
    let mut back = Device::connect(first.address(), Version::V311, "back").await?;
    back.subscribe("result/back").await?;
    while back.message_there().is_none() {
        back.publish("localCode/back", "2 2").await?;
        back.acknowledged().await?;
    }
    let log = gateway.whole_log()?;
    assert_eq!(log.matches(&format!("serving via {}", first.url())).count(), 2, "{log}");
    Ok(())
}

/// A list whose first brokers are not there is gone through without a wait.
#[tokio::test]
async fn a_broker_that_is_not_there_is_passed_over() -> Result<()> {
    let (mut gone, there) = (Mosquitto::start().await?, Mosquitto::start().await?);
    gone.kill().await?;
    let gateway = Gateway::start(&["--broker", &format!("{},{}", gone.url(), there.url())], "").await?;
    assert_eq!(gateway.ready(), format!("serving via {}", there.url()));
    Ok(())
}

/// Gateways of one `share` have equal parts of what comes, and what one had that was killed is answered when it is
/// back. One of another `share` answers everything, too.
#[tokio::test]
async fn a_group_shares_evenly_and_loses_nothing_when_one_is_killed() -> Result<()> {
    const REQUESTS: usize = 200;
    let mosquitto = Mosquitto::start().await?;
    let flags = ["--broker", &mosquitto.url()];
    let configuration =
        |name: &str| format!("name = \"{name}\"\n[mirror]\nenabled = true\n[broker]\nshare = \"plant\"\n");
    let first = Gateway::start(&flags, &configuration("one")).await?;
    let _second = Gateway::start(&flags, &configuration("two")).await?;
    let mut watching = Device::connect(mosquitto.address(), Version::V5, "watching").await?;
    watching.subscribe("gateway/+/jobs").await?;
    let mut device = Device::connect(mosquitto.address(), Version::V5, "asking").await?;
    device.subscribe("result/asking").await?;
    let module = envelope::bytes(guest::module("sleep")?);
    let mut missing = HashSet::new();
    for number in 0..REQUESTS {
        let id = format!("{number}");
        let request = json!({ "id": id, "module": module, "args": ["300"] });
        device.publish("inputCode/asking", request.to_string()).await?;
        missing.insert(id);
    }
    for _ in 0..REQUESTS {
        assert_eq!(device.acknowledged().await?, PubAckReason::Success);
    }
    let mut shares: HashMap<String, usize> = HashMap::new();
    while shares.values().sum::<usize>() < REQUESTS {
        let line = watching.message().await?;
        // Each request has another line when it is answered.
        if serde_json::from_slice::<Value>(&line.payload)?["event"] == "request" {
            *shares.entry(line.topic).or_default() += 1;
        }
    }
    assert_eq!(shares.into_values().collect::<Vec<_>>(), [REQUESTS / 2; 2]);
    let _first = first.crash(Signal::KILL, &flags, &configuration("one")).await?;
    while !missing.is_empty() {
        let answer = device.message().await.with_context(|| format!("never answered: {missing:?}"))?;
        missing.remove(envelope::read(&answer)?["id"].as_str().unwrap_or_default());
    }

    let other = configuration("other").replace("plant", "office");
    let _other = Gateway::start(&flags, &other).await?;
    device.publish("localCode/asking", "1 1").await?;
    assert_eq!([device.message().await?.text(), device.message().await?.text()], ["2\n", "2\n"]);
    Ok(())
}

/// `serving via URL` with `--broker`.
#[tokio::test]
async fn the_line_at_the_start_names_the_broker() -> Result<()> {
    let deployment = Deployment::on_mosquitto("").await?;
    let mosquitto = deployment.mosquitto.as_ref().context("there is a Mosquitto")?;
    assert_eq!(deployment.gateway.ready(), format!("serving via {}", mosquitto.url()));
    Ok(())
}
