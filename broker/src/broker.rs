//! The handle that an application holds.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    application::Application,
    config::Config,
    core::{Core, Oversize, Receipt},
    error::Error,
    listener,
    message::Message,
    packet::outbound_publish::encodable,
    reason::Reason,
    session::client::ClientInfo,
    stats::Stats,
    throttle::{Cause, clip},
    topics::topic,
    transport::Transport,
};

/// An MQTT broker. Clones are handles to the same one.
#[derive(Clone)]
pub struct Broker {
    core: Arc<Core>,
}

impl Broker {
    /// A broker without clients; the application decides about what they publish.
    pub fn new(config: Config, application: Arc<dyn Application>) -> Self {
        Self { core: Arc::new(Core::new(config, application)) }
    }

    /// Accepts connections on this transport until `shutdown` is cancelled, then closes them (MQTT 5: DISCONNECT 0x8B;
    /// wills are not published) and returns when they are gone, after a second at most. Sessions stay, and a broker may
    /// be served again, or on several listeners at a time.
    ///
    /// Whoever reaches the listener may try to connect. Whether its address may be more than loopback is for the
    /// application to decide: only it knows whether its [`authenticate`](Application::authenticate) keeps anyone out.
    ///
    /// # Errors
    /// At once, for a configuration that fails [`Config::check`].
    pub async fn serve(
        &self,
        listener: TcpListener,
        transport: Transport,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        listener::serve(&self.core, listener, transport, shutdown).await
    }

    /// Hands a message of the application's own to every session with a matching subscription, and retains it if it
    /// says so; returns how many sessions have it now. May be called on any thread; never waits for a client.
    ///
    /// `oversize` is asked for a replacement when the message exceeds a receiver's Maximum Packet Size;
    /// without one the receiver does not get it, and that is counted. A message that cannot be encoded
    /// (invalid topic, a field over 65 535 bytes) reaches nobody.
    pub fn publish(&self, message: &Message, oversize: Option<Oversize<'_>>) -> usize {
        if self.publishable(message) { self.core.publish(message, oversize) } else { 0 }
    }

    /// Publishes a message that a client has caused, an answer for example: at its expense, and to no more sessions of
    /// one identity than [`Config::max_receivers_per_identity`]. Otherwise as [`publish`](Self::publish).
    pub fn publish_for(
        &self,
        client: &ClientInfo,
        message: &Message,
        oversize: Option<Oversize<'_>>,
    ) -> usize {
        if self.publishable(message) { self.core.publish_for(client, message, oversize) } else { 0 }
    }

    /// Hands a message to the session of one client only, if one of its subscriptions matches. Nothing is retained.
    /// Otherwise as [`publish`](Self::publish).
    pub fn publish_to(
        &self,
        client: &ClientInfo,
        message: &Message,
        oversize: Option<Oversize<'_>>,
    ) -> Receipt {
        if !self.publishable(message) {
            return Receipt::NotTaken;
        }
        match client.session.upgrade() {
            Some(session) => self.core.publish_to(&session, message, oversize),
            None => self.core.gone(),
        }
    }

    /// Whether one of a client's own subscriptions matches a topic; false if its session is no more.
    pub fn is_subscribed(&self, client: &ClientInfo, topic: &str) -> bool {
        let session = client.session.upgrade();
        session.is_some_and(|session| self.core.grant_of(&session, topic).is_some())
    }

    /// Ends the connections and the sessions of these clients at once, for an application that has changed its mind
    /// about them; returns how many there were. Who has only a session, being away, is asked for as it was connected
    /// last. May be called on any thread; never waits for a client.
    ///
    /// A connection is closed with DISCONNECT and this reason (3.1.1 is not told): [`Reason::NotAuthorized`] or
    /// [`Reason::AdministrativeAction`], for example; one that DISCONNECT cannot carry is sent as 0x80. Its
    /// subscriptions and what waits for it are gone when this returns. Of what was read from it before, messages at QoS
    /// 0 may still be published, if [`Application::route`] lets them. Wills are not. The clients may connect again, and
    /// are then new.
    ///
    /// Whose [`authenticate`](Application::authenticate) is under way is not among them:
    /// [`confirm`](Application::confirm) is asked about it afterwards.
    pub fn disconnect(&self, which: impl Fn(&ClientInfo) -> bool, reason: Reason) -> usize {
        self.core.evict(which, reason)
    }

    /// What happens in the broker, in numbers.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    fn publishable(&self, message: &Message) -> bool {
        let topic = &message.topic;
        let publishable = topic::valid_name(topic)
            && topic::over_limit(topic, &self.core.config).is_none()
            && encodable(message);
        if !publishable && let Some(left_out) = self.core.throttle.line(Cause::Fault) {
            warn!(topic = clip(topic), left_out, "the application published what cannot be encoded");
        }
        publishable
    }
}
