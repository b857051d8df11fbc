//! What outlives the process: what is acknowledged when, and a broker that begins with what another one has left.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use offload_broker::{
    Application, Broker, ClientInfo, Config, Message, NoApplication, Placed, Published, QoS, Received, Route,
    Transport,
    Version::{self, V5, V311},
    storage::{Key, MessageRecord, Moment, Record, SessionRecord},
};

use crate::{
    client::{BOTH, Client, Connect, Publish},
    fake_storage::FakeStorage,
    log::Log,
    server::Server,
};

const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;

async fn start(storage: &FakeStorage) -> Server {
    start_with(storage, Config::default(), Arc::new(NoApplication)).await
}

async fn start_with(storage: &FakeStorage, config: Config, application: Arc<dyn Application>) -> Server {
    let records = storage.durable();
    let broker = Broker::with_storage(config, application, Arc::new(storage.clone()), records);
    Server::of(broker, Transport::Tcp).await
}

/// Another process, which begins with what is durable of all that this one has stored.
async fn crash(server: Server, storage: &FakeStorage) -> (Server, FakeStorage) {
    let left = FakeStorage::with(&storage.durable());
    drop(server);
    (start(&left).await, left)
}

/// Sleeps: has a session with this subscription, and no connection.
async fn sleeper(server: &Server, version: Version, id: &str, filter: &str, qos: u8) {
    let mut client = Client::connect(server, &Connect::persistent(version, id)).await;
    client.subscribe(filter, qos).await;
    client.disconnect().await;
}

fn kinds(records: &[(Key, Record)]) -> Vec<&'static str> {
    let kind = |record: &Record| match record {
        Record::Session(_) => "session",
        Record::Subscription(_) => "subscription",
        Record::Message(_) => "message",
        Record::Delivery(_) => "delivery",
        Record::Released { .. } => "released",
        Record::Received { .. } => "received",
        Record::Retained(_) => "retained",
    };
    records.iter().map(|(_, record)| kind(record)).collect()
}

// ---- What is acknowledged when ----

#[tokio::test]
async fn a_message_for_a_session_that_stays_is_acknowledged_when_it_is_durable() {
    for version in BOTH {
        for (qos, ack) in [(1, PUBACK), (2, PUBREC)] {
            let storage = FakeStorage::default();
            let server = start(&storage).await;
            sleeper(&server, version, "away", "t", 2).await;
            let mut publisher = Client::new(&server, version, "p").await;
            storage.hold();
            publisher.publish("t", "m", qos, 5).await;
            publisher.ping().await;
            storage.release();
            assert_eq!(publisher.acknowledged(ack, 5).await, 0);
            assert!(kinds(&storage.durable()).contains(&"delivery"));
        }
    }
}

#[tokio::test]
async fn a_message_for_clean_sessions_alone_is_acknowledged_at_once_and_stored_nowhere() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    storage.hold();
    let mut subscriber = Client::new(&server, V5, "s").await;
    subscriber.subscribe("t", 2).await;
    let mut publisher = Client::new(&server, V311, "p").await;
    assert_eq!(publisher.publish_acknowledged("t", "m").await, 0);
    assert_eq!(subscriber.take_text().await, "m");
    publisher.publish("t", "twice", 2, 6).await;
    publisher.acknowledged(PUBREC, 6).await;
    publisher.acknowledge(PUBREL, 6).await;
    publisher.acknowledged(PUBCOMP, 6).await;
    assert_eq!(subscriber.take_text().await, "twice");
    publisher.disconnect().await;
    subscriber.disconnect().await;
    assert_eq!(storage.batches(), 0);
}

#[tokio::test]
async fn messages_at_qos_0_are_stored_nowhere() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    let mut subscriber = Client::connect(&server, &Connect::persistent(V5, "s")).await;
    subscriber.subscribe("t", 2).await;
    let before = storage.batches();
    let mut publisher = Client::new(&server, V5, "p").await;
    publisher.publish("t", "m", 0, 0).await;
    assert_eq!(subscriber.take_text().await, "m");
    assert_eq!(storage.batches(), before);
}

#[tokio::test]
async fn acknowledgements_keep_their_order_though_only_some_wait_for_the_storage() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    sleeper(&server, V5, "away", "stored", 1).await;
    let mut subscriber = Client::new(&server, V5, "s").await;
    subscriber.subscribe("t", 1).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    storage.hold();
    publisher.publish("stored", "m", 1, 1).await;
    publisher.publish("t", "m", 1, 2).await;
    assert_eq!(subscriber.take_text().await, "m");
    publisher.ping().await;
    storage.release();
    publisher.acknowledged(PUBACK, 1).await;
    publisher.acknowledged(PUBACK, 2).await;
}

#[tokio::test]
async fn a_session_and_its_subscriptions_are_acknowledged_when_they_are_durable() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    storage.hold();
    let mut client = Client::open(&server, V5).await;
    client.send(&Connect::persistent(V5, "s").bytes()).await;
    server.until("it has its session", |stats| stats.clients == 1).await;
    assert!(storage.durable().is_empty());
    storage.release();
    assert_eq!(client.receive().await.first, 0x20);
    assert_eq!(kinds(&storage.durable()), ["session"]);

    storage.hold();
    let filters = [&[0, 9, 0][..], &crate::client::string("t"), &[1]].concat();
    client.send(&crate::client::packet(0x82, &filters)).await;
    client.send(&[0xC0, 0]).await; // behind it
    server.until("it has its subscription", |stats| stats.subscriptions == 1).await;
    assert_eq!(kinds(&storage.durable()), ["session"]);
    storage.release();
    client.expect(0x90, &[0, 9, 0, 1]).await;
    client.expect(0xD0, &[]).await;
    assert_eq!(kinds(&storage.durable()), ["session", "subscription"]);

    assert_eq!(client.unsubscribe(&["t"]).await, [0]);
    assert_eq!(kinds(&storage.durable()), ["session"]);
    client.disconnect().await;
    Client::new(&server, V5, "s").await;
    assert!(storage.settled().is_empty(), "a clean start ends it");
}

#[tokio::test]
async fn at_qos_2_a_message_is_sent_and_released_when_that_is_durable() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    let mut subscriber = Client::connect(&server, &Connect::persistent(V5, "s")).await;
    subscriber.subscribe("t", 2).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    storage.hold();
    publisher.publish("t", "m", 2, 1).await;
    publisher.ping().await;
    subscriber.ping().await;
    storage.release();
    publisher.acknowledged(PUBREC, 1).await;
    let message = subscriber.message().await;
    assert_eq!((message.text(), message.qos), ("m", 2));

    storage.hold();
    subscriber.acknowledge(PUBREC, message.id).await;
    subscriber.ping().await;
    storage.release();
    assert_eq!(subscriber.acknowledged(PUBREL, message.id).await, 0);
    assert_eq!(kinds(&storage.settled()), ["session", "subscription", "released"]);
    subscriber.acknowledge(PUBCOMP, message.id).await;
    subscriber.ping().await;
    assert_eq!(kinds(&storage.settled()), ["session", "subscription"]);
}

#[tokio::test]
async fn a_message_that_its_receivers_have_before_it_is_stored_never_is() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    let mut one = Client::connect(&server, &Connect::persistent(V5, "one")).await;
    let mut two = Client::connect(&server, &Connect::persistent(V311, "two")).await;
    for client in [&mut one, &mut two] {
        client.subscribe("t", 1).await;
    }
    let mut publisher = Client::new(&server, V5, "p").await;
    storage.hold();
    publisher.publish("t", "m", 1, 1).await;
    assert_eq!(one.take_text().await, "m");
    publisher.ping().await;
    assert_eq!(two.take_text().await, "m");
    // Nothing is durable, and it is safe all the same.
    assert_eq!(publisher.acknowledged(PUBACK, 1).await, 0);
    // What is retained has to be, and so has what must not come twice.
    let mut careful = Client::connect(&server, &Connect::new(V5, "q")).await;
    let bytes = careful.publish_bytes(0x33, "t", 1, &[], b"retained");
    careful.send(&bytes).await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.take_text().await, "retained");
        client.ping().await;
    }
    careful.ping().await;
    storage.release();
    careful.acknowledged(PUBACK, 1).await;
    let kinds = kinds(&storage.settled());
    assert_eq!(kinds, ["session", "session", "subscription", "subscription", "retained"]);
}

#[tokio::test]
async fn an_identifier_is_free_again_when_that_is_durable() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    let mut publisher = Client::connect(&server, &Connect::persistent(V5, "p")).await;
    publisher.publish("t", "m", 2, 1).await;
    assert_eq!(publisher.acknowledged(PUBREC, 1).await, 0x10);
    assert_eq!(kinds(&storage.durable()), ["session", "received"]);
    storage.hold();
    publisher.acknowledge(PUBREL, 1).await;
    publisher.ping().await;
    // Nor when it is asked for again.
    publisher.acknowledge(PUBREL, 1).await;
    publisher.ping().await;
    storage.release();
    assert_eq!(publisher.acknowledged(PUBCOMP, 1).await, 0);
    assert_eq!(publisher.acknowledged(PUBCOMP, 1).await, 0x92);
    assert_eq!(kinds(&storage.durable()), ["session"]);
}

#[tokio::test]
async fn an_identifier_that_nothing_is_stored_of_is_answered_at_once() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    let mut publisher = Client::connect(&server, &Connect::persistent(V5, "p")).await;
    let before = storage.batches();
    storage.hold();
    for id in 1..=100 {
        publisher.acknowledge(PUBREL, id).await;
        assert_eq!(publisher.acknowledged(PUBCOMP, id).await, 0x92);
    }
    assert_eq!(storage.batches(), before);
    storage.release();
}

#[tokio::test]
async fn a_client_is_not_read_from_while_too_many_of_its_identifiers_wait_for_the_storage() {
    let storage = FakeStorage::default();
    let config = Config { receive_maximum: 4, ..Config::default() };
    let server = start_with(&storage, config, Arc::new(NoApplication)).await;
    let mut publisher = Client::connect(&server, &Connect::persistent(V311, "p")).await;
    for id in 1..=20 {
        publisher.publish("t", "m", 2, id).await;
        publisher.acknowledged(PUBREC, id).await;
    }
    storage.settled();
    let before = storage.batches();
    storage.hold();
    for id in 1..=20 {
        publisher.acknowledge(PUBREL, id).await;
    }
    let mut other = Client::new(&server, V5, "other").await;
    while storage.batches() < before + 5 {
        other.ping().await;
    }
    for _ in 0..20 {
        other.ping().await;
    }
    assert_eq!(storage.batches(), before + 5);
    storage.release();
    for id in 1..=20 {
        publisher.acknowledged(PUBCOMP, id).await;
    }
}

#[tokio::test]
async fn a_clean_start_is_acknowledged_when_the_session_before_it_is_durably_gone() {
    for version in BOTH {
        let storage = FakeStorage::default();
        let server = start(&storage).await;
        sleeper(&server, version, "s", "t", 1).await;
        storage.settled();
        storage.hold();
        let mut client = Client::open(&server, version).await;
        client.send(&Connect::new(version, "s").bytes()).await;
        server.until("it has its session", |stats| stats.clients == 1).await;
        assert!(!storage.durable().is_empty());
        storage.release();
        assert_eq!(client.receive().await.first, 0x20);
        assert!(storage.durable().is_empty());
    }
}

#[tokio::test]
async fn nothing_is_left_of_what_is_acknowledged() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    sleeper(&server, V5, "one", "t", 1).await;
    sleeper(&server, V5, "two", "t", 2).await;
    let mut publisher = Client::connect(&server, &Connect::persistent(V5, "p")).await;
    for id in 1..=20 {
        publisher.publish("t", "m", 1 + (id % 2) as u8, id).await;
    }
    for id in 1..=20 {
        let ack = if id % 2 == 1 { PUBREC } else { PUBACK };
        publisher.acknowledged(ack, id).await;
    }
    let messages =
        |records: &[(Key, Record)]| kinds(records).iter().filter(|kind| **kind == "message").count();
    assert_eq!(messages(&storage.durable()), 20, "a message is kept once, however many have it");
    for id in (1..=20).step_by(2) {
        publisher.acknowledge(PUBREL, id).await;
        publisher.acknowledged(PUBCOMP, id).await;
    }
    for name in ["one", "two"] {
        let mut subscriber = Client::connect(&server, &Connect::persistent(V5, name)).await;
        subscriber.take_many(20).await;
        subscriber.disconnect().await;
    }
    let left = storage.settled();
    assert_eq!(left.len(), 5, "{left:?}");
    for name in ["one", "two", "p"] {
        Client::new(&server, V5, name).await;
    }
    assert_eq!(storage.settled(), []);
}

// ---- Full, and failed ----

#[tokio::test]
async fn a_storage_that_is_full_is_told_as_a_full_queue_is() {
    let log = Log::start();
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    sleeper(&server, V5, "away", "t", 2).await;
    storage.set_full(true);
    let mut publisher = Client::new(&server, V5, "p").await;
    assert_eq!(publisher.publish_acknowledged("t", "lost").await, 0x97);
    publisher.publish("t", "lost", 2, 3).await;
    assert_eq!(publisher.acknowledged(PUBREC, 3).await, 0x97);
    // 3.1.1 has no code for it, and is not to believe that it is safe. What needs no storage is acknowledged.
    let mut publisher = Client::new(&server, V311, "p").await;
    publisher.publish("t", "lost", 1, 1).await;
    publisher.publish("t", "lost", 2, 3).await;
    publisher.ping().await;
    publisher.publish("nobody", "m", 1, 4).await;
    publisher.acknowledged(PUBACK, 4).await;
    assert!(log.text().contains("the storage is full"), "{}", log.text());
    let stats = server.broker.stats();
    assert_eq!((stats.queued_messages, stats.queued_bytes, stats.dropped.queue_full), (0, 0, 4));
    // A new session or subscription is refused; one that is there can be used, and makes room.
    let refused = Client::try_connect(&server, &Connect::persistent(V5, "new")).await;
    assert_eq!(refused.connack[1], 0x97);
    let mut back = Client::connect(&server, &Connect::persistent(V5, "away")).await;
    assert!(back.session_present());
    assert_eq!(back.subscribe_all(&[("other", 1)], &[]).await, [0x97]);
    assert_eq!(server.broker.stats().subscriptions, 1);
    storage.set_full(false);
    back.subscribe("other", 1).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    assert_eq!(publisher.publish_acknowledged("t", "kept").await, 0);
    assert_eq!(back.take_text().await, "kept");
}

#[tokio::test]
async fn a_message_that_others_have_is_acknowledged_though_the_storage_is_full() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    sleeper(&server, V5, "away", "t", 1).await;
    let mut subscriber = Client::new(&server, V5, "s").await;
    subscriber.subscribe("t", 1).await;
    storage.set_full(true);
    let mut publisher = Client::new(&server, V5, "p").await;
    assert_eq!(publisher.publish_acknowledged("t", "m").await, 0);
    assert_eq!(subscriber.take_text().await, "m");
}

/// As long as what becomes a file.
fn long(text: &str) -> String {
    text.repeat(64 * 1024 / text.len() + 1)
}

#[tokio::test]
async fn a_long_message_that_finds_no_room_when_its_turn_comes_is_refused_and_holds_up_nothing() {
    for qos in [1, 2] {
        let ack = if qos == 1 { PUBACK } else { PUBREC };
        let storage = FakeStorage::default();
        let server = start(&storage).await;
        let mut subscriber = Client::connect(&server, &Connect::persistent(V5, "s")).await;
        subscriber.subscribe("t", 2).await;
        sleeper(&server, V5, "away", "t", 2).await;
        storage.settled();
        storage.set_disk_full(true);
        let mut publisher = Client::new(&server, V5, "p").await;
        let mut old = Client::new(&server, V311, "old").await;
        storage.hold();
        publisher.publish("t", &long("lost"), qos, 1).await;
        publisher.ping().await;
        old.publish("t", &long("lost"), qos, 1).await;
        old.ping().await;
        storage.release();
        assert_eq!(publisher.acknowledged(ack, 1).await, 0x97);
        publisher.publish("t", "next", qos, 2).await;
        assert_eq!(publisher.acknowledged(ack, 2).await, 0);
        old.ping().await;
        if qos == 2 {
            assert_eq!(subscriber.take_text().await, "next");
        }
        let mut back = Client::connect(&server, &Connect::persistent(V5, "away")).await;
        assert_eq!(back.take_text().await, "next");
        back.ping().await;
    }
}

#[tokio::test]
async fn a_retained_message_that_finds_no_room_when_its_turn_comes_is_not_acknowledged() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    publisher.retain("t", "1", 1).await;
    publisher.retain("cleared", "1", 1).await;
    storage.set_disk_full(true);
    for topic in ["t", "cleared"] {
        let bytes = publisher.publish_bytes(0x33, topic, 2, &[], long("2").as_bytes());
        publisher.send(&bytes).await;
        assert_eq!(publisher.acknowledged(PUBACK, 2).await, 0x97);
        let mut old = Client::new(&server, V311, "old").await;
        let bytes = old.publish_bytes(0x33, topic, 2, &[], long("3").as_bytes());
        old.send(&bytes).await;
        old.ping().await;
    }
    let bytes = publisher.publish_bytes(0x33, "cleared", 3, &[], b"");
    publisher.send(&bytes).await;
    publisher.acknowledged(PUBACK, 3).await;
    // As it was acknowledged last.
    storage.settled();
    let (server, _storage) = crash(server, &storage).await;
    let mut subscriber = Client::new(&server, V5, "s").await;
    subscriber.subscribe("#", 1).await;
    assert_eq!(subscriber.take_text().await, "1");
    subscriber.ping().await;
}

#[tokio::test]
async fn a_message_for_many_sessions_is_stored_in_batches_that_any_journal_takes() {
    const SESSIONS: usize = 600;
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    for number in 0..SESSIONS {
        sleeper(&server, V5, &format!("s-{number}"), "t", 1).await;
    }
    let mut publisher = Client::new(&server, V5, "p").await;
    assert_eq!(publisher.publish_acknowledged("t", "m").await, 0);
    let deliveries = kinds(&storage.settled()).into_iter().filter(|kind| *kind == "delivery").count();
    assert_eq!(deliveries, SESSIONS);
    assert!((100..400).contains(&storage.most_records()), "{}", storage.most_records());
}

#[tokio::test]
async fn a_retained_message_is_not_acknowledged_after_the_storage_has_failed() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    let mut publishers = [Client::new(&server, V5, "p5").await, Client::new(&server, V311, "p3").await];
    storage.fail();
    for (number, publisher) in publishers.iter_mut().enumerate() {
        let bytes = publisher.publish_bytes(0x33, &format!("new/{number}"), 1, &[], b"m");
        publisher.send(&bytes).await;
    }
    let [v5, v311] = &mut publishers;
    assert_eq!(v5.acknowledged(PUBACK, 1).await, 0x80);
    v311.ping().await;
}

#[tokio::test]
async fn a_subscription_that_is_never_stored_ends_the_connection() {
    for waits in [true, false] {
        let storage = FakeStorage::default();
        let server = start(&storage).await;
        let mut client = Client::connect(&server, &Connect::persistent(V5, "s")).await;
        storage.hold();
        if !waits {
            storage.fail();
        }
        client.request_subscription("t", 1).await;
        if waits {
            server.until("it is subscribed", |stats| stats.subscriptions == 1).await;
            storage.fail();
        }
        client.expect_disconnect(0x80).await;
    }
}

#[tokio::test]
async fn when_the_storage_has_failed_nothing_is_acknowledged_that_needs_it() {
    for waits in [true, false] {
        let storage = FakeStorage::default();
        let server = start(&storage).await;
        sleeper(&server, V5, "away", "t", 1).await;
        let mut connected = Client::connect(&server, &Connect::persistent(V5, "connected")).await;
        connected.subscribe("t", 1).await;
        let mut publishers = [Client::new(&server, V5, "p5").await, Client::new(&server, V311, "p3").await];
        if waits {
            storage.hold();
            for publisher in &mut publishers {
                publisher.publish("t", "m", 1, 1).await;
                publisher.ping().await;
            }
        }
        storage.fail();
        if !waits {
            for publisher in &mut publishers {
                publisher.publish("t", "m", 1, 1).await;
            }
        }
        let [v5, v311] = &mut publishers;
        assert_eq!(v5.acknowledged(PUBACK, 1).await, 0x80);
        // 3.1.1 has no code for it, and gets none. What needs no storage is acknowledged all the same.
        v311.publish("nobody", "m", 1, 2).await;
        v311.acknowledged(PUBACK, 2).await;
        // Who is there gets what can be sent.
        for _ in 0..2 {
            assert_eq!(connected.take_text().await, "m");
        }
        let refused = Client::try_connect(&server, &Connect::persistent(V5, "away")).await;
        assert_eq!(refused.connack[1], 0x88);
        Client::new(&server, V5, "clean").await;
    }
}

// ---- Another process ----

#[tokio::test]
async fn a_session_is_there_again_with_all_that_waits_for_it() {
    for version in BOTH {
        let storage = FakeStorage::default();
        let server = start(&storage).await;
        sleeper(&server, version, "away", "a/#", 2).await;
        let mut publisher = Client::new(&server, version, "p").await;
        for (number, qos) in [0, 1, 2, 1].into_iter().enumerate() {
            publisher.publish("a/b", &number.to_string(), qos, 1 + number as u16).await;
        }
        for (ack, id) in [(PUBACK, 2), (PUBREC, 3), (PUBACK, 4)] {
            publisher.acknowledged(ack, id).await;
        }
        let (server, storage) = crash(server, &storage).await;
        let mut back = Client::connect(&server, &Connect::persistent(version, "away")).await;
        assert!(back.session_present());
        for (message, text) in back.take_many(3).await.iter().zip(["1", "2", "3"]) {
            assert_eq!((message.text(), message.dup), (text, false), "it was away: none was sent before");
        }
        // Its subscription works as before.
        let mut publisher = Client::new(&server, version, "p").await;
        publisher.publish_acknowledged("a/c", "live").await;
        assert_eq!(back.take_text().await, "live");
        back.disconnect().await;
        assert_eq!(kinds(&storage.settled()), ["subscription", "session"]);
    }
}

#[tokio::test]
async fn what_was_sent_before_is_sent_again_under_its_identifier_with_dup() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    let mut subscriber = Client::connect(&server, &Connect::persistent(V5, "s").receive_maximum(3)).await;
    subscriber.subscribe("t", 2).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    for (number, qos) in [1, 2, 2, 1, 1].into_iter().enumerate() {
        publisher.publish("t", &number.to_string(), qos, 1 + number as u16).await;
    }
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(subscriber.message().await.id);
    }
    subscriber.acknowledge(PUBREC, ids[1]).await;
    subscriber.acknowledged(PUBREL, ids[1]).await;
    for (ack, id) in [(PUBACK, 1), (PUBREC, 2), (PUBREC, 3), (PUBACK, 4), (PUBACK, 5)] {
        publisher.acknowledged(ack, id).await;
    }
    let (server, storage) = crash(server, &storage).await;
    let mut back = Client::connect(&server, &Connect::persistent(V5, "s")).await;
    // PUBREC had come for it: the message is never sent again.
    assert_eq!(back.acknowledged(PUBREL, ids[1]).await, 0);
    for (text, id) in [("0", ids[0]), ("2", ids[2])] {
        let message = back.message().await;
        assert_eq!((message.text(), message.id, message.dup), (text, id, true));
    }
    // How far the window went is not known: these may have been sent.
    for text in ["3", "4"] {
        assert_eq!(back.message().await.text(), text);
    }
    back.acknowledge(PUBCOMP, ids[1]).await;
    back.acknowledge(PUBACK, ids[0]).await;
    back.acknowledge(PUBREC, ids[2]).await;
    back.acknowledged(PUBREL, ids[2]).await;
    back.acknowledge(PUBCOMP, ids[2]).await;
    back.ping().await;
    assert_eq!(kinds(&storage.settled()).iter().filter(|kind| **kind == "delivery").count(), 2);
}

#[tokio::test]
async fn a_qos_2_message_is_delivered_once_at_whatever_step_the_broker_crashes() {
    for step in 0..4 {
        let storage = FakeStorage::default();
        let server = start(&storage).await;
        sleeper(&server, V5, "away", "t", 2).await;
        let session = Connect::persistent(V5, "p");
        let mut publisher = Client::connect(&server, &session).await;
        if step == 0 {
            storage.hold(); // it never becomes durable
        }
        publisher.publish("t", "once", 2, 9).await;
        if step > 0 {
            publisher.acknowledged(PUBREC, 9).await;
        } else {
            publisher.ping().await;
        }
        if step == 2 {
            storage.hold();
        }
        if step >= 2 {
            publisher.acknowledge(PUBREL, 9).await;
        }
        if step == 3 {
            publisher.acknowledged(PUBCOMP, 9).await;
        } else {
            publisher.ping().await;
        }
        let (server, _storage) = crash(server, &storage).await;
        let mut publisher = Client::connect(&server, &session).await;
        assert!(publisher.session_present());
        if step < 2 {
            let again = publisher.publish_bytes(0x3C, "t", 9, &[], b"once");
            publisher.send(&again).await;
            assert_eq!(publisher.acknowledged(PUBREC, 9).await, 0, "{step}");
        }
        if step < 3 {
            publisher.acknowledge(PUBREL, 9).await;
            assert_eq!(publisher.acknowledged(PUBCOMP, 9).await, 0, "{step}");
        }
        // The identifier is free for another message.
        publisher.publish("t", "next", 2, 9).await;
        assert_eq!(publisher.acknowledged(PUBREC, 9).await, 0);
        let mut back = Client::connect(&server, &Connect::persistent(V5, "away")).await;
        let messages = back.take_many(2).await;
        assert_eq!(messages.iter().map(Publish::text).collect::<Vec<_>>(), ["once", "next"], "{step}");
        back.ping().await;
    }
}

#[tokio::test]
async fn retained_messages_are_there_again_as_they_were_last() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    for (topic, payload, qos) in [
        ("a", "1", 1),
        ("a", "2", 0),
        ("b", "1", 1),
        ("b", "", 1),
        ("c", "1", 0),
        ("c", "", 0),
        ("d", "1", 1),
    ] {
        publisher.retain(topic, payload, qos).await;
    }
    let own = Message { retain: true, ..Message::new("own", "application", QoS::AtLeastOnce) };
    server.broker.publish(&own, None);
    assert_eq!(kinds(&storage.settled()), ["retained", "retained"]);
    let (server, _storage) = crash(server, &storage).await;
    assert_eq!(server.broker.stats().retained_messages, 2);
    let mut subscriber = Client::new(&server, V5, "s").await;
    subscriber.subscribe("#", 1).await;
    for (topic, text, qos) in [("a", "2", 0), ("d", "1", 1)] {
        let message = subscriber.take().await;
        assert_eq!((&*message.topic, message.text(), message.qos, message.retain), (topic, text, qos, true));
    }
    subscriber.ping().await;
}

#[tokio::test]
async fn a_retained_message_is_acknowledged_when_it_is_durable_and_refused_when_the_storage_is_full() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    for payload in [&b"1"[..], b"2", b""] {
        storage.hold();
        let bytes = publisher.publish_bytes(0x33, "t", 1, &[], payload);
        publisher.send(&bytes).await;
        publisher.ping().await;
        storage.release();
        assert_eq!(publisher.acknowledged(PUBACK, 1).await & 0x80, 0);
    }
    assert!(storage.settled().is_empty());
    storage.set_full(true);
    let bytes = publisher.publish_bytes(0x33, "t", 1, &[], b"3");
    publisher.send(&bytes).await;
    assert_eq!(publisher.acknowledged(PUBACK, 1).await, 0x97);
    assert_eq!(server.broker.stats().retained_messages, 0);
}

#[tokio::test]
async fn what_has_expired_meanwhile_does_not_come_back() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    sleeper(&server, V5, "away", "t", 1).await;
    Client::connect(&server, &Connect::new(V5, "short").expiry(5)).await.disconnect().await;
    let mut publisher = Client::new(&server, V5, "p").await;
    let expiry = |seconds: u32| [&[2][..], &seconds.to_be_bytes()].concat();
    for (payload, seconds, retain) in [("late", 5, 0), ("in time", 500, 0), ("late", 5, 1)] {
        let bytes = publisher.publish_bytes(0x32 | retain, "t", 1, &expiry(seconds), payload.as_bytes());
        publisher.send(&bytes).await;
        publisher.acknowledged(PUBACK, 1).await;
    }
    // Ten seconds pass.
    let passed = Duration::from_secs(10);
    let mut records = storage.settled();
    for (_, record) in &mut records {
        let at = match record {
            Record::Session(SessionRecord { disconnected: Some(Moment([millis, ..])), .. }) => {
                *millis -= passed.as_millis() as u64;
                continue;
            }
            Record::Message(message) => &mut message.expires,
            Record::Retained(retained) => &mut retained.expires,
            _ => continue,
        };
        *at = at.map(|at| at - passed);
    }
    drop(server);
    let left = FakeStorage::with(&records);
    let server = start(&left).await;
    let stats = server.broker.stats();
    assert_eq!((stats.sessions, stats.retained_messages, stats.queued_messages), (1, 0, 1));
    let mut back = Client::connect(&server, &Connect::persistent(V5, "away")).await;
    let message = back.take().await;
    assert_eq!(message.text(), "in time");
    let left_of_it = u32::from_be_bytes(message.properties[1..5].try_into().unwrap());
    assert!((400..=490).contains(&left_of_it), "{left_of_it}");
    back.disconnect().await;
    assert_eq!(kinds(&left.settled()), ["subscription", "session"], "what is over was removed");
}

#[tokio::test]
async fn a_clock_that_was_set_back_lets_nothing_live_longer_than_it_was_to() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    sleeper(&server, V5, "away", "t", 1).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    let bytes = publisher.publish_bytes(0x32, "t", 1, &[2, 0, 0, 0, 100], b"m");
    publisher.send(&bytes).await;
    publisher.acknowledged(PUBACK, 1).await;
    let future = SystemTime::now() + Duration::from_secs(1_000_000);
    let mut records = storage.settled();
    for (_, record) in &mut records {
        match record {
            Record::Session(session) => session.disconnected = Some(Moment([u64::MAX, 0, 0])),
            Record::Message(MessageRecord { expires, .. }) => *expires = Some(future),
            _ => {}
        }
    }
    let server = start(&FakeStorage::with(&records)).await;
    let mut back = Client::connect(&server, &Connect::persistent(V5, "away")).await;
    assert!(back.session_present());
    assert!(u32::from_be_bytes(back.take().await.properties[1..5].try_into().unwrap()) <= 100);
}

#[tokio::test]
async fn the_bounds_hold_across_a_restart() {
    let log = Log::start();
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    for name in ["one", "two", "three"] {
        sleeper(&server, V5, name, name, 1).await;
    }
    let mut publisher = Client::new(&server, V5, "p").await;
    for number in 0..10 {
        assert_eq!(publisher.publish_acknowledged("three", &number.to_string()).await, 0);
    }
    publisher.retain("r/1", "m", 1).await;
    publisher.retain("r/2", "m", 1).await;
    let records = storage.settled();
    drop(server);
    let config = Config {
        session_queue_messages: 4,
        max_sessions_away_per_identity: 2,
        max_retained_messages: 1,
        ..Config::default()
    };
    let left = FakeStorage::with(&records);
    let server = start_with(&left, config.clone(), Arc::new(NoApplication)).await;
    let stats = server.broker.stats();
    // More are away than may be, as after a crash: whoever was connected is, too. That refuses new ones alone.
    assert_eq!((stats.sessions, stats.queued_messages, stats.retained_messages), (3, 4, 1), "{}", log.text());
    assert!(log.text().contains("no_room=6"), "{}", log.text());
    let refused = Client::try_connect(&server, &Connect::persistent(V5, "four")).await;
    assert_eq!(refused.connack[1], 0x97);
    // A queue that is full stays so, and the oldest are kept.
    let mut publisher = Client::new(&server, V5, "p").await;
    assert_eq!(publisher.publish_acknowledged("three", "more").await, 0x97);
    let mut back = Client::connect(&server, &Connect::persistent(V5, "three")).await;
    for number in 0..4 {
        assert_eq!(back.take_text().await, number.to_string());
    }
    back.disconnect().await;
    // What did not fit was removed.
    let kinds = kinds(&left.settled());
    let count = |of: &str| kinds.iter().filter(|kind| **kind == of).count();
    assert_eq!((count("session"), count("message"), count("delivery"), count("retained")), (3, 0, 0, 1));
}

#[tokio::test]
async fn what_was_in_flight_does_not_count_against_the_queue() {
    let storage = FakeStorage::default();
    let config = Config { session_queue_messages: 4, ..Config::default() };
    let server = start_with(&storage, config.clone(), Arc::new(NoApplication)).await;
    let mut subscriber = Client::connect(&server, &Connect::persistent(V5, "s").receive_maximum(4)).await;
    subscriber.subscribe("t", 1).await;
    let mut publisher = Client::new(&server, V5, "p").await;
    for number in 0..4 {
        publisher.publish_acknowledged("t", &number.to_string()).await;
        subscriber.message().await;
    }
    for number in 4..8 {
        assert_eq!(publisher.publish_acknowledged("t", &number.to_string()).await, 0);
    }
    let left = FakeStorage::with(&storage.settled());
    drop(server);
    let server = start_with(&left, config, Arc::new(NoApplication)).await;
    let mut back = Client::connect(&server, &Connect::persistent(V5, "s")).await;
    for number in 0..8 {
        assert_eq!(back.take_text().await, number.to_string());
    }
}

#[tokio::test]
async fn one_identity_leaves_half_of_the_storage_to_others() {
    let storage = FakeStorage::default();
    let config = Config { max_stored_bytes: 40_000, ..Config::default() };
    let server = start_with(&storage, config.clone(), Arc::new(NoApplication)).await;
    for (user, sessions) in [("hoarder", 8), ("other", 1)] {
        for number in 0..sessions {
            let session = Connect::persistent(V5, &format!("{user}-{number}")).user(user);
            let mut client = Client::connect(&server, &session).await;
            client.subscribe(&format!("{user}/{number}"), 1).await;
            client.disconnect().await;
        }
    }
    let mut publisher = Client::new(&server, V5, "p").await;
    let mut kept = 0;
    for at in 0..80 {
        let reason = publisher.publish_acknowledged(&format!("hoarder/{}", at % 8), "m").await;
        kept += usize::from(reason == 0);
    }
    assert!((20..40).contains(&kept), "{kept}");
    assert_eq!(publisher.publish_acknowledged("other/0", "m").await, 0);
    // After a restart, too.
    let left = FakeStorage::with(&storage.settled());
    drop(server);
    let server = start_with(&left, config, Arc::new(NoApplication)).await;
    assert_eq!(server.broker.stats().queued_messages, kept + 1);
    let mut publisher = Client::new(&server, V5, "p").await;
    assert_eq!(publisher.publish_acknowledged("hoarder/0", "m").await, 0x97);
    assert_eq!(publisher.publish_acknowledged("other/0", "m").await, 0);
    // What is fetched makes room.
    for number in 0..8 {
        let session = Connect::persistent(V5, &format!("hoarder-{number}")).user("hoarder");
        let mut client = Client::connect(&server, &session).await;
        client.advance(2).await;
        client.ping().await;
        client.disconnect().await;
    }
    assert_eq!(publisher.publish_acknowledged("hoarder/0", "m").await, 0);
}

/// Lets in and permits what it is told to.
#[derive(Default)]
struct Rules {
    dismissed: Mutex<Vec<&'static str>>,
    forbidden: Mutex<Vec<&'static str>>,
}

impl Application for Rules {
    fn keeps_session(&self, client: &ClientInfo) -> bool {
        !self.dismissed.lock().unwrap().contains(&&*client.client_id)
    }

    fn may_subscribe(&self, _client: &ClientInfo, filter: &str) -> bool {
        !self.forbidden.lock().unwrap().contains(&filter)
    }
}

#[tokio::test]
async fn rules_that_have_changed_meanwhile_apply() {
    let storage = FakeStorage::default();
    let server = start(&storage).await;
    sleeper(&server, V5, "dismissed", "t", 1).await;
    let mut client = Client::connect(&server, &Connect::persistent(V5, "s")).await;
    for filter in ["t", "secret/#", "secret/shared"] {
        client.subscribe(filter, 1).await;
    }
    client.disconnect().await;
    let mut publisher = Client::new(&server, V5, "p").await;
    for topic in ["t", "secret/own", "secret/shared"] {
        assert_eq!(publisher.publish_acknowledged(topic, topic).await, 0);
    }
    let rules = Rules::default();
    rules.dismissed.lock().unwrap().push("dismissed");
    rules.forbidden.lock().unwrap().push("secret/#");
    let left = FakeStorage::with(&storage.settled());
    let server = start_with(&left, Config::default(), Arc::new(rules)).await;
    assert!(!Client::connect(&server, &Connect::persistent(V5, "dismissed")).await.session_present());
    let mut back = Client::connect(&server, &Connect::persistent(V5, "s")).await;
    for topic in ["t", "secret/shared"] {
        assert_eq!(back.take_text().await, topic);
    }
    let mut publisher = Client::new(&server, V5, "p").await;
    assert_eq!(publisher.publish_acknowledged("secret/own", "m").await, 0x10);
    back.ping().await;
}

/// Takes what is published to `request`, and has the publisher's client.
struct Taker(tokio::sync::mpsc::UnboundedSender<Received>);

impl Application for Taker {
    fn route(&self, _client: &ClientInfo, topic: &str) -> Route {
        if topic == "request" { Route::Application(0) } else { Route::Broker }
    }

    fn publish(&self, _broker: &Broker, message: Received) {
        self.0.send(message).unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_the_storage_has_no_room_for_waits_in_memory_and_that_is_told() {
    for qos in [1, 2] {
        for (is_connected, max_stored_bytes) in
            [(true, usize::MAX), (false, usize::MAX), (true, 0), (false, 0)]
        {
            let log = Log::start();
            let storage = FakeStorage::default();
            let (requests, mut taken) = tokio::sync::mpsc::unbounded_channel();
            let config = Config { max_stored_bytes, ..Config::default() };
            let server = start_with(&storage, config, Arc::new(Taker(requests))).await;
            let mut client = Client::connect(&server, &Connect::persistent(V5, "s")).await;
            client.subscribe("result", qos).await;
            client.publish("request", "m", 0, 0).await;
            let request = taken.recv().await.unwrap();
            if !is_connected {
                client.disconnect().await;
            }
            storage.settled();
            storage.set_full(max_stored_bytes > 0);
            let answer = Message::new("result", "answer", QoS::ExactlyOnce);
            assert_eq!(server.broker.publish_to(&request.client, &answer, None, None), Placed::Unstored);
            let published = server.broker.publish_for(request.client.account(), &answer, None, None);
            assert_eq!(published, Published { reached: 1, unstored: 1 });
            assert!(log.text().contains("in memory alone"), "{}", log.text());
            storage.set_full(false);
            let third = Message::new("result", "third", QoS::AtLeastOnce);
            server.broker.publish_to(&request.client, &third, None, None);
            let mut client = Client::connect(&server, &Connect::persistent(V5, "s")).await;
            let messages = client.take_many(3).await;
            assert_eq!(messages.iter().map(Publish::text).collect::<Vec<_>>(), ["answer", "answer", "third"]);
            client.ping().await;
            assert_eq!(kinds(&storage.settled()), ["subscription", "session"]);
            assert_eq!(server.broker.stats().queued_messages, 0);
        }
    }
}

#[tokio::test]
async fn a_long_answer_that_finds_no_room_when_its_turn_comes_waits_in_memory() {
    let storage = FakeStorage::default();
    let (requests, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let server = start_with(&storage, Config::default(), Arc::new(Taker(requests))).await;
    let mut client = Client::connect(&server, &Connect::persistent(V5, "s")).await;
    client.subscribe("result", 2).await;
    client.publish("request", "m", 0, 0).await;
    let request = taken.recv().await.unwrap();
    client.disconnect().await;
    storage.set_disk_full(true);
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let answer = Message::new("result", long("answer"), qos);
        assert_eq!(server.broker.publish_to(&request.client, &answer, None, None), Placed::Queued);
    }
    storage.settled();
    let mut client = Client::connect(&server, &Connect::persistent(V5, "s")).await;
    let messages = client.take_many(2).await;
    assert!(messages.iter().all(|message| message.text().starts_with("answer")));
    client.ping().await;
    assert_eq!(kinds(&storage.settled()), ["subscription", "session"]);
}

#[tokio::test]
async fn an_answer_is_stored_by_the_call_that_publishes_it() {
    let storage = FakeStorage::default();
    let (requests, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let server = start_with(&storage, Config::default(), Arc::new(Taker(requests))).await;
    let mut client = Client::connect(&server, &Connect::persistent(V5, "s")).await;
    client.subscribe("result", 1).await;
    client.publish("request", "m", 2, 3).await;
    let request = taken.recv().await.unwrap();
    // What the application takes is remembered when the application has it, so that it never takes it twice.
    assert_eq!(kinds(&storage.settled()), ["session", "subscription"]);
    request.ack.complete();
    client.acknowledged(PUBREC, 3).await;
    assert_eq!(kinds(&storage.durable()), ["session", "subscription", "received"]);
    drop(client);
    server.until("it is gone", |stats| stats.clients == 0).await;
    let before = storage.batches();
    let answer = Message::new("result", "answer", QoS::AtLeastOnce);
    assert_eq!(server.broker.publish_to(&request.client, &answer, None, None), Placed::Queued);
    assert_eq!(server.broker.publish_for(request.client.account(), &answer, None, None).reached, 1);
    assert_eq!(storage.batches(), before + 2);
    storage.settled();
    let (server, _storage) = crash(server, &storage).await;
    let mut back = Client::connect(&server, &Connect::persistent(V5, "s")).await;
    for _ in 0..2 {
        assert_eq!(back.take_text().await, "answer");
    }
    // The application gets it once: its identifier is known.
    let again = back.publish_bytes(0x3C, "request", 3, &[], b"m");
    back.send(&again).await;
    back.acknowledged(PUBREC, 3).await;
}
