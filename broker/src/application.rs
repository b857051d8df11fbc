//! The application in whose process the broker runs: the hooks by which it decides who may connect, publish and
//! subscribe, and takes messages itself.

use std::{
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    broker::Broker,
    message::{Message, Properties, QoS},
    reason::Refusal,
    session::{
        acknowledgement::Acknowledgement,
        client::{ClientInfo, Identity, Login},
    },
};

/// A future that an [`Application`] returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The hooks of a broker. Each has a default, and with all of them the broker is a plain one: everyone may connect,
/// publish and subscribe, and nothing is taken from the subscribers.
///
/// # On whose thread
///
/// Every hook is called on the task of the connection that causes it, within that task's poll. Nothing may block in it.
/// It may compute, and an application may well run a client's request there and then: two wake-ups of sleeping threads
/// cost more than many a request does. What that means for the others:
///
/// - The connections on the same thread of the runtime wait meanwhile. A connection's poll ends after 500 µs (half a
///   millisecond), hooks included, so a hook that takes no longer adds at most as much again to what each of them
///   waits. What takes longer belongs on a thread of its own, and its message's [`Acknowledgement`] may go with it.
/// - The time is charged to the client's identity. While others are served, an identity that has used up its share of
///   the threads waits. What it used beyond its share is a debt that it pays in the next windows of 10 ms.
/// - A hook that panics ends the connection that called it, and no other.
///
/// No lock of the broker is held, but for [`confirm`](Self::confirm), so that every other hook may call the broker. A
/// will that is due is published on the task of its connection, of the one that has taken its session over, or of a
/// listener. While a broker with a storage is made, [`keeps_session`](Self::keeps_session) and
/// [`may_subscribe`](Self::may_subscribe) are asked.
pub trait Application: Send + Sync + 'static {
    // ---- Authentication ----

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
    /// By default nobody is checked: the user name is believed, and an empty one is none.
    fn authenticate(&self, login: Login) -> BoxFuture<'_, Result<Identity, Refusal>> {
        let user = login.user_name.filter(|name| !name.is_empty());
        Box::pin(ready(Ok(Identity { user: user.map(Arc::from), credential: 0 })))
    }

    /// Asked again when an authenticated client is about to get its session, under the lock that [`Broker::disconnect`]
    /// takes too: what has been taken back since [`authenticate`](Self::authenticate) began is refused here, and
    /// whoever is let in is found by a later `disconnect`. It must return within microseconds and must not call the
    /// broker: no client gets a session meanwhile. By default everyone stays let in.
    ///
    /// # Errors
    ///
    /// Why the client may not connect after all.
    fn confirm(&self, client: &ClientInfo) -> Result<(), Refusal> {
        let _ = client;
        Ok(())
    }

    /// Asked when the broker starts, for each session that it finds in its storage: whether its client could still
    /// connect. If not, the session is no more. Its subscriptions are each asked about, too, by
    /// [`may_subscribe`](Self::may_subscribe). The client is shown as it was connected last, with the credential 0. By
    /// default every session stays.
    fn keeps_session(&self, client: &ClientInfo) -> bool {
        let _ = client;
        true
    }

    // ---- Authorization ----

    /// Decides about one filter of a SUBSCRIBE; a refusal is answered with 0x87 (3.1.1: 0x80). By default everyone
    /// may subscribe to everything.
    fn may_subscribe(&self, client: &ClientInfo, filter: &str) -> bool {
        let _ = (client, filter);
        true
    }

    /// Decides where a PUBLISH goes. Asked once for each, before its payload has come if that is large; what it
    /// finds out about the topic need not be found out again, see [`Route::Application`]. A will is also checked at
    /// CONNECT, which is refused when this refuses it.
    ///
    /// Topics that start with `$` are refused without asking; what bridges publish about themselves, on
    /// `$SYS/broker/connection/<name>/state`, is taken and goes nowhere, in a will too.
    ///
    /// By default everything goes to the subscribers.
    fn route(&self, client: &ClientInfo, topic: &str) -> Route {
        let _ = (client, topic);
        Route::Broker
    }

    // ---- Messages ----

    /// Takes a message whose topic [`route`](Self::route) claimed; a QoS 2 message exactly once. Nothing is retained.
    /// The broker that it came to is handed over with it, to be answered through, now or later through a clone.
    ///
    /// By default the message is refused with 0x80: nothing is claimed by default either.
    fn publish(&self, broker: &Broker, message: Received) {
        let _ = (broker, message);
    }

    /// Sees a message of a client that goes to the subscribers, before it does. By default nothing.
    fn passes(&self, message: &Message) {
        let _ = message;
    }

    /// Called after one call of [`publish`](Self::publish) or several, when all that a connection has read is handed
    /// over. What is better done once for many messages is done here, and answers that are published here leave with
    /// the acknowledgements. By default nothing.
    fn published(&self, broker: &Broker) {
        let _ = broker;
    }
}

/// Where a PUBLISH goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To subscribers, as in any broker.
    Broker,
    /// To [`Application::publish`], and to nobody else. The number is the application's own, and comes back as
    /// [`Received::claim`].
    Application(u32),
    /// Nowhere: reason code 0x87 at QoS 1 and 2 in MQTT 5, otherwise a logged drop.
    Refuse,
}

/// A message for the application.
#[derive(Debug)]
pub struct Received {
    /// Who sent it.
    pub client: Arc<ClientInfo>,
    /// Topic name.
    pub topic: Arc<str>,
    /// The number that [`Route::Application`] gave it.
    pub claim: u32,
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

/// All defaults: a plain broker.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoApplication;

impl Application for NoApplication {}
