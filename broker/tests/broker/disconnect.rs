//! An application that ends clients: `Broker::disconnect`.

use offload_broker::{
    Config, Reason,
    Version::{V5, V311},
};

use crate::{
    client::{BOTH, Client, Connect, Will},
    server::Server,
};

#[tokio::test]
async fn those_who_are_named_are_disconnected_with_the_reason_and_nobody_else_is() {
    let server = Server::start().await;
    let mut other = Client::connect(&server, &Connect::new(V5, "other").user("bert")).await;
    other.subscribe("gone", 1).await;
    let mut marker = Client::new(&server, V5, "marker").await;
    for version in BOTH {
        let persistent = Connect::persistent(version, "a").user("anna").will(Will::new("gone"));
        let mut first = Client::connect(&server, &persistent).await;
        first.subscribe("t", 1).await;
        let mut second = Client::connect(&server, &Connect::new(version, "b").user("anna")).await;

        let anna = |client: &offload_broker::ClientInfo| client.user.as_deref() == Some("anna");
        assert_eq!(server.broker.disconnect(anna, Reason::NotAuthorized), 2);
        // All that they had is gone at once, not only when their connections are.
        let stats = server.broker.stats();
        assert_eq!((stats.clients, stats.sessions, stats.subscriptions), (2, 2, 1));
        first.expect_disconnect(0x87).await;
        second.expect_disconnect(0x87).await;
        // Their wills are not published.
        marker.publish_acknowledged("gone", "marker").await;
        assert_eq!(other.take_text().await, "marker");
        assert_eq!(server.broker.disconnect(anna, Reason::NotAuthorized), 0);

        let mut again = Client::connect(&server, &persistent).await;
        assert!(!again.session_present());
        assert_eq!(other.publish_acknowledged("t", "x").await, 0x10);
        assert_eq!(server.broker.disconnect(anna, Reason::AdministrativeAction), 1);
        again.expect_disconnect(0x98).await;
        marker.publish_acknowledged("gone", "marker").await;
        assert_eq!(other.take_text().await, "marker");
        other.ping().await;
    }
}

#[tokio::test]
async fn who_is_away_loses_the_session_and_what_waits_in_it() {
    let server = Server::start().await;
    for version in BOTH {
        let connect = Connect::persistent(version, "away").user("anna");
        let mut away = Client::connect(&server, &connect).await;
        away.subscribe("t", 1).await;
        away.disconnect().await;
        let mut publisher = Client::new(&server, V311, "p").await;
        publisher.publish_acknowledged("t", "kept").await;
        assert_eq!(server.broker.stats().queued_messages, 1);
        assert_eq!(server.broker.disconnect(|client| &*client.client_id == "away", Reason::NotAuthorized), 1);
        let stats = server.broker.stats();
        assert_eq!((stats.sessions, stats.queued_messages, stats.queued_bytes), (1, 0, 0));
        assert!(!Client::connect(&server, &connect).await.session_present());
    }
}

#[tokio::test]
async fn a_will_that_is_held_back_is_not_published_either() {
    let server = Server::start().await;
    let mut watcher = Client::new(&server, V5, "watcher").await;
    watcher.subscribe("#", 1).await;
    let will = Will::new("will").delay(1000);
    drop(Client::connect(&server, &Connect::persistent(V5, "away").user("anna").will(will)).await);
    server.until("it is away", |stats| stats.clients == 1).await;
    assert_eq!(server.broker.disconnect(|client| client.user.is_some(), Reason::NotAuthorized), 1);
    assert_eq!(server.broker.stats().sessions, 1);
    watcher.publish_acknowledged("marker", "").await;
    assert_eq!(watcher.take().await.topic, "marker");
}

#[tokio::test]
async fn who_takes_nothing_is_gone_as_well() {
    let server = Server::with_config(Config { write_buffer: 1_000, ..Config::default() }).await;
    let mut deaf = Client::new(&server, V5, "deaf").await;
    deaf.subscribe("t", 1).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    // More than the sockets between them take.
    let payload = "x".repeat(100_000);
    for _ in 0..200 {
        publisher.publish_acknowledged("t", &payload).await;
    }
    assert_eq!(server.broker.disconnect(|client| &*client.client_id == "deaf", Reason::NotAuthorized), 1);
    assert_eq!(server.broker.stats().queued_messages, 0);
    server.until("the connection is closed", |stats| stats.connections == 1).await;
    publisher.ping().await;
}

#[tokio::test]
async fn a_reason_that_disconnect_cannot_carry_is_sent_as_an_unspecified_error() {
    let server = Server::start().await;
    let mut client = Client::new(&server, V5, "c").await;
    assert_eq!(server.broker.disconnect(|_| true, Reason::BadUserNameOrPassword), 1);
    client.expect_disconnect(0x80).await;
}
