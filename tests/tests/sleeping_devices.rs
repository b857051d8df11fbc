//! A device that sleeps through a restart finds what waits for it, and what was acknowledged is there again: whether
//! the gateway was stopped or killed.

use anyhow::{Context, Result, ensure};
use offload_tests::device::{Device, Options, Properties, PubAckReason, Version};
use offload_tests::gateway::Gateway;
use offload_tests::password_file::set_password;
use rustix::process::Signal;
use tempfile::TempDir;

const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// How a gateway ends.
const ENDS: [Signal; 2] = [Signal::TERM, Signal::KILL];

/// A device whose session stays when it goes.
async fn device(gateway: &Gateway, version: Version, id: &str) -> Result<Device> {
    let options = Options { clean: false, ..Options::default() };
    Device::connect_with(gateway.address()?, version, id, options).await
}

/// A device that has subscribed, and sleeps.
async fn sleeper(gateway: &Gateway, version: Version, id: &str, filter: &str) -> Result<()> {
    let mut device = device(gateway, version, id).await?;
    device.subscribe(filter).await
}

#[tokio::test]
async fn an_answer_waits_through_a_restart() -> Result<()> {
    for (number, end) in ENDS.into_iter().enumerate() {
        for version in [Version::V311, Version::V5] {
            let gateway = Gateway::embedded("").await?;
            let id = format!("d{number}");
            sleeper(&gateway, version, &id, &format!("result/{id}")).await?;
            // Another one sends its request, so that it certainly sleeps when the answer is there.
            let mut other = Device::connect(gateway.address()?, version, "other").await?;
            other.subscribe(&format!("result/{id}")).await?;
            assert_eq!(other.ask(&format!("localCode/{id}"), "5 7").await?.text(), "12\n");
            // Nothing is promised before that.
            assert_eq!(other.acknowledged().await?, PubAckReason::Success);
            drop(other);
            let gateway = gateway.crash(end, &LISTEN, "").await?;
            let mut back = device(&gateway, version, &id).await?;
            assert_eq!(back.message().await?.text(), "12\n", "{end:?} {version:?}");
            // Its subscription stands. A request without an `id` may have been run again by the next gateway.
            back.publish(&format!("localCode/{id}"), "20 22").await?;
            let mut answer = back.message().await?.text();
            while answer == "12\n" {
                answer = back.message().await?.text();
            }
            assert_eq!(answer, "42\n", "{end:?} {version:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn ordinary_messages_and_retained_ones_outlive_a_kill() -> Result<()> {
    let gateway = Gateway::embedded("").await?;
    sleeper(&gateway, Version::V5, "s", "plant/#").await?;
    let mut publisher = Device::connect(gateway.address()?, Version::V5, "p").await?;
    for (qos, text) in [(1, "one"), (2, "two"), (1, "three")] {
        publisher.publish_at(qos, "plant/a", text).await?;
        match qos {
            1 => ensure!(publisher.acknowledged().await? == PubAckReason::Success),
            _ => drop(publisher.received().await?),
        }
    }
    // Larger than a record of the log may be.
    let large = vec![b'x'; 300_000];
    publisher.publish_with("plant/large", large.clone(), Properties::default(), true).await?;
    publisher.publish_with("plant/state", "open", Properties::default(), true).await?;
    for _ in 0..2 {
        publisher.acknowledged().await?;
    }
    let gateway = gateway.crash(Signal::KILL, &LISTEN, "").await?;
    let mut back = device(&gateway, Version::V5, "s").await?;
    for (topic, payload) in [
        ("plant/a", &b"one"[..]),
        ("plant/a", b"two"),
        ("plant/a", b"three"),
        ("plant/large", &large),
        ("plant/state", b"open"),
    ] {
        let message = back.message().await?;
        ensure!(
            (&*message.topic, &message.payload[..]) == (topic, payload),
            "{} is not {topic}",
            message.topic
        );
        ensure!(!message.retain);
    }
    let mut new = Device::connect(gateway.address()?, Version::V5, "new").await?;
    new.subscribe("plant/+").await?;
    for (topic, payload) in [("plant/large", &large[..]), ("plant/state", b"open")] {
        let message = new.message().await?;
        ensure!(message.retain && (&*message.topic, &message.payload[..]) == (topic, payload));
    }
    Ok(())
}

#[tokio::test]
async fn the_queue_of_a_sleeper_has_the_same_bounds_after_a_restart() -> Result<()> {
    let configuration = "[listen]\nsession_queue = 3\n";
    let gateway = Gateway::embedded(configuration).await?;
    sleeper(&gateway, Version::V5, "s", "t").await?;
    let mut publisher = Device::connect(gateway.address()?, Version::V5, "p").await?;
    for text in ["1", "2"] {
        publisher.publish("t", text).await?;
        ensure!(publisher.acknowledged().await? == PubAckReason::Success);
    }
    let gateway = gateway.crash(Signal::KILL, &LISTEN, configuration).await?;
    let mut publisher = Device::connect(gateway.address()?, Version::V5, "p").await?;
    for (text, reason) in [("3", PubAckReason::Success), ("4", PubAckReason::QuotaExceeded)] {
        publisher.publish("t", text).await?;
        ensure!(publisher.acknowledged().await? == reason, "{text}");
    }
    let mut back = device(&gateway, Version::V5, "s").await?;
    for text in ["1", "2", "3"] {
        assert_eq!(back.message().await?.text(), text);
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_kept_with_durability_off() -> Result<()> {
    let configuration = "durability = \"off\"\n";
    let gateway = Gateway::embedded(configuration).await?;
    sleeper(&gateway, Version::V5, "s", "t").await?;
    let mut publisher = Device::connect(gateway.address()?, Version::V5, "p").await?;
    publisher.publish_with("t", "m", Properties::default(), true).await?;
    publisher.acknowledged().await?;
    let gateway = gateway.crash(Signal::KILL, &LISTEN, configuration).await?;
    let mut back = device(&gateway, Version::V5, "s").await?;
    back.subscribe("t").await?;
    back.publish("t", "new").await?;
    assert_eq!(back.message().await?.text(), "new");
    Ok(())
}

/// Two restarts, and the tools that people have.
#[tokio::test]
async fn a_session_of_mosquitto_sub_outlives_restarts() -> Result<()> {
    for version in ["mqttv311", "mqttv5"] {
        let mut gateway = Gateway::embedded("").await?;
        let expiry: &[&str] = if version == "mqttv5" { &["-x", "300"] } else { &[] };
        let arguments = |gateway: &Gateway, more: &[&str]| -> Result<Vec<String>> {
            let port = gateway.address()?.port().to_string();
            let session = ["-p", &port, "-V", version, "-i", "keeper", "-c", "-q", "2", "-t", "news/#"];
            Ok([&session[..], expiry, more].concat().into_iter().map(str::to_owned).collect())
        };
        tool("mosquitto_sub", &arguments(&gateway, &["-E"])?).await?;
        for (qos, end) in [("1", Signal::KILL), ("2", Signal::TERM)] {
            let port = gateway.address()?.port().to_string();
            let publish = ["-p", &port, "-V", version, "-q", qos, "-t", "news/today", "-m", qos];
            tool("mosquitto_pub", &publish.map(str::to_owned)).await?;
            gateway = gateway.crash(end, &LISTEN, "").await?;
        }
        let said = tool("mosquitto_sub", &arguments(&gateway, &["-C", "2"])?).await?;
        assert_eq!(said.lines().collect::<Vec<_>>(), ["1", "2"], "{version}");
    }
    Ok(())
}

/// Who is not let in any more has no session, and no message comes by a rule that is gone.
#[tokio::test]
async fn rules_that_changed_while_the_gateway_was_down_apply() -> Result<()> {
    let folder = TempDir::new()?;
    let passwords = folder.path().join("passwords");
    for name in ["anna", "bert"] {
        set_password(&passwords, name, name).await?;
    }
    let access = format!("[access]\npasswords = {passwords:?}\n");
    let rule = |subscribe: &str| {
        format!("{access}[[access.rule]]\nusers = [\"#\"]\npublish = [\"+\"]\nsubscribe = [{subscribe}]\n")
    };
    let gateway = Gateway::embedded(&rule("\"secret\", \"open\"")).await?;
    let as_user = |name| Options { clean: false, credentials: Some((name, name)), ..Options::default() };
    let connect = |address, id, name| Device::connect_with(address, Version::V5, id, as_user(name));
    for name in ["anna", "bert"] {
        let mut device = connect(gateway.address()?, name, name).await?;
        device.subscribe("secret").await?;
        device.subscribe("open").await?;
    }
    let mut publisher = connect(gateway.address()?, "publisher", "anna").await?;
    for topic in ["secret", "open"] {
        publisher.publish(topic, topic).await?;
        ensure!(publisher.acknowledged().await? == PubAckReason::Success);
    }
    drop(publisher);
    std::fs::remove_file(&passwords)?;
    set_password(&passwords, "anna", "anna").await?;
    let gateway = gateway.crash(Signal::KILL, &LISTEN, &rule("\"open\"")).await?;
    gateway.logged(&["not_permitted=2", "subscriptions_gone=1"]).await?;
    let mut anna = connect(gateway.address()?, "anna", "anna").await?;
    assert_eq!(anna.message().await?.text(), "open");
    // Nothing else waits for her, and nothing secret comes.
    for topic in ["secret", "open"] {
        anna.publish(topic, "next").await?;
    }
    assert_eq!(anna.message().await?.topic, "open");
    // Another Bert finds nothing of the one who was dismissed.
    set_password(&passwords, "bert", "bert").await?;
    let gateway = gateway.crash(Signal::KILL, &LISTEN, &rule("\"open\"")).await?;
    let mut bert = connect(gateway.address()?, "bert", "bert").await?;
    bert.publish("open", "for nobody").await?;
    ensure!(
        bert.acknowledged().await? == PubAckReason::NoMatchingSubscribers || bert.message_there().is_none()
    );
    Ok(())
}

/// What the tool prints; it has to succeed.
async fn tool(name: &str, arguments: &[String]) -> Result<String> {
    let output = tokio::process::Command::new(name)
        .args(arguments)
        .output()
        .await
        .context("run `cargo xtask setup`")?;
    ensure!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
