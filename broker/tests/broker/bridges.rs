//! Other brokers that join this one: what Mosquitto's bridge sends by default.

use offload_broker::Version::{V5, V311};

use crate::{
    client::{Client, Connect, Will, packet, string},
    server::Server,
};

const STATE: &str = "$SYS/broker/connection/vm.edge/state";

/// CONNECT at the protocol level of a bridge, with the will that says that it has gone.
fn bridge() -> Vec<u8> {
    // Will, retained, at QoS 1; the session stays.
    let head = [&string("MQTT")[..], &[0x84, 0x2C, 0, 60]].concat();
    packet(0x10, &[head, string("vm.edge"), string(STATE), string("0")].concat())
}

/// A subscriber to what bridges say of themselves, and to everything else.
async fn watcher(server: &Server) -> Client {
    let mut watcher = Client::new(server, V5, "watcher").await;
    watcher.subscribe_all(&[("$SYS/broker/connection/#", 1), ("#", 0)], &[]).await;
    watcher
}

#[tokio::test]
async fn a_bridge_is_let_in_and_its_notices_go_nowhere() {
    let server = Server::start().await;
    let mut watcher = watcher(&server).await;
    let mut client = Client::open(&server, V311).await;
    client.send(&bridge()).await;
    client.expect(0x20, &[0, 0]).await;
    let notice = client.publish_bytes(0x33, STATE, 1, &[], b"1");
    client.send(&notice).await;
    assert_eq!(client.acknowledged(0x40, 1).await, 0);
    client.publish("t", "next", 0, 0).await;
    assert_eq!(watcher.take().await.topic, "t");
    // Nor is its will published.
    drop(client);
    server.until("it has gone", |stats| stats.clients == 1).await;
    let stats = server.broker.stats();
    assert_eq!((stats.retained_messages, stats.dropped.refused), (0, 0));
    Client::new(&server, V5, "p").await.publish("t", "last", 0, 0).await;
    assert_eq!(watcher.take().await.topic, "t");
}

#[tokio::test]
async fn a_bridge_of_mqtt_5_is_told_that_nobody_has_its_notices() {
    let server = Server::start().await;
    let mut watcher = watcher(&server).await;
    let will = Will { retain: true, ..Will::new(STATE) };
    let mut client = Client::connect(&server, &Connect::new(V5, "vm.edge").will(will)).await;
    assert_eq!(client.publish_acknowledged(STATE, "1").await, 0x10);
    // Other topics of the server stay its own.
    for topic in ["$SYS/broker/connection/state", "$SYS/broker/clients/connected", "$SYS/x/state"] {
        assert_eq!(client.publish_acknowledged(topic, "1").await, 0x87, "{topic}");
    }
    client.publish("t", "next", 0, 0).await;
    assert_eq!(watcher.take().await.topic, "t");
}

#[tokio::test]
async fn a_bridge_hears_nothing_of_its_own_and_what_is_retained_stays_so() {
    let server = Server::start().await;
    let mut client = Client::open(&server, V311).await;
    client.send(&bridge()).await;
    client.expect(0x20, &[0, 0]).await;
    client.subscribe("#", 1).await;
    client.publish("a", "its own", 1, 1).await;
    assert_eq!(client.acknowledged(0x40, 1).await, 0);
    Client::new(&server, V311, "p").await.retain("b", "another's", 1).await;
    let message = client.take().await;
    assert_eq!((&message.topic[..], message.retain), ("b", true));
    // Any other client of 3.1.1 hears itself, and not that a message is retained.
    let mut other = Client::new(&server, V311, "other").await;
    other.subscribe("+", 0).await;
    assert!(other.take().await.retain, "it was there before");
    other.retain("c", "its own", 0).await;
    let message = client.take().await;
    assert_eq!((&message.topic[..], message.retain), ("c", true));
}
