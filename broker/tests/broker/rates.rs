//! Clients that send faster than they may are read later.

use std::time::Duration;

use offload_broker::{Config, Version::V5};

use crate::{
    client::{BOTH, Client, Connect},
    server::Server,
};

#[tokio::test]
async fn messages_over_the_rate_are_read_later_and_none_is_lost() {
    let config = Config { max_message_rate: 500, rate_burst: Duration::from_millis(20), ..Config::default() };
    let server = Server::with_config(config).await;
    for version in BOTH {
        let delays = server.broker.stats().rate_delays;
        let mut subscriber = Client::new(&server, version, "s").await;
        subscriber.subscribe("t", 0).await;
        let mut publisher = Client::new(&server, version, "p").await;
        // All at once, so that one read brings more than the burst.
        let flood: Vec<u8> = (0..100)
            .flat_map(|at| publisher.publish_bytes(0x30, "t", 0, &[], at.to_string().as_bytes()))
            .collect();
        publisher.send(&flood).await;
        for at in 0..100 {
            assert_eq!(subscriber.take_text().await, at.to_string());
        }
        publisher.ping().await;
        assert!(server.broker.stats().rate_delays > delays);
    }
    assert_eq!(server.broker.stats().violations, 0);
}

#[tokio::test]
async fn bytes_over_the_rate_push_back_and_none_is_lost() {
    let config =
        Config { max_byte_rate: 8_000_000, rate_burst: Duration::from_millis(10), ..Config::default() };
    let server = Server::with_config(config).await;
    let mut subscriber = Client::new(&server, V5, "s").await;
    subscriber.subscribe("t", 0).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    let payload = "x".repeat(100_000);
    let flood = async {
        for _ in 0..20 {
            publisher.publish("t", &payload, 0, 0).await;
        }
        publisher.ping().await;
    };
    let receive = async {
        for _ in 0..20 {
            assert_eq!(subscriber.take().await.payload.len(), payload.len());
        }
    };
    tokio::join!(flood, receive);
    assert!(server.broker.stats().rate_delays > 1);
}

#[tokio::test]
async fn all_connections_of_an_identity_have_one_rate() {
    let config = Config { max_message_rate: 10, rate_burst: Duration::from_secs(1), ..Config::default() };
    let server = Server::with_config(config).await;
    let of = |user: &str, id: &str| Connect::new(V5, id).user(user);
    let mut first = Client::connect(&server, &of("anna", "first")).await;
    for _ in 0..10 {
        first.ping().await;
    }
    assert_eq!(server.broker.stats().rate_delays, 0);
    let mut second = Client::connect(&server, &of("anna", "second")).await;
    let mut other = Client::connect(&server, &of("bert", "other")).await;
    second.send(&[0xC0, 0].repeat(3)).await;
    other.ping().await;
    for _ in 0..3 {
        second.expect(0xD0, &[]).await;
    }
    assert!(server.broker.stats().rate_delays > 0);
}

#[tokio::test]
async fn who_only_acknowledges_is_not_slowed() {
    let config = Config { max_message_rate: 1, rate_burst: Duration::from_secs(10), ..Config::default() };
    let server = Server::with_config(config).await;
    let mut subscriber = Client::connect(&server, &Connect::new(V5, "s")).await;
    subscriber.subscribe("t", 2).await;
    for at in 0..20 {
        let message = offload_broker::Message::new("t", at.to_string(), offload_broker::QoS::ExactlyOnce);
        server.broker.publish(&message, None);
        assert_eq!(subscriber.take_text().await, at.to_string());
    }
    assert_eq!(server.broker.stats().rate_delays, 0);
}

#[tokio::test]
async fn the_keepalive_does_not_run_out_while_a_client_has_to_wait() {
    let config = Config { max_byte_rate: 1_000, rate_burst: Duration::ZERO, ..Config::default() };
    let server = Server::with_config(config).await;
    let mut client = Client::connect(&server, &Connect::new(V5, "c").keep_alive(1)).await;
    // Makes it wait for two seconds, half a second longer than it may be silent.
    let bytes = client.publish_bytes(0x30, "t", 0, &[], &[0; 2_000]);
    client.send(&bytes).await;
    client.ping().await;
    let stats = server.broker.stats();
    assert_eq!((stats.connections, stats.violations), (1, 0));
    assert!(stats.rate_delays > 0);
}
