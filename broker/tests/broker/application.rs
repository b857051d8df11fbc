//! An application in the broker's process.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use bytes::Bytes;
use offload_broker::{
    Application, Broker, ClientInfo, Config, Message, Placed, Properties, QoS, Reason, Received, Route,
    Version::{V5, V311},
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};

use crate::{
    client::{BOTH, Client, Connect, Will, string},
    server::{DEADLINE, Server},
};

/// Claims `claimed/…`, refuses `refused/…`, and hands over what it gets.
struct Claims(UnboundedSender<Received>);

impl Application for Claims {
    fn route(&self, _client: &ClientInfo, topic: &str) -> Route {
        match topic.split('/').next() {
            Some("claimed") => Route::Application(0),
            Some("refused") => Route::Refuse,
            _ => Route::Broker,
        }
    }

    fn publish(&self, _broker: &Broker, message: Received) {
        self.0.send(message).unwrap();
    }
}

struct Requests(UnboundedReceiver<Received>);

impl Requests {
    async fn next(&mut self) -> Received {
        timeout(DEADLINE, self.0.recv()).await.expect("nothing was received").unwrap()
    }

    fn none_left(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

async fn start(config: Config) -> (Server, Requests) {
    let (sender, receiver) = unbounded_channel();
    (Server::with(config, Arc::new(Claims(sender))).await, Requests(receiver))
}

#[tokio::test]
async fn claimed_messages_go_to_the_application_alone() {
    let (server, mut requests) = start(Config::default()).await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        client.subscribe("#", 0).await;
        for qos in 0..=2 {
            let bytes = client.publish_bytes(0x31 | qos << 1, "claimed/", 3, &[], b"5 7");
            client.send(&bytes).await;
            let received = requests.next().await;
            assert_eq!((&*received.topic, &received.payload[..]), ("claimed/", &b"5 7"[..]));
            assert_eq!((received.qos as u8, received.retain, received.dup), (qos, true, false));
            assert_eq!((&*received.client.client_id, received.client.version), ("c", version));
            received.ack.complete();
            match qos {
                0 => {}
                1 => assert_eq!(client.acknowledged(0x40, 3).await, 0),
                _ => {
                    assert_eq!(client.acknowledged(0x50, 3).await, 0);
                    client.acknowledge(0x62, 3).await;
                    assert_eq!(client.acknowledged(0x70, 3).await, 0);
                }
            }
        }
        client.publish("other", "x", 0, 0).await;
        assert_eq!(client.take().await.topic, "other");
        assert_eq!(server.broker.stats().retained_messages, 0);
    }
    assert!(requests.none_left());
}

#[tokio::test]
async fn properties_reach_the_application() {
    let (server, mut requests) = start(Config::default()).await;
    let mut client = Client::new(&server, V5, "c").await;
    let properties =
        [&[8][..], &string("result/c"), &[9], &string([1, 2]), &[38], &string("arg"), &string("-v")].concat();
    let bytes = client.publish_bytes(0x30, "claimed/c", 0, &properties, b"");
    client.send(&bytes).await;
    let expected = Properties {
        response_topic: Some("result/c".into()),
        correlation_data: Some(Bytes::from_static(&[1, 2])),
        user_properties: [("arg", "-v")].into_iter().collect(),
        ..Properties::default()
    };
    assert_eq!(requests.next().await.properties.as_deref(), Some(&expected));
}

#[tokio::test]
async fn refused_topics_are_refused_as_the_version_can_say() {
    let (server, mut requests) = start(Config::default()).await;
    let mut v5 = Client::new(&server, V5, "a").await;
    v5.subscribe("#", 0).await;
    assert_eq!(v5.publish_acknowledged("refused/x", "x").await, 0x87);
    v5.publish("refused/x", "x", 2, 1).await;
    assert_eq!(v5.acknowledged(0x50, 1).await, 0x87);
    v5.publish("refused/x", "x", 0, 0).await;
    let mut v311 = Client::new(&server, V311, "b").await;
    assert_eq!(v311.publish_acknowledged("refused/x", "x").await, 0);
    v311.publish("refused/x", "x", 2, 1).await;
    assert_eq!(v311.acknowledged(0x50, 1).await, 0);
    v311.acknowledge(0x62, 1).await;
    v311.acknowledged(0x70, 1).await;
    v311.publish("fine", "x", 0, 0).await;
    assert_eq!(v5.take().await.topic, "fine");
    assert_eq!(server.broker.stats().dropped.refused, 5);
    assert!(requests.none_left());
}

#[tokio::test]
async fn acknowledgements_keep_the_order_whenever_they_are_completed() {
    let (server, mut requests) = start(Config::default()).await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        let mut acks = Vec::new();
        for id in 1..=3 {
            client.publish("claimed/c", "x", 1, id).await;
            acks.push(requests.next().await.ack);
        }
        client.publish("free", "x", 1, 4).await;
        // From other threads, the last first.
        for ack in acks.into_iter().rev() {
            client.ping().await;
            std::thread::spawn(move || ack.complete()).join().unwrap();
        }
        for id in 1..=4 {
            assert!(client.acknowledged(0x40, id).await < 0x80);
        }
    }
}

#[tokio::test]
async fn the_application_may_refuse() {
    let (server, mut requests) = start(Config::default()).await;
    for (version, busy) in [(V5, 0x97), (V311, 0)] {
        let mut client = Client::new(&server, version, "c").await;
        for (qos, first) in [(1, 0x40), (2, 0x50)] {
            client.publish("claimed/c", "x", qos, 1).await;
            requests.next().await.ack.refuse(Reason::QuotaExceeded);
            assert_eq!(client.acknowledged(first, 1).await, busy);
        }
    }
}

#[tokio::test]
async fn a_qos_2_message_is_received_once_however_often_it_is_sent() {
    let (server, mut requests) = start(Config::default()).await;
    for version in BOTH {
        let session = Connect::persistent(version, "c");
        let mut client = Client::connect(&server, &session).await;
        client.publish("claimed/c", "x", 2, 1).await;
        let ack = requests.next().await.ack;
        drop(client);
        let mut client = Client::connect(&server, &session).await;
        let again = client.publish_bytes(0x3C, "claimed/c", 1, &[], b"x");
        client.send(&again).await;
        client.ping().await;
        ack.complete();
        assert_eq!(client.acknowledged(0x50, 1).await, 0);
        client.send(&again).await;
        assert_eq!(client.acknowledged(0x50, 1).await, 0);
        assert!(requests.none_left());
        Client::new(&server, version, "c").await;
    }
}

#[tokio::test]
async fn an_acknowledgement_for_a_connection_that_is_gone_is_without_effect() {
    let (server, mut requests) = start(Config::default()).await;
    for version in BOTH {
        let session = Connect::persistent(version, "c");
        let mut client = Client::connect(&server, &session).await;
        client.publish("claimed/c", "x", 1, 1).await;
        let old = requests.next().await.ack;
        drop(client);
        let mut client = Client::connect(&server, &session).await;
        old.complete();
        client.ping().await;
        Client::new(&server, version, "c").await;
    }
}

#[tokio::test]
async fn a_v311_client_is_read_no_further_than_the_application_acknowledges() {
    let (server, mut requests) = start(Config { receive_maximum: 4, ..Config::default() }).await;
    let mut client = Client::new(&server, V311, "c").await;
    for id in 1..=100 {
        client.publish("claimed/c", "x", 1, id).await;
    }
    let mut acks = Vec::new();
    for _ in 0..5 {
        acks.push(requests.next().await.ack);
    }
    assert_eq!(server.broker.stats().messages_received, 5);
    let mut acknowledged = 0;
    while acknowledged < 100 {
        match acks.pop() {
            Some(ack) => {
                ack.complete();
                acknowledged += 1;
            }
            None => acks.push(requests.next().await.ack),
        }
    }
    for id in 1..=100 {
        assert_eq!(client.acknowledged(0x40, id).await, 0);
    }
}

#[tokio::test]
async fn answers_reach_the_asking_connection_alone() {
    let (server, mut requests) = start(Config::default()).await;
    for version in BOTH {
        let (mut one, mut other) =
            (Client::new(&server, version, "").await, Client::new(&server, version, "").await);
        for client in [&mut one, &mut other] {
            client.subscribe("result/", 1).await;
        }
        for (client, answer) in [(&mut one, "first"), (&mut other, "second")] {
            client.publish("claimed/", "x", 0, 0).await;
            let asker = requests.next().await.client;
            assert!(asker.assigned);
            let message = Message::new("result/", answer, QoS::AtLeastOnce);
            let broker = server.broker.clone();
            let handed =
                std::thread::spawn(move || broker.publish_to(&asker, &message, None, None)).join().unwrap();
            assert_eq!(handed, Placed::Queued);
            assert_eq!(client.take_text().await, answer);
        }
        one.publish("claimed/", "x", 0, 0).await;
        let asker = requests.next().await.client;
        let message = |topic: &str| Message::new(topic, "x", QoS::AtLeastOnce);
        let publish_to = |topic| server.broker.publish_to(&asker, &message(topic), None, None);
        assert!(server.broker.is_subscribed(&asker, "result/"));
        assert!(!server.broker.is_subscribed(&asker, "result/other"));
        assert_eq!(publish_to("result/other"), Placed::NoSubscription);
        let before = server.broker.stats().dropped.gone;
        drop(one);
        server.until("the session is gone", |stats| stats.sessions == 1).await;
        assert_eq!(publish_to("result/"), Placed::NoSession);
        assert!(!server.broker.is_subscribed(&asker, "result/"));
        assert_eq!(server.broker.stats().dropped.gone, before + 1);
    }
}

#[tokio::test]
async fn whoever_causes_a_message_hears_that_all_receivers_have_acknowledged_it() {
    let (server, mut requests) = start(Config::default()).await;
    for version in BOTH {
        for qos in [1, 2] {
            let (mut one, mut other) =
                (Client::new(&server, version, "one").await, Client::new(&server, version, "other").await);
            one.subscribe("result/one", qos).await;
            other.subscribe("result/+", qos).await;
            one.publish("claimed/one", "x", 0, 0).await;
            let asker = requests.next().await.client;
            let (acknowledged, mut told) = tokio::sync::mpsc::unbounded_channel();
            let publish = |answer: &str| {
                let (acknowledged, text) = (acknowledged.clone(), answer.to_owned());
                // It may call the broker, as one that acknowledges a request does.
                let broker = server.broker.clone();
                let on_acknowledged = Box::new(move || {
                    broker.publish(&Message::new("told", "x", QoS::AtLeastOnce), None);
                    acknowledged.send(text).unwrap();
                });
                let message = Message::new("result/one", answer.to_owned(), QoS::ExactlyOnce);
                server.broker.publish_for(asker.account(), &message, None, Some(on_acknowledged)).reached
            };
            assert_eq!(publish("of both"), 2);
            assert_eq!(one.take_text().await, "of both");
            one.ping().await;
            assert!(told.try_recv().is_err(), "the other one has not acknowledged");
            assert_eq!(other.take_text().await, "of both");
            assert_eq!(told.recv().await.unwrap(), "of both");

            // One that is gone, and one that never acknowledges.
            assert_eq!(publish("of one that goes"), 2);
            drop(other);
            server.until("the other one is gone", |stats| stats.sessions == 1).await;
            assert_eq!(one.take_text().await, "of one that goes");
            one.subscribe("result/one", 0).await;
            assert_eq!(publish("at QoS 0"), 1);
            assert_eq!(one.take_text().await, "at QoS 0");
            one.unsubscribe(&["result/one"]).await;
            assert_eq!(publish("for nobody"), 0);
            one.subscribe("result/one", 1).await;
            assert_eq!(publish("the last"), 1);
            assert_eq!(one.take_text().await, "the last");
            assert_eq!(told.recv().await.unwrap(), "the last");
            one.disconnect().await;
            server.until("all are gone", |stats| stats.sessions == 0).await;
        }
    }
}

#[tokio::test]
async fn a_message_that_is_not_safe_is_not_acknowledged() {
    let (server, mut requests) = start(Config::default()).await;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        for (first, qos, id) in [(0x40, 1, 1), (0x50, 2, 2)] {
            client.publish("claimed/", "lost", qos, id).await;
            client.publish("claimed/", "safe", qos, id + 10).await;
            let (lost, safe) = (requests.next().await, requests.next().await);
            assert!(lost.ack.is_owed());
            drop(lost.ack);
            safe.ack.complete();
            if version == V5 {
                assert_eq!(client.acknowledged(first, id).await, 0x80);
            }
            assert_eq!(client.acknowledged(first, id + 10).await, 0);
        }
        drop(client);
        server.until("it is gone", |stats| stats.sessions == 0).await;
    }
}

#[tokio::test]
async fn an_answer_that_a_full_queue_does_not_take_is_dropped_and_counted() {
    let (server, mut requests) = start(Config { session_queue_messages: 1, ..Config::default() }).await;
    let mut client = Client::connect(&server, &Connect::new(V5, "c").receive_maximum(1)).await;
    client.subscribe("result/", 1).await;
    client.publish("claimed/", "x", 0, 0).await;
    let asker = requests.next().await.client;
    let answer = Message::new("result/", "x", QoS::AtLeastOnce);
    let mut other = Client::new(&server, V5, "other").await;
    other.subscribe("result/", 1).await;
    assert_eq!(server.broker.publish_to(&asker, &answer, None, None), Placed::Queued);
    client.message().await; // it is in flight, and never acknowledged
    assert_eq!(server.broker.publish_to(&asker, &answer, None, None), Placed::Queued);
    assert_eq!(server.broker.publish_to(&asker, &answer, None, None), Placed::Dropped);
    assert_eq!(server.broker.stats().dropped.queue_full, 1);
    other.ping().await;
}

#[tokio::test]
async fn an_answer_goes_to_a_bounded_number_of_sessions_of_each_identity() {
    let config = Config { max_receivers_per_identity: 10, ..Config::default() };
    let (server, mut requests) = start(config).await;
    let mut asker = Client::new(&server, V5, "asker").await;
    asker.publish("claimed/", "x", 0, 0).await;
    let asker = requests.next().await.client;
    let mut watchers = Vec::new();
    for at in 0..30 {
        let user = if at < 25 { "many" } else { "few" };
        let connect = Connect::new(V5, &format!("w{at}")).user(user);
        let mut watcher = Client::connect(&server, &connect).await;
        // In overlapping ways, too.
        watcher.subscribe_all(&[("result/x", 1), ("result/#", 0), ("+/x", 0)], &[]).await;
        watchers.push(watcher);
    }
    let answer = Message::new("result/x", "x", QoS::AtLeastOnce);
    assert_eq!(server.broker.publish_for(asker.account(), &answer, None, None).reached, 15);
    assert_eq!(server.broker.stats().dropped.too_many_receivers, 15);
    // What the application says of itself goes to all.
    assert_eq!(server.broker.publish(&Message::new("result/x", "to all", QoS::AtLeastOnce), None), 30);
    for (at, watcher) in watchers.iter_mut().enumerate() {
        let expected: &[&str] = if !(10..25).contains(&at) { &["x", "to all"] } else { &["to all"] };
        for text in expected {
            assert_eq!(watcher.take_text().await, *text, "{at}");
        }
        watcher.ping().await;
    }
}

#[tokio::test]
async fn the_application_publishes_to_every_subscriber() {
    let (server, _requests) = start(Config::default()).await;
    let mut v5 = Client::new(&server, V5, "a").await;
    let mut v311 = Client::new(&server, V311, "b").await;
    v5.subscribe("refused/+", 1).await; // refused to clients, not to the application
    v311.subscribe("refused/#", 0).await;
    let mut message = Message::new("refused/status", "online", QoS::AtLeastOnce);
    message.retain = true;
    assert_eq!(server.broker.publish(&message, None), 2);
    assert_eq!(v5.take().await.qos, 1);
    assert_eq!(v311.take().await.qos, 0);
    v311.subscribe("refused/#", 1).await;
    assert!(v311.take().await.retain);
    for topic in ["", "a/+", "a\0b"] {
        assert_eq!(server.broker.publish(&Message::new(topic, "x", QoS::AtMostOnce), None), 0);
    }
}

#[tokio::test]
async fn an_answer_too_large_for_its_receiver_is_replaced() {
    let (server, mut requests) = start(Config::default()).await;
    let mut client = Client::connect(&server, &Connect::new(V5, "c").max_packet_size(50)).await;
    client.subscribe("result/c", 1).await;
    client.publish("claimed/c", "x", 0, 0).await;
    let asker = requests.next().await.client;
    let large = Message::new("result/c", "x".repeat(100), QoS::AtLeastOnce);
    let replace = |limit: usize, size: &dyn Fn(&Message) -> usize| {
        assert_eq!(limit, 50);
        let fits = |len: usize| Message::new("result/c", "x".repeat(len), QoS::AtLeastOnce);
        (0..100).map(fits).take_while(|message| size(message) <= limit).last()
    };
    assert_eq!(server.broker.publish_to(&asker, &large, Some(&replace), None), Placed::Queued);
    assert_eq!(server.broker.publish(&large, Some(&replace)), 1);
    for _ in 0..2 {
        assert_eq!(client.take().await.payload.len(), 50 - 2 - 10 - 2 - 1);
    }
    assert_eq!(server.broker.publish_to(&asker, &large, None, None), Placed::Dropped);
    assert_eq!(server.broker.publish(&large, Some(&|_, _| None)), 0);
    assert_eq!(server.broker.stats().dropped.oversize, 2);
}

#[tokio::test]
async fn a_will_goes_to_the_application_too() {
    let (server, mut requests) = start(Config::default()).await;
    for version in BOTH {
        let connect = Connect::new(version, "c").will(Will::new("claimed/c"));
        drop(Client::connect(&server, &connect).await);
        let received = requests.next().await;
        assert_eq!((&*received.client.client_id, &received.payload[..]), ("c", &b"gone"[..]));
        received.ack.complete();
        let connect = Connect::new(version, "c").will(Will::new("refused/c"));
        let refused = Client::try_connect(&server, &connect).await;
        assert_eq!(refused.connack[1], if version == V5 { 0x87 } else { 5 });
    }
}

/// Numbers the topics that it is asked about, and answers each message that it has claimed with its topic's number.
#[derive(Default)]
struct Numbers(AtomicU32);

impl Application for Numbers {
    fn route(&self, _client: &ClientInfo, topic: &str) -> Route {
        let number = self.0.fetch_add(1, Relaxed) + 1;
        match topic {
            "claimed" => Route::Application(number),
            "refused" => Route::Refuse,
            _ => Route::Broker,
        }
    }

    fn publish(&self, broker: &Broker, message: Received) {
        let answer = Message::new("answer", message.claim.to_string(), QoS::AtMostOnce);
        assert_eq!(broker.publish_to(&message.client, &answer, None, None), Placed::Queued);
        message.ack.complete();
    }
}

#[tokio::test]
async fn the_application_is_asked_once_for_a_topic_and_may_answer_through_the_broker_that_it_is_given() {
    let numbers = Arc::new(Numbers::default());
    let server = Server::with(Config::default(), numbers.clone()).await;
    let mut asked = 0;
    for version in BOTH {
        let mut client = Client::new(&server, version, "c").await;
        client.subscribe("answer", 0).await;
        // The topic of a large one comes long before all of its payload.
        for payload in ["x".to_owned(), "x".repeat(200_000)] {
            for topic in ["claimed", "refused", "other"] {
                client.publish(topic, &payload, 1, 1).await;
                client.acknowledged(0x40, 1).await;
                asked += 1;
                assert_eq!(numbers.0.load(Relaxed), asked, "{topic}, {} bytes", payload.len());
                if topic == "claimed" {
                    assert_eq!(client.take_text().await, asked.to_string());
                }
            }
        }
    }
}

/// Panics on every message, as no application should.
struct Faulty;

impl Application for Faulty {
    fn route(&self, _client: &ClientInfo, topic: &str) -> Route {
        if topic == "faulty" { Route::Application(0) } else { Route::Broker }
    }

    fn publish(&self, _broker: &Broker, _message: Received) {
        panic!("this application is at fault");
    }
}

#[tokio::test]
async fn an_application_that_panics_costs_one_connection() {
    let server = Server::with(Config::default(), Arc::new(Faulty)).await;
    let mut watcher = Client::new(&server, V5, "watcher").await;
    watcher.subscribe("will", 0).await;
    let mut client = Client::connect(&server, &Connect::new(V5, "c").will(Will::new("will"))).await;
    client.publish("faulty", "x", 1, 1).await;
    client.expect_end().await;
    assert_eq!(watcher.take().await.topic, "will");
    server.until("its permit is given back", |stats| stats.connections == 1 && stats.sessions == 1).await;
}
