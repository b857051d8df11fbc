//! A client library of others, in both versions, with many messages in flight.

use std::{collections::HashSet, sync::Arc, time::Duration};

use offload_broker::{Application, Broker, ClientInfo, Config, Message, QoS, Received, Route};
use tokio::time::timeout;

use crate::server::{DEADLINE, Server};

/// Answers each message on `ask/…` with the same payload on `answer/…`, from a thread of its own.
struct Echo(std::sync::mpsc::Sender<Received>);

impl Application for Echo {
    fn route(&self, _client: &ClientInfo, topic: &str) -> Route {
        if topic.starts_with("ask/") { Route::Application(0) } else { Route::Broker }
    }

    fn publish(&self, _broker: &Broker, message: Received) {
        self.0.send(message).unwrap();
    }
}

async fn echo() -> Server {
    let (sender, receiver) = std::sync::mpsc::channel::<Received>();
    let server = Server::with(Config::default(), Arc::new(Echo(sender))).await;
    let broker: Broker = server.broker.clone();
    std::thread::spawn(move || {
        for received in receiver {
            let topic = received.topic.replace("ask/", "answer/");
            let message = Message::new(topic, received.payload, QoS::AtLeastOnce);
            received.ack.complete();
            broker.publish(&message, None);
        }
    });
    server
}

const CLIENTS: usize = 25;
const MESSAGES: usize = 60;

fn payload(at: usize) -> Vec<u8> {
    at.to_be_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rumqttc_3_1_1_gets_every_answer_of_many_in_flight() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
    let server = echo().await;
    let port = server.address.port();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        tasks.spawn(async move {
            let mut options = MqttOptions::new(format!("c{number}"), "127.0.0.1", port);
            options.set_keep_alive(Duration::from_secs(60));
            let (client, mut events) = AsyncClient::new(options, 2 * MESSAGES);
            client.subscribe(format!("answer/{number}"), QoS::AtLeastOnce).await.unwrap();
            let mut answers = HashSet::new();
            while answers.len() < MESSAGES {
                match events.poll().await.unwrap() {
                    Event::Incoming(Packet::SubAck(_)) => {
                        for at in 0..MESSAGES {
                            client
                                .publish(format!("ask/{number}"), QoS::AtLeastOnce, false, payload(at))
                                .await
                                .unwrap();
                        }
                    }
                    Event::Incoming(Packet::Publish(answer)) => {
                        assert!(answers.insert(answer.payload));
                    }
                    _ => {}
                }
            }
        });
    }
    timeout(DEADLINE, tasks.join_all()).await.expect("answers are missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rumqttc_5_gets_every_answer_of_many_in_flight() {
    use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions, mqttbytes::QoS};
    let server = echo().await;
    let port = server.address.port();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        tasks.spawn(async move {
            let mut options = MqttOptions::new(format!("c{number}"), "127.0.0.1", port);
            options.set_keep_alive(Duration::from_secs(60));
            let (client, mut events) = AsyncClient::new(options, 2 * MESSAGES);
            client.subscribe(format!("answer/{number}"), QoS::AtLeastOnce).await.unwrap();
            let mut answers = HashSet::new();
            while answers.len() < MESSAGES {
                match events.poll().await.unwrap() {
                    Event::Incoming(Incoming::SubAck(_)) => {
                        for at in 0..MESSAGES {
                            client
                                .publish(format!("ask/{number}"), QoS::AtLeastOnce, false, payload(at))
                                .await
                                .unwrap();
                        }
                    }
                    Event::Incoming(Incoming::Publish(answer)) => {
                        assert!(answers.insert(answer.payload));
                    }
                    _ => {}
                }
            }
        });
    }
    timeout(DEADLINE, tasks.join_all()).await.expect("answers are missing");
}
