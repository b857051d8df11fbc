//! One connection to a broker by rumqttc, the same for both versions of MQTT.

mod v311;
mod v5;

use std::io;

use bytes::Bytes;
use offload_mqtt::one_line;
use offload_protocol::UserProperties;

use crate::{Error, MqttVersion, Options};

/// The broker grants no subscription to `result/<client id>`.
const NO_ANSWERS: &str =
    "no subscription to the answers (where clients have names, the client id has to be the own one: -i NAME)";

/// A request as it is published, at QoS 1. MQTT 3.1.1 carries topic and payload alone.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) user_properties: UserProperties,
    /// Says which answer is whose.
    pub(crate) correlation: Bytes,
    /// Where the answer goes.
    pub(crate) response_topic: String,
}

impl Message {
    /// The bytes of the whole packet.
    pub(crate) fn packet_size(&self, version: MqttVersion) -> usize {
        match version {
            MqttVersion::V311 => v311::packet_size(self),
            MqttVersion::V5 => v5::packet_size(self),
        }
    }
}

/// What happens on a connection.
pub(crate) enum Happened {
    /// There is a connection.
    Connected { session_present: bool, max_packet: Option<u32>, has_qos_1: bool },
    /// The broker granted the subscription, or did not.
    Subscribed(Result<(), Error>),
    /// The oldest message that was handed over is on its way as this packet, maybe again; 0 at QoS 0.
    Written(u16),
    /// The broker has the message in this packet.
    Acknowledged(u16, Acknowledgement),
    /// A message came.
    Message(Incoming),
    /// Our farewell was written.
    Disconnected,
    /// Nothing that matters here.
    Other,
}

/// What a broker says of a message that it got.
pub(crate) enum Acknowledgement {
    Taken,
    /// And nobody is subscribed to it; MQTT 3.1.1 cannot say so.
    NobodyListens,
    /// With the broker's Reason String.
    Unauthorized(Option<String>),
    Refused(String),
}

/// A message that came.
pub(crate) struct Incoming {
    pub(crate) payload: Bytes,
    pub(crate) correlation: Option<Bytes>,
    pub(crate) user_properties: UserProperties,
}

/// Why there is no connection, or not any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Unauthorized(String),
    #[error("another client has taken over the client id")]
    TakenOver,
    #[error("{0}")]
    Refused(String),
    #[error("no answer in time")]
    TimedOut,
    #[error("{0}")]
    Lost(String),
}

impl Failure {
    fn io(error: &io::Error) -> Self {
        Failure::Lost(match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                "connection refused: is the gateway running? `offload-rt serve` starts one".to_owned()
            }
            // What TLS says, once there is a connection.
            io::ErrorKind::InvalidData => offload_tls::explain(error),
            _ => error.to_string(),
        })
    }

    fn closed() -> Self {
        Failure::Lost("the broker closed the connection".to_owned())
    }

    fn wrong_password(reason: Option<String>) -> Self {
        Failure::unauthorized("wrong user name or password", reason)
    }

    fn not_let_in(reason: Option<String>) -> Self {
        let told = "the broker does not let this client in: are user name and password right?";
        Failure::unauthorized(told, reason)
    }

    fn unauthorized(told: &str, reason: Option<String>) -> Self {
        Failure::Unauthorized(match reason {
            Some(reason) => format!("{told}; it says: {}", one_line(&reason)),
            None => told.to_owned(),
        })
    }
}

/// Hands packets to a connection; each call fails while the queue is full.
pub(crate) enum Publisher {
    V311(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

impl Publisher {
    /// At QoS 1, where the broker has that.
    pub(crate) fn try_publish(&self, message: Message, has_qos_1: bool) -> Result<(), Full> {
        match self {
            Publisher::V311(client) => v311::try_publish(client, message),
            Publisher::V5(client) => v5::try_publish(client, message, has_qos_1),
        }
    }

    pub(crate) fn try_subscribe(&self, topic: String) -> Result<(), Full> {
        match self {
            Publisher::V311(client) => {
                client.try_subscribe(topic, rumqttc::QoS::AtLeastOnce).map_err(|_| Full)
            }
            Publisher::V5(client) => {
                client.try_subscribe(topic, rumqttc::v5::mqttbytes::QoS::AtLeastOnce).map_err(|_| Full)
            }
        }
    }

    pub(crate) fn try_disconnect(&self) -> Result<(), Full> {
        match self {
            Publisher::V311(client) => client.try_disconnect().map_err(|_| Full),
            Publisher::V5(client) => client.try_disconnect().map_err(|_| Full),
        }
    }
}

/// rumqttc's queue has no room.
#[derive(Debug)]
pub(crate) struct Full;

/// The connection itself, which lives while it is polled.
pub(crate) enum Events {
    V311(Box<v311::Events>),
    V5(Box<v5::Events>),
}

impl Events {
    /// Waits for what happens next; connects where there is no connection.
    pub(crate) async fn poll(&mut self) -> Result<Happened, Failure> {
        match self {
            Events::V311(events) => events.poll().await,
            Events::V5(events) => events.poll().await,
        }
    }

    /// From now on the session is worth keeping, where the broker keeps one. MQTT 3.1.1 cannot say for how long, so
    /// there every connection has a new one.
    pub(crate) fn keep_session(&mut self) {
        match self {
            Events::V311(_) => {}
            Events::V5(events) => events.keep_session(),
        }
    }
}

/// A connection whose queue takes `capacity` packets; made when it is polled first.
pub(crate) fn open(options: &Options, capacity: usize) -> Result<(Publisher, Events), Error> {
    let transport = options.transport()?;
    Ok(match options.mqtt_version {
        MqttVersion::V311 => {
            let (client, events) = v311::open(options, transport, capacity);
            (Publisher::V311(client), Events::V311(Box::new(events)))
        }
        MqttVersion::V5 => {
            let (client, events) = v5::open(options, transport, capacity);
            (Publisher::V5(client), Events::V5(Box::new(events)))
        }
    })
}
