//! A broker that is rebuilt from what another one has stored shows its clients what that one would have shown them,
//! whatever they have done before.

use std::collections::HashMap;

use offload_broker::{
    Broker, Config, NoApplication, Transport,
    Version::{self, V5, V311},
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config as Cases, TestRunner},
};
use std::sync::Arc;

use crate::{
    client::{Client, Connect, Publish},
    fake_storage::FakeStorage,
    server::Server,
};

const CLIENTS: usize = 3;
const FILTERS: [&str; 4] = ["a", "a/+", "#", "b/#"];
const TOPICS: [&str; 3] = ["a", "a/b", "b"];

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    Connect {
        client: usize,
        clean: bool,
    },
    Leave {
        client: usize,
    },
    Subscribe {
        client: usize,
        filter: usize,
        qos: u8,
    },
    Unsubscribe {
        client: usize,
        filter: usize,
    },
    Publish {
        topic: usize,
        qos: u8,
        retain: bool,
        clears: bool,
    },
    /// Takes a message, and goes no further with it than this: not at all, PUBREC, to the end.
    Take {
        client: usize,
        progress: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS;
    prop_oneof![
        2 => (client(), prop::bool::weighted(0.2)).prop_map(|(client, clean)| Step::Connect { client, clean }),
        2 => client().prop_map(|client| Step::Leave { client }),
        3 => (client(), 0..FILTERS.len(), 0..3u8)
            .prop_map(|(client, filter, qos)| Step::Subscribe { client, filter, qos }),
        1 => (client(), 0..FILTERS.len()).prop_map(|(client, filter)| Step::Unsubscribe { client, filter }),
        6 => (0..TOPICS.len(), 0..3u8, prop::bool::weighted(0.3), prop::bool::weighted(0.2))
            .prop_map(|(topic, qos, retain, clears)| Step::Publish { topic, qos, retain, clears }),
        4 => (client(), 0..3u8).prop_map(|(client, progress)| Step::Take { client, progress }),
    ]
}

fn version(client: usize) -> Version {
    if client == 0 { V311 } else { V5 }
}

fn session(client: usize, clean: bool) -> Connect {
    let connect = Connect::persistent(version(client), &format!("client-{client}"));
    // A clean session of 3.1.1 would end with its connection.
    Connect { clean: clean && version(client) == V5, ..connect }
}

/// What a client sees when it comes back: whether its session is there, the messages, the identifiers released.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    present: bool,
    messages: Vec<(String, Vec<u8>, u8, bool, u16)>,
    released: Vec<u16>,
}

async fn start(storage: &FakeStorage) -> Server {
    let records = storage.durable();
    let broker =
        Broker::with_storage(Config::default(), Arc::new(NoApplication), Arc::new(storage.clone()), records);
    Server::of(broker, Transport::Tcp).await
}

/// The end of what is queued: a message that comes behind it.
const END: &str = "the end";

async fn look(server: &Server, client: usize) -> Seen {
    let mut connected = Client::connect(server, &session(client, false)).await;
    let mut seen = Seen { present: connected.session_present(), messages: Vec::new(), released: Vec::new() };
    connected.request_subscription(END, 0).await;
    loop {
        let packet = connected.receive().await;
        if packet.first == 0x90 {
            Client::new(server, V5, "ender").await.publish(END, "", 0, 0).await;
            continue;
        }
        if packet.first == 0x62 {
            seen.released.push(u16::from_be_bytes([packet.body[0], packet.body[1]]));
            continue;
        }
        let Publish { topic, payload, qos, retain, id, .. } = connected.publish_of(&packet);
        if topic == END {
            seen.released.sort_unstable();
            return seen;
        }
        // One at QoS 0 is not stored: it is there if its connection ended before it was written.
        if qos > 0 {
            seen.messages.push((topic, payload, qos, retain, id));
        }
    }
}

/// Says goodbye, whatever comes meanwhile.
async fn leave(mut client: Client) {
    client.send(&[0xE0, 0]).await;
    while client.receive_or_end().await.is_some() {}
}

async fn run(steps: Vec<Step>) {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    let mut clients: HashMap<usize, Client> = HashMap::new();
    let mut publisher = Client::new(&server, V5, "publisher").await;
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Connect { client, clean } => {
                let connected = Client::connect(&server, &session(client, clean)).await;
                clients.insert(client, connected);
            }
            Step::Leave { client } => {
                if let Some(client) = clients.remove(&client) {
                    leave(client).await;
                }
            }
            Step::Subscribe { client, filter, qos } => {
                if let Some(client) = clients.get_mut(&client) {
                    client.request_subscription(FILTERS[filter], qos).await;
                    client.until(0x90).await;
                }
            }
            Step::Unsubscribe { client, filter } => {
                if let Some(client) = clients.get_mut(&client) {
                    client.request_unsubscription(FILTERS[filter]).await;
                    client.until(0xB0).await;
                }
            }
            Step::Publish { topic, qos, retain, clears } => {
                let payload = if clears && retain { String::new() } else { number.to_string() };
                let first = 0x30 | qos << 1 | u8::from(retain);
                let bytes = publisher.publish_bytes(first, TOPICS[topic], 1, &[], payload.as_bytes());
                publisher.send(&bytes).await;
                match qos {
                    0 => publisher.ping().await,
                    1 => drop(publisher.acknowledged(0x40, 1).await),
                    _ => {
                        publisher.acknowledged(0x50, 1).await;
                        publisher.acknowledge(0x62, 1).await;
                        publisher.acknowledged(0x70, 1).await;
                    }
                }
            }
            Step::Take { client, progress } => {
                if let Some(client) = clients.get_mut(&client) {
                    client.advance(progress).await;
                }
            }
        }
    }
    for client in clients.into_values() {
        leave(client).await;
    }
    server.until("all are gone but the publisher", |stats| stats.clients == 1).await;
    let left = FakeStorage::with(&storage.settled());
    let rebuilt = start(&left).await;
    let (before, after) = (server.broker.stats(), rebuilt.broker.stats());
    assert_eq!(before.sessions - 1, after.sessions);
    assert_eq!(before.subscriptions, after.subscriptions);
    assert_eq!(before.retained_messages, after.retained_messages);
    for client in 0..CLIENTS {
        assert_eq!(look(&server, client).await, look(&rebuilt, client).await, "client {client}");
    }
    // What is retained is what it was.
    let mut all = Vec::new();
    for server in [&server, &rebuilt] {
        let mut client = Client::new(server, V5, "all").await;
        client.subscribe("#", 0).await;
        all.push(client.until_pong().await);
    }
    assert_eq!(all[0], all[1]);
}

#[test]
fn a_rebuilt_broker_is_the_one_that_it_is_rebuilt_from() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Cases { cases: 150, ..Cases::default() });
    runner
        .run(&vec(step(), 1..40), |steps| {
            runtime.block_on(run(steps));
            Ok(())
        })
        .unwrap();
}
