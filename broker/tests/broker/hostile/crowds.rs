//! Many at once.

use tokio::task::JoinSet;

use offload_broker::{Config, Version::V5};

use super::{Bystander, many_files};
use crate::{
    client::{BOTH, Client, Connect, Will},
    server::Server,
};

#[tokio::test]
async fn half_open_connections_keep_nobody_out() {
    many_files();
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    let hello = Connect::new(V5, "half").bytes();
    let mut idle = Vec::new();
    for at in 0..HALF_OPEN {
        let mut client = Client::open(&server, V5).await;
        client.send(&hello[..at % hello.len()]).await;
        idle.push(client);
    }
    bystander.hears().await;
    Client::new(&server, V5, "newcomer").await.ping().await;
    drop(idle);
    server.until("only the bystander is left", |stats| stats.connections == 1).await;
}

/// What two ends in one process have file descriptors for; `cargo xtask chaos` does it with 10 000.
const HALF_OPEN: usize = 3_000;
/// Connections at once.
const CONNECTS: usize = 2_000;

#[tokio::test]
async fn two_thousand_connects_at_once_are_all_answered() {
    many_files();
    let server = Server::start().await;
    let mut bystander = Bystander::new(&server).await;
    let server = std::sync::Arc::new(server);
    let mut clients = JoinSet::new();
    for at in 0..CONNECTS {
        let server = server.clone();
        clients.spawn(async move {
            let mut client = Client::new(&server, BOTH[at % 2], &format!("crowd-{at}")).await;
            client.ping().await;
            client
        });
    }
    bystander.hears().await;
    let clients = clients.join_all().await;
    assert_eq!(server.broker.stats().connections, CONNECTS + 1);
    assert_eq!(server.broker.stats().connections_refused, 0);
    bystander.hears().await;
    drop(clients);
    server.until("only the bystander is left", |stats| stats.connections == 1 && stats.sessions == 1).await;
}

#[tokio::test]
async fn a_storm_of_one_client_id_leaves_one_connection() {
    let server = std::sync::Arc::new(Server::start().await);
    let mut bystander = Bystander::new(&server).await;
    let mut storm = JoinSet::new();
    for at in 0..300 {
        let server = server.clone();
        storm.spawn(async move {
            let version = BOTH[at % 2];
            let mut connect = Connect::persistent(version, "the one").will(Will::new("storm"));
            connect.clean = at % 3 == 0;
            let mut client = Client::open(&server, version).await;
            client.send(&connect.bytes()).await;
            client
        });
    }
    bystander.hears().await;
    let clients = storm.join_all().await;
    let last = Client::new(&server, V5, "the one").await;
    server.until("one and the bystander are left", |stats| stats.connections == 2).await;
    assert_eq!(server.broker.stats().sessions, 2);
    bystander.hears().await;
    drop((last, clients));
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
