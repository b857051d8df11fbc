//! Input that no honest client sends. Whatever it is, the broker goes on serving others.

use offload_broker::{
    Config,
    Version::{V5, V311},
};
use tokio::io::AsyncWriteExt;

use crate::{
    client::{BOTH, Client, Connect, Will, packet},
    server::Server,
};

/// A client and a subscriber that still hear each other.
async fn assert_alive(server: &Server) {
    let mut client = Client::new(server, V311, "bystander").await;
    client.subscribe("alive", 0).await;
    client.publish("alive", "yes", 0, 0).await;
    assert_eq!(client.take_text().await, "yes");
}

#[tokio::test]
async fn packets_that_only_a_server_sends_end_the_connection() {
    let server = Server::start().await;
    for version in BOTH {
        for bytes in [
            &[0x20, 2, 0, 0][..], // CONNACK
            &[0x90, 3, 0, 1, 0],  // SUBACK
            &[0xB0, 2, 0, 1],     // UNSUBACK
            &[0xD0, 0],           // PINGRESP
            &[0xF0, 0],           // AUTH, which nobody asked for
        ] {
            let mut client = Client::new(&server, version, "c").await;
            client.send(bytes).await;
            client.expect_disconnect(0x82).await;
            let mut unconnected = Client::open(&server, version).await;
            unconnected.send(bytes).await;
            unconnected.expect_end().await;
        }
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn malformed_headers_and_lengths_end_the_connection() {
    let server = Server::start().await;
    for version in BOTH {
        for bytes in [
            &[0x00, 0][..],                        // no such type
            &[0x36, 5, 0, 1, b't', 0, 1],          // QoS 3
            &[0x38, 4, 0, 1, b't', 0],             // DUP at QoS 0
            &[0x80, 6, 0, 1, 0, 1, b't', 0],       // SUBSCRIBE without its flags
            &[0x60, 2, 0, 1],                      // PUBREL without its flags
            &[0xC1, 0],                            // PINGREQ with flags
            &[0xC0, 1, 0],                         // PINGREQ with a body
            &[0xC0, 0x80, 0x00],                   // a length not in its shortest form
            &[0x30, 0x80, 0x80, 0x80, 0x80, 0x01], // a length of five bytes
            &[0x40, 1, 0],                         // PUBACK cut short
            &[0x40, 0],                            // and shorter
            &[0x30, 2, 0, 5],                      // a topic beyond the end of the packet
            &[0x30, 0],                            // no topic
            &[0x82, 0],                            // no filter
        ] {
            let mut client = Client::new(&server, version, "c").await;
            client.send(bytes).await;
            client.expect_disconnect(0x81).await;
        }
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn properties_that_run_into_the_payload_end_the_connection() {
    let server = Server::start().await;
    let mut client = Client::new(&server, V5, "c").await;
    client
        .send(&packet(0x30, &[0, 1, b't', 3, 3, 0, 9, b'p', b'a', b'y', b'l', b'o', b'a', b'd', b'!', b'!']))
        .await;
    client.expect_disconnect(0x81).await;
    assert_alive(&server).await;
}

#[tokio::test]
async fn damaged_packets_in_every_state_disturb_nobody() {
    let server = Server::start().await;
    let mut samples = Vec::new();
    for version in BOTH {
        let client = Client::open(&server, version).await;
        let will = Will { retain: true, ..Will::new("w/x") };
        let connect = Connect::persistent(version, "damaged").will(will).bytes();
        let mut bytes = connect.clone();
        bytes.extend(client.publish_bytes(
            0x33,
            "a/b",
            1,
            if version == V5 { &[1, 1, 35, 0, 1] } else { &[] },
            b"x",
        ));
        bytes.extend(client.publish_bytes(0x34, "a/b", 2, &[], b"x"));
        let section: &[u8] = if version == V5 { &[0] } else { &[] };
        bytes.extend(packet(0x82, &[&[0, 1], section, &[0, 1, b'#', 1]].concat()));
        bytes.extend(packet(0x62, &[0, 2]));
        bytes.extend(packet(0xA2, &[&[0, 1], section, &[0, 1, b'#']].concat()));
        bytes.extend([0xC0, 0, 0xE0, 0]);
        samples.push((connect.len(), bytes));
    }
    // A small generator of its own makes the run repeatable.
    let mut seed = 0x2545_F491_4F6C_DD1Du64;
    let mut random = |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize % bound
    };
    for round in 0..600 {
        let (connect, bytes) = &samples[round % 2];
        let mut bytes = bytes.clone();
        // Half of the rounds leave CONNECT whole, so that what follows is reached.
        let from = if round % 4 < 2 { *connect } else { 0 };
        for _ in 0..1 + random(3) {
            let at = from + random(bytes.len() - from);
            bytes[at] = random(256) as u8;
        }
        bytes.truncate(from + 1 + random(bytes.len() - from));
        let mut client = Client::open(&server, V5).await;
        let _ = client.stream.write_all(&bytes).await;
        if round % 3 == 0 {
            let _ = client.stream.shutdown().await;
            while client.receive_or_end().await.is_some() {}
        }
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn random_bytes_disturb_nobody() {
    let server = Server::start().await;
    let mut seed = 88_172_645_463_325_252u64;
    for round in 0..300 {
        let mut bytes =
            if round % 2 == 0 { Connect::new(BOTH[round % 4 / 2], "r").bytes() } else { Vec::new() };
        for _ in 0..200 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            bytes.push(seed as u8);
        }
        let mut client = Client::open(&server, V5).await;
        let _ = client.stream.write_all(&bytes).await;
    }
    assert_alive(&server).await;
    server.until("they are gone", |stats| stats.connections == 0).await;
}

#[tokio::test]
async fn half_open_connections_keep_nobody_out() {
    let server = Server::start().await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(Client::open(&server, V5).await);
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn a_repeated_identifier_is_no_obstacle() {
    let server = Server::start().await;
    let mut subscriber = Client::new(&server, V311, "s").await;
    subscriber.subscribe("t", 0).await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        for _ in 0..100 {
            client.publish("t", "at least once", 1, 7).await;
        }
        for _ in 0..100 {
            client.publish("t", "exactly once", 2, 7).await;
        }
        for _ in 0..100 {
            assert_eq!(client.acknowledged(0x40, 7).await, 0);
            assert_eq!(subscriber.take_text().await, "at least once");
        }
        for _ in 0..100 {
            assert_eq!(client.acknowledged(0x50, 7).await, 0);
        }
        assert_eq!(subscriber.take_text().await, "exactly once");
        client.publish("t", "next", 0, 0).await;
        assert_eq!(subscriber.take_text().await, "next");
    }
}

#[tokio::test]
async fn acknowledgements_of_nothing_are_no_obstacle() {
    let server = Server::start().await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        client.acknowledge(0x40, 1).await;
        client.acknowledge(0x70, 2).await;
        client.acknowledge(0x50, 3).await;
        assert_eq!(client.acknowledged(0x62, 3).await, if version == V5 { 0x92 } else { 0 });
        client.acknowledge(0x62, 4).await;
        assert_eq!(client.acknowledged(0x70, 4).await, if version == V5 { 0x92 } else { 0 });
        client.ping().await;
    }
}

#[tokio::test]
async fn clients_and_topics_that_came_and_went_leave_nothing_behind() {
    let server = Server::with_config(Config { max_retained_messages: 10_000, ..Config::default() }).await;
    for round in 0..10 {
        let mut clients = Vec::new();
        for at in 0..50 {
            let version = BOTH[at % 2];
            let id = format!("client-{round}-{at}");
            let mut client = Client::connect(&server, &Connect::persistent(version, &id)).await;
            client.subscribe(&format!("topic/{round}/{at}/+"), 1).await;
            client.retain(&format!("topic/{round}/{at}/x"), "kept", 1).await;
            clients.push((version, id, client));
        }
        for (version, id, client) in clients {
            drop(client);
            let mut client = Client::new(&server, version, &id).await; // ends the session
            let at = id.rsplit('-').next().unwrap();
            client.retain(&format!("topic/{round}/{at}/x"), "", 0).await;
        }
    }
    server
        .until("nothing is left", |stats| {
            stats.sessions == 0
                && stats.subscriptions == 0
                && stats.retained_messages == 0
                && stats.queued_messages == 0
                && stats.queued_bytes == 0
                && stats.connections == 0
        })
        .await;
}
