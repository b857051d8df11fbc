//! One connection to a broker, the same for both versions of MQTT.
//!
//! A connection is a fresh event loop: rumqttc's, or in MQTT 5 `offload_mqtt`'s. Either could reconnect by itself and
//! publish again what was not acknowledged, but it does so beyond the broker's Receive Maximum, forgets everything when
//! the session is gone, and keeps a packet identifier that collided for ever. What outlives a connection is ours
//! ([`super::window`]).

mod v311;
mod v5;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use offload_mqtt::Peer;
use rumqttc::{TlsConfiguration, Transport};
use rustls::ClientConfig;

use super::publication::Publication;
use super::version::Version;
use crate::ingress::{DeliveryProperties, Notice};

/// Requests that wait for the event loop. It takes one at a time, so a few are enough to keep it busy.
const REQUESTS: usize = 64;
/// Answers on their way to the broker without its acknowledgement, where the broker allows so many.
const MAX_UNCONFIRMED: u16 = 1_024;

/// Whom to connect to, and as whom.
pub(super) struct Options {
    /// A name or an address; IPv6 in brackets.
    pub host: String,
    pub port: u16,
    /// How to speak TLS, if that is wanted.
    pub tls: Option<Arc<ClientConfig>>,
    pub client_id: String,
    pub credentials: Option<(String, String)>,
    pub keep_alive: Duration,
    pub connect_timeout: Duration,
    pub receive_maximum: u16,
    pub session_expiry: Duration,
    /// Bytes of the largest packet that is taken. MQTT 3.1.1 has no means to tell the broker.
    pub max_packet: usize,
    /// What the broker publishes when we go without a word.
    pub will: Notice,
    /// What the broker is asked for at most.
    pub offer: Offer,
}

impl Options {
    /// What answers at the broker's address, if that is no broker.
    pub async fn identify_peer(&self) -> Option<Peer> {
        offload_mqtt::identify(&self.host, self.port, &self.transport()).await
    }

    /// How rumqttc reaches the broker.
    fn transport(&self) -> Transport {
        self.tls
            .clone()
            .map_or(Transport::Tcp, |tls| Transport::tls_with_config(TlsConfiguration::Rustls(tls)))
    }
}

/// What happens on a connection.
pub(super) enum Event {
    /// The broker accepted the connection.
    Connected(Connected),
    /// The broker answered a subscription.
    Subscribed(Granted),
    /// The broker took our subscriptions back.
    Unsubscribed,
    /// The broker delivers a message.
    Publish(Incoming),
    /// The oldest message that was handed over is on its way as this packet.
    Published(u16),
    /// The broker has the message in this packet, and may have refused it.
    Confirmed(u16, Option<String>),
    /// Our DISCONNECT was written.
    Disconnected,
    /// Nothing that matters here.
    Other,
}

impl Event {
    /// Bytes of what it brings.
    pub fn size(&self) -> usize {
        match self {
            Event::Publish(Incoming { topic, payload, .. }) => topic.len() + payload.len(),
            _ => 0,
        }
    }
}

/// What of MQTT 5 a broker need not have, and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    /// Messages at QoS 1.
    pub qos_1: bool,
    /// Retained messages.
    pub retained: bool,
}

impl Offer {
    pub const ALL: Offer = Offer { qos_1: true, retained: true };

    /// What both have.
    pub fn and(self, other: Offer) -> Offer {
        Offer { qos_1: self.qos_1 && other.qos_1, retained: self.retained && other.retained }
    }
}

/// What the broker says of itself.
pub(super) struct Connected {
    pub session_present: bool,
    /// Answers that may be on their way at once.
    pub window: usize,
    /// Bytes of the largest packet that the broker takes.
    pub max_packet: usize,
    pub offer: Offer,
    pub shared_subscriptions: bool,
}

/// The broker's answer to a subscription.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Granted {
    Yes,
    /// To some of the filters.
    Partly(String),
    /// Shared subscriptions are not supported: not to be used on this connection.
    NotShared,
    No(String),
}

/// A message that the broker delivers.
pub(super) struct Incoming {
    /// None at QoS 0.
    pub packet_id: Option<u16>,
    pub dup: bool,
    pub retain: bool,
    /// Bytes that are no UTF-8 are a topic that matches nothing.
    pub topic: String,
    pub payload: Bytes,
    pub properties: DeliveryProperties,
}

/// Why a connection ended, or was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Another client uses our client id.
    #[error("another client has taken over the client id")]
    TakenOver,
    /// The broker does not speak this version of MQTT.
    #[error("the broker does not speak this version of MQTT")]
    UnsupportedVersion,
    /// The broker lacks something that we asked for, and has the rest.
    #[error("the broker lacks QoS 1 or retained messages")]
    Lacks(Offer),
    /// The broker refuses us.
    #[error("the broker refuses the connection: {0}")]
    Refused(String),
    /// The broker closed the connection, or spoke in tongues, before it had accepted it.
    #[error("the broker did not complete the connection: {0}")]
    Handshake(String),
    /// The broker closed the connection without a word: all that it can say in MQTT 3.1.1, and all that Mosquitto 2.0
    /// says in MQTT 5 when another client takes over a persistent session.
    #[error("the broker closed the connection")]
    Closed,
    /// The broker cannot be reached, or not any more.
    #[error("{0}")]
    Lost(String),
}

/// Hands packets to a connection. Everything is refused, and to be tried again, while the connection is busy.
pub(super) enum Requests {
    V5(rumqttc::v5::AsyncClient),
    V311(rumqttc::AsyncClient),
}

/// The connection is busy.
pub(super) struct Busy;

/// What a connection yields. `next` must be polled to its end: dropped half way it can lose a packet.
pub(super) enum Events {
    V5(Box<v5::Events>),
    V311(Box<v311::Events>),
}

/// Starts a connection; it is made by the first [`Events::next`].
pub(super) fn open(version: Version, options: &Options) -> (Requests, Events) {
    match version {
        Version::V5 => {
            let (requests, events) = v5::open(options);
            (Requests::V5(requests), Events::V5(Box::new(events)))
        }
        Version::V311 => {
            let (requests, events) = v311::open(options);
            (Requests::V311(requests), Events::V311(Box::new(events)))
        }
    }
}

impl Events {
    pub async fn next(&mut self) -> Result<Event, Failure> {
        match self {
            Events::V5(events) => events.next().await,
            Events::V311(events) => events.next().await,
        }
    }
}

impl Requests {
    /// Publishes at QoS 1, if the broker has that.
    pub fn publish(&self, publication: &Publication, offer: Offer) -> Result<(), Busy> {
        match self {
            Requests::V5(client) => v5::publish(client, publication, offer),
            Requests::V311(client) => v311::publish(client, publication),
        }
    }

    /// Acknowledges a message that came at QoS 1.
    pub fn acknowledge(&self, packet_id: u16) -> Result<(), Busy> {
        match self {
            Requests::V5(client) => v5::acknowledge(client, packet_id),
            Requests::V311(client) => v311::acknowledge(client, packet_id),
        }
    }

    /// Subscribes to all `filters` at QoS 1 in one packet.
    pub fn subscribe(&self, filters: &[String]) -> Result<(), Busy> {
        match self {
            Requests::V5(client) => v5::subscribe(client, filters),
            Requests::V311(client) => v311::subscribe(client, filters),
        }
    }

    /// Ends a subscription, which need not exist.
    pub fn unsubscribe(&self, filter: &str) -> Result<(), Busy> {
        match self {
            Requests::V5(client) => client.try_unsubscribe(filter).map_err(|_| Busy),
            Requests::V311(client) => client.try_unsubscribe(filter).map_err(|_| Busy),
        }
    }

    /// Ends the connection. The session stays, for as long as it was agreed.
    pub fn disconnect(&self) -> Result<(), Busy> {
        match self {
            Requests::V5(client) => client.try_disconnect().map_err(|_| Busy),
            Requests::V311(client) => client.try_disconnect().map_err(|_| Busy),
        }
    }
}

/// Whether the other end closed the connection, be it that we had more to read or to write.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// A reason that can be logged.
fn reason(text: impl ToString) -> String {
    offload_mqtt::one_line(&text.to_string())
}
