//! PUBLISH: qualities of service, properties, topics.

use offload_broker::{
    Config,
    Version::{V5, V311},
};

use crate::{
    client::{BOTH, Client, Connect, Will, packet, string},
    log::Log,
    server::Server,
};

#[tokio::test]
async fn every_qos_goes_both_ways_between_both_versions() {
    let server = Server::start().await;
    for from in BOTH {
        for to in BOTH {
            let mut publisher = Client::new(&server, from, "from").await;
            let mut subscriber = Client::new(&server, to, "to").await;
            subscriber.subscribe("a/b", 2).await;
            for qos in 0..=2 {
                publisher.publish("a/b", "hello", qos, 5).await;
                match qos {
                    0 => {}
                    1 => assert_eq!(publisher.acknowledged(0x40, 5).await, 0),
                    _ => {
                        assert_eq!(publisher.acknowledged(0x50, 5).await, 0);
                        publisher.acknowledge(0x62, 5).await;
                        assert_eq!(publisher.acknowledged(0x70, 5).await, 0);
                    }
                }
                let message = subscriber.take().await;
                assert_eq!(
                    (message.text(), message.qos, message.retain, message.dup),
                    ("hello", qos, false, false)
                );
            }
        }
    }
}

#[tokio::test]
async fn the_lower_qos_of_publish_and_subscription_counts() {
    let server = Server::start().await;
    let mut client = Client::new(&server, V311, "c").await;
    for granted in 0..=2 {
        client.subscribe("t", granted).await;
        for published in 0..=1 {
            client.publish("t", "x", published, 1).await;
            let (mut qos, mut acknowledged) = (None, published == 0);
            while qos.is_none() || !acknowledged {
                let packet = client.receive().await;
                if packet.first == 0x40 {
                    acknowledged = true;
                } else {
                    qos = Some(packet.first >> 1 & 3);
                    if qos == Some(1) {
                        client.acknowledge(0x40, u16::from_be_bytes([packet.body[3], packet.body[4]])).await;
                    }
                }
            }
            assert_eq!(qos, Some(granted.min(published)));
        }
    }
}

#[tokio::test]
async fn topics_may_have_empty_levels_and_any_characters() {
    let server = Server::start().await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        client.subscribe("#", 0).await;
        for topic in ["result/", "/", "//a", "ä", "\u{FEFF}x", " ", "a/ünïcode/☃/"] {
            client.publish(topic, "x", 0, 0).await;
            assert_eq!(client.take().await.topic, topic);
        }
    }
}

#[tokio::test]
async fn invalid_topic_names_end_the_connection() {
    let server = Server::start().await;
    for version in BOTH {
        for (topic, reason) in [("a/+", 0x90), ("#", 0x90), ("", 0x82), ("a\0b", 0x81)] {
            let mut client = Client::new(&server, version, "c").await;
            client.publish(topic, "x", 1, 1).await;
            client.expect_disconnect(reason).await;
        }
        let mut client = Client::new(&server, version, "c").await;
        client.send(&packet(0x30, &[&string([0xC3, 0x28])[..], &[0, b'x']].concat())).await;
        client.expect_disconnect(0x81).await;
    }
}

#[tokio::test]
async fn a_topic_over_a_limit_is_refused_and_the_connection_stays() {
    let config = Config { max_topic_length: 1_000, max_topic_levels: 8, ..Config::default() };
    for (topic, cause) in
        [("x".repeat(1_001), "longer than max_topic_length"), ("/".repeat(8), "max_topic_levels")]
    {
        let server = Server::with_config(config.clone()).await;
        let mut watcher = Client::new(&server, V5, "watcher").await;
        watcher.subscribe("#", 0).await;
        for version in BOTH {
            let log = Log::start();
            let mut client = Client::new(&server, version, "c").await;
            let refused = if version == V5 { 0x90 } else { 0 };
            client.publish(&topic, "x", 0, 0).await;
            assert_eq!(client.publish_acknowledged(&topic, "x").await, refused);
            client.publish(&topic, "x", 2, 3).await;
            assert_eq!(client.acknowledged(0x50, 3).await, refused);
            // One that is too large to be kept until it has come is refused as well.
            assert_eq!(client.publish_acknowledged(&topic, &"x".repeat(100_000)).await, refused);
            assert_eq!(client.publish_acknowledged("short", "x").await, 0);
            assert_eq!(watcher.take().await.topic, "short");
            let text = log.text();
            assert!(text.contains("publish refused") && text.contains(cause), "{text}");
        }
    }
}

#[tokio::test]
async fn the_servers_own_topics_are_refused_to_clients() {
    let server = Server::start().await;
    let mut subscriber = Client::new(&server, V5, "s").await;
    subscriber.subscribe("$SYS/x", 1).await;
    subscriber.subscribe("t", 1).await;
    let mut v5 = Client::new(&server, V5, "a").await;
    assert_eq!(v5.publish_acknowledged("$SYS/x", "x").await, 0x87);
    v5.publish("$share/g/x", "x", 2, 3).await;
    assert_eq!(v5.acknowledged(0x50, 3).await, 0x87);
    let mut v311 = Client::new(&server, V311, "b").await;
    assert_eq!(v311.publish_acknowledged("$SYS/x", "x").await, 0);
    v5.publish_acknowledged("t", "next").await;
    assert_eq!(subscriber.take_text().await, "next");
    assert_eq!(server.broker.stats().dropped.refused, 3);
}

#[tokio::test]
async fn a_publish_that_nobody_gets_says_so() {
    let server = Server::start().await;
    let mut client = Client::new(&server, V5, "c").await;
    assert_eq!(client.publish_acknowledged("nobody", "x").await, 0x10);
}

#[tokio::test]
async fn properties_reach_v5_subscribers_and_do_not_hurt_v311_subscribers() {
    let server = Server::start().await;
    let mut v5 = Client::new(&server, V5, "v5").await;
    let mut v311 = Client::new(&server, V311, "v311").await;
    v5.subscribe("t", 1).await;
    v311.subscribe("t", 1).await;
    let properties = [
        &[1, 1, 3][..],
        &string("text/plain"),
        &[8],
        &string("result/x"),
        &[9],
        &string([0, 255]),
        &[38],
        &string("arg"),
        &string("1"),
        &[38],
        &string("arg"),
        &string("2"),
    ]
    .concat();
    let mut publisher = Client::new(&server, V5, "p").await;
    let bytes = publisher.publish_bytes(0x32, "t", 1, &properties, b"payload");
    publisher.send(&bytes).await;
    let message = v5.take().await;
    assert_eq!((&message.properties, message.text()), (&properties, "payload"));
    assert_eq!(v311.take_text().await, "payload");
}

#[tokio::test]
async fn topic_aliases_of_clients_work_within_their_maximum() {
    let server = Server::start().await;
    let mut subscriber = Client::new(&server, V5, "s").await;
    subscriber.subscribe("#", 0).await;
    let mut client = Client::new(&server, V5, "c").await;
    let alias = |number: u8| [35, 0, number];
    for (topic, number) in [("a/b", 1), ("", 1), ("c", 16), ("", 16), ("d", 1), ("", 1)] {
        let bytes = client.publish_bytes(0x30, topic, 0, &alias(number), b"x");
        client.send(&bytes).await;
    }
    for expected in ["a/b", "a/b", "c", "c", "d", "d"] {
        let message = subscriber.take().await;
        assert_eq!((&message.topic[..], &message.properties[..]), (expected, &[][..]));
    }
    for (topic, number, reason) in [("a", 17, 0x94), ("a", 0, 0x94), ("", 3, 0x82)] {
        let mut client = Client::new(&server, V5, "x").await;
        let bytes = client.publish_bytes(0x30, topic, 0, &alias(number), b"x");
        client.send(&bytes).await;
        client.expect_disconnect(reason).await;
    }
}

#[tokio::test]
async fn expired_messages_are_not_delivered_and_others_say_what_is_left() {
    let server = Server::start().await;
    let session = Connect::persistent(V5, "s");
    let mut subscriber = Client::connect(&server, &session).await;
    subscriber.subscribe("t", 1).await;
    subscriber.disconnect().await;
    let mut publisher = Client::new(&server, V5, "p").await;
    for (expiry, payload) in [(0u32, "expired"), (1000, "in time")] {
        let properties = [&[2], &expiry.to_be_bytes()[..]].concat();
        let bytes = publisher.publish_bytes(0x32, "t", 1, &properties, payload.as_bytes());
        publisher.send(&bytes).await;
        publisher.acknowledged(0x40, 1).await;
    }
    let mut subscriber = Client::connect(&server, &session).await;
    let message = subscriber.take().await;
    assert_eq!(message.text(), "in time");
    assert_eq!(message.properties[0], 2);
    let left = u32::from_be_bytes(message.properties[1..5].try_into().unwrap());
    assert!((900..=1000).contains(&left), "{left}");
    assert_eq!(server.broker.stats().dropped.expired, 1);
}

#[tokio::test]
async fn a_large_message_passes() {
    let server = Server::start().await;
    for version in BOTH {
        let mut subscriber = Client::new(&server, version, "s").await;
        subscriber.subscribe("t", 1).await;
        let mut publisher = Client::new(&server, version, "p").await;
        let payload: Vec<u8> = (0..5_000_000u32).map(|at| (at >> 8) as u8).collect();
        let bytes = publisher.publish_bytes(0x32, "t", 1, &[], &payload);
        publisher.send(&bytes).await;
        assert!(subscriber.take().await.payload == payload);
        publisher.acknowledged(0x40, 1).await;
    }
}

#[tokio::test]
async fn packet_identifier_0_ends_the_connection() {
    let server = Server::start().await;
    for version in BOTH {
        let section = if version == V5 { &[0][..] } else { &[] };
        for bytes in [
            packet(0x32, &[&string("t")[..], &[0, 0], section].concat()),
            packet(0x82, &[&[0, 0], section, &string("t")[..], &[0]].concat()),
            packet(0xA2, &[&[0, 0], section, &string("t")[..]].concat()),
            packet(0x40, &[0, 0]),
        ] {
            let mut client = Client::new(&server, version, "c").await;
            client.send(&bytes).await;
            client.expect_disconnect(0x82).await;
        }
    }
}

/// Several slices of receivers.
const MANY: usize = 200;

/// This many sessions that are away and have subscribed to `many`.
async fn many_receivers(server: &Server) -> Vec<Connect> {
    let mut receivers = Vec::new();
    for at in 0..MANY {
        let connect = Connect::persistent(V5, &format!("r{at}"));
        let mut receiver = Client::connect(server, &connect).await;
        // Which match twice, and are delivered to once.
        receiver.subscribe_all(&[("many", 1), ("+", 0)], &[]).await;
        receiver.disconnect().await;
        receivers.push(connect);
    }
    receivers
}

#[tokio::test]
async fn messages_for_many_receivers_keep_their_order_and_are_acknowledged_when_all_have_them() {
    let server = Server::start().await;
    let receivers = many_receivers(&server).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    // All in one segment, with a goodbye behind them.
    let mut bytes = Vec::new();
    for id in 1..=5 {
        bytes.extend(publisher.publish_bytes(0x32, "many", id, &[], id.to_string().as_bytes()));
    }
    bytes.extend([0xC0, 0]);
    publisher.send(&bytes).await;
    for id in 1..=5 {
        assert_eq!(publisher.acknowledged(0x40, id).await, 0);
        assert!(server.broker.stats().queued_messages >= usize::from(id) * MANY);
    }
    publisher.expect(0xD0, &[]).await;
    assert_eq!(server.broker.stats().queued_messages, 5 * MANY);
    for connect in [&receivers[0], &receivers[64], &receivers[MANY - 1]] {
        let mut receiver = Client::connect(&server, connect).await;
        for id in 1..=5 {
            assert_eq!(receiver.take_text().await, id.to_string());
        }
        receiver.ping().await;
    }
}

#[tokio::test]
async fn what_has_begun_to_be_delivered_is_delivered_though_its_publisher_is_gone() {
    let server = Server::start().await;
    many_receivers(&server).await;
    for version in BOTH {
        let mut publisher = Client::new(&server, version, "p").await;
        publisher.publish("many", "x", 1, 1).await;
        drop(publisher);
    }
    server.until("all have both", |stats| stats.queued_messages == 2 * MANY).await;
}

#[tokio::test]
async fn a_will_reaches_many_receivers_as_well() {
    let server = Server::start().await;
    many_receivers(&server).await;
    for (wills, will) in (1..).zip([Will::new("many"), Will::new("many").delay(1)]) {
        let connect = Connect::persistent(V5, "c").will(will);
        drop(Client::connect(&server, &connect).await);
        server.until("all have it", |stats| stats.queued_messages == wills * MANY).await;
    }
}

#[tokio::test]
async fn a_message_that_none_of_many_receivers_has_room_for_is_refused_in_the_end() {
    let server = Server::with_config(Config { session_queue_messages: 1, ..Config::default() }).await;
    let receivers = many_receivers(&server).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    assert_eq!(publisher.publish_acknowledged("many", "fits").await, 0);
    assert_eq!(publisher.publish_acknowledged("many", "does not").await, 0x97);
    assert_eq!(server.broker.stats().dropped.queue_full, MANY as u64);
    // The last of all is enough.
    let mut last = Client::connect(&server, &receivers[MANY - 1]).await;
    assert_eq!(last.take_text().await, "fits");
    last.ping().await;
    assert_eq!(publisher.publish_acknowledged("many", "fits one").await, 0);
    assert_eq!(last.take_text().await, "fits one");
}
