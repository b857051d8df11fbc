//! Retained messages.

use offload_broker::{
    Config, Message, QoS,
    Version::{V5, V311},
};

use crate::{
    client::{BOTH, Client, Connect, packet, section, string},
    log::Log,
    server::Server,
};

/// Has the application retain this many messages below `many/`.
fn retain_many(server: &Server, messages: usize) {
    for at in 0..messages {
        let mut message = Message::new(format!("many/{at:04}"), "old", QoS::AtLeastOnce);
        message.retain = true;
        server.broker.publish(&message, None);
    }
}

/// A SUBSCRIBE to the same filter, several times.
fn subscribe_again(filter: &str, options: u8, times: usize) -> Vec<u8> {
    let filters = [string(filter), vec![options]].concat().repeat(times);
    packet(0x82, &[vec![0, 1], section(&[]), filters].concat())
}

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
async fn what_cannot_be_retained_is_refused_to_its_publisher_and_logged() {
    let log = Log::start();
    let server = Server::with_config(Config { max_retained_messages: 1, ..Config::default() }).await;
    let mut client = Client::new(&server, V5, "c").await;
    client.retain("a", "x", 1).await;
    let bytes = client.publish_bytes(0x33, "b", 1, &[], b"x");
    client.send(&bytes).await;
    assert_eq!(client.acknowledged(0x40, 1).await, 0x97);
    assert_eq!(server.broker.stats().dropped.retained_full, 1);
    // 3.1.1 cannot be told.
    let mut old = Client::new(&server, V311, "old").await;
    let bytes = old.publish_bytes(0x33, "c", 1, &[], b"x");
    old.send(&bytes).await;
    assert_eq!(old.acknowledged(0x40, 1).await, 0);
    let text = log.text();
    for said in
        ["max_retained_messages", "topic=\"b\"", "topic=\"c\"", "dropped=2", "client_id=\"old\"", "unkept=1"]
    {
        assert!(text.contains(said), "{said}: {text}");
    }
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

#[tokio::test]
async fn retained_messages_take_a_quarter_of_a_queue_however_often_they_are_subscribed_to() {
    let config = Config { session_queue_messages: 400, max_inflight: 10, ..Config::default() };
    let server = Server::with_config(config).await;
    retain_many(&server, 2_000);
    let mut attackers = Vec::new();
    for at in 0..3 {
        let mut attacker = Client::new(&server, V5, &at.to_string()).await;
        for _ in 0..16 {
            attacker.send(&subscribe_again("#", 1, 256)).await;
            attacker.send(&subscribe_again("+/+", 1, 256)).await;
        }
        for _ in 0..32 {
            // Answered for each filter, before or between what is retained.
            let suback = loop {
                let packet = attacker.receive().await;
                if packet.first == 0x90 {
                    break packet;
                }
            };
            assert_eq!(suback.body[3..], [1; 256]);
        }
        attackers.push(attacker);
    }
    for attacker in &mut attackers {
        // Whatever came before the answer to this was queued before it was asked for.
        attacker.send(&[0xC0, 0]).await;
        while attacker.receive().await.first != 0xD0 {}
    }
    let stats = server.broker.stats();
    assert_eq!(stats.subscriptions, 6);
    assert!(stats.queued_messages <= 3 * (100 + 10), "{}", stats.queued_messages);
    // Live messages have their room.
    let mut publisher = Client::new(&server, V5, "p").await;
    for _ in 0..90 {
        publisher.publish("live", "x", 0, 0).await;
    }
    publisher.ping().await;
    assert_eq!(server.broker.stats().dropped.qos0_queue, 0);
}

#[tokio::test]
async fn what_is_replaced_before_it_was_delivered_is_delivered_once_as_the_live_message() {
    let server = Server::with_config(Config { session_queue_messages: 40, ..Config::default() }).await;
    retain_many(&server, 100);
    let mut subscriber = Client::connect(&server, &Connect::new(V5, "s").receive_maximum(1)).await;
    subscriber.subscribe("many/#", 1).await;
    // One is in flight and ten wait: the last is far from being looked at.
    let first = subscriber.message().await;
    assert_eq!(first.topic, "many/0000");
    let mut publisher = Client::new(&server, V5, "p").await;
    for value in ["newer", "newest"] {
        publisher.retain("many/0099", value, 1).await;
    }
    subscriber.acknowledge(0x40, first.id).await;
    let mut replaced = Vec::new();
    for _ in 1..101 {
        let message = subscriber.take().await;
        if message.topic == "many/0099" {
            replaced.push((message.text().to_owned(), message.retain));
        }
    }
    assert_eq!(replaced, [("newer".to_owned(), false), ("newest".to_owned(), false)]);
    subscriber.ping().await;
}

#[tokio::test]
async fn a_session_that_comes_back_gets_the_rest_of_what_is_retained() {
    let server = Server::with_config(Config { session_queue_messages: 40, ..Config::default() }).await;
    retain_many(&server, 100);
    let connect = Connect::persistent(V5, "s").receive_maximum(1);
    let mut subscriber = Client::connect(&server, &connect).await;
    subscriber.subscribe("many/#", 1).await;
    assert_eq!(subscriber.take().await.topic, "many/0000");
    drop(subscriber);
    server.until("it is away", |stats| stats.clients == 0).await;
    // At QoS 0 it is not kept for who is away, but retained.
    Client::new(&server, V5, "p").await.retain("many/0099", "new", 0).await;
    let mut subscriber = Client::connect(&server, &connect).await;
    assert!(subscriber.session_present());
    for at in 1..100 {
        let message = subscriber.take().await;
        assert_eq!(message.topic, format!("many/{at:04}"));
        assert_eq!(message.text(), if at == 99 { "new" } else { "old" });
    }
    subscriber.ping().await;
}

#[tokio::test]
async fn who_unsubscribes_gets_no_more_than_what_is_queued() {
    let server = Server::with_config(Config { session_queue_messages: 40, ..Config::default() }).await;
    retain_many(&server, 100);
    let mut subscriber = Client::connect(&server, &Connect::new(V5, "s").receive_maximum(1)).await;
    subscriber.subscribe("many/#", 1).await;
    let first = subscriber.message().await.id;
    assert_eq!(subscriber.unsubscribe(&["many/#"]).await, [0]);
    subscriber.acknowledge(0x40, first).await;
    for _ in 0..10 {
        subscriber.take().await;
    }
    subscriber.ping().await;
    assert_eq!(server.broker.stats().queued_messages, 0);
}

#[tokio::test]
async fn one_identity_leaves_room_to_retain_for_others() {
    let config = Config { max_retained_messages: 10, ..Config::default() };
    let server = Server::with_config(config).await;
    let mut codes = Vec::new();
    for (user, sessions) in [("anna", 2), ("bert", 1)] {
        for session in 0..sessions {
            let id = format!("{user}{session}");
            let mut client = Client::connect(&server, &Connect::new(V5, &id).user(user)).await;
            for at in 0..3 {
                let bytes = client.publish_bytes(0x33, &format!("{id}/{at}"), 1, &[], b"x");
                client.send(&bytes).await;
                codes.push(client.acknowledged(0x40, 1).await);
            }
        }
    }
    // Half for the first, in however many sessions, and half of what is left for the second.
    assert_eq!(codes, [0x10, 0x10, 0x10, 0x10, 0x10, 0x97, 0x10, 0x10, 0x10]);
    assert_eq!(server.broker.stats().dropped.retained_full, 1);
}
