//! More than anyone can take.

use offload_broker::Config;
use tokio::io::AsyncWriteExt;

use super::Bystander;
use crate::{
    client::{BOTH, Client, Connect},
    server::Server,
};

#[tokio::test]
async fn publish_floods_are_bounded_and_disturb_nobody() {
    let config = Config {
        max_packet_size: 256 * 1024,
        session_queue_bytes: 1024 * 1024,
        max_queued_bytes: 8 * 1024 * 1024,
        ..Config::default()
    };
    let server = Server::with_config(config.clone()).await;
    let mut bystander = Bystander::new(&server).await;
    let mut deaf = Client::new(&server, BOTH[0], "deaf").await;
    deaf.subscribe("flood", 2).await;
    for version in BOTH {
        for qos in 0..=2 {
            let mut client = Client::new(&server, version, "flood").await;
            for id in 1..=300 {
                let bytes = client.publish_bytes(0x30 | qos << 1, "flood", id, &[], &[b'x'; 100_000]);
                // It is not obliged to read acknowledgements; the broker may be tired of it.
                if client.stream.write_all(&bytes).await.is_err() {
                    break;
                }
                let queued = server.broker.stats().queued_bytes;
                assert!(queued <= config.session_queue_bytes + 100_000, "{queued}");
            }
            bystander.hears().await;
        }
    }
    assert!(server.broker.stats().dropped.queue_full > 0);
    assert!(server.broker.stats().dropped.qos0_queue > 0);
}

#[tokio::test]
async fn sessions_that_hoard_leave_room_for_others() {
    let config = Config {
        max_packet_size: 64 * 1024,
        session_queue_bytes: 64 * 1024,
        max_queued_bytes: 256 * 1024,
        ..Config::default()
    };
    let server = Server::with_config(config).await;
    let mut bystander = Bystander::new(&server).await;
    for at in 0..40 {
        let id = format!("hoarder-{at}");
        let mut hoarder = Client::connect(&server, &Connect::persistent(BOTH[at % 2], &id)).await;
        hoarder.subscribe("hoard", 1).await;
    }
    server.until("they are away", |stats| stats.connections == 1).await;
    let mut publisher = Client::new(&server, BOTH[0], "publisher").await;
    for size in [10_000, 1_000, 100, 10, 1] {
        for _ in 0..40 {
            publisher.publish_acknowledged("hoard", &"x".repeat(size)).await;
        }
        bystander.hears().await;
    }
    assert!(server.broker.stats().dropped.queue_full > 0);
}
