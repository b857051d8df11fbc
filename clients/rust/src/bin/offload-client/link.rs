//! One MQTT connection, of either version, as a source of events. It is made once: whoever debugs wants to see it
//! break, and whoever looks around can do so again.

use std::io;
use std::time::Duration;

use offload_client::{Error, MqttVersion, Options};
use offload_mqtt::{
    Connection, ConnectionError, ConnectionOptions, Event, Full, Message, PacketSender, QoS, Reason, Sent,
    Subscription,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::acknowledgement::{Acknowledgement, Code};

/// Events that wait to be taken. Beyond them the socket is not read, so that the broker's flow control takes over.
const MAX_WAITING_EVENTS: usize = 64;

/// Packets that are queued and not written. Each is waited for, so that there is no second but the farewell.
const MAX_QUEUED: usize = 4;

/// How long the DISCONNECT at the end may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What happened on the connection.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkEvent {
    /// A packet of ours was written; 0 is the packet id of a message at QoS 0, and of DISCONNECT.
    Sent(Packet, u16),
    Acknowledged(Acknowledgement),
    Message(Message),
    /// The broker says why it ends the connection, maybe with a text, which comes to the same as [`LinkEvent::Closed`]
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

/// A connection that is being made or is there.
pub struct Link {
    sender: PacketSender,
    events: mpsc::Receiver<LinkEvent>,
    task: JoinHandle<()>,
}

impl Link {
    /// Begins to connect; a CONNACK or [`LinkEvent::Closed`] follows.
    ///
    /// # Errors
    /// When the files that TLS needs cannot be used.
    pub fn connect(options: &Options, version: MqttVersion) -> Result<Self, Error> {
        let options = ConnectionOptions { version, max_queued: MAX_QUEUED, ..options.connection()? };
        let (sender, connection) = offload_mqtt::open(options.clone());
        let (events_sender, events) = mpsc::channel(MAX_WAITING_EVENTS);
        let task = tokio::spawn(hand_out(connection, options, events_sender));
        Ok(Self { sender, events, task })
    }

    /// The next event. After [`LinkEvent::Closed`] there is none.
    pub async fn event(&mut self) -> LinkEvent {
        self.events.recv().await.unwrap_or(LinkEvent::Closed(None))
    }

    pub fn publish(&self, topic: &str, value: &str, qos: QoS, retain: bool) -> Result<(), Full> {
        self.sender.publish(Message { qos, retain, ..Message::new(topic, value.to_owned()) })
    }

    pub fn subscribe(&self, filter: &str, qos: QoS) -> Result<(), Full> {
        self.sender.subscribe(&[Subscription::new(filter, qos)])
    }

    pub fn unsubscribe(&self, filter: &str) -> Result<(), Full> {
        self.sender.unsubscribe(filter)
    }

    pub fn disconnect(&self) -> Result<(), Full> {
        self.sender.disconnect()
    }

    /// Disconnects, so that the broker does not keep us for lost. Messages that come meanwhile are handed out.
    pub async fn farewell(mut self, mut message: impl FnMut(Message)) {
        if self.disconnect().is_err() {
            return;
        }
        let gone = async {
            loop {
                match self.event().await {
                    LinkEvent::Closed(_) => break,
                    LinkEvent::Message(last) => message(last),
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

/// The task that owns a connection: hands out what it says until it ends, or until nobody listens.
async fn hand_out(mut connection: Connection, options: ConnectionOptions, events: mpsc::Sender<LinkEvent>) {
    let version = connection.version();
    let mut accepted = false;
    let error = loop {
        let event = match connection.next().await {
            Ok(event) => event,
            Err(error) => break error,
        };
        accepted |= matches!(event, Event::Connected(_));
        let farewell = event == Event::Sent(Sent::Disconnect);
        if let Some(event) = shown(event, version)
            && events.send(event).await.is_err()
        {
            return;
        }
        // It is sent; to poll on would be to connect again.
        if farewell {
            let _ = events.send(LinkEvent::Closed(None)).await;
            return;
        }
    };
    let last = match &error {
        ConnectionError::Refused(Reason { code, text }) => {
            Some(LinkEvent::Acknowledged(Acknowledgement::refused(*code, text.clone(), version)))
        }
        ConnectionError::Disconnected(Reason { code, text }) if accepted => {
            Some(LinkEvent::Disconnected(Code { reason: *code, version }, text.clone()))
        }
        _ => None,
    };
    let peer = match last {
        None if !accepted => options.identify_peer().await.map(|peer| peer.to_string()),
        _ => None,
    };
    let closed = LinkEvent::Closed(Some(peer.unwrap_or_else(|| describe(&error))));
    for event in last.into_iter().chain([closed]) {
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// `None` for what the console does not show.
fn shown(event: Event, version: MqttVersion) -> Option<LinkEvent> {
    if let Some(acknowledgement) = Acknowledgement::of(&event, version) {
        return Some(LinkEvent::Acknowledged(acknowledgement));
    }
    match event {
        Event::Message { message, .. } => Some(LinkEvent::Message(message)),
        Event::Sent(sent) => Some(match sent {
            Sent::Publish(id) => LinkEvent::Sent(Packet::Publish, id),
            Sent::Subscribe(id) => LinkEvent::Sent(Packet::Subscribe, id),
            Sent::Unsubscribe(id) => LinkEvent::Sent(Packet::Unsubscribe, id),
            Sent::Disconnect => LinkEvent::Sent(Packet::Disconnect, 0),
        }),
        _ => None,
    }
}

/// What ended the connection, for people.
fn describe(error: &ConnectionError) -> String {
    match error {
        // What it said was shown.
        ConnectionError::Refused(_) => "the broker refused it".to_owned(),
        ConnectionError::Io { kind: io::ErrorKind::ConnectionRefused, .. } => {
            "connection refused: is the broker running?".to_owned()
        }
        other => other.to_string(),
    }
}
