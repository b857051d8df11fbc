//! Packets that begin and do not come, or come slowly, or need not come at all.

use std::{sync::Arc, time::Duration};

use offload_broker::{Application, ClientInfo, Config, Route, Version::V5};
use tokio::{
    task::JoinSet,
    time::{Instant, interval},
};

use super::Bystander;
use crate::{
    client::{BOTH, Client, Connect, packet, section, string},
    server::Server,
};

const PACKET: usize = 1024 * 1024;
/// Bytes of a packet that are sent at first: more than a connection may hold without asking, and what sockets take.
const BEGINNING: usize = 64 * 1024;

/// Two packets for one identity, and eight in all.
fn limits() -> Config {
    Config {
        max_packet_size: PACKET,
        max_input_bytes: 8 * PACKET,
        max_input_bytes_per_identity: 2 * PACKET,
        session_queue_bytes: PACKET,
        ..Config::default()
    }
}

/// A PUBLISH at QoS 1 that is as large as packets may be.
fn large_publish(client: &Client, topic: &str) -> Vec<u8> {
    let room = PACKET - client.publish_bytes(0x32, topic, 1, &[], &[]).len() - 8;
    client.publish_bytes(0x32, topic, 1, &[], &vec![b'x'; room])
}

#[tokio::test]
async fn unfinished_packets_hold_no_more_than_the_part_of_their_identity() {
    let server = Server::with_config(limits()).await;
    let mut bystander = Bystander::new(&server).await;
    let mut hoarders = Vec::new();
    for at in 0..30 {
        let connect = Connect::new(BOTH[at % 2], &format!("hoarder-{at}")).user("hoarder");
        let mut client = Client::connect(&server, &connect).await;
        let bytes = large_publish(&client, "t");
        client.send(&bytes[..BEGINNING]).await;
        hoarders.push(client);
    }
    server.until("all but two wait", |stats| stats.input_waits >= 28).await;
    let stats = server.broker.stats();
    assert!(stats.input_bytes <= 2 * PACKET, "{}", stats.input_bytes);
    // Who waits is not read from: what was, is its own share and what came with it.
    let most = 2 * BEGINNING + 28 * 32 * 1024 + 64 * 1024;
    assert!(stats.bytes_received <= most as u64, "{}", stats.bytes_received);
    // Others have room for large packets, and small ones need none.
    let mut other = Client::new(&server, V5, "other").await;
    let bytes = large_publish(&other, "t");
    other.send(&bytes).await;
    other.acknowledged(0x40, 1).await;
    bystander.hears().await;
    drop(hoarders);
    server.until("all is given back", |stats| stats.input_bytes == 0 && stats.connections == 2).await;
}

#[tokio::test]
async fn whoever_waits_has_its_turn() {
    let config = Config { max_input_bytes_per_identity: 0, ..limits() };
    let server = Arc::new(Server::with_config(config).await);
    let mut clients = Vec::new();
    for at in 0..6 {
        let connect = Connect::new(BOTH[at % 2], &format!("c-{at}")).user("anna");
        let mut client = Client::connect(&server, &connect).await;
        let bytes = large_publish(&client, "t");
        client.send(&bytes[..BEGINNING]).await;
        clients.push((client, bytes));
    }
    server.until("one has room", |stats| stats.input_waits == 5).await;
    let mut sending = JoinSet::new();
    for (mut client, bytes) in clients {
        sending.spawn(async move {
            client.send(&bytes[BEGINNING..]).await;
            client.acknowledged(0x40, 1).await;
        });
    }
    sending.join_all().await;
    assert_eq!(server.broker.stats().input_bytes, 0);
}

#[tokio::test]
async fn a_packet_that_does_not_come_ends_its_connection() {
    let config = Config { input_rate_window: Duration::from_millis(50), ..limits() };
    let server = Server::with_config(config).await;
    let mut bystander = Bystander::new(&server).await;
    for (at, version) in (1..).zip(BOTH) {
        let mut client = Client::new(&server, version, "c").await;
        client.ping().await;
        client.send(&[0x30, 0x80, 0x80, 0x04, 0, 1, b't']).await;
        client.expect_disconnect(0x8D).await;
        assert_eq!(server.broker.stats().too_slow, at);
    }
    server.until("all is given back", |stats| stats.input_bytes == 0).await;
    bystander.hears().await;
}

#[tokio::test]
async fn a_packet_that_comes_slowly_is_no_silence() {
    let server = Server::start().await;
    for version in BOTH {
        let mut client = Client::connect(&server, &Connect::new(version, "slow").keep_alive(1)).await;
        let bytes = client.publish_bytes(0x32, "t", 1, &[], &[b'x'; 20_000]);
        let start = Instant::now();
        // Longer than it may be silent, which is a second and a half.
        let mut pace = interval(Duration::from_millis(50));
        for piece in bytes.chunks(bytes.len() / 40) {
            pace.tick().await;
            client.send(piece).await;
        }
        assert!(start.elapsed() > Duration::from_millis(1_800));
        client.acknowledged(0x40, 1).await;
    }
}

/// Lets nobody publish below `no/`.
struct Refusing;

impl Application for Refusing {
    fn route(&self, _client: &ClientInfo, topic: &str) -> Route {
        if topic.starts_with("no/") { Route::Refuse } else { Route::Broker }
    }
}

#[tokio::test]
async fn a_large_publish_that_is_refused_is_skipped_and_answered() {
    let server = Server::with(limits(), Arc::new(Refusing)).await;
    let mut client = Client::new(&server, V5, "c").await;
    client.subscribe("yes", 0).await;
    // It sets a topic alias, which stands though it is refused.
    let bytes = client.publish_bytes(0x32, "no/thanks", 7, &[35, 0, 1], &vec![b'x'; PACKET - 100]);
    let (first, rest) = bytes.split_at(PACKET / 2);
    client.send(first).await;
    server.until("half of it came", |stats| stats.bytes_received > PACKET as u64 / 2).await;
    assert_eq!(server.broker.stats().input_bytes, 0);
    client.send(rest).await;
    assert_eq!(client.acknowledged(0x40, 7).await, 0x87);
    client.ping().await;
    let again = client.publish_bytes(0x32, "", 8, &[35, 0, 1], b"x");
    client.send(&again).await;
    assert_eq!(client.acknowledged(0x40, 8).await, 0x87);
    client.publish("yes", "but this", 0, 0).await;
    assert_eq!(client.take_text().await, "but this");
    let stats = server.broker.stats();
    assert_eq!((stats.dropped.refused, stats.input_waits, stats.messages_received), (2, 0, 3));
    assert!(stats.payload_bytes_received > PACKET as u64 - 100);
}

#[tokio::test]
async fn a_large_publish_to_no_topic_ends_the_connection_before_it_has_come() {
    let server = Server::with_config(limits()).await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        let bytes = large_publish(&client, "a/+");
        client.send(&bytes[..1_000]).await;
        client.expect_disconnect(0x90).await;
    }
}

#[tokio::test]
async fn large_connects_of_strangers_are_bounded_by_their_address() {
    let config = Config { max_packet_size: 256 * 1024, max_input_bytes_per_identity: 0, ..limits() };
    let most = config.max_packet_size;
    let server = Server::with_config(config).await;
    let head =
        [&string("MQTT")[..], &[5, 0x86, 0, 0, 0], &string("c"), &section(&vec![38; 200_000])].concat();
    let connect = packet(0x10, &[&head[..], &string("will"), &string(vec![b'x'; 40_000])].concat());
    let mut strangers = Vec::new();
    for _ in 0..20 {
        let mut client = Client::open(&server, V5).await;
        client.send(&connect[..BEGINNING]).await;
        strangers.push(client);
    }
    server.until("all but one wait", |stats| stats.input_waits == 19).await;
    assert!(server.broker.stats().input_bytes <= most);
    // A CONNECT of usual size needs no room.
    Client::connect(&server, &Connect::new(V5, "usual")).await.ping().await;
    drop(strangers);
    server.until("all is given back", |stats| stats.input_bytes == 0).await;
}
