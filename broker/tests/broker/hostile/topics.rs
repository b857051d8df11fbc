//! Topics and filters that are none, or hardly.

use offload_broker::Version::{V5, V311};

use super::Bystander;
use crate::{
    client::{BOTH, Client, packet, section, string},
    server::Server,
};

/// The longest that a field can hold.
const LONGEST: usize = 65_535;

#[tokio::test]
async fn topics_that_are_not_ascii_are_topics_like_others() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        client.subscribe("#", 1).await;
        for topic in ["é", "☃/a", "\u{10FFFF}", " ", "/", "\u{FEFF}bom", "a\u{301}"] {
            let bytes = client.publish_bytes(0x32, topic, 1, &[], b"x");
            client.send(&bytes).await;
            let mut heard = client.receive().await;
            if heard.first == 0x40 {
                heard = client.receive().await;
            } else {
                client.acknowledged(0x40, 1).await;
            }
            assert_eq!(&heard.body[2..][..topic.len()], topic.as_bytes());
            client.acknowledge(0x40, 1).await;
        }
        bystander.hears().await;
    }
}

#[tokio::test]
async fn topics_that_are_none_end_the_connection_and_those_over_a_limit_are_refused() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    let long = "x".repeat(LONGEST);
    let deep = "/".repeat(LONGEST);
    for version in BOTH {
        let bytes = |topic: &[u8]| {
            let properties = if version == V5 { section(&[]) } else { Vec::new() };
            packet(0x31, &[string(topic), properties, b"x".to_vec()].concat())
        };
        for refused in [&long, &deep] {
            let mut client = Client::new(&server, version, "c").await;
            client.send(&bytes(refused.as_bytes())).await;
            client.ping().await;
            bystander.hears().await;
        }
        let cases: [(&[u8], u8); 7] = [
            (b"", 0x82),
            (b"a/+", 0x90),
            (b"#", 0x90),
            (b"\0", 0x81),
            (b"a\0b", 0x81),
            (b"\xFF", 0x81),
            (b"\xED\xA0\x80", 0x81), // half of a surrogate pair
        ];
        for (topic, reason) in cases {
            let mut client = Client::new(&server, version, "c").await;
            client.send(&bytes(topic)).await;
            client.expect_disconnect(reason).await;
            bystander.hears().await;
        }
    }
    assert_eq!(server.broker.stats().retained_messages, 0);
}

#[tokio::test]
async fn filters_that_are_none_are_refused() {
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    let long = "x".repeat(LONGEST);
    let deep = "/".repeat(LONGEST);
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        let refused = |reason: u8| if version == V311 { 0x80 } else { reason };
        for filter in ["", "a#", "#/a", "a/#/b", "+a", "a+/b", "++", "##", &long, &deep] {
            assert_eq!(client.subscribe_all(&[(filter, 1)], &[]).await, [refused(0x8F)], "{filter:.10}");
        }
        for filter in ["$share/group/topic", "$share//", "$share/group/#"] {
            assert_eq!(client.subscribe_all(&[(filter, 1)], &[]).await, [refused(0x9E)]);
        }
        client.ping().await;
        for filter in [&b"a\0"[..], b"\xFF"] {
            let mut client = Client::new(&server, version, "other").await;
            let id = if version == V5 { &[0, 1, 0][..] } else { &[0, 1] };
            client.send(&packet(0x82, &[id, &string(filter), &[0]].concat())).await;
            client.expect_disconnect(0x81).await;
        }
        bystander.hears().await;
    }
    assert_eq!(server.broker.stats().subscriptions, 1);
}
