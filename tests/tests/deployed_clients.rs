//! The clients that are in the field already, re-created: what they send and what they rely on must not change.

use anyhow::{Context, Result};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Options, Version};
use offload_tests::on_each_broker;

/// The largest packet of the Arduino's MQTT library.
const ARDUINO_MAX_PACKET: u32 = 256;

/// What the Linux clients wait for, with the empty id that their library leaves them.
const NAMELESS_RESULT: &str = "result/";

on_each_broker! {
    arduino,
}

/// Publishes `3 5`, waits for one answer, and repeats.
async fn arduino(deployment: Deployment) -> Result<()> {
    let options = Options { max_packet: ARDUINO_MAX_PACKET, ..Options::default() };
    let mut arduino = Device::connect_with(deployment.address(), Version::V311, "arduino0", options).await?;
    arduino.subscribe("result/arduino0").await?;
    for _ in 0..20 {
        let answer = arduino.ask("localCode/arduino0", "3 5").await?;
        assert_eq!(answer.topic, "result/arduino0");
        assert_eq!(answer.text(), "8\n");
    }
    Ok(())
}

/// 3.1.1 does not tell a client how much its peer takes: the gateway's operator does.
#[tokio::test]
async fn an_answer_too_large_for_the_arduino_is_replaced() -> Result<()> {
    let configuration = "[[answers.max]]\ntopic = \"result/arduino0\"\nbytes = 200\n";
    let deployment = Deployment::embedded(configuration).await?;
    let options = Options { max_packet: ARDUINO_MAX_PACKET, ..Options::default() };
    let mut arduino = Device::connect_with(deployment.address(), Version::V311, "arduino0", options).await?;
    arduino.subscribe("result/arduino0").await?;
    // A device with more room sends it in the Arduino's name: the answer is what matters.
    let other = Device::connect(deployment.address(), Version::V311, "other").await?;
    other.publish("inputCode/arduino0", many_primes()?).await?;
    let answer = arduino.message().await?;
    assert!(answer.text().starts_with("error: output: "), "{}", answer.text());
    assert!(answer.payload.len() <= 200);
    Ok(())
}

fn many_primes() -> Result<String> {
    let module = offload_tests::envelope::bytes(offload_tests::guest::module("primes")?);
    Ok(serde_json::json!({ "module": module, "args": ["1000"], "reply": "stdout" }).to_string())
}

/// Two Linux clients whose library names neither: both publish to `localCode/` and listen to `result/` at the same
/// time, and each must get its own answers and no other's.
#[tokio::test]
async fn two_clients_without_ids_get_their_own_answers() -> Result<()> {
    const ROUNDS: usize = 200;
    let deployment = Deployment::embedded("").await?;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Device::connect(deployment.address(), Version::V311, "").await?;
        client.subscribe(NAMELESS_RESULT).await?;
        clients.push(client);
    }
    for round in 0..ROUNDS {
        for (number, client) in clients.iter().enumerate() {
            client.publish("localCode/", format!("{round} {}", number * 10 * ROUNDS)).await?;
        }
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let mut answers = Vec::new();
        for _ in 0..ROUNDS {
            let answer = client.message().await?;
            assert_eq!(answer.topic, NAMELESS_RESULT);
            answers.push(answer.text().trim_end().parse::<usize>().with_context(|| answer.text())?);
        }
        answers.sort_unstable();
        let expected: Vec<usize> = (0..ROUNDS).map(|round| round + number * 10 * ROUNDS).collect();
        assert_eq!(answers, expected, "client {number}");
    }
    // Every answer was counted: whatever were left over would be the other's.
    for client in &mut clients {
        assert!(client.message_there().is_none());
    }
    Ok(())
}

/// On an external broker nobody can tell them apart: the answer goes to all that listen.
#[tokio::test]
async fn a_client_without_id_is_answered_on_mosquitto() -> Result<()> {
    let deployment = Deployment::on_mosquitto("").await?;
    let mut client = Device::connect(deployment.address(), Version::V311, "").await?;
    client.subscribe(NAMELESS_RESULT).await?;
    for _ in 0..10 {
        let answer = client.ask("localCode/", "1 2").await?;
        assert_eq!((answer.topic.as_str(), answer.text().as_str()), (NAMELESS_RESULT, "3\n"));
    }
    Ok(())
}

/// Whoever has no subscription of its own is answered on the topic, for others to see.
#[tokio::test]
async fn without_a_subscription_of_its_own_the_answer_is_published() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let mut listener = Device::connect(deployment.address(), Version::V5, "listener").await?;
    listener.subscribe(NAMELESS_RESULT).await?;
    let asking = Device::connect(deployment.address(), Version::V311, "").await?;
    asking.publish("localCode/", "20 22").await?;
    assert_eq!(listener.message().await?.text(), "42\n");
    Ok(())
}
