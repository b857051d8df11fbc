//! Wills.

use offload_broker::{
    Config,
    Version::{V5, V311},
};

use crate::{
    client::{BOTH, Client, Connect, Will, packet},
    server::Server,
};

async fn watcher(server: &Server) -> Client {
    let mut watcher = Client::new(server, V5, "watcher").await;
    watcher.subscribe("#", 1).await;
    watcher
}

/// Shows that nothing came before it.
async fn expect_nothing(server: &Server, watcher: &mut Client) {
    Client::new(server, V5, "marker").await.publish_acknowledged("marker", "").await;
    assert_eq!(watcher.take().await.topic, "marker");
}

#[tokio::test]
async fn a_will_is_published_when_the_connection_is_lost() {
    let server = Server::start().await;
    let mut watcher = watcher(&server).await;
    for version in BOTH {
        let connect = Connect::new(version, "c").will(Will { retain: true, ..Will::new("will/c") });
        drop(Client::connect(&server, &connect).await);
        let message = watcher.take().await;
        assert_eq!((&message.topic[..], message.text(), message.qos), ("will/c", "gone", 1));
    }
    assert_eq!(server.broker.stats().retained_messages, 1);
}

#[tokio::test]
async fn a_will_is_published_after_a_protocol_error_and_a_missed_keepalive() {
    let server = Server::start().await;
    let mut watcher = watcher(&server).await;
    for version in BOTH {
        let mut client = Client::connect(&server, &Connect::new(version, "c").will(Will::new("error"))).await;
        client.send(&[0x00]).await;
        assert_eq!(watcher.take().await.topic, "error");
        let connect = Connect::new(version, "c").will(Will::new("silence")).keep_alive(1);
        let _client = Client::connect(&server, &connect).await;
        assert_eq!(watcher.take().await.topic, "silence");
    }
}

#[tokio::test]
async fn disconnect_discards_the_will_unless_it_says_otherwise() {
    let server = Server::start().await;
    let mut watcher = watcher(&server).await;
    for version in BOTH {
        Client::connect(&server, &Connect::new(version, "c").will(Will::new("w"))).await.disconnect().await;
        expect_nothing(&server, &mut watcher).await;
    }
    for bytes in [&[4][..], &[4, 0]] {
        let mut client = Client::connect(&server, &Connect::new(V5, "c").will(Will::new("w"))).await;
        client.send(&packet(0xE0, bytes)).await;
        client.expect_end().await;
        assert_eq!(watcher.take().await.topic, "w");
    }
}

#[tokio::test]
async fn a_will_is_published_when_the_session_is_taken_over() {
    let server = Server::start().await;
    let mut watcher = watcher(&server).await;
    for version in BOTH {
        let _old = Client::connect(&server, &Connect::new(version, "c").will(Will::new("w"))).await;
        let _new = Client::new(&server, version, "c").await;
        assert_eq!(watcher.take().await.topic, "w");
    }
}

#[tokio::test]
async fn a_delayed_will_waits() {
    let server = Server::start().await;
    let mut watcher = watcher(&server).await;
    let connect = Connect::persistent(V5, "c").will(Will::new("delayed").delay(1));
    drop(Client::connect(&server, &connect).await);
    server.until("only the watcher is connected", |stats| stats.connections == 1).await;
    expect_nothing(&server, &mut watcher).await;
    assert_eq!(watcher.take().await.topic, "delayed");
    assert_eq!(server.broker.stats().sessions, 2);
}

#[tokio::test]
async fn a_delayed_will_is_not_published_when_the_client_returns() {
    let server = Server::start().await;
    let mut watcher = watcher(&server).await;
    let connect = Connect::persistent(V5, "c").will(Will::new("delayed").delay(1));
    drop(Client::connect(&server, &connect).await);
    server.until("only the watcher is connected", |stats| stats.connections == 1).await;
    let client = Client::connect(&server, &Connect::persistent(V5, "c")).await;
    assert!(client.session_present());
    // Another delayed will, started later, is the clock of this test.
    let later = Connect::persistent(V5, "later").will(Will::new("later").delay(1));
    drop(Client::connect(&server, &later).await);
    assert_eq!(watcher.take().await.topic, "later");
}

#[tokio::test]
async fn a_delayed_will_is_published_when_the_session_ends() {
    let server = Server::start().await;
    let mut watcher = watcher(&server).await;
    // With its connection, by expiry, and by a clean start.
    let will = Will::new("w").delay(1000);
    drop(Client::connect(&server, &Connect::new(V5, "c").will(will.clone())).await);
    assert_eq!(watcher.take().await.topic, "w");
    drop(Client::connect(&server, &Connect::new(V5, "c").expiry(1).will(will.clone())).await);
    assert_eq!(watcher.take().await.topic, "w");
    drop(Client::connect(&server, &Connect::persistent(V5, "c").will(will)).await);
    server.until("only the watcher is connected", |stats| stats.connections == 1).await;
    Client::new(&server, V5, "c").await;
    assert_eq!(watcher.take().await.topic, "w");
}

#[tokio::test]
async fn an_unacceptable_will_is_refused_at_connect() {
    let server = Server::with_config(Config::default()).await;
    for (topic, v5, v311) in [("$SYS/x", 0x87, 5), ("a/+", 0x90, 3)] {
        for (version, code) in [(V5, v5), (V311, v311)] {
            let connect = Connect::new(version, "c").will(Will::new(topic));
            let refused = Client::try_connect(&server, &connect).await;
            assert_eq!(refused.connack[1], code);
        }
    }
    assert_eq!(server.broker.stats().sessions, 0);
}

#[tokio::test]
async fn will_properties_are_published_with_it() {
    let server = Server::start().await;
    let mut watcher = watcher(&server).await;
    let will = Will { properties: vec![1, 1, 38, 0, 1, b'k', 0, 1, b'v'], ..Will::new("w") };
    drop(Client::connect(&server, &Connect::new(V5, "c").will(will.clone())).await);
    assert_eq!(watcher.take().await.properties, will.properties);
}
