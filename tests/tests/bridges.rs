//! A Mosquitto that joins the gateway's own broker by a bridge, with whatever Mosquitto does by default.

use anyhow::Result;
use offload_tests::device::{Device, Properties, Version};
use offload_tests::gateway::Gateway;
use offload_tests::mosquitto::Mosquitto;

/// A gateway, and a Mosquitto with a bridge to it that passes on these topics.
async fn bridged(topics: &str) -> Result<(Gateway, Mosquitto)> {
    let gateway = Gateway::embedded("").await?;
    let connection = format!("connection edge\naddress {}\n{topics}\n", gateway.address()?);
    let mosquitto = Mosquitto::start_with(&connection).await?;
    Ok((gateway, mosquitto))
}

#[tokio::test]
async fn devices_on_mosquitto_are_answered_through_a_bridge() -> Result<()> {
    let (gateway, mosquitto) = bridged("topic localCode/# out 1\ntopic result/# in 1").await?;
    for (version, id) in [(Version::V311, "dev1"), (Version::V5, "dev2")] {
        let mut device = Device::connect(mosquitto.address(), version, id).await?;
        device.subscribe(&format!("result/{id}")).await?;
        for at in 1..=20 {
            let answer = device.ask(&format!("localCode/{id}"), format!("40 {at}")).await?;
            assert_eq!(answer.text(), format!("{}\n", 40 + at));
        }
    }
    assert!(!gateway.log().contains("refused"), "{}", gateway.log());
    Ok(())
}

/// All topics in both directions, as people write who want one broker to be like the other.
#[tokio::test]
async fn messages_do_not_go_round_in_circles_and_what_is_retained_stays_so() -> Result<()> {
    let (gateway, mosquitto) = bridged("topic # both 1").await?;
    let mut there = Device::connect(mosquitto.address(), Version::V311, "there").await?;
    let mut here = Device::connect(gateway.address()?, Version::V311, "here").await?;
    there.subscribe("plant/#").await?;
    here.subscribe("plant/#").await?;
    for at in 0..10 {
        there.publish("plant/there", at.to_string()).await?;
        // The next when it has come: the bridge may not be there for the first.
        for device in [&mut there, &mut here] {
            let message = device.message().await?;
            assert_eq!((&message.topic[..], message.text()), ("plant/there", at.to_string()));
        }
        here.publish("plant/here", at.to_string()).await?;
        for device in [&mut here, &mut there] {
            let message = device.message().await?;
            assert_eq!((&message.topic[..], message.text()), ("plant/here", at.to_string()));
        }
    }
    here.publish_with("plant/state", "on", Properties::default(), true).await?;
    for device in [&mut here, &mut there] {
        assert_eq!(device.message().await?.topic, "plant/state");
    }
    let mut late = Device::connect(mosquitto.address(), Version::V311, "late").await?;
    late.subscribe("plant/#").await?;
    let message = late.message().await?;
    assert_eq!((&message.topic[..], message.retain), ("plant/state", true));
    Ok(())
}
