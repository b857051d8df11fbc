//! Windows and sizes, both ways, and clients that do not read.

use std::time::Duration;

use offload_broker::{
    Config, Message, QoS,
    Version::{V5, V311},
};

use crate::{
    client::{BOTH, Client, Connect, packet},
    log::Log,
    server::Server,
};

#[tokio::test]
async fn the_clients_receive_maximum_is_honoured() {
    let server = Server::start().await;
    let mut subscriber = Client::connect(&server, &Connect::new(V5, "s").receive_maximum(3)).await;
    subscriber.subscribe_all(&[("t", 2), ("free", 0)], &[]).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    for at in 0..10 {
        publisher.publish_acknowledged("t", &at.to_string()).await;
    }
    let mut ids = Vec::new();
    for at in 0..3 {
        let message = subscriber.message().await;
        assert_eq!(message.text(), at.to_string());
        ids.push(message.id);
    }
    // The window is full: only an answer to something else comes.
    subscriber.ping().await;
    // Out of order is no offence.
    for (at, id) in [(3, ids[1]), (4, ids[2]), (5, ids[0])] {
        subscriber.acknowledge(0x40, id).await;
        let message = subscriber.message().await;
        assert_eq!(message.text(), at.to_string());
        subscriber.ping().await;
    }
}

#[tokio::test]
async fn a_qos_2_message_counts_until_it_is_completed() {
    let server = Server::start().await;
    let mut subscriber = Client::connect(&server, &Connect::new(V5, "s").receive_maximum(1)).await;
    subscriber.subscribe("t", 2).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    for id in 1..=2 {
        publisher.publish("t", "x", 2, id).await;
    }
    let first = subscriber.message().await.id;
    subscriber.acknowledge(0x50, first).await;
    assert_eq!(subscriber.acknowledged(0x62, first).await, 0);
    subscriber.ping().await;
    subscriber.acknowledge(0x70, first).await;
    // Refused by the client: that is the end of it.
    let second = subscriber.message().await.id;
    subscriber.send(&packet(0x50, &[&second.to_be_bytes()[..], &[0x97]].concat())).await;
    subscriber.ping().await;
    assert_eq!(server.broker.stats().queued_messages, 0);
}

#[tokio::test]
async fn the_own_receive_maximum_is_enforced() {
    let server = Server::with_config(Config { receive_maximum: 2, ..Config::default() }).await;
    let mut client = Client::new(&server, V5, "c").await;
    for id in 1..=2 {
        client.publish("t", "x", 2, id).await;
        client.acknowledged(0x50, id).await;
    }
    client.acknowledge(0x62, 1).await;
    client.acknowledged(0x70, 1).await;
    client.publish("t", "x", 2, 3).await;
    client.acknowledged(0x50, 3).await;
    client.publish("t", "x", 1, 4).await;
    client.expect_disconnect(0x93).await;
}

#[tokio::test]
async fn qos_2_identifiers_that_are_never_released_do_not_pile_up_over_connections() {
    let server = Server::with_config(Config { receive_maximum: 3, ..Config::default() }).await;
    let connect = Connect::persistent(V5, "c");
    for id in 1..=6 {
        // Each on a new connection, whose Receive Maximum is not used yet.
        let mut client = Client::connect(&server, &connect).await;
        client.publish("t", "x", 2, id).await;
        assert_eq!(client.acknowledged(0x50, id).await, if id > 3 { 0x97 } else { 0x10 });
        client.disconnect().await;
    }
    let mut client = Client::connect(&server, &connect).await;
    // What was received before is known, and makes room when it is released.
    client.publish("t", "x", 2, 1).await;
    assert_eq!(client.acknowledged(0x50, 1).await, 0);
    client.acknowledge(0x62, 2).await;
    assert_eq!(client.acknowledged(0x70, 2).await, 0);
    client.publish("t", "x", 2, 7).await;
    assert_eq!(client.acknowledged(0x50, 7).await, 0x10);
}

#[tokio::test]
async fn a_burst_at_qos_2_of_3_1_1_is_bounded_by_what_its_identity_may_hold() {
    // Room for five identifiers.
    let config =
        Config { receive_maximum: 2, max_unreleased_bytes_per_identity: 5 * 96, ..Config::default() };
    let server = Server::with_config(config).await;
    let mut client = Client::connect(&server, &Connect::new(V311, "c").user("anna")).await;
    for id in 1..=5 {
        client.publish("t", "x", 2, id).await;
    }
    for id in 1..=5 {
        client.acknowledged(0x50, id).await;
    }
    // Another session of the identity finds it used up, another identity does not.
    let mut second = Client::connect(&server, &Connect::new(V5, "second").user("anna")).await;
    second.publish("t", "x", 2, 1).await;
    assert_eq!(second.acknowledged(0x50, 1).await, 0x97);
    let mut other = Client::connect(&server, &Connect::new(V5, "other").user("bert")).await;
    other.publish("t", "x", 2, 1).await;
    assert_eq!(other.acknowledged(0x50, 1).await, 0x10);
    client.publish("t", "x", 2, 6).await;
    client.expect_end().await;
    server.until("its session has ended", |stats| stats.sessions == 2).await;
    second.publish("t", "x", 2, 1).await;
    assert_eq!(second.acknowledged(0x50, 1).await, 0x10);
}

#[tokio::test]
async fn the_clients_maximum_packet_size_is_honoured() {
    let server = Server::start().await;
    let mut small = Client::connect(&server, &Connect::persistent(V5, "s").max_packet_size(30)).await;
    small.subscribe("t", 1).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    // Header 2, topic 3, identifier 2, properties 1: 22 bytes of payload fit.
    publisher.publish_acknowledged("t", &"x".repeat(23)).await;
    publisher.publish_acknowledged("t", &"x".repeat(22)).await;
    assert_eq!(small.take().await.payload.len(), 22);
    assert_eq!(server.broker.stats().dropped.oversize, 1);
    // What was queued for a connection that took more, or was sent on it, is dropped as well.
    publisher.publish_acknowledged("t", "unacknowledged").await;
    small.message().await;
    drop(small);
    server.until("only the publisher is connected", |stats| stats.connections == 1).await;
    publisher.publish_acknowledged("t", "queued while away").await;
    publisher.publish_acknowledged("t", "fits").await;
    let mut smaller = Client::connect(&server, &Connect::persistent(V5, "s").max_packet_size(20)).await;
    assert_eq!(smaller.take_text().await, "fits");
    assert_eq!(server.broker.stats().dropped.oversize, 3);
    server
        .until("the account is balanced", |stats| stats.queued_messages == 0 && stats.queued_bytes == 0)
        .await;
}

#[tokio::test]
async fn no_answer_is_larger_than_the_client_takes() {
    let server = Server::start().await;
    let mut client = Client::open(&server, V5).await;
    client.send(&Connect::new(V5, "c").max_packet_size(10).bytes()).await;
    client.expect_end().await;
    let mut client = Client::connect(&server, &Connect::new(V5, "c").max_packet_size(50)).await;
    let filters: Vec<u8> = (0..50).flat_map(|_| [0, 1, b't', 0]).collect();
    client.send(&packet(0x82, &[&[0, 1, 0][..], &filters].concat())).await;
    client.expect_disconnect(0x95).await;
}

#[tokio::test]
async fn a_packet_over_the_limit_ends_the_connection() {
    let server = Server::with_config(Config { max_packet_size: 1000, ..Config::default() }).await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        let room = 1000 - client.publish_bytes(0x30, "t", 0, &[], &[]).len() - 1;
        client.publish("t", &"x".repeat(room), 0, 0).await;
        client.ping().await;
        // Refused by its header, before the rest of it is there.
        client.send(&[0x30, 0xE6, 0x07]).await;
        client.expect_disconnect(0x95).await;
    }
}

#[tokio::test]
async fn a_property_section_over_the_limit_ends_the_connection() {
    let server = Server::with_config(Config { max_properties_size: 10, ..Config::default() }).await;
    let mut client = Client::new(&server, V5, "c").await;
    let bytes =
        client.publish_bytes(0x30, "t", 0, &[38, 0, 3, b'a', b'b', b'c', 0, 3, b'a', b'b', b'c'], b"x");
    client.send(&bytes).await;
    client.expect_disconnect(0x97).await;
}

/// More than the kernel buffers for a connection of which nothing is read.
const FLOOD: usize = 40 * 1024 * 1024;

#[tokio::test]
async fn a_slow_subscriber_costs_bounded_memory_and_others_nothing() {
    let config = Config {
        max_packet_size: 1024 * 1024,
        session_queue_bytes: 2 * 1024 * 1024,
        session_queue_messages: 1000,
        ..Config::default()
    };
    let server = Server::with_config(config).await;
    let mut slow = Client::new(&server, V5, "slow").await;
    slow.subscribe("t", 0).await;
    let mut other = Client::new(&server, V5, "other").await;
    other.subscribe("o", 0).await;
    let message = Message::new("t", vec![0u8; 100_000], QoS::AtMostOnce);
    for _ in 0..FLOOD / 100_000 {
        server.broker.publish(&message, None);
        tokio::task::yield_now().await;
        assert!(server.broker.stats().queued_bytes <= 2 * 1024 * 1024);
    }
    assert!(server.broker.stats().dropped.qos0_queue > 0);
    server.broker.publish(&Message::new("o", "alive", QoS::AtMostOnce), None);
    assert_eq!(other.take_text().await, "alive");
    // It is still served once it reads.
    assert_eq!(slow.take().await.payload.len(), 100_000);
}

/// How long a client may read nothing in the tests of that.
pub fn impatient() -> Config {
    Config { write_timeout: Duration::from_millis(100), ..Config::default() }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_disconnected() {
    let log = Log::start();
    let server = Server::with_config(impatient()).await;
    let mut deaf = Client::new(&server, V5, "deaf").await;
    deaf.subscribe("t", 0).await;
    assert_disconnected_when_flooded(&server).await;
    assert_eq!(server.broker.stats().stalled, 1);
    let log = log.text();
    assert!(log.contains("connection closed: nothing is read") && log.contains("deaf"), "{log}");
}

/// For one client that has subscribed to `t` and reads nothing.
pub async fn assert_disconnected_when_flooded(server: &Server) {
    let message = Message::new("t", vec![0u8; 1_000_000], QoS::AtMostOnce);
    for _ in 0..FLOOD / 1_000_000 {
        server.broker.publish(&message, None);
        tokio::task::yield_now().await;
    }
    server.until("it is gone", |stats| stats.connections == 0 && stats.queued_bytes == 0).await;
}

#[tokio::test]
async fn a_client_that_asks_and_does_not_read_the_answers_is_held_back() {
    let server =
        Server::with_config(Config { write_timeout: Duration::from_millis(200), ..Config::default() }).await;
    let mut client = Client::new(&server, V5, "c").await;
    let pings = [0xC0, 0].repeat(50_000);
    // The broker reads no further; in the end it closes, and writing fails.
    while tokio::io::AsyncWriteExt::write_all(&mut client.stream, &pings).await.is_ok() {}
    server.until("it is gone", |stats| stats.connections == 0).await;
}
