//! `$SYS/…`: the broker's counters as messages.

use std::{collections::BTreeMap, time::Duration};

use offload_broker::{
    Config, Message, QoS,
    Version::{V5, V311},
};
use tokio::time::timeout;

use crate::{
    client::{BOTH, Client, Connect},
    server::{DEADLINE, Server},
};

async fn frequent() -> Server {
    Server::with_config(Config { sys_interval: Duration::from_millis(20), ..Config::default() }).await
}

/// Takes messages until the topics below `$SYS/broker` have these values; returns the last values of all.
async fn until(watcher: &mut Client, expected: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let taking = async {
        while !expected.iter().all(|&(name, value)| values.get(name).is_some_and(|last| last == value)) {
            let message = watcher.take().await;
            let name = message.topic.strip_prefix("$SYS/broker/").unwrap().to_owned();
            values.insert(name, message.text().to_owned());
        }
    };
    let taken = timeout(DEADLINE, taking).await;
    assert!(taken.is_ok(), "expected {expected:?}, there is {values:#?}");
    values
}

#[tokio::test]
async fn what_mosquitto_has_is_there_under_its_names() {
    let server = frequent().await;
    let mut away = Client::connect(&server, &Connect::persistent(V5, "away")).await;
    away.subscribe_all(&[("t", 1), ("u", 1)], &[]).await;
    away.disconnect().await;
    let mut publisher = Client::new(&server, V311, "p").await;
    publisher.publish_acknowledged("t", "12345").await;
    publisher.retain("r", "kept", 1).await;
    publisher.ping().await;

    let stats = server.broker.stats();
    let stored = (stats.queued_bytes + stats.retained_bytes).to_string();
    for version in BOTH {
        let mut watcher = Client::new(&server, version, "w").await;
        watcher.subscribe("$SYS/#", 0).await;
        let expected = [
            ("clients/connected", "2"),
            ("clients/disconnected", "1"),
            ("clients/maximum", "2"),
            ("clients/total", "3"),
            ("publish/messages/received", "2"),
            ("publish/messages/dropped", "0"),
            ("publish/bytes/received", "9"),
            ("subscriptions/count", "3"),
            ("retained messages/count", "1"),
            ("store/messages/count", "2"),
            ("store/messages/bytes", &stored),
            // The last of those that are there at once: by then all are.
            ("version", concat!("offload-broker version ", env!("CARGO_PKG_VERSION"))),
        ];
        let values = until(&mut watcher, &expected).await;
        let number = |name| values[name].parse::<u64>().unwrap();
        assert!(values["uptime"].ends_with(" seconds"));
        assert!(number("messages/received") > number("publish/messages/received"));
        assert!(number("messages/sent") > number("publish/messages/sent"));
        assert!(number("bytes/received") > number("publish/bytes/received"));
        assert!(number("bytes/sent") > number("publish/bytes/sent"));
        drop(watcher);
        server.until("the watcher is gone", |stats| stats.clients == 1).await;
    }
}

#[tokio::test]
async fn packets_and_bytes_are_counted_both_ways() {
    let server = Server::with_config(Config { sys_interval: Duration::ZERO, ..Config::default() }).await;
    let before = server.broker.stats();
    let mut client = Client::new(&server, V311, "c").await; // 15 bytes, 4 back
    client.subscribe("t", 0).await; // 8 bytes, 5 back
    client.publish("t", "xyz", 1, 7).await; // 10 bytes, 4 and 8 back
    let mut received = [client.receive().await.first, client.receive().await.first];
    received.sort_unstable();
    assert_eq!(received, [0x30, 0x40]);
    client.ping().await; // 2 bytes, 2 back
    let stats = server.broker.stats();
    assert_eq!((before.packets_received, before.packets_sent), (0, 0));
    assert_eq!((stats.packets_received, stats.packets_sent), (4, 5));
    assert_eq!((stats.bytes_received, stats.bytes_sent), (35, 23));
    assert_eq!((stats.messages_received, stats.messages_sent), (1, 1));
    assert_eq!((stats.payload_bytes_received, stats.payload_bytes_sent), (3, 3));
    assert_eq!((stats.clients, stats.most_clients), (1, 1));
}

#[tokio::test]
async fn refusals_are_counted_by_cause() {
    let server = Server::with_config(Config {
        max_sessions: 1,
        sys_interval: Duration::from_millis(20),
        ..Config::default()
    })
    .await;
    let mut watcher = Client::connect(&server, &Connect::new(V5, "w").user("anna")).await;
    let refused = Client::try_connect(&server, &Connect::new(V5, "w").user("bert")).await;
    assert_eq!(refused.connack[1], 0x87);
    let refused = Client::try_connect(&server, &Connect::new(V5, "one too many")).await;
    assert_eq!(refused.connack[1], 0x97);
    let refused = Client::try_connect(&server, &Connect::new(V5, &"x".repeat(300))).await;
    assert_eq!(refused.connack[1], 0x85);
    let stats = server.broker.stats();
    assert_eq!(
        (stats.connections_refused, stats.refused_over_limit, stats.authentication_failures),
        (3, 1, 1)
    );
    watcher.subscribe("$SYS/broker/connections/refused/#", 0).await;
    let expected = [
        ("connections/refused", "3"),
        ("connections/refused/over-limit", "1"),
        ("connections/refused/authentication", "1"),
    ];
    until(&mut watcher, &expected).await;
}

#[tokio::test]
async fn only_what_has_changed_is_published_again() {
    let server = frequent().await;
    let mut watcher = Client::new(&server, V5, "w").await;
    watcher.subscribe("$SYS/broker/version", 0).await;
    assert!(watcher.take_text().await.starts_with("offload-broker version "));
    watcher.subscribe("$SYS/broker/uptime", 0).await;
    // Many intervals, in which the version is as it was.
    let first = watcher.take().await;
    let second = watcher.take().await;
    assert_eq!((&*first.topic, &*second.topic), ("$SYS/broker/uptime", "$SYS/broker/uptime"));
    assert_ne!(first.payload, second.payload);
}

#[tokio::test]
async fn a_leading_wildcard_and_an_interval_of_0_bring_nothing() {
    let server = frequent().await;
    let mut watcher = Client::new(&server, V5, "w").await;
    watcher.subscribe("$SYS/broker/version", 0).await;
    watcher.take().await; // it is all there by now
    watcher.unsubscribe(&["$SYS/broker/version"]).await;
    watcher.subscribe_all(&[("#", 0), ("+/broker/version", 0)], &[]).await;
    watcher.ping().await;

    let server = Server::with_config(Config { sys_interval: Duration::ZERO, ..Config::default() }).await;
    let mut watcher = Client::new(&server, V5, "w").await;
    watcher.subscribe("$SYS/#", 0).await;
    server.broker.publish(&Message::new("$SYS/of the application", "x", QoS::AtMostOnce), None);
    assert_eq!(watcher.take().await.topic, "$SYS/of the application");
}

#[tokio::test]
async fn whatever_clients_retain_there_is_room_for_the_brokers_own() {
    let server = Server::with_config(Config {
        max_retained_messages: 1,
        sys_interval: Duration::from_millis(20),
        ..Config::default()
    })
    .await;
    let mut client = Client::new(&server, V5, "c").await;
    client.retain("a", "kept", 1).await;
    client.subscribe("$SYS/broker/retained messages/count", 0).await;
    until(&mut client, &[("retained messages/count", "1")]).await;
    assert_eq!(server.broker.stats().dropped.retained_full, 0);
}

#[tokio::test]
async fn one_of_several_listeners_publishes_and_another_takes_over() {
    let first = frequent().await;
    let second = Server::of(first.broker.clone(), offload_broker::Transport::Tcp).await;
    let mut watcher = Client::new(&second, V5, "w").await;
    watcher.subscribe("$SYS/broker/clients/connected", 0).await;
    until(&mut watcher, &[("clients/connected", "1")]).await;
    first.stop().await;
    let _other = Client::new(&second, V5, "other").await;
    until(&mut watcher, &[("clients/connected", "2")]).await;
}
