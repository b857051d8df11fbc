//! What rumqttd's listener and router fall to: this broker uses its codecs, and must not fall to any of it. The rest of
//! that list has its tests where it belongs: `tls` (a connection that says nothing delays no handshake), `connect`
//! (keepalive 0, client ids of any characters), `messages` (the lower QoS counts), `limits` (Receive Maximum, Maximum
//! Packet Size, acknowledgements out of order), `sessions` (Clean Start with an expiry), `subscriptions` (one
//! UNSUBACK), `retained` (clearing, subscribing again, wildcards over many), `listener` (TCP_NODELAY).

use offload_broker::{
    Config,
    Version::{V5, V311},
};

use super::Bystander;
use crate::{
    client::{BOTH, Client, Connect},
    server::Server,
};

#[tokio::test]
async fn a_topic_whose_first_byte_is_not_ascii_leaves_the_broker_hearing() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        for qos in 0..=1 {
            client.publish("\u{e9}/x", "x", qos, 1).await;
        }
        client.acknowledged(0x40, 1).await;
        bystander.hears().await;
    }
}

#[tokio::test]
async fn a_shared_group_whose_member_drops_unacknowledged_is_none() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    for version in BOTH {
        let mut member = Client::connect(&server, &Connect::persistent(version, "member")).await;
        let refused = if version == V5 { 0x9E } else { 0x80 };
        assert_eq!(member.subscribe_all(&[("$share/g/t", 1), ("t", 1)], &[]).await, [refused, 1]);
        let mut publisher = Client::new(&server, version, "publisher").await;
        publisher.publish_acknowledged("t", "x").await;
        member.message().await; // and no acknowledgement
        drop(member);
        bystander.hears().await;
        publisher.publish_acknowledged("t", "y").await;
        let mut member = Client::connect(&server, &Connect::persistent(version, "member")).await;
        assert!(member.session_present());
        assert_eq!([member.take_text().await, member.take_text().await], ["x", "y"]);
        member.unsubscribe(&["t"]).await;
    }
}

#[tokio::test]
async fn a_publish_with_any_property_hurts_no_subscriber_of_3_1_1() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    let mut subscriber = Client::new(&server, V311, "subscriber").await;
    subscriber.subscribe("t", 1).await;
    let mut publisher = Client::new(&server, V5, "publisher").await;
    for property in [
        &[1, 1][..],                   // payload format
        &[2, 0, 0, 0, 9],              // message expiry
        &[3, 0, 1, b't'],              // content type
        &[8, 0, 1, b'r'],              // response topic
        &[9, 0, 2, 0xFF, 0],           // correlation data
        &[35, 0, 1],                   // topic alias
        &[38, 0, 1, b'k', 0, 1, b'v'], // user property
    ] {
        let bytes = publisher.publish_bytes(0x32, "t", 1, property, b"x");
        publisher.send(&bytes).await;
        assert_eq!(publisher.acknowledged(0x40, 1).await, 0);
        assert_eq!(subscriber.take_text().await, "x");
        bystander.hears().await;
    }
}

#[tokio::test]
async fn a_client_that_sends_connack_gives_its_place_back() {
    let config = Config { max_connections: 4, ..Config::default() };
    let server = Server::with_config(config).await;
    let mut bystander = Bystander::new(&server).await;
    for version in BOTH {
        for _ in 0..20 {
            let mut client = Client::new(&server, version, "c").await;
            client.send(&[0x20, 2, 0, 0]).await;
            client.expect_disconnect(0x82).await;
            drop(client);
            server.until("its permit is given back", |stats| stats.connections == 1).await;
        }
        bystander.hears().await;
    }
}

#[tokio::test]
async fn three_thousand_acknowledged_messages_are_three_thousand_delivered() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    for version in BOTH {
        let away = Connect::persistent(version, "away");
        let mut subscriber = Client::connect(&server, &away).await;
        subscriber.subscribe("t", 1).await;
        drop(subscriber);
        let mut publisher = Client::new(&server, version, "publisher").await;
        for number in 0..3_000 {
            assert_eq!(publisher.publish_acknowledged("t", &number.to_string()).await, 0);
        }
        bystander.hears().await;
        let mut subscriber = Client::connect(&server, &away).await;
        assert!(subscriber.session_present());
        for number in 0..3_000 {
            assert_eq!(subscriber.take_text().await, number.to_string());
        }
        subscriber.unsubscribe(&["t"]).await;
        subscriber.disconnect().await;
    }
}
