//! Packets that are wrong, in every state of a connection.

use offload_broker::Version::{V5, V311};
use tokio::io::AsyncWriteExt;

use super::Bystander;
use crate::{
    client::{BOTH, Client, packet},
    damage::{Random, STATES, damage, packets, prologue},
    server::Server,
};

#[tokio::test]
async fn packets_that_only_a_server_sends_end_the_connection() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
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
    bystander.hears().await;
}

#[tokio::test]
async fn malformed_headers_and_lengths_end_the_connection() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
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
    bystander.hears().await;
}

#[tokio::test]
async fn properties_that_run_into_the_payload_end_the_connection() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    let mut client = Client::new(&server, V5, "c").await;
    client
        .send(&packet(0x30, &[0, 1, b't', 3, 3, 0, 9, b'p', b'a', b'y', b'l', b'o', b'a', b'd', b'!', b'!']))
        .await;
    client.expect_disconnect(0x81).await;
    bystander.hears().await;
}

#[tokio::test]
async fn lengths_that_lie_end_the_connection_or_only_wait() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    for version in BOTH {
        // More than is offered: refused at once, by the header alone.
        let mut client = Client::new(&server, version, "c").await;
        client.send(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]).await;
        client.expect_disconnect(0x95).await;
        // Less than is sent: the rest is taken for the next packet, which it is not.
        let mut client = Client::new(&server, version, "c").await;
        client.send(&[0x30, 4, 0, 1, b't', 0, 0, 0, 0]).await;
        client.expect_disconnect(0x81).await;
        // A CONNECT that promises more than a CONNECT may have.
        let mut unconnected = Client::open(&server, version).await;
        unconnected.send(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F]).await;
        unconnected.expect_end().await;
    }
    // More than ever comes: as many of them as one likes only wait.
    let mut waiting = Vec::new();
    for at in 0..100 {
        let mut client = Client::new(&server, BOTH[at % 2], &format!("liar-{at}")).await;
        client.send(&[0x32, 0x80, 0x80, 0x80, 0x07, 0, 1, b't']).await;
        waiting.push(client);
        bystander.hears().await;
    }
    server.until("nothing is queued", |stats| stats.queued_bytes == 0).await;
    drop(waiting);
    server.until("only the bystander is left", |stats| stats.connections == 1).await;
}

#[tokio::test]
async fn packets_cut_short_anywhere_in_every_state_disturb_nobody() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    for version in BOTH {
        for state in STATES {
            for packet in packets(version, "cut short") {
                for end in 1..packet.len() {
                    let mut client = Client::open(&server, version).await;
                    let bytes = [prologue(state, version, "cut short"), packet[..end].to_vec()].concat();
                    client.send(&bytes).await;
                    client.stream.shutdown().await.unwrap();
                }
            }
            bystander.hears().await;
        }
    }
    server.until("only the bystander is left", |stats| stats.connections == 1).await;
}

#[tokio::test]
async fn damaged_packets_in_every_state_disturb_nobody() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    for round in 0..600 {
        let mut random = Random::new(round);
        let (version, state) = (BOTH[random.below(2)], STATES[random.below(3)]);
        let mut bytes = prologue(state, version, "damaged");
        let kinds = packets(version, "damaged");
        for _ in 0..3 {
            let mut packet = kinds[random.below(kinds.len())].clone();
            damage(&mut packet, &mut random);
            bytes.extend(packet);
        }
        let mut client = Client::open(&server, version).await;
        // The broker may have closed before all of it is sent.
        let _ = client.stream.write_all(&bytes).await;
        if random.below(3) == 0 {
            let _ = client.stream.shutdown().await;
            while client.receive_or_end().await.is_some() {}
        }
        if round % 50 == 0 {
            bystander.hears().await;
        }
    }
    bystander.hears().await;
    server.until("only the bystander is left", |stats| stats.connections == 1).await;
}

#[tokio::test]
async fn random_bytes_in_every_state_disturb_nobody() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    for round in 0..300 {
        let mut random = Random::new(round);
        let (version, state) = (BOTH[random.below(2)], STATES[random.below(3)]);
        let bytes = [prologue(state, version, "random"), random.bytes(200)].concat();
        let mut client = Client::open(&server, version).await;
        let _ = client.stream.write_all(&bytes).await;
    }
    bystander.hears().await;
    server.until("only the bystander is left", |stats| stats.connections == 1).await;
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
    let mut bystander = Bystander::new(&server).await;
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
    bystander.hears().await;
}
