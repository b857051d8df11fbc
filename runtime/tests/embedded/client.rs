//! A client of the embedded broker, which takes packets one at a time: what comes in which order can be told.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use tokio::time::timeout;

/// The longest that a packet may take: reached only when a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Packets that wait for the event loop.
const REQUESTS: usize = 64;

pub struct Client {
    client: AsyncClient,
    events: EventLoop,
}

impl Client {
    pub async fn connect(address: SocketAddr, id: &str) -> Client {
        let options = MqttOptions::new(id, address.ip().to_string(), address.port());
        let (client, events) = AsyncClient::new(options, REQUESTS);
        let mut client = Client { client, events };
        assert!(matches!(client.packet().await, Packet::ConnAck(_)));
        client
    }

    /// Subscribes; nothing else may come before that is confirmed.
    pub async fn subscribe(&mut self, filter: &str) {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        let packet = self.packet().await;
        assert!(matches!(packet, Packet::SubAck(_)), "{packet:?}");
    }

    /// Publishes at QoS 1, as soon as packets are taken again.
    pub async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
    }

    /// The next packet from the broker.
    pub async fn packet(&mut self) -> Packet {
        loop {
            if let Event::Incoming(packet) = timeout(PATIENCE, self.events.poll()).await.unwrap().unwrap() {
                return packet;
            }
        }
    }

    /// Sends what was published, and returns when it is acknowledged and this many messages have come, with their
    /// texts.
    pub async fn messages(&mut self, mut acknowledged: usize, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while acknowledged > 0 || texts.len() < count {
            match self.packet().await {
                Packet::PubAck(_) => acknowledged -= 1,
                Packet::Publish(publish) => {
                    texts.push(String::from_utf8_lossy(&publish.payload).into_owned())
                }
                packet => panic!("{packet:?}"),
            }
        }
        texts
    }

    /// Sends what was published, until `done`.
    pub async fn send_until(&mut self, done: impl Future<Output = ()>) {
        tokio::pin!(done);
        loop {
            tokio::select! {
                () = &mut done => return,
                event = self.events.poll() => drop(event.unwrap()),
            }
        }
    }
}
