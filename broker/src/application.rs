//! What an application that embeds the broker sees and decides: who may connect, publish and subscribe, and the
//! messages it claims.

use std::{
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    message::{Properties, QoS},
    reason::Refusal,
    session::{
        acknowledgement::Acknowledgement,
        client::{ClientInfo, Identity, Login},
    },
};

/// A future that an [`Application`] returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

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

/// The application in whose process the broker runs. All methods are called on a connection's task: they must
/// not block, and [`authenticate`](Self::authenticate) must not block when it is polled. Topics that start with `$` are
/// refused without asking; what bridges publish about themselves, on `$SYS/broker/connection/<name>/state`, is taken
/// and goes nowhere, in a will too.
pub trait Application: Send + Sync + 'static {
    /// Decides who a client is, or why it may not connect: 0x86 and 0x87 (3.1.1: 4 and 5) for bad credentials and
    /// for those that do not suffice, 0x85 (2) for a client id that this client may not have, 0x89 (3) when too
    /// many ask at once. The cause is logged beside it. Another identity's session is never given to it, whatever this
    /// returns.
    ///
    /// Awaited on the connection's own task, so that a slow answer delays no other client, and given up at
    /// [`Config::connect_timeout`](crate::Config::connect_timeout). What takes long to compute, such as the hash of
    /// a password, belongs on a thread of its own (`tokio::task::spawn_blocking`). How many run at a time is for the
    /// application to bound: strangers cause them, one a connection.
    ///
    /// By default nobody is checked: the user name is taken at its word, and an empty one is none.
    fn authenticate(&self, login: Login) -> BoxFuture<'_, Result<Identity, Refusal>> {
        let user = login.user_name.filter(|name| !name.is_empty());
        Box::pin(ready(Ok(Identity { user: user.map(Arc::from), credential: 0 })))
    }

    /// Asked again when an authenticated client is about to get its session, under the lock that
    /// [`Broker::disconnect`](crate::Broker::disconnect) takes too: what has been taken back since
    /// [`authenticate`](Self::authenticate) began is refused here, and whoever is let in is found by a later
    /// `disconnect`. It must be quick and must not call the broker. By default everyone stays let in.
    ///
    /// # Errors
    /// Why the client may not connect after all.
    fn confirm(&self, client: &ClientInfo) -> Result<(), Refusal> {
        let _ = client;
        Ok(())
    }

    /// Decides about one filter of a SUBSCRIBE; a refusal is answered with 0x87 (3.1.1: 0x80). By default everyone
    /// may subscribe to everything.
    fn may_subscribe(&self, client: &ClientInfo, filter: &str) -> bool {
        let _ = (client, filter);
        true
    }

    /// Decides about a PUBLISH, or a will, before it is routed. A will is also checked at CONNECT, which is
    /// refused when this refuses it.
    fn route(&self, client: &ClientInfo, topic: &str) -> Route;

    /// Takes a message whose topic `route` claimed; a QoS 2 message exactly once. Nothing is retained.
    fn publish(&self, message: Received);

    /// Called after one call of [`publish`](Self::publish) or several, when all that a connection has read is handed
    /// over. What is better done once for many messages is done here, and answers that are published here leave with
    /// the acknowledgements. By default nothing.
    fn published(&self) {}
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
