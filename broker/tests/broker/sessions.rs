//! Sessions that outlive their connection, redelivery, expiry.

use offload_broker::{
    Config, Reason, Transport,
    Version::{V5, V311},
};

use crate::{
    client::{BOTH, Client, Connect, packet},
    server::Server,
};

#[tokio::test]
async fn a_persistent_session_gets_what_came_while_it_was_away() {
    let server = Server::start().await;
    for version in BOTH {
        let session = Connect::persistent(version, "s");
        let mut subscriber = Client::connect(&server, &session).await;
        assert!(!subscriber.session_present());
        subscriber.subscribe("t/#", 2).await;
        subscriber.disconnect().await;
        let mut publisher = Client::new(&server, version, "p").await;
        publisher.publish("t/0", "lost", 0, 0).await;
        for at in 1..=300 {
            assert_eq!(publisher.publish_acknowledged("t/1", &at.to_string()).await, 0);
        }
        let mut subscriber = Client::connect(&server, &session).await;
        assert!(subscriber.session_present());
        for at in 1..=300 {
            assert_eq!(subscriber.take_text().await, at.to_string());
        }
        // A clean one forgets.
        let subscriber = Client::new(&server, version, "s").await;
        assert!(!subscriber.session_present());
        assert_eq!(server.broker.stats().subscriptions, 0);
    }
}

#[tokio::test]
async fn a_clean_start_with_an_expiry_is_kept() {
    let server = Server::start().await;
    let mut subscriber = Client::connect(&server, &Connect::new(V5, "s").expiry(1000)).await;
    subscriber.subscribe("t", 1).await;
    subscriber.disconnect().await;
    assert_eq!(Client::new(&server, V5, "p").await.publish_acknowledged("t", "kept").await, 0);
    let mut subscriber = Client::connect(&server, &Connect::persistent(V5, "s")).await;
    assert!(subscriber.session_present());
    assert_eq!(subscriber.take_text().await, "kept");
}

#[tokio::test]
async fn a_session_without_expiry_ends_with_its_connection() {
    let server = Server::start().await;
    for connect in [Connect::new(V311, "s"), Connect::new(V5, "s"), {
        let mut connect = Connect::new(V5, "s");
        connect.clean = false;
        connect
    }] {
        let mut client = Client::connect(&server, &connect).await;
        client.subscribe("t", 1).await;
        drop(client);
        server.until("the session is gone", |stats| stats.sessions == 0 && stats.subscriptions == 0).await;
    }
}

#[tokio::test]
async fn a_session_that_would_end_is_not_resumed_by_a_take_over() {
    let server = Server::start().await;
    let mut old = Client::new(&server, V311, "s").await;
    old.subscribe("t", 1).await;
    let new = Client::connect(&server, &Connect::persistent(V311, "s")).await;
    assert!(!new.session_present());
    assert_eq!(server.broker.stats().subscriptions, 0);
}

#[tokio::test]
async fn a_session_expires() {
    let server = Server::start().await;
    let mut client = Client::connect(&server, &Connect::new(V5, "s").expiry(3)).await;
    client.subscribe("t", 1).await;
    client.disconnect().await;
    let mut publisher = Client::new(&server, V5, "p").await;
    assert_eq!(publisher.publish_acknowledged("t", "waits").await, 0);
    assert_eq!(server.broker.stats().queued_messages, 1);
    server.until("the session has expired", |stats| stats.sessions == 1 && stats.queued_messages == 0).await;
    let again = Client::connect(&server, &Connect::persistent(V5, "s")).await;
    assert!(!again.session_present());
}

#[tokio::test]
async fn a_session_expires_though_a_listener_has_stopped() {
    let first = Server::start().await;
    Client::new(&first, V5, "c").await.disconnect().await;
    let second = Server::of(first.broker.clone(), Transport::Tcp).await;
    Client::connect(&second, &Connect::new(V5, "s").expiry(1)).await.disconnect().await;
    // Which is the one that has kept the deadlines.
    first.stop().await;
    second.until("the session has expired", |stats| stats.sessions == 0).await;
}

#[tokio::test]
async fn disconnect_may_change_the_expiry_but_not_give_one() {
    let server = Server::start().await;
    let goodbye = |expiry: u32| packet(0xE0, &[&[0, 5, 17][..], &expiry.to_be_bytes()].concat());
    let mut client = Client::connect(&server, &Connect::persistent(V5, "s")).await;
    client.send(&goodbye(0)).await;
    client.expect_end().await;
    assert_eq!(server.broker.stats().sessions, 0);
    let mut client = Client::new(&server, V5, "s").await;
    client.send(&goodbye(10)).await;
    client.expect_disconnect(0x82).await;
}

#[tokio::test]
async fn unacknowledged_messages_are_sent_again_in_order_with_dup() {
    let server = Server::start().await;
    for version in BOTH {
        let session = Connect::persistent(version, "s");
        let mut subscriber = Client::connect(&server, &session).await;
        subscriber.subscribe("t", 2).await;
        let mut publisher = Client::new(&server, version, "p").await;
        for (at, qos) in [1, 2, 1, 2].into_iter().enumerate() {
            publisher.publish("t", &at.to_string(), qos, 1 + at as u16).await;
        }
        let mut ids = Vec::new();
        for _ in 0..4 {
            let message = subscriber.message().await;
            assert!(!message.dup);
            ids.push(message.id);
        }
        // The first is acknowledged, the second received, the others neither.
        subscriber.acknowledge(0x40, ids[0]).await;
        subscriber.acknowledge(0x50, ids[1]).await;
        assert_eq!(subscriber.acknowledged(0x62, ids[1]).await, 0);
        drop(subscriber);
        let mut subscriber = Client::connect(&server, &session).await;
        assert_eq!(subscriber.acknowledged(0x62, ids[1]).await, 0);
        for (text, id) in [("2", ids[2]), ("3", ids[3])] {
            let message = subscriber.message().await;
            assert_eq!((message.text(), message.dup, message.id), (text, true, id));
        }
        // Nothing is sent again on the same connection.
        publisher.publish("t", "new", 0, 0).await;
        assert_eq!(subscriber.take_text().await, "new");
        subscriber.acknowledge(0x70, ids[1]).await;
        subscriber.acknowledge(0x40, ids[2]).await;
        subscriber.acknowledge(0x50, ids[3]).await;
        assert_eq!(subscriber.acknowledged(0x62, ids[3]).await, 0);
        subscriber.acknowledge(0x70, ids[3]).await;
        subscriber.disconnect().await;
        let mut subscriber = Client::connect(&server, &session).await;
        publisher.publish("t", "newer", 0, 0).await;
        assert_eq!(subscriber.take_text().await, "newer");
        Client::new(&server, version, "s").await;
    }
}

#[tokio::test]
async fn a_qos_2_message_sent_again_is_not_delivered_again() {
    let server = Server::start().await;
    for version in BOTH {
        let mut subscriber = Client::new(&server, version, "s").await;
        subscriber.subscribe("t", 0).await;
        let session = Connect::persistent(version, "p");
        let mut publisher = Client::connect(&server, &session).await;
        publisher.publish("t", "once", 2, 1).await;
        assert_eq!(publisher.acknowledged(0x50, 1).await, 0);
        drop(publisher);
        let mut publisher = Client::connect(&server, &session).await;
        assert!(publisher.session_present());
        let again = publisher.publish_bytes(0x3C, "t", 1, &[], b"once");
        publisher.send(&again).await;
        assert_eq!(publisher.acknowledged(0x50, 1).await, 0);
        for reason in [0, if version == V5 { 0x92 } else { 0 }] {
            publisher.acknowledge(0x62, 1).await;
            assert_eq!(publisher.acknowledged(0x70, 1).await, reason);
        }
        publisher.publish("t", "next", 2, 1).await;
        assert_eq!(publisher.acknowledged(0x50, 1).await, 0);
        assert_eq!(subscriber.take_text().await, "once");
        assert_eq!(subscriber.take_text().await, "next");
        Client::new(&server, version, "p").await;
    }
}

#[tokio::test]
async fn a_full_queue_keeps_the_oldest_and_tells_the_publisher() {
    let server = Server::with_config(Config { session_queue_messages: 5, ..Config::default() }).await;
    let session = Connect::persistent(V5, "s");
    let mut subscriber = Client::connect(&server, &session).await;
    subscriber.subscribe("t", 1).await;
    subscriber.disconnect().await;
    let mut publisher = Client::new(&server, V5, "p").await;
    let mut v311 = Client::new(&server, V311, "q").await;
    for at in 0..5 {
        assert_eq!(publisher.publish_acknowledged("t", &at.to_string()).await, 0);
    }
    assert_eq!(publisher.publish_acknowledged("t", "5").await, 0x97);
    assert_eq!(v311.publish_acknowledged("t", "6").await, 0);
    assert_eq!(server.broker.stats().dropped.queue_full, 2);
    let mut subscriber = Client::connect(&server, &session).await;
    for at in 0..5 {
        assert_eq!(subscriber.take_text().await, at.to_string());
    }
    assert_eq!(publisher.publish_acknowledged("t", "again").await, 0);
    assert_eq!(subscriber.take_text().await, "again");
    server
        .until("the account is balanced", |stats| stats.queued_messages == 0 && stats.queued_bytes == 0)
        .await;
}

#[tokio::test]
async fn the_sessions_of_an_identity_that_are_away_are_bounded() {
    let server = Server::with_config(Config { max_sessions_away_per_identity: 3, ..Config::default() }).await;
    for (version, refused) in [(V5, 0x97), (V311, 3)] {
        for user in [Some("anna"), Some("bert"), None] {
            let id = |at: usize| format!("{version:?}{user:?}{at}");
            let mut connect = Connect::persistent(version, "");
            connect.user = user.map(str::to_owned);
            let named = |connect: &Connect, at| Connect { id: id(at), ..connect.clone() };
            for at in 0..3 {
                let mut client = Client::connect(&server, &named(&connect, at)).await;
                client.subscribe("t", 1).await;
                client.disconnect().await;
            }
            let fourth = Client::try_connect(&server, &named(&connect, 3)).await;
            assert_eq!(fourth.connack[1], refused);
            // One that ends with its connection is not refused, and must not become one that stays.
            let mut fleeting = named(&connect, 3);
            (fleeting.clean, fleeting.properties) = (true, Vec::new());
            let fleeting = Client::connect(&server, &fleeting).await;
            let taken_over = Client::try_connect(&server, &named(&connect, 3)).await;
            assert_eq!(taken_over.connack[1], refused);
            fleeting.disconnect().await;
            // Who is back makes room, and so does a session that ends.
            let back = Client::connect(&server, &named(&connect, 0)).await;
            assert!(back.session_present());
            Client::connect(&server, &named(&connect, 3)).await.disconnect().await;
            back.disconnect().await;
            server.broker.disconnect(|_| true, Reason::AdministrativeAction);
        }
    }
}

#[tokio::test]
async fn sessions_that_hold_nothing_make_room_for_new_ones_the_oldest_first() {
    let server = Server::with_config(Config { max_sessions: 4, ..Config::default() }).await;
    let away = |id: &str| Connect::persistent(V5, id);
    Client::connect(&server, &away("nothing 1")).await.disconnect().await;
    let mut client = Client::connect(&server, &away("subscription")).await;
    client.subscribe("t", 1).await;
    client.disconnect().await;
    Client::connect(&server, &away("nothing 2")).await.disconnect().await;
    let mut client = Client::connect(&server, &away("received")).await;
    client.publish("u", "x", 2, 1).await;
    assert_eq!(client.acknowledged(0x50, 1).await, 0x10);
    client.disconnect().await;
    assert_eq!(server.broker.stats().sessions, 4);

    let _first = Client::new(&server, V5, "new 1").await;
    let _second = Client::new(&server, V311, "new 2").await;
    let third = Client::try_connect(&server, &Connect::new(V5, "new 3")).await;
    assert_eq!(third.connack[1], 0x97);
    assert_eq!(server.broker.stats().sessions, 4);
    for (id, present) in [("subscription", true), ("received", true)] {
        assert_eq!(Client::connect(&server, &away(id)).await.session_present(), present, "{id}");
    }
    for id in ["nothing 1", "nothing 2"] {
        assert_eq!(Client::try_connect(&server, &away(id)).await.connack[1], 0x97, "{id}");
    }
}
