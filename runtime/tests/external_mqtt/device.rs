//! A device: publishes requests, collects answers, and survives a broker that restarts.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::PATIENCE;

/// Packets that wait for the event loop.
const REQUESTS: usize = 64;

pub struct Device {
    client: AsyncClient,
    /// Acknowledgements of what was published, and subscribed.
    acknowledged: UnboundedReceiver<()>,
    answers: UnboundedReceiver<String>,
    event_loop: AbortHandle,
}

impl Device {
    /// Waits for the answers to `id`. Its session is persistent, so that none is lost while the broker restarts.
    pub async fn connect(port: u16, id: &str) -> Device {
        let mut options = MqttOptions::new(format!("device-{}", id.replace('/', "-")), "127.0.0.1", port);
        options.set_clean_session(false).set_keep_alive(Duration::from_secs(5));
        let (client, mut event_loop) = AsyncClient::new(options, REQUESTS);
        let (acknowledge, acknowledged) = unbounded_channel();
        let (answer, answers) = unbounded_channel();
        let event_loop = tokio::spawn(async move {
            loop {
                match event_loop.poll().await {
                    Ok(Event::Incoming(Packet::PubAck(_) | Packet::SubAck(_))) => {
                        let _ = acknowledge.send(());
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let _ = answer.send(String::from_utf8_lossy(&publish.payload).into_owned());
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        let mut device = Device { client, acknowledged, answers, event_loop: event_loop.abort_handle() };
        device.client.subscribe(format!("result/{id}"), QoS::AtLeastOnce).await.unwrap();
        device.acknowledgements(1).await;
        device
    }

    /// Publishes one request for each number, and waits until the broker has them all.
    pub async fn request(&mut self, topic: &str, numbers: Range<usize>) {
        self.request_at(QoS::AtLeastOnce, topic, numbers).await;
    }

    /// The same at another QoS; of what is published at QoS 0 nobody knows whether the broker has it.
    pub async fn request_at(&mut self, qos: QoS, topic: &str, numbers: Range<usize>) {
        let count = numbers.len();
        for number in numbers {
            self.client.publish(topic, qos, false, number.to_string()).await.unwrap();
        }
        if qos != QoS::AtMostOnce {
            self.acknowledgements(count).await;
        }
    }

    /// Publishes a message that the broker keeps for later subscribers.
    pub async fn store(&mut self, topic: &str, payload: &str) {
        self.client.publish(topic, QoS::AtLeastOnce, true, payload).await.unwrap();
        self.acknowledgements(1).await;
    }

    /// The next `count` answers.
    pub async fn answers(&mut self, count: usize) -> BTreeSet<String> {
        let mut answers = BTreeSet::new();
        for done in 0..count {
            let answer = timeout(PATIENCE, self.answers.recv()).await;
            answers.insert(answer.unwrap_or_else(|_| panic!("{done} of {count} answers")).unwrap());
        }
        answers
    }

    async fn acknowledgements(&mut self, count: usize) {
        for done in 0..count {
            let acknowledgement = timeout(PATIENCE, self.acknowledged.recv()).await;
            acknowledgement.unwrap_or_else(|_| panic!("{done} of {count} acknowledged")).unwrap();
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.event_loop.abort();
    }
}
