//! One MQTT connection, of either version, as a source of events. It is made once: whoever debugs wants to see it
//! break, and whoever looks around can do so again.

mod v3;
mod v5;

use std::fmt;
use std::io;
use std::time::Duration;

use offload_client::{Error, MqttVersion, Options};
use rumqttc::QoS;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::message::Message;

/// Events that wait to be taken. Beyond them the socket is not read, so that the broker's flow control takes over.
const MAX_WAITING_EVENTS: usize = 64;

/// Requests that rumqttc has and has not written. Each is waited for, so that there is no second but the farewell.
const MAX_REQUESTS: usize = 4;

/// How long the DISCONNECT at the end may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Without traffic for so long the broker is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// What happened on the connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A packet of ours was written; 0 is the packet id of a message at QoS 0, and of DISCONNECT.
    Sent(Packet, u16),
    Acknowledged(Acknowledgement),
    Message(Message),
    /// The broker says why it ends the connection, maybe with a text, which comes to the same as [`Event::Closed`]
    /// (MQTT 5).
    Disconnected(Code, Option<String>),
    /// Always the last one; with a reason unless we ended it.
    Closed(Option<String>),
}

/// The packets that the console sends by itself after CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    Publish,
    Subscribe,
    Unsubscribe,
    Disconnect,
}

/// What the broker answers to a packet of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Acknowledgement {
    pub packet: AckPacket,
    /// Of the packet that is acknowledged; 0 with CONNACK.
    pub id: u16,
    /// None where the version has none.
    pub codes: Vec<Code>,
    /// What else the packet says.
    pub details: Vec<String>,
}

impl Acknowledgement {
    /// The first code that says no.
    pub fn refusal(&self) -> Option<&Code> {
        self.codes.iter().find(|code| code.refused)
    }
}

/// Names as the standard writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckPacket {
    ConnAck,
    PubAck,
    PubRec,
    PubComp,
    SubAck,
    UnsubAck,
}

impl fmt::Display for AckPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AckPacket::ConnAck => "CONNACK",
            AckPacket::PubAck => "PUBACK",
            AckPacket::PubRec => "PUBREC",
            AckPacket::PubComp => "PUBCOMP",
            AckPacket::SubAck => "SUBACK",
            AckPacket::UnsubAck => "UNSUBACK",
        })
    }
}

/// A return or reason code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    pub number: u8,
    pub name: String,
    pub refused: bool,
}

impl Code {
    fn granted(qos: u8) -> Self {
        Self { number: qos, name: format!("granted QoS {qos}"), refused: false }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02X} {}", self.number, self.name)
    }
}

/// A connection that is being made or is there.
pub struct Link {
    client: Client,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

enum Client {
    V3(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

/// The connection takes no more, for nothing gets through.
#[derive(Debug)]
pub struct Stuck;

impl Link {
    /// Begins to connect; a CONNACK or [`Event::Closed`] follows.
    ///
    /// # Errors
    /// When the files that TLS needs cannot be used.
    pub fn connect(options: &Options, version: MqttVersion) -> Result<Self, Error> {
        let transport = options.transport()?;
        let (sender, events) = mpsc::channel(MAX_WAITING_EVENTS);
        let (client, task) = match version {
            MqttVersion::V311 => {
                let (client, task) = v3::start(options, transport, sender);
                (Client::V3(client), task)
            }
            MqttVersion::V5 => {
                let (client, task) = v5::start(options, transport, sender);
                (Client::V5(client), task)
            }
        };
        Ok(Self { client, events, task })
    }

    /// The next event. After [`Event::Closed`] there is none.
    pub async fn event(&mut self) -> Event {
        self.events.recv().await.unwrap_or(Event::Closed(None))
    }

    pub fn publish(&self, topic: &str, value: &str, qos: QoS, retain: bool) -> Result<(), Stuck> {
        match &self.client {
            Client::V3(client) => client.try_publish(topic, qos, retain, value).map_err(drop),
            Client::V5(client) => {
                client.try_publish(topic, v5::qos(qos), retain, value.to_owned()).map_err(drop)
            }
        }
        .map_err(|()| Stuck)
    }

    pub fn subscribe(&self, filter: &str, qos: QoS) -> Result<(), Stuck> {
        match &self.client {
            Client::V3(client) => client.try_subscribe(filter, qos).map_err(drop),
            Client::V5(client) => client.try_subscribe(filter, v5::qos(qos)).map_err(drop),
        }
        .map_err(|()| Stuck)
    }

    pub fn unsubscribe(&self, filter: &str) -> Result<(), Stuck> {
        match &self.client {
            Client::V3(client) => client.try_unsubscribe(filter).map_err(drop),
            Client::V5(client) => client.try_unsubscribe(filter).map_err(drop),
        }
        .map_err(|()| Stuck)
    }

    pub fn disconnect(&self) -> Result<(), Stuck> {
        match &self.client {
            Client::V3(client) => client.try_disconnect().map_err(drop),
            Client::V5(client) => client.try_disconnect().map_err(drop),
        }
        .map_err(|()| Stuck)
    }

    /// Disconnects, so that the broker does not keep us for lost. Messages that come meanwhile are handed out.
    pub async fn farewell(mut self, mut message: impl FnMut(Message)) {
        if self.disconnect().is_err() {
            return;
        }
        let gone = async {
            loop {
                match self.event().await {
                    Event::Closed(_) => break,
                    Event::Message(last) => message(last),
                    _ => {}
                }
            }
        };
        let _ = timeout(FAREWELL, gone).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the versions' event loops have in common.
trait Connection: Send {
    type Event: Send;
    type Error: Send;

    fn poll(&mut self) -> impl Future<Output = Result<Self::Event, Self::Error>> + Send;

    /// After the end: what came together with it.
    fn left_over(&mut self) -> Option<Self::Event>;

    /// `None` for what the console does not show.
    fn translate(event: Self::Event) -> Option<Event>;

    /// The CONNACK that rumqttc gives as an error.
    fn refusal(error: &Self::Error) -> Option<Acknowledgement>;

    /// For people.
    fn describe(error: &Self::Error) -> String;
}

/// The task that owns a connection: hands out what it says until it ends, or until nobody listens.
async fn hand_out<C: Connection>(mut connection: C, options: Options, events: mpsc::Sender<Event>) {
    let mut accepted = false;
    let error = loop {
        let event = match connection.poll().await {
            Ok(event) => C::translate(event),
            Err(error) => break Some(error),
        };
        let Some(event) = event else { continue };
        let farewell = matches!(event, Event::Sent(Packet::Disconnect, _));
        accepted |= matches!(&event, Event::Acknowledged(ack) if ack.packet == AckPacket::ConnAck);
        if events.send(event).await.is_err() {
            return;
        }
        // It is sent; to poll on would be to connect again.
        if farewell {
            break None;
        }
    };
    let left_over = std::iter::from_fn(|| connection.left_over()).filter_map(C::translate);
    let refusal = error.as_ref().and_then(C::refusal).map(Event::Acknowledged);
    let peer = match (&error, &refusal) {
        (Some(_), None) if !accepted => options.identify_peer().await.map(|peer| peer.to_string()),
        _ => None,
    };
    let last = Event::Closed(peer.or_else(|| error.as_ref().map(C::describe)));
    let rest: Vec<_> = left_over.chain(refusal).chain([last]).collect();
    for event in rest {
        if events.send(event).await.is_err() {
            return;
        }
    }
}

fn describe_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: is the broker running?".to_owned(),
        // What TLS says, once there is a connection.
        io::ErrorKind::InvalidData => offload_tls::explain(error),
        _ => error.to_string(),
    }
}
