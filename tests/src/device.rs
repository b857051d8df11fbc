//! A device: one MQTT connection, in either version, that publishes and listens.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rumqttc::{NetworkOptions, v5};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::PATIENCE;

/// Largest packet that a device takes and sends, unless a test says otherwise.
const MAX_PACKET: u32 = 16 << 20;

/// What a device holds of what it heard and was not asked for yet; more than any test lets pile up.
const HEARD: usize = 16_384;

/// How many packets wait for the connection to write them before `publish` waits too.
const REQUESTS: usize = 256;

/// Seconds for which a session that is not clean outlives its connection.
const SESSION_EXPIRY: u32 = 300;

/// Pause before a lost connection is tried again.
const RECONNECT: Duration = Duration::from_millis(50);

/// The versions of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5,
}

/// How to connect, where the usual does not do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The largest packet that the device takes; MQTT 5 tells the broker.
    pub max_packet: u32,
    /// Whether the broker is to forget the session at the end of the connection.
    pub clean: bool,
    /// User name and password.
    pub credentials: Option<(&'static str, &'static str)>,
    /// Topic of a will, which says "gone".
    pub will: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Options {
        Options { max_packet: MAX_PACKET, clean: true, credentials: None, will: None }
    }
}

/// A message as it was received. In MQTT 3.1.1 there are no properties.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it came in.
    pub topic: String,
    /// What it says.
    pub payload: Bytes,
    /// The quality of service of this delivery: 0, 1 or 2.
    pub qos: u8,
    /// Whether the broker had stored it.
    pub retain: bool,
    /// MQTT 5 user properties.
    pub user_properties: Vec<(String, String)>,
    /// MQTT 5 Correlation Data.
    pub correlation_data: Option<Bytes>,
}

impl Message {
    /// The one user property of this name.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.user_properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The payload as text, for comparisons and reports.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// MQTT 5 properties of a request; with any of them MQTT 3.1.1 cannot send it.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    /// User properties, in order.
    pub user: Vec<(String, String)>,
    /// Response Topic.
    pub response_topic: Option<String>,
    /// Correlation Data.
    pub correlation_data: Option<Bytes>,
}

impl Properties {
    /// Only user properties.
    pub fn user(properties: &[(&str, &str)]) -> Properties {
        let user = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Properties { user, ..Properties::default() }
    }

    fn is_empty(&self) -> bool {
        self.user.is_empty() && self.response_topic.is_none() && self.correlation_data.is_none()
    }
}

/// The reason codes of PUBACK and PUBREC; MQTT 3.1.1 has none and knows only success.
pub use rumqttc::v5::mqttbytes::v5::{PubAckReason, PubRecReason};

/// The connection's ends of the channels to the device.
struct Heard {
    connected: mpsc::Sender<Result<(), String>>,
    grants: mpsc::Sender<Result<(), String>>,
    acknowledgements: mpsc::Sender<PubAckReason>,
    receipts: mpsc::Sender<PubRecReason>,
    messages: mpsc::Sender<Message>,
}

impl Heard {
    /// Passes it on. Most tests look at messages alone: what nobody takes is dropped once a channel is full, and
    /// for a message that is a failure which its test sees.
    fn pass<T>(channel: &mpsc::Sender<T>, what: T) {
        let _ = channel.try_send(what);
    }
}

enum Client {
    V311(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// Disconnected without a word when dropped.
pub struct Device {
    client: Client,
    connected: mpsc::Receiver<Result<(), String>>,
    grants: mpsc::Receiver<Result<(), String>>,
    acknowledgements: mpsc::Receiver<PubAckReason>,
    receipts: mpsc::Receiver<PubRecReason>,
    messages: mpsc::Receiver<Message>,
    connection: AbortHandle,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Device {
    /// Connects with the usual options.
    pub async fn connect(address: SocketAddr, version: Version, client_id: &str) -> Result<Device> {
        Device::connect_with(address, version, client_id, Options::default()).await
    }

    /// Connects, and connects again whenever the connection is lost. An error names the reason for which the broker
    /// refuses the connection.
    pub async fn connect_with(
        address: SocketAddr,
        version: Version,
        client_id: &str,
        options: Options,
    ) -> Result<Device> {
        let (connected_sender, connected) = mpsc::channel(HEARD);
        let (grants_sender, grants) = mpsc::channel(HEARD);
        let (acknowledgements_sender, acknowledgements) = mpsc::channel(HEARD);
        let (receipts_sender, receipts) = mpsc::channel(HEARD);
        let (messages_sender, messages) = mpsc::channel(HEARD);
        let heard = Heard {
            connected: connected_sender,
            grants: grants_sender,
            acknowledgements: acknowledgements_sender,
            receipts: receipts_sender,
            messages: messages_sender,
        };
        let (client, connection) = match version {
            Version::V311 => connect_v311(address, client_id, options, heard),
            Version::V5 => connect_v5(address, client_id, options, heard),
        };
        let mut device =
            Device { client, connected, grants, acknowledgements, receipts, messages, connection };
        next(&mut device.connected, "CONNACK").await?.map_err(anyhow::Error::msg)?;
        Ok(device)
    }

    /// How the next attempt to connect ends, after the connection was lost.
    pub async fn connected_again(&mut self) -> Result<()> {
        next(&mut self.connected, "CONNACK").await?.map_err(anyhow::Error::msg)
    }

    /// Subscribes at QoS 1, and waits until that is granted.
    pub async fn subscribe(&mut self, filter: &str) -> Result<()> {
        match &self.client {
            Client::V311(client) => client.subscribe(filter, rumqttc::QoS::AtLeastOnce).await?,
            Client::V5(client) => client.subscribe(filter, v5::mqttbytes::QoS::AtLeastOnce).await?,
        }
        next(&mut self.grants, "SUBACK").await?.map_err(anyhow::Error::msg)
    }

    /// Publishes at QoS 1. Does not wait for the acknowledgement.
    pub async fn publish(&self, topic: &str, payload: impl Into<Bytes>) -> Result<()> {
        self.publish_with(topic, payload, Properties::default(), false).await
    }

    /// Publishes at QoS 1 with properties or RETAIN.
    pub async fn publish_with(
        &self,
        topic: &str,
        payload: impl Into<Bytes>,
        properties: Properties,
        retain: bool,
    ) -> Result<()> {
        self.send(topic, payload.into(), 1, properties, retain).await
    }

    /// Publishes at this QoS: 0, 1 or 2. Does not wait for an acknowledgement.
    pub async fn publish_at(&self, qos: u8, topic: &str, payload: impl Into<Bytes>) -> Result<()> {
        self.send(topic, payload.into(), qos, Properties::default(), false).await
    }

    async fn send(
        &self,
        topic: &str,
        payload: Bytes,
        qos: u8,
        properties: Properties,
        retain: bool,
    ) -> Result<()> {
        match &self.client {
            Client::V311(client) => {
                ensure!(properties.is_empty(), "MQTT 3.1.1 has no properties");
                let qos = rumqttc::qos(qos).context("QoS is 0, 1 or 2")?;
                Ok(client.publish_bytes(topic, qos, retain, payload).await?)
            }
            Client::V5(client) => {
                let properties = v5::mqttbytes::v5::PublishProperties {
                    user_properties: properties.user,
                    response_topic: properties.response_topic,
                    correlation_data: properties.correlation_data,
                    ..Default::default()
                };
                let qos = v5::mqttbytes::qos(qos).context("QoS is 0, 1 or 2")?;
                Ok(client.publish_with_properties(topic, qos, retain, payload, properties).await?)
            }
        }
    }

    /// The next message.
    pub async fn message(&mut self) -> Result<Message> {
        next(&mut self.messages, "message").await
    }

    /// A message, if one has come.
    pub fn message_there(&mut self) -> Option<Message> {
        self.messages.try_recv().ok()
    }

    /// Publishes a request and takes the next message for its answer.
    pub async fn ask(&mut self, topic: &str, payload: impl Into<Bytes>) -> Result<Message> {
        self.publish(topic, payload).await?;
        self.message().await
    }

    /// The reason code of the next PUBACK.
    pub async fn acknowledged(&mut self) -> Result<PubAckReason> {
        next(&mut self.acknowledgements, "PUBACK").await
    }

    /// The reason code of the next PUBREC.
    pub async fn received(&mut self) -> Result<PubRecReason> {
        next(&mut self.receipts, "PUBREC").await
    }
}

async fn next<T>(channel: &mut mpsc::Receiver<T>, what: &str) -> Result<T> {
    let next = timeout(PATIENCE, channel.recv()).await.with_context(|| format!("no {what} came"))?;
    next.context("the connection's task has ended")
}

/// Polls a connection for ever and hands what it hears over. The library's two versions of MQTT have no type in common.
macro_rules! drive {
    ($connection:ident, $hear:ident, $refusals:ident: $refused:path) => {
        tokio::spawn(async move {
            loop {
                let polled = $connection.poll().await;
                if let Err($refused(code)) = &polled {
                    Heard::pass(&$refusals, Err(format!("refused: {code:?}")));
                }
                let lost = polled.is_err();
                // What was read together with the end of the connection is left in there, and would only come out after
                // the next one is made.
                let left = if lost { std::mem::take(&mut $connection.state.events) } else { VecDeque::new() };
                for event in polled.into_iter().chain(left) {
                    $hear(event);
                }
                if lost {
                    sleep(RECONNECT).await;
                }
            }
        })
    };
}

fn connect_v311(address: SocketAddr, id: &str, options: Options, heard: Heard) -> (Client, AbortHandle) {
    use rumqttc::{Event, Incoming, SubscribeReasonCode};

    let mut connect = rumqttc::MqttOptions::new(id, address.ip().to_string(), address.port());
    connect.set_max_packet_size(options.max_packet as usize, options.max_packet as usize);
    connect.set_clean_session(options.clean);
    if let Some((name, password)) = options.credentials {
        connect.set_credentials(name, password);
    }
    if let Some(topic) = options.will {
        connect.set_last_will(rumqttc::LastWill::new(topic, "gone", rumqttc::QoS::AtLeastOnce, false));
    }
    let refusals = heard.connected.clone();
    let (client, mut connection) = rumqttc::AsyncClient::new(connect, REQUESTS);
    connection.set_network_options(network());
    let hear = move |event| match event {
        Event::Incoming(Incoming::ConnAck(_)) => Heard::pass(&heard.connected, Ok(())),
        Event::Incoming(Incoming::SubAck(answer)) => {
            let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
            let refused = || format!("not granted: {:?}", answer.return_codes);
            Heard::pass(
                &heard.grants,
                answer.return_codes.iter().all(granted).then_some(()).ok_or_else(refused),
            );
        }
        Event::Incoming(Incoming::PubAck(_)) => {
            Heard::pass(&heard.acknowledgements, PubAckReason::Success);
        }
        Event::Incoming(Incoming::PubRec(_)) => Heard::pass(&heard.receipts, PubRecReason::Success),
        Event::Incoming(Incoming::Publish(publish)) => {
            let message = Message {
                topic: publish.topic,
                payload: publish.payload,
                qos: publish.qos as u8,
                retain: publish.retain,
                user_properties: Vec::new(),
                correlation_data: None,
            };
            Heard::pass(&heard.messages, message);
        }
        _ => {}
    };
    let task = drive!(connection, hear, refusals: rumqttc::ConnectionError::ConnectionRefused);
    (Client::V311(client), task.abort_handle())
}

fn connect_v5(address: SocketAddr, id: &str, options: Options, heard: Heard) -> (Client, AbortHandle) {
    use v5::mqttbytes::v5::SubscribeReasonCode;
    use v5::{Event, Incoming};

    let mut connect = v5::MqttOptions::new(id, address.ip().to_string(), address.port());
    connect.set_max_packet_size(Some(options.max_packet));
    connect.set_clean_start(options.clean);
    connect.set_session_expiry_interval((!options.clean).then_some(SESSION_EXPIRY));
    connect.set_network_options(network());
    if let Some((name, password)) = options.credentials {
        connect.set_credentials(name, password);
    }
    if let Some(topic) = options.will {
        let qos = v5::mqttbytes::QoS::AtLeastOnce;
        connect.set_last_will(v5::mqttbytes::v5::LastWill::new(topic, "gone", qos, false, None));
    }
    let refusals = heard.connected.clone();
    let (client, mut connection) = v5::AsyncClient::new(connect, REQUESTS);
    let hear = move |event| match event {
        Event::Incoming(Incoming::ConnAck(_)) => Heard::pass(&heard.connected, Ok(())),
        Event::Incoming(Incoming::SubAck(answer)) => {
            let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
            let refused = || format!("not granted: {:?}", answer.return_codes);
            Heard::pass(
                &heard.grants,
                answer.return_codes.iter().all(granted).then_some(()).ok_or_else(refused),
            );
        }
        Event::Incoming(Incoming::PubAck(answer)) => {
            Heard::pass(&heard.acknowledgements, answer.reason);
        }
        Event::Incoming(Incoming::PubRec(answer)) => Heard::pass(&heard.receipts, answer.reason),
        Event::Incoming(Incoming::Publish(publish)) => {
            let properties = publish.properties.unwrap_or_default();
            let message = Message {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload,
                qos: publish.qos as u8,
                retain: publish.retain,
                user_properties: properties.user_properties,
                correlation_data: properties.correlation_data,
            };
            Heard::pass(&heard.messages, message);
        }
        _ => {}
    };
    let task = drive!(connection, hear, refusals: v5::ConnectionError::ConnectionRefused);
    (Client::V5(client), task.abort_handle())
}

fn network() -> NetworkOptions {
    let mut network = NetworkOptions::new();
    // Without it every second packet waits for the other side's delayed acknowledgement.
    network.set_tcp_nodelay(true);
    network
}
