//! What an application that embeds the broker sees: who publishes, and the messages it claims.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Weak},
};

use bytes::Bytes;

use crate::{
    acknowledgement::Acknowledgement,
    message::{Properties, QoS},
    session::Session,
};

/// Protocol version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// One connection of a client.
pub struct ClientInfo {
    /// The session's name.
    pub client_id: Arc<str>,
    /// True if the broker chose the client id; a 3.1.1 client never learns it.
    pub assigned: bool,
    /// The authenticated user. There is no authentication yet: `None`.
    pub username: Option<String>,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// What it speaks.
    pub version: Version,
    pub(crate) session: Weak<Session>,
}

impl fmt::Debug for ClientInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientInfo")
            .field("client_id", &self.client_id)
            .field("assigned", &self.assigned)
            .field("username", &self.username)
            .field("peer", &self.peer)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Where a PUBLISH goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To subscribers, as in any broker.
    Broker,
    /// To [`Application::publish`], and to nobody else.
    Application,
    /// Nowhere: reason code 0x87 at QoS 1 and 2 in MQTT 5, otherwise a logged drop.
    Refuse,
}

/// The application in whose process the broker runs. All methods are called on a connection's task: they must not
/// block. Topics that start with `$` are refused without asking.
pub trait Application: Send + Sync + 'static {
    /// Decides about a PUBLISH, or a will, before it is routed. A will is also checked at CONNECT, which is refused
    /// when this refuses it.
    fn route(&self, client: &ClientInfo, topic: &str) -> Route;

    /// Takes a message whose topic `route` claimed; a QoS 2 message exactly once. Nothing is retained.
    fn publish(&self, message: Received);
}

/// Claims and refuses nothing: a plain broker.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoApplication;

impl Application for NoApplication {
    fn route(&self, _client: &ClientInfo, _topic: &str) -> Route {
        Route::Broker
    }

    fn publish(&self, _message: Received) {}
}

/// A message for the application.
#[derive(Debug)]
pub struct Received {
    /// Who sent it.
    pub client: Arc<ClientInfo>,
    /// Topic name.
    pub topic: Arc<str>,
    /// The bytes as they came.
    pub payload: Bytes,
    /// MQTT 5 properties, if there were any.
    pub properties: Option<Box<Properties>>,
    /// The publisher's choice.
    pub qos: QoS,
    /// The RETAIN flag, which has no effect on claimed topics.
    pub retain: bool,
    /// Set when the client sent this message before. At QoS 1 it may have been handed over already.
    pub dup: bool,
    /// To be completed once the message is safe.
    pub ack: Acknowledgement,
}
