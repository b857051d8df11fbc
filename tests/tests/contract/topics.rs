//! Topics and identities: who is answered where, and what is no request.

use anyhow::{Result, ensure};
use bytes::Bytes;
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Properties, PubAckReason, PubRecReason, Version};
use offload_tests::gateway::Gateway;
use offload_tests::guest;
use offload_tests::mosquitto::Mosquitto;
use offload_tests::on_each_broker;
use rustix::process::Signal;

on_each_broker! {
    reply_ids_hold_everything_after_the_first_slash,
    the_bare_topic_is_ignored,
    the_qos_of_a_request_is_the_publishers_choice,
}

/// `<id>` is everything after the first `/`, taken as it stands: the reply id.
async fn reply_ids_hold_everything_after_the_first_slash(deployment: Deployment) -> Result<()> {
    for id in ["plain", "a/b/c", "/", "mit Leerzeichen é", "trailing/"] {
        let mut device = deployment.device(Version::V311, id).await?;
        let answer = device.ask(&format!("localCode/{id}"), "3 5").await?;
        assert_eq!((answer.topic, answer.payload), (format!("result/{id}"), Bytes::from("8\n")));
        let answer = device.ask(&format!("inputCode/{id}"), guest::module("hello")?).await?;
        assert_eq!((answer.topic, answer.payload), (format!("result/{id}"), Bytes::from("hello!\n")));
    }
    Ok(())
}

/// A message on the bare topic, without `/`, is ignored.
async fn the_bare_topic_is_ignored(deployment: Deployment) -> Result<()> {
    let mut device = Device::connect(deployment.address(), Version::V311, "bare").await?;
    device.subscribe("result/#").await?;
    device.publish("localCode", "1 1").await?;
    device.publish("inputCode", guest::module("hello")?).await?;
    let answer = device.ask("localCode/bare", "2 2").await?;
    assert_eq!((answer.topic.as_str(), answer.text().as_str()), ("result/bare", "4\n"));
    Ok(())
}

/// A request's QoS is the publisher's choice. Answers are published at QoS 1, not retained.
async fn the_qos_of_a_request_is_the_publishers_choice(deployment: Deployment) -> Result<()> {
    for version in [Version::V311, Version::V5] {
        let mut device = deployment.device(version, "qos").await?;
        for qos in [0, 1, 2] {
            device.publish_at(qos, "localCode/qos", format!("{qos} 1")).await?;
            let answer = device.message().await?;
            assert_eq!(answer.text(), format!("{}\n", qos + 1));
            assert_eq!((answer.qos, answer.retain), (1, false), "a request at QoS {qos}");
        }
        // Were one of them retained, it would come to every new subscription before the next answer.
        let mut late = deployment.device(version, "late").await?;
        late.subscribe("result/qos").await?;
        assert_eq!(late.ask("localCode/qos", "20 22").await?.text(), "42\n");
    }
    Ok(())
}

/// The embedded broker runs a request published with RETAIN like any other, once, and retains nothing on request
/// topics.
#[tokio::test]
async fn a_retained_request_is_run_once_by_the_embedded_broker() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let mut device = deployment.device(Version::V5, "retaining").await?;
    device.publish_with("localCode/retaining", "1 1", Properties::default(), true).await?;
    assert_eq!(device.message().await?.text(), "2\n");
    // Nothing was stored for those who come later.
    device.subscribe("localCode/#").await?;
    assert_eq!(device.ask("localCode/retaining", "2 2").await?.text(), "4\n");
    assert!(device.message_there().is_none());
    Ok(())
}

/// A message that an external broker delivers with RETAIN set (stored before we subscribed) is no request: ignored and
/// logged. In MQTT 5 Mosquitto does not even deliver it to a subscription that gateways share.
#[tokio::test]
async fn what_mosquitto_retained_is_no_request() -> Result<()> {
    for (protocol, is_delivered) in [("auto", false), ("3.1.1", true)] {
        let mosquitto = Mosquitto::start().await?;
        let mut device = Device::connect(mosquitto.address(), Version::V5, "retaining").await?;
        device.subscribe("result/retaining").await?;
        device.publish_with("localCode/retaining", "1 1", Properties::default(), true).await?;
        assert!(matches!(
            device.acknowledged().await?,
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers
        ));
        let configuration = format!("[broker]\nprotocol = \"{protocol}\"\n");
        let gateway = Gateway::start(&["--broker", &mosquitto.url()], &configuration).await?;
        let answer = device.ask("localCode/retaining", "2 2").await?;
        assert_eq!(answer.text(), "4\n");
        let log = gateway.log();
        assert_eq!(log.contains("a retained message is no request: ignored"), is_delivered, "{log}");
        gateway.stop(Signal::TERM).await?;
    }
    Ok(())
}

/// On the embedded broker only the gateway publishes to `result/…` and `gateway/…`. A publish that the topic rules
/// forbid is no request and gets no answer: reason code 0x87 in MQTT 5 at QoS 1 and 2, a logged drop otherwise.
#[tokio::test]
async fn only_the_gateway_publishes_results() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let mut honest = deployment.device(Version::V5, "honest").await?;
    honest.subscribe("gateway/box/status").await?;
    let mut forger = deployment.device(Version::V5, "forger").await?;
    let mut old = deployment.device(Version::V311, "old-forger").await?;
    for topic in ["result/honest", "result/", "gateway/box/status"] {
        forger.publish_at(1, topic, "forged").await?;
        assert_eq!(forger.acknowledged().await?, PubAckReason::NotAuthorized, "{topic}");
        forger.publish_at(2, topic, "forged").await?;
        assert_eq!(forger.received().await?, PubRecReason::NotAuthorized, "{topic}");
        forger.publish_at(0, topic, "forged").await?;
        // MQTT 3.1.1 has no word for it: acknowledged, and dropped all the same.
        for qos in [0, 1, 2] {
            old.publish_at(qos, topic, "forged").await?;
        }
        assert_eq!(old.acknowledged().await?, PubAckReason::Success, "{topic}");
        assert_eq!(old.received().await?, PubRecReason::Success, "{topic}");
    }
    // Their connections live on, and nothing came through before this.
    for (device, id) in [(&mut forger, "forger"), (&mut old, "old-forger"), (&mut honest, "honest")] {
        assert_eq!(device.ask(&format!("localCode/{id}"), "3 5").await?.text(), "8\n");
        assert!(device.message_there().is_none());
    }
    let log = deployment.gateway.log();
    ensure!(log.contains("publish refused") && log.contains("result/honest"), "{log}");
    Ok(())
}
