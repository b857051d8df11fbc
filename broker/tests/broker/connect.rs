//! CONNECT and CONNACK, keepalive, take-over, shutdown.

use std::{sync::Arc, time::Duration};

use offload_broker::{
    Broker, Config, Error, NoApplication, Transport,
    Version::{V5, V311},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{BOTH, Client, Connect, Will, packet, string},
    log::Log,
    server::Server,
};

#[tokio::test]
async fn both_versions_are_served_on_one_port() {
    let server = Server::start().await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        assert!(!client.session_present());
        client.ping().await;
        client.disconnect().await;
    }
}

#[tokio::test]
async fn other_protocols_are_refused_with_the_right_connack() {
    let server = Server::start().await;
    let connect = |name: &str, level: u8, properties: &[u8]| {
        packet(0x10, &[&string(name)[..], &[level, 2, 0, 0], properties, &string("c")].concat())
    };
    for (bytes, refusal) in [
        (connect("MQIsdp", 3, &[]), &[0, 1][..]),
        (connect("MQTT", 3, &[]), &[0, 1]),
        (connect("MQIsdp", 0x83, &[]), &[0, 1]),
        (connect("MQTT", 6, &[0]), &[0, 0x84, 0]),
    ] {
        let mut client = Client::open(&server, V311).await;
        client.send(&bytes).await;
        client.expect(0x20, refusal).await;
        client.expect_end().await;
    }
    let mut client = Client::open(&server, V311).await;
    client.send(&connect("HTTP", 4, &[])).await;
    client.expect_end().await;
}

#[tokio::test]
async fn connack_says_what_is_not_offered() {
    let config =
        Config { receive_maximum: 77, max_packet_size: 1000, topic_alias_maximum: 5, ..Config::default() };
    let server = Server::with_config(config).await;
    let client = Client::new(&server, V5, "c").await;
    let properties = [&[33, 0, 77][..], &[39, 0, 0, 3, 0xE8], &[34, 0, 5], &[42, 0]].concat();
    assert_eq!(client.connack[2], properties.len() as u8);
    assert_eq!(&client.connack[3..], properties);
}

#[tokio::test]
async fn a_v5_client_without_id_is_told_its_id() {
    let server = Server::start().await;
    let client = Client::new(&server, V5, "").await;
    let at = client
        .connack
        .windows(3)
        .position(|window| window == [18, 0, 37])
        .expect("assigned client identifier");
    assert!(client.connack[at + 3..].starts_with(b"auto-"));
}

#[tokio::test]
async fn a_v311_client_without_id_must_ask_for_a_clean_session() {
    let server = Server::start().await;
    let (mut one, mut other) = (Client::new(&server, V311, "").await, Client::new(&server, V311, "").await);
    one.ping().await;
    other.ping().await;
    let mut refused = Client::try_connect(&server, &Connect::persistent(V311, "")).await;
    assert_eq!(refused.connack, [0, 2]);
    refused.expect_end().await;
}

#[tokio::test]
async fn client_ids_may_hold_any_character_but_have_a_limit() {
    let server = Server::start().await;
    for version in BOTH {
        for id in ["a+b", "#", "$SYS/x", "ünïcode", " "] {
            Client::new(&server, version, id).await.ping().await;
        }
        let refused = Client::try_connect(&server, &Connect::new(version, &"x".repeat(257))).await;
        assert_eq!(refused.connack[1], if version == V5 { 0x85 } else { 2 });
    }
}

#[tokio::test]
async fn a_session_is_taken_over_by_the_newer_connection() {
    let server = Server::start().await;
    for version in BOTH {
        let mut old = Client::new(&server, version, "same").await;
        let mut new = Client::new(&server, version, "same").await;
        old.expect_disconnect(0x8E).await;
        new.ping().await;
    }
}

#[tokio::test]
async fn clients_that_share_an_id_are_logged_with_their_addresses() {
    let server = Server::start().await;
    for version in BOTH {
        let log = Log::start();
        let mut old = Client::new(&server, version, "same").await;
        assert!(!log.text().contains("second connection"));
        let _new = Client::new(&server, version, "same").await;
        old.expect_disconnect(0x8E).await;
        let text = log.text();
        let line =
            text.lines().find(|line| line.contains("a second connection with this client id")).unwrap();
        assert!(line.contains("INFO") && line.contains("same") && line.contains("former_peer"), "{line}");
    }
    // Who comes back to a session that it left is alone.
    let log = Log::start();
    Client::connect(&server, &Connect::persistent(V5, "stays")).await.disconnect().await;
    Client::connect(&server, &Connect::persistent(V5, "stays")).await.disconnect().await;
    assert!(!log.text().contains("second connection"));
}

#[tokio::test]
async fn a_keepalive_that_runs_out_is_logged() {
    let server = Server::start().await;
    let log = Log::start();
    let mut silent = Client::connect(&server, &Connect::new(V311, "silent").keep_alive(1)).await;
    silent.expect_end().await;
    let text = log.text();
    let line = text.lines().find(|line| line.contains("the keepalive ran out")).unwrap();
    assert!(line.contains("INFO") && line.contains("silent"), "{line}");
}

#[tokio::test]
async fn other_protocols_on_the_port_are_named_in_the_log() {
    let server = Server::start().await;
    for (bytes, cause) in [
        (&b"GET / HTTP/1.1\r\nhost: gw\r\n\r\n"[..], "HTTP came to a port for MQTT"),
        (b"POST /x HTTP/1.0\r\n\r\n", "HTTP came to a port for MQTT"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "TLS came to a port without it"),
        (b"\xC0\x00", "the first packet is no CONNECT"),
    ] {
        let log = Log::start();
        let mut client = Client::open(&server, V311).await;
        client.send(bytes).await;
        client.expect_end().await;
        let text = log.text();
        let line = text.lines().find(|line| line.contains("no acceptable CONNECT")).unwrap();
        assert!(line.contains("INFO") && line.contains(cause), "{line}");
    }
}

#[tokio::test]
async fn what_is_owed_is_written_before_a_connection_ends() {
    let server = Server::start().await;
    for version in BOTH {
        let v5 = version == V5;
        let connect = Connect::new(version, "c").bytes();
        let section: &[u8] = if v5 { &[0] } else { &[] };
        let client = Client::open(&server, version).await;
        let filter = [section, &string("t"), &[1]].concat();
        let subscribe = packet(0x82, &[&[0, 1][..], &filter].concat());
        let at_least_once = client.publish_bytes(0x32, "t", 2, &[], b"x");
        let exactly_once = client.publish_bytes(0x34, "t", 3, &[], b"x");
        let unsubscribe = packet(0xA2, &[&[0, 4][..], section, &string("t")].concat());
        let goodbye = vec![0xE0, 0];
        let suback = packet(0x90, &[&[0, 1][..], section, &[1]].concat());
        let unsuback = packet(0xB0, &[&[0, 4][..], section, if v5 { &[0] } else { &[] }].concat());
        let all =
            [connect, subscribe, at_least_once.clone(), exactly_once, vec![0xC0, 0], unsubscribe, goodbye];
        // All at once, and byte by byte.
        for piece in [usize::MAX, 1] {
            let mut client = Client::open(&server, version).await;
            for bytes in all.concat().chunks(piece.min(all.concat().len())) {
                client.send(bytes).await;
            }
            assert_eq!(client.receive().await.first, 0x20);
            let mut answers = Vec::new();
            while let Some(answer) = client.receive_or_end().await {
                let message = answer.first & 0xF0 == 0x30;
                answers.extend((!message).then(|| packet(answer.first, &answer.body)));
            }
            let acknowledged = [vec![0x40, 2, 0, 2], vec![0x50, 2, 0, 3], vec![0xD0, 0], unsuback.clone()];
            let mut expected = [vec![suback.clone()], acknowledged.to_vec()].concat();
            answers.sort();
            expected.sort();
            assert_eq!(answers, expected, "{version:?}");
        }
        // Whoever is closed for what it does next has its acknowledgement first.
        let mut client = Client::new(&server, version, "c").await;
        client.send(&[at_least_once, vec![0]].concat()).await;
        assert!(matches!(client.receive().await.first, 0x40));
        client.expect_disconnect(0x81).await;
    }
}

#[tokio::test]
async fn keepalive_is_enforced_at_one_and_a_half_and_0_is_none() {
    let server = Server::start().await;
    for version in BOTH {
        let mut without = Client::new(&server, version, "without").await;
        let mut silent = Client::connect(&server, &Connect::new(version, "silent").keep_alive(1)).await;
        silent.expect_disconnect(0x8D).await;
        without.ping().await;
    }
}

#[tokio::test]
async fn a_shorter_keepalive_is_told() {
    let server = Server::with_config(Config { max_keep_alive: 10, ..Config::default() }).await;
    for keep_alive in [0, 11] {
        let client = Client::connect(&server, &Connect::new(V5, "c").keep_alive(keep_alive)).await;
        assert!(client.connack.ends_with(&[19, 0, 10]));
    }
    let client = Client::connect(&server, &Connect::new(V5, "c").keep_alive(9)).await;
    assert!(client.connack.ends_with(&[42, 0]));
}

#[tokio::test]
async fn a_session_expiry_over_the_limit_is_told() {
    let server =
        Server::with_config(Config { max_session_expiry: Duration::from_secs(50), ..Config::default() })
            .await;
    let client = Client::connect(&server, &Connect::new(V5, "c").expiry(51)).await;
    assert_eq!(&client.connack[3..8], [17, 0, 0, 0, 50]);
    let client = Client::connect(&server, &Connect::new(V5, "c").expiry(50)).await;
    assert_ne!(client.connack[3], 17);
}

#[tokio::test]
async fn the_first_packet_must_be_connect() {
    let server = Server::start().await;
    for bytes in [&[0xC0, 0][..], &[0x30, 3, 0, 1, b'a'], &[0x00], &[0xFF, 0xFF], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut client = Client::open(&server, V5).await;
        client.send(bytes).await;
        client.expect_end().await;
    }
}

#[tokio::test]
async fn connect_must_come_in_time() {
    let config = Config { connect_timeout: Duration::from_millis(50), ..Config::default() };
    let server = Server::with_config(config).await;
    let mut silent = Client::open(&server, V5).await;
    let mut half = Client::open(&server, V5).await;
    half.send(&Connect::new(V5, "c").bytes()[..9]).await;
    silent.expect_end().await;
    half.expect_end().await;
}

#[tokio::test]
async fn a_second_connect_ends_the_connection() {
    let server = Server::start().await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        client.send(&Connect::new(version, "c").bytes()).await;
        client.expect_disconnect(0x82).await;
    }
}

#[tokio::test]
async fn packets_sent_along_with_connect_are_handled() {
    let server = Server::start().await;
    for version in BOTH {
        let mut client = Client::open(&server, version).await;
        client.send(&[&Connect::new(version, "c").bytes()[..], &[0xC0, 0]].concat()).await;
        assert_eq!(client.receive().await.first, 0x20);
        client.expect(0xD0, &[]).await;
    }
}

#[tokio::test]
async fn malformed_connects_are_refused() {
    let server = Server::start().await;
    let name = string("MQTT");
    for (tail, reason) in [
        (&[5, 3, 0, 0, 0, 0, 0][..], 0x81),             // reserved flag
        (&[5, 0x0A, 0, 0, 0, 0, 0], 0x81),              // will QoS without will
        (&[5, 2, 0, 0, 0, 0, 1, 0], 0x81),              // NUL in the client id
        (&[5, 2, 0, 0, 0, 0, 2, 0xC3, 0x28], 0x81),     // not UTF-8
        (&[5, 2, 0, 0, 0, 0, 0, 9], 0x81),              // bytes left over
        (&[5, 2, 0, 0, 9, 0, 0], 0x81),                 // section longer than the packet
        (&[5, 2, 0, 0, 3, 33, 0, 0, 0, 0], 0x82),       // receive maximum 0
        (&[5, 2, 0, 0, 4, 21, 0, 1, b'x', 0, 0], 0x8C), // authentication method
        (&[5, 2, 0, 0, 4, 22, 0, 1, b'x', 0, 0], 0x82), // authentication data without one
    ] {
        let mut client = Client::open(&server, V5).await;
        client.send(&packet(0x10, &[&name[..], tail].concat())).await;
        client.expect(0x20, &[0, reason, 0]).await;
        client.expect_end().await;
    }
    for tail in [&[4, 3, 0, 0, 0, 0][..], &[4, 0x42, 0, 0, 0, 0, 0, 1, b'p'], &[4, 2, 0, 0, 0, 5]] {
        let mut client = Client::open(&server, V311).await;
        client.send(&packet(0x10, &[&name[..], tail].concat())).await;
        client.expect_end().await;
    }
}

#[tokio::test]
async fn credentials_are_no_obstacle_even_if_they_are_not_utf_8() {
    let server = Server::start().await;
    for (version, level, section) in [(V311, 4, &[][..]), (V5, 5, &[0][..])] {
        let mut client = Client::open(&server, version).await;
        let head = [&string("MQTT")[..], &[level, 0xC2, 0, 0], section].concat();
        let body = [head, string("c"), string(""), string([0xFF, 0x00])].concat();
        client.send(&packet(0x10, &body)).await;
        assert_eq!(client.receive().await.body[1], 0);
    }
}

#[tokio::test]
async fn connections_over_the_limit_are_told() {
    let server = Server::with_config(Config { max_connections: 1, ..Config::default() }).await;
    let mut first = Client::new(&server, V5, "first").await;
    for (version, code) in [(V311, 3), (V5, 0x97)] {
        let mut refused = Client::try_connect(&server, &Connect::new(version, "more")).await;
        assert_eq!(refused.connack[1], code);
        refused.expect_end().await;
    }
    first.ping().await;
    first.disconnect().await;
    server.until("the permits are given back", |stats| stats.connections == 0).await;
    Client::new(&server, V5, "next").await;
}

#[tokio::test]
async fn sessions_over_the_limit_are_told() {
    let server = Server::with_config(Config { max_sessions: 1, ..Config::default() }).await;
    let mut holder = Client::connect(&server, &Connect::persistent(V5, "a")).await;
    holder.subscribe("t", 1).await;
    holder.disconnect().await;
    let refused = Client::try_connect(&server, &Connect::new(V5, "b")).await;
    assert_eq!(refused.connack[1], 0x97);
    assert!(Client::connect(&server, &Connect::persistent(V5, "a")).await.session_present());
}

#[tokio::test]
async fn connections_of_one_user_over_the_limit_are_told() {
    let server = Server::with_config(Config { max_connections_per_user: 2, ..Config::default() }).await;
    let of = |version, id: &str| Connect::new(version, id).user("anna");
    let first = Client::connect(&server, &of(V5, "1")).await;
    let mut second = Client::connect(&server, &of(V5, "2")).await;
    for (version, code) in [(V311, 3), (V5, 0x97)] {
        let mut refused = Client::try_connect(&server, &of(version, "3")).await;
        assert_eq!(refused.connack[1], code);
        refused.expect_end().await;
    }
    // Who comes again, though its former connection is not known to be gone, is no further one; others are others.
    let again = Client::connect(&server, &of(V5, "2")).await;
    second.expect_disconnect(0x8E).await;
    let strangers = [Client::new(&server, V5, "x").await, Client::new(&server, V5, "y").await];
    Client::connect(&server, &Connect::new(V5, "other").user("bert")).await;
    first.disconnect().await;
    Client::connect(&server, &of(V5, "3")).await;
    drop((again, strangers));
}

#[tokio::test]
async fn a_shutdown_is_told_and_leaves_no_connection() {
    let server = Server::start().await;
    let will = Will::new("will");
    let mut v5 = Client::connect(&server, &Connect::new(V5, "a").will(will)).await;
    let mut v311 = Client::new(&server, V311, "b").await;
    let mut half_open = Client::open(&server, V5).await;
    v5.subscribe("will", 0).await;
    let broker = server.broker.clone();
    let stopping = tokio::spawn(server.stop());
    v5.expect_disconnect(0x8B).await;
    v311.expect_end().await;
    half_open.expect_end().await;
    drop((v5, v311, half_open));
    stopping.await.unwrap();
    assert_eq!(broker.stats().connections, 0);
}

#[tokio::test]
async fn impossible_limits_are_refused() {
    for config in [
        Config { receive_maximum: 0, ..Config::default() },
        Config { max_packet_size: usize::MAX, ..Config::default() },
        Config { session_queue_bytes: 10, ..Config::default() },
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let broker = Broker::new(config, Arc::new(NoApplication));
        let served = broker.serve(listener, Transport::Tcp, CancellationToken::new()).await;
        assert!(matches!(served, Err(Error::Config(_))));
    }
}
