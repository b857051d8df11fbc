//! Retained messages.

use offload_broker::{
    Config,
    Version::{V5, V311},
};

use crate::{
    client::{BOTH, Client, Connect},
    server::Server,
};

#[tokio::test]
async fn a_new_subscription_gets_what_is_retained_each_time() {
    let server = Server::start().await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        client.retain("a/b", "kept", 1).await;
        client.retain("a/b", "newer", 1).await;
        for filter in ["a/b", "a/+", "#", "a/b"] {
            client.subscribe(filter, 1).await;
            let message = client.take().await;
            assert_eq!((message.text(), message.retain, message.qos), ("newer", true, 1));
        }
        // To a subscription that is there already it comes as any other message.
        client.unsubscribe(&["a/b", "a/+"]).await;
        Client::new(&server, version, "other").await.retain("a/b", "live", 0).await;
        assert!(!client.take().await.retain);
    }
}

#[tokio::test]
async fn only_an_empty_retained_message_clears() {
    let server = Server::start().await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        client.retain("t", "kept", 1).await;
        client.publish_acknowledged("t", "").await;
        assert_eq!(server.broker.stats().retained_messages, 1);
        client.retain("t", "", 1).await;
        let stats = server.broker.stats();
        assert_eq!((stats.retained_messages, stats.retained_bytes), (0, 0));
    }
}

#[tokio::test]
async fn a_wildcard_delivers_all_of_many_retained_messages() {
    // More than the queue of a session holds, and than its window.
    let server =
        Server::with_config(Config { session_queue_messages: 10, max_inflight: 5, ..Config::default() })
            .await;
    let mut client = Client::new(&server, V311, "c").await;
    for at in 0..500 {
        client.retain(&format!("many/{at:03}"), "x", 1).await;
    }
    for version in BOTH {
        let mut subscriber = Client::new(&server, version, "s").await;
        subscriber.subscribe("many/#", 1).await;
        for at in 0..500 {
            assert_eq!(subscriber.take().await.topic, format!("many/{at:03}"));
        }
    }
}

#[tokio::test]
async fn retain_handling_is_honoured() {
    let server = Server::start().await;
    let mut client = Client::new(&server, V5, "c").await;
    client.retain("t", "kept", 1).await;
    client.subscribe("t", 0b10_0000).await; // never
    client.subscribe("t", 0b01_0000).await; // only if the subscription is new: it is not
    client.ping().await;
    client.unsubscribe(&["t"]).await;
    client.subscribe("t", 0b01_0000).await;
    assert_eq!(client.take_text().await, "kept");
}

#[tokio::test]
async fn what_cannot_be_retained_is_refused_to_its_publisher() {
    let server = Server::with_config(Config { max_retained_messages: 1, ..Config::default() }).await;
    let mut client = Client::new(&server, V5, "c").await;
    client.retain("a", "x", 1).await;
    let bytes = client.publish_bytes(0x33, "b", 1, &[], b"x");
    client.send(&bytes).await;
    assert_eq!(client.acknowledged(0x40, 1).await, 0x97);
    assert_eq!(server.broker.stats().dropped.retained_full, 1);
}

/// Whose messages nobody fetches has a full queue; that keeps nobody from retaining, and later subscribers find it.
#[tokio::test]
async fn what_is_retained_is_accepted_though_every_receivers_queue_is_full() {
    let config = Config { session_queue_messages: 1, max_retained_messages: 1, ..Config::default() };
    let server = Server::with_config(config).await;
    let mut hoarder = Client::connect(&server, &Connect::persistent(V5, "hoarder")).await;
    hoarder.subscribe("#", 1).await;
    hoarder.disconnect().await;
    let mut client = Client::new(&server, V5, "c").await;
    assert_eq!(client.publish_acknowledged("t", "the last that fits").await, 0);

    // Not retained, it reaches nobody and is nowhere.
    assert_eq!(client.publish_acknowledged("t", "x").await, 0x97);
    // Retained, it is, at either level...
    for (first, ack, payload) in [(0x33, 0x40, "first"), (0x35, 0x50, "second")] {
        let bytes = client.publish_bytes(first, "t", 5, &[], payload.as_bytes());
        client.send(&bytes).await;
        assert_eq!(client.acknowledged(ack, 5).await, 0);
        let mut later = Client::new(&server, V5, "later").await;
        later.subscribe("t", 1).await;
        assert_eq!(later.take_text().await, payload);
        later.disconnect().await;
    }
    // ...unless the store is full, too.
    let bytes = client.publish_bytes(0x33, "u", 6, &[], b"x");
    client.send(&bytes).await;
    assert_eq!(client.acknowledged(0x40, 6).await, 0x97);
    // Clearing leaves something behind for later subscribers as well: nothing.
    let bytes = client.publish_bytes(0x33, "t", 7, &[], b"");
    client.send(&bytes).await;
    assert_eq!(client.acknowledged(0x40, 7).await, 0);
    assert_eq!(server.broker.stats().retained_messages, 0);
}

#[tokio::test]
async fn an_expired_retained_message_is_not_delivered() {
    let server = Server::start().await;
    let mut client = Client::new(&server, V5, "c").await;
    let bytes = client.publish_bytes(0x33, "a/expired", 1, &[2, 0, 0, 0, 0], b"x");
    client.send(&bytes).await;
    client.acknowledged(0x40, 1).await;
    client.retain("a/kept", "x", 1).await;
    client.subscribe("a/#", 0).await;
    assert_eq!(client.take().await.topic, "a/kept");
}
