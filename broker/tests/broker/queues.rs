//! A receiver's full queue: the publisher is told where it can be, and somebody always is.

use std::time::Duration;

use offload_broker::{
    Config, QoS,
    Version::{V5, V311},
};

use crate::{
    client::{BOTH, Client, Connect},
    log::Log,
    server::Server,
};

/// A broker with queues for two messages, and a client that is away and whose queue is full.
async fn with_a_full_queue() -> Server {
    let server = Server::with_config(Config { session_queue_messages: 2, ..Config::default() }).await;
    let mut away = Client::connect(&server, &Connect::persistent(V5, "away")).await;
    away.subscribe("t", 2).await;
    away.disconnect().await;
    let mut publisher = Client::new(&server, V5, "first").await;
    for _ in 0..2 {
        assert_eq!(publisher.publish_acknowledged("t", "kept").await, 0);
    }
    publisher.disconnect().await;
    server
}

/// Publishes at this QoS, to the end of its exchange; returns the reason of the first acknowledgement.
async fn publish(client: &mut Client, qos: QoS) -> u8 {
    let id = 7;
    client.publish("t", "too much", qos as u8, id).await;
    if qos == QoS::AtLeastOnce {
        return client.acknowledged(0x40, id).await;
    }
    let reason = client.acknowledged(0x50, id).await;
    if reason < 0x80 {
        client.acknowledge(0x62, id).await;
        assert_eq!(client.acknowledged(0x70, id).await, 0);
    }
    reason
}

#[tokio::test]
async fn a_full_queue_is_told_to_mqtt_5_publishers_and_counted_and_logged_for_all() {
    let log = Log::start();
    let server = with_a_full_queue().await;
    let mut dropped = 0;
    for (version, reason) in [(V5, 0x97), (V311, 0)] {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut publisher = Client::new(&server, version, "p").await;
            assert_eq!(publish(&mut publisher, qos).await, reason, "{version:?} {qos:?}");
            dropped += 1;
            assert_eq!(server.broker.stats().dropped.queue_full, dropped);
        }
    }
    // The first is logged, with its topic, and not each of those that follow while the queue is full.
    let text = log.text();
    let lines: Vec<_> =
        text.lines().filter(|line| line.contains("queue full, messages are dropped")).collect();
    let [line] = &lines[..] else { panic!("{text}") };
    for said in ["WARN", "client_id=\"away\"", "topic=\"t\"", "qos=1", "dropped=1"] {
        assert!(line.contains(said), "{said}: {line}");
    }
    // Those whose publisher was told that they are safe are logged each.
    let unkept: Vec<_> = text.lines().filter(|line| line.contains("acknowledged, as 3.1.1")).collect();
    assert_eq!(unkept.len(), 2, "{text}");
    for line in unkept {
        for said in ["WARN", "client_id=\"p\"", "topic=\"t\"", "unkept=1", "refused=1"] {
            assert!(line.contains(said), "{said}: {line}");
        }
    }
    // The oldest are kept.
    let mut back = Client::connect(&server, &Connect::persistent(V5, "away")).await;
    for _ in 0..2 {
        assert_eq!(back.take_text().await, "kept");
    }
    back.ping().await;
    let text = log.text();
    let line = text.lines().find(|line| line.contains("is empty again")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains("client_id=\"away\"") && line.contains("dropped=4"), "{line}");
}

/// A PUBLISH at QoS 1 that expires at once.
fn expiring(client: &Client) -> Vec<u8> {
    client.publish_bytes(0x32, "t", 7, &[2, 0, 0, 0, 0], b"old")
}

#[tokio::test]
async fn what_has_expired_keeps_nothing_fresh_out_of_a_queue() {
    let server = Server::with_config(Config { session_queue_messages: 2, ..Config::default() }).await;
    let mut away = Client::connect(&server, &Connect::persistent(V5, "away")).await;
    away.subscribe("t", 1).await;
    away.disconnect().await;
    let mut publisher = Client::new(&server, V5, "p").await;
    for _ in 0..2 {
        publisher.send(&expiring(&publisher)).await;
        assert_eq!(publisher.acknowledged(0x40, 7).await, 0);
    }
    assert_eq!(publisher.publish_acknowledged("t", "fresh").await, 0);
    let stats = server.broker.stats();
    assert_eq!((stats.queued_messages, stats.dropped.expired, stats.dropped.queue_full), (1, 2, 0));
    let mut back = Client::connect(&server, &Connect::persistent(V5, "away")).await;
    assert_eq!(back.take_text().await, "fresh");
    back.ping().await;
}

#[tokio::test]
async fn what_has_expired_in_one_queue_takes_no_room_from_the_others() {
    let config = Config { expiry_interval: Duration::from_millis(20), ..Config::default() };
    let server = Server::with_config(config).await;
    let mut away = Client::connect(&server, &Connect::persistent(V5, "away")).await;
    away.subscribe("t", 1).await;
    away.disconnect().await;
    let mut publisher = Client::new(&server, V5, "p").await;
    publisher.send(&expiring(&publisher)).await;
    assert_eq!(publisher.acknowledged(0x40, 7).await, 0);
    // Nobody publishes to it any more, and it does not come back.
    server.until("it is swept", |stats| stats.queued_bytes == 0 && stats.dropped.expired == 1).await;
}

#[tokio::test]
async fn one_receivers_full_queue_is_no_refusal_when_another_has_room() {
    let log = Log::start();
    let server = with_a_full_queue().await;
    for (at, version) in (1..).zip(BOTH) {
        let mut reader = Client::new(&server, version, "reader").await;
        reader.subscribe("t", 1).await;
        let mut publisher = Client::new(&server, V5, "p").await;
        assert_eq!(publish(&mut publisher, QoS::AtLeastOnce).await, 0);
        assert_eq!(reader.take_text().await, "too much");
        assert_eq!(server.broker.stats().dropped.queue_full, at);
    }
    assert!(log.text().contains("queue full, messages are dropped"));
}

#[tokio::test]
async fn a_client_that_reads_but_never_acknowledges_fills_its_own_queue_alone() {
    let config = Config { session_queue_messages: 10, max_inflight: 5, ..Config::default() };
    let server = Server::with_config(config).await;
    let mut hoarder = Client::new(&server, V311, "hoarder").await;
    hoarder.subscribe("t", 1).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    let mut refused = 0;
    for at in 0..20 {
        let reason = publisher.publish_acknowledged("t", &at.to_string()).await;
        refused += u64::from(reason == 0x97);
    }
    // Five in flight, ten behind them.
    let stats = server.broker.stats();
    assert_eq!((refused, stats.queued_messages, stats.dropped.queue_full), (5, 15, 5));
    for at in 0..15 {
        assert_eq!(hoarder.take_text().await, at.to_string());
    }
}
