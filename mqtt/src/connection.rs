//! The connection, and what queues packets for it.

use rumqttc::AsyncClient as SenderV311;
use rumqttc::v5::AsyncClient as SenderV5;

use crate::{ConnectionError, ConnectionOptions, Event, Message, Subscription, Version, v5, v311};

/// A client: what queues its packets, and the connection that carries them, which is made when it is polled first.
pub fn open(options: ConnectionOptions) -> (PacketSender, Connection) {
    let version = options.version;
    let (sender, connection) = match version {
        Version::V5 => {
            let (sender, connection) = v5::open(&options);
            (Sender::V5(sender), Inner::V5(Box::new(connection)))
        }
        Version::V311 => {
            let (sender, connection) = v311::open(&options);
            (Sender::V311(sender), Inner::V311(Box::new(connection)))
        }
    };
    (PacketSender { sender }, Connection { version, inner: connection })
}

/// Queues packets for a connection. They are written while the connection is polled, those of one kind in order.
#[derive(Clone)]
pub struct PacketSender {
    sender: Sender,
}

#[derive(Clone)]
enum Sender {
    V311(SenderV311),
    V5(SenderV5),
}

/// The queue has no room: an event says when it may have room again. Nor has it for a topic that cannot be one: an
/// empty one, or one with a wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection takes no more packets for now")]
pub struct Full;

impl PacketSender {
    /// Publishes a message.
    ///
    /// # Errors
    /// When the queue has no room.
    pub fn publish(&self, message: Message) -> Result<(), Full> {
        match &self.sender {
            Sender::V311(sender) => v311::publish(sender, message),
            Sender::V5(sender) => v5::publish(sender, message),
        }
    }

    /// Acknowledges a message that came at QoS 1, with [`ConnectionOptions::manual_acknowledgement`].
    ///
    /// # Errors
    /// When the queue has no room.
    pub fn acknowledge(&self, packet_id: u16) -> Result<(), Full> {
        match &self.sender {
            Sender::V311(sender) => v311::acknowledge(sender, packet_id),
            Sender::V5(sender) => v5::acknowledge(sender, packet_id),
        }
    }

    /// Makes subscriptions, all in one packet.
    ///
    /// # Errors
    /// When the queue has no room.
    pub fn subscribe(&self, subscriptions: &[Subscription]) -> Result<(), Full> {
        match &self.sender {
            Sender::V311(sender) => v311::subscribe(sender, subscriptions),
            Sender::V5(sender) => v5::subscribe(sender, subscriptions),
        }
    }

    /// Ends a subscription, which need not exist.
    ///
    /// # Errors
    /// When the queue has no room.
    pub fn unsubscribe(&self, filter: &str) -> Result<(), Full> {
        match &self.sender {
            Sender::V311(sender) => sender.try_unsubscribe(filter).map_err(|_| Full),
            Sender::V5(sender) => sender.try_unsubscribe(filter).map_err(|_| Full),
        }
    }

    /// Ends the connection, without its will. The session stays for as long as it was agreed.
    ///
    /// # Errors
    /// When the queue has no room.
    pub fn disconnect(&self) -> Result<(), Full> {
        match &self.sender {
            Sender::V311(sender) => sender.try_disconnect().map_err(|_| Full),
            Sender::V5(sender) => sender.try_disconnect().map_err(|_| Full),
        }
    }
}

/// A connection, which lives while it is polled.
pub struct Connection {
    version: Version,
    inner: Inner,
}

enum Inner {
    V311(Box<v311::Connection>),
    V5(Box<v5::Connection>),
}

impl Connection {
    /// The version of MQTT that is spoken.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Waits for what happens next; connects where there is no connection. On one that resumes its session, what the
    /// broker had not acknowledged is sent again, and what was queued is sent. To be polled to its end: dropped half
    /// way it can lose a packet.
    ///
    /// # Errors
    /// When no connection comes about, or it has ended; after all that came before.
    pub async fn next(&mut self) -> Result<Event, ConnectionError> {
        match &mut self.inner {
            Inner::V311(connection) => connection.next().await,
            Inner::V5(connection) => connection.next().await,
        }
    }

    /// From now on connections resume the session, where the broker has kept it.
    pub fn resume_session(&mut self) {
        match &mut self.inner {
            Inner::V311(connection) => connection.resume_session(),
            Inner::V5(connection) => connection.resume_session(),
        }
    }
}
