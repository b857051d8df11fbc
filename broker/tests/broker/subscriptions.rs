//! SUBSCRIBE and UNSUBSCRIBE.

use offload_broker::{
    Config, Message, QoS, Reason,
    Version::{V5, V311},
    config::DEFAULT_MAX_SUBSCRIPTIONS,
};

use crate::{
    client::{BOTH, Client, Connect, packet, string},
    log::Log,
    server::Server,
};

#[tokio::test]
async fn several_filters_get_one_suback_with_all_codes() {
    let server = Server::start().await;
    let filters = [("a", 0), ("b/#", 1), ("c#", 1), ("$share/g/t", 1), ("+/d", 2)];
    let mut v5 = Client::new(&server, V5, "a").await;
    assert_eq!(v5.subscribe_all(&filters, &[]).await, [0, 1, 0x8F, 0x9E, 2]);
    let mut v311 = Client::new(&server, V311, "b").await;
    assert_eq!(v311.subscribe_all(&filters, &[]).await, [0, 1, 0x80, 0x80, 2]);
}

#[tokio::test]
async fn several_filters_get_one_unsuback_with_all_codes() {
    let server = Server::start().await;
    for (version, codes) in [(V311, &[][..]), (V5, &[0, 0x11, 0][..])] {
        let mut client = Client::new(&server, version, "c").await;
        client.subscribe_all(&[("a", 0), ("b/#", 1)], &[]).await;
        assert_eq!(client.unsubscribe(&["a", "unknown", "b/#"]).await, codes);
        assert_eq!(server.broker.stats().subscriptions, 0);
    }
}

#[tokio::test]
async fn what_is_unsubscribed_is_not_delivered() {
    let server = Server::start().await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        client.subscribe_all(&[("a", 0), ("b", 0)], &[]).await;
        client.unsubscribe(&["a"]).await;
        client.publish("a", "1", 0, 0).await;
        client.publish("b", "2", 0, 0).await;
        assert_eq!(client.take_text().await, "2");
    }
}

#[tokio::test]
async fn overlapping_subscriptions_deliver_once_at_the_highest_qos() {
    let server = Server::start().await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        client.subscribe_all(&[("a/#", 0), ("a/+", 2), ("+/b", 1)], &[]).await;
        let mut publisher = Client::new(&server, version, "p").await;
        publisher.publish("a/b", "once", 2, 1).await;
        let message = client.take().await;
        assert_eq!((message.text(), message.qos), ("once", 2));
        publisher.publish("a/b", "next", 0, 0).await;
        assert_eq!(client.take_text().await, "next");
    }
}

#[tokio::test]
async fn subscription_identifiers_come_with_every_message() {
    let server = Server::start().await;
    let mut client = Client::new(&server, V5, "c").await;
    client.subscribe_all(&[("a/#", 0)], &[11, 1]).await;
    client.subscribe_all(&[("a/b", 0)], &[11, 0x80, 0x01, 38, 0, 1, b'k', 0, 1, b'v']).await;
    client.subscribe_all(&[("a/+", 0)], &[]).await;
    client.publish("a/b", "x", 0, 0).await;
    let properties = client.take().await.properties;
    assert!(properties == [11, 1, 11, 0x80, 1] || properties == [11, 0x80, 1, 11, 1], "{properties:?}");
    // A new subscription to the same filter replaces the identifier too.
    client.subscribe_all(&[("a/#", 0)], &[11, 7]).await;
    client.publish("a/c", "x", 0, 0).await;
    assert_eq!(client.take().await.properties, [11, 7]);
}

#[tokio::test]
async fn no_local_spares_a_client_its_own_messages() {
    let server = Server::start().await;
    let mut client = Client::new(&server, V5, "c").await;
    let mut other = Client::new(&server, V5, "o").await;
    client.subscribe("t", 0b100).await;
    client.publish("t", "own", 0, 0).await;
    client.ping().await;
    other.publish("t", "other", 0, 0).await;
    assert_eq!(client.take_text().await, "other");
}

#[tokio::test]
async fn retain_as_published_keeps_the_flag() {
    let server = Server::start().await;
    let mut with = Client::new(&server, V5, "with").await;
    let mut without = Client::new(&server, V5, "without").await;
    with.subscribe("t", 0b1000).await;
    without.subscribe("t", 0).await;
    Client::new(&server, V5, "p").await.retain("t", "x", 1).await;
    assert!(with.take().await.retain);
    assert!(!without.take().await.retain);
}

#[tokio::test]
async fn leading_wildcards_do_not_match_the_servers_own_topics() {
    let server = Server::start().await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        client.subscribe_all(&[("#", 0), ("+/x", 0)], &[]).await;
        let publish = |topic: &str| server.broker.publish(&Message::new(topic, "m", QoS::AtMostOnce), None);
        assert_eq!(publish("$SYS/x"), 0);
        assert_eq!(publish("a/x"), 1);
        assert_eq!(client.take().await.topic, "a/x");
        client.subscribe("$SYS/x", 0).await;
        assert_eq!(publish("$SYS/x"), 1);
        assert_eq!(client.take().await.topic, "$SYS/x");
    }
}

#[tokio::test]
async fn subscriptions_over_the_limit_are_refused() {
    let server = Server::with_config(Config { max_subscriptions: 2, ..Config::default() }).await;
    let mut client = Client::new(&server, V5, "c").await;
    let codes = client.subscribe_all(&[("a", 0), ("b", 0), ("c", 0), ("a", 1)], &[]).await;
    assert_eq!(codes, [0, 0, 0x97, 1]);
}

#[tokio::test]
async fn the_sessions_of_an_identity_share_its_subscriptions() {
    let config =
        Config { max_subscriptions_per_user: 3, max_subscriptions_per_address: 5, ..Config::default() };
    let server = Server::with_config(config).await;
    for (version, refused) in [(V5, 0x97), (V311, 0x80)] {
        for (user, most) in [(Some("anna"), 3), (Some("bert"), 3), (None, 5)] {
            let mut sessions = Vec::new();
            for at in 0..most + 1 {
                let mut connect = Connect::new(version, &format!("{user:?}{at}"));
                connect.user = user.map(str::to_owned);
                let mut client = Client::connect(&server, &connect).await;
                let expected = if at < most { 1 } else { refused };
                assert_eq!(client.subscribe_all(&[("same", 1)], &[]).await, [expected], "{user:?} {at}");
                sessions.push(client);
            }
            // One that it has may be changed, and what is given up makes room.
            assert_eq!(sessions[0].subscribe_all(&[("same", 0)], &[]).await, [0]);
            sessions[0].unsubscribe(&["same"]).await;
            let last = sessions.last_mut().unwrap();
            assert_eq!(last.subscribe_all(&[("a", 0), ("b", 0)], &[]).await, [0, refused]);
        }
        server.until("all are gone", |stats| stats.subscriptions == 0).await;
        assert_eq!(server.broker.stats().subscription_bytes, 0);
    }
}

#[tokio::test]
async fn subscriptions_are_accounted_in_bytes_and_one_identity_leaves_half() {
    let config = Config { max_subscription_bytes: 100_000, ..Config::default() };
    let server = Server::with_config(config).await;
    let deep = |at: usize| format!("{}{at}", "level/".repeat(20));
    let mut granted = [0, 0];
    for (user, granted) in ["anna", "bert"].into_iter().zip(&mut granted) {
        for session in 0..20 {
            // They stay for days.
            let connect = Connect::persistent(V5, &format!("{user}{session}")).user(user);
            let mut client = Client::connect(&server, &connect).await;
            let filters: Vec<_> = (0..10).map(|at| deep(10 * session + at)).collect();
            let filters: Vec<_> = filters.iter().map(|filter| (&filter[..], 1)).collect();
            let codes = client.subscribe_all(&filters, &[]).await;
            *granted += codes.iter().filter(|&&code| code == 1).count();
            client.disconnect().await;
        }
    }
    let stats = server.broker.stats();
    assert_eq!(stats.subscriptions, granted[0] + granted[1]);
    let each = stats.subscription_bytes / stats.subscriptions;
    assert!(each > 2 * deep(0).len(), "the text alone is there twice: {each}");
    assert!((40_000..=51_000).contains(&(granted[0] * each)), "{granted:?} of {each} bytes");
    assert!((20_000..=26_000).contains(&(granted[1] * each)), "{granted:?} of {each} bytes");
    assert_eq!(server.broker.disconnect(|_| true, Reason::AdministrativeAction), 40);
    assert_eq!((server.broker.stats().subscriptions, server.broker.stats().subscription_bytes), (0, 0));
}

#[tokio::test]
async fn malformed_subscriptions_end_the_connection() {
    let server = Server::start().await;
    for (body, reason) in [
        (&[0, 1, 0][..], 0x82),                          // no filter
        (&[0, 1, 0, 0, 1, b'a'], 0x81),                  // no options
        (&[0, 1, 0, 0, 1, b'a', 3], 0x81),               // QoS 3
        (&[0, 1, 0, 0, 1, b'a', 0x30], 0x81),            // retain handling 3
        (&[0, 1, 0, 0, 1, b'a', 0x40], 0x81),            // reserved bit
        (&[0, 1, 2, 11, 0, 0, 1, b'a', 0], 0x82),        // subscription identifier 0
        (&[0, 1, 4, 11, 1, 11, 2, 0, 1, b'a', 0], 0x82), // two of them
        (&[0, 1, 0, 0, 2, 0xC3, 0x28, 0], 0x81),         // not UTF-8
    ] {
        let mut client = Client::new(&server, V5, "c").await;
        client.send(&packet(0x82, body)).await;
        client.expect_disconnect(reason).await;
    }
    for body in [&[0, 1][..], &[0, 1, 0, 1, b'a', 4], &[0], &[0, 1, 0, 9, b'a', 0]] {
        let mut client = Client::new(&server, V311, "c").await;
        client.send(&packet(0x82, body)).await;
        client.expect_end().await;
    }
    // The codec computes with lengths that are not there.
    for body in [&[0, 1][..], &[0], &[], &[0, 1, 0], &[0, 1, 0, 9, b'a']] {
        let mut client = Client::new(&server, V311, "c").await;
        client.send(&packet(0xA2, body)).await;
        client.expect_end().await;
    }
}

#[tokio::test]
async fn however_many_filters_one_packet_has_each_gets_its_code() {
    let server = Server::start().await;
    for version in BOTH {
        for count in [256, 257, 1_000, 30_000] {
            let names: Vec<String> = (0..count).map(|at| format!("ha/{at}")).collect();
            let mut client = Client::new(&server, version, "ha").await;
            let filters: Vec<(&str, u8)> = names.iter().map(|name| (&name[..], 1)).collect();
            let codes = client.subscribe_all(&filters, &[]).await;
            let refused = if version == V5 { 0x97 } else { 0x80 };
            let granted = count.min(DEFAULT_MAX_SUBSCRIPTIONS);
            assert_eq!(codes, [vec![1; granted], vec![refused; count - granted]].concat());
            assert_eq!(server.broker.stats().subscriptions, granted);
            let names: Vec<&str> = names.iter().map(|name| &name[..]).collect();
            let codes = client.unsubscribe(&names).await;
            let expected = [vec![0; granted], vec![0x11; count - granted]].concat();
            assert_eq!(codes, if version == V5 { expected } else { Vec::new() });
            assert_eq!(server.broker.stats().subscriptions, 0);
            client.disconnect().await;
        }
    }
}

#[tokio::test]
async fn what_follows_many_filters_is_handled_after_them_and_who_breaks_off_leaves_nothing() {
    let server = Server::start().await;
    let filters = |count: usize| -> Vec<u8> {
        (0..count).flat_map(|at| [string(format!("f/{at}")), vec![0]].concat()).collect()
    };
    for version in BOTH {
        let head: &[u8] = if version == V5 { &[0, 9, 0] } else { &[0, 9] };
        let mut client = Client::new(&server, version, "c").await;
        let subscribe = packet(0x82, &[head, &filters(2_000)].concat());
        let publish = client.publish_bytes(0x30, "f/1999", 0, &[], b"x");
        client.send(&[subscribe, publish, vec![0xC0, 0]].concat()).await;
        assert_eq!(client.receive().await.first, 0x90);
        client.expect(0xD0, &[]).await;
        assert_eq!(client.take_text().await, "x");
        // One that is wrong ends the connection, as any packet that is.
        let mut client = Client::new(&server, version, "c").await;
        client.send(&packet(0x82, &[head, &filters(1_000), &[0, 9, b'a']].concat())).await;
        client.expect_disconnect(0x81).await;
        server.until("nothing is left", |stats| stats.subscriptions == 0 && stats.input_bytes == 0).await;
    }
}

#[tokio::test]
async fn a_refused_subscription_is_logged_with_its_cause() {
    let config = Config {
        max_subscriptions: 2,
        max_subscriptions_per_user: 3,
        max_subscription_bytes: 10_000,
        max_topic_length: 100,
        max_topic_levels: 3,
        ..Config::default()
    };
    let server = Server::with_config(config).await;
    for (cause, codes, filters) in [
        ("max_subscriptions subscriptions", [0, 0, 0x97], ["a", "b", "c"]),
        ("longer than max_topic_length", [0, 0, 0x8F], ["a", "b", &"x".repeat(101)]),
        ("more levels than max_topic_levels", [0, 0, 0x8F], ["a", "b", "a/b/c/+"]),
        ("no topic filter", [0, 0, 0x8F], ["a", "b", "a#"]),
        ("shared subscriptions", [0, 0, 0x9E], ["a", "b", "$share/g/t"]),
    ] {
        let log = Log::start();
        let mut client = Client::connect(&server, &Connect::new(V5, "c").user("anna")).await;
        assert_eq!(client.subscribe_all(&filters.map(|filter| (filter, 0)), &[]).await, codes);
        let text = log.text();
        assert!(text.contains("subscription refused") && text.contains(cause), "{cause}: {text}");
        client.disconnect().await;
    }
    let log = Log::start();
    let mut first = Client::connect(&server, &Connect::new(V5, "1").user("anna")).await;
    let mut second = Client::connect(&server, &Connect::new(V5, "2").user("anna")).await;
    first.subscribe_all(&[("a", 0), ("b", 0)], &[]).await;
    assert_eq!(second.subscribe_all(&[("a", 0), ("b", 0)], &[]).await, [0, 0x97]);
    assert!(log.text().contains("max_subscriptions_per_user subscriptions"), "{}", log.text());
}
