//! The broker: its parts put together, and the handle to them that an application holds.

pub(crate) mod authorization;
mod recovery;
mod wills;

use std::sync::{Arc, Weak};

use tokio_util::sync::CancellationToken;

use crate::{
    application::Application,
    config::Config,
    context::BrokerContext,
    message::Message,
    quotas::Quotas,
    reason::Reason,
    registry::SessionRegistry,
    session::{client::ClientInfo, receipt::OnAcknowledged},
    stats::{Counters, Stats},
    storage::{Key, Record, Storage},
    throttle::Throttle,
    topics::{Oversize, Placed, Published, Topics, sys::Sys},
};

/// An MQTT broker. Clones are handles to the same one.
#[derive(Clone)]
pub struct Broker {
    parts: Arc<Parts>,
}

/// A handle to a [`Broker`] that does not keep it: what the broker keeps may hold one.
#[derive(Clone)]
pub struct WeakBroker {
    parts: Weak<Parts>,
}

impl WeakBroker {
    /// The broker, as long as somebody keeps it.
    pub fn upgrade(&self) -> Option<Broker> {
        self.parts.upgrade().map(|parts| Broker { parts })
    }
}

struct Parts {
    context: Arc<BrokerContext>,
    application: Arc<dyn Application>,
    topics: Arc<Topics>,
    registry: SessionRegistry,
    sys: Sys,
    /// Cancelled when no connection is accepted any more.
    closed: CancellationToken,
}

impl Broker {
    /// A broker without clients, which keeps everything in memory; the application decides about what they publish.
    pub fn new(config: Config, application: Arc<dyn Application>) -> Self {
        Self::on(config, application, None)
    }

    /// A broker that keeps in a storage what is to outlive its process. It begins with the records that the storage
    /// has, in the order of their keys: sessions, their messages and what is retained, within the limits of `config`
    /// and as far as the application lets their clients in. What is left of them is removed, and told in the log.
    pub fn with_storage(
        config: Config,
        application: Arc<dyn Application>,
        storage: Arc<dyn Storage>,
        records: Vec<(Key, Record)>,
    ) -> Self {
        let broker = Self::on(config, application, Some(storage.clone()));
        broker.recover(&storage, records);
        broker
    }

    fn on(config: Config, application: Arc<dyn Application>, storage: Option<Arc<dyn Storage>>) -> Self {
        let context = Arc::new(BrokerContext::new(config, storage));
        let topics = Arc::new(Topics::new(context.clone()));
        let registry = SessionRegistry::new(context.clone(), topics.clone());
        Self {
            parts: Arc::new(Parts {
                context,
                application,
                topics,
                registry,
                sys: Sys::new(),
                closed: CancellationToken::new(),
            }),
        }
    }

    /// A handle that does not keep the broker.
    pub fn downgrade(&self) -> WeakBroker {
        WeakBroker { parts: Arc::downgrade(&self.parts) }
    }

    /// Hands a message of the application's own to every session with a matching subscription, and retains it if it
    /// says so; returns how many sessions have it now. May be called on any thread; never waits for a client.
    ///
    /// `oversize` is asked for a replacement when the message exceeds a receiver's Maximum Packet Size;
    /// without one the receiver does not get it, and that is counted. A message that cannot be encoded
    /// (invalid topic, a field over 65 535 bytes) reaches nobody.
    pub fn publish(&self, message: &Message, oversize: Option<Oversize<'_>>) -> usize {
        let topics = self.topics();
        if topics.is_publishable(message) { topics.publish(message, oversize) } else { 0 }
    }

    /// Publishes a message that a client has caused, an answer for example: at the expense of its
    /// [account](ClientInfo::account), whether the client is still there or not, and to no more sessions of one
    /// identity than [`Config::max_receivers_per_identity`]. Otherwise as [`publish`](Self::publish).
    ///
    /// Where the storage has no room for it, it waits in memory alone for the sessions that are to outlive a crash, and
    /// [`Published::unstored`] says for how many. `on_acknowledged` is called when all sessions that have it now have
    /// acknowledged it, if they all do.
    pub fn publish_for(
        &self,
        account: &str,
        message: &Message,
        oversize: Option<Oversize<'_>>,
        on_acknowledged: Option<OnAcknowledged>,
    ) -> Published {
        let topics = self.topics();
        match topics.is_publishable(message) {
            true => topics.publish_for(account, message, oversize, on_acknowledged),
            false => Published::default(),
        }
    }

    /// Hands a message to the session of one client only, if one of its subscriptions matches. Nothing is retained.
    /// Otherwise as [`publish_for`](Self::publish_for).
    pub fn publish_to(
        &self,
        client: &ClientInfo,
        message: &Message,
        oversize: Option<Oversize<'_>>,
        on_acknowledged: Option<OnAcknowledged>,
    ) -> Placed {
        let topics = self.topics();
        match topics.is_publishable(message) {
            true => topics.publish_to(client, message, oversize, on_acknowledged),
            false => Placed::Dropped,
        }
    }

    /// Hands a message that nobody misses to the sessions with a matching subscription, or to that of `client` alone:
    /// to those that are connected, and have the first quarter of their queue free, so that it never crowds out others.
    /// It is not stored. More than a few sessions do not get it.
    pub fn publish_if_room(&self, message: &Message, client: Option<&ClientInfo>) {
        let topics = self.topics();
        if topics.is_publishable(message) {
            topics.publish_if_room(message, client);
        }
    }

    /// Who uses this client id, or has left a session under it; `None` where that is another user's, or nobody's.
    pub fn client(&self, client_id: &str, user: Option<&str>) -> Option<Arc<ClientInfo>> {
        let client = self.registry().session(client_id)?.client()?;
        (client.user.as_deref() == user).then_some(client)
    }

    /// Whether one of a client's own subscriptions matches a topic; false if its session has ended.
    pub fn is_subscribed(&self, client: &ClientInfo, topic: &str) -> bool {
        self.topics().is_subscribed(client, topic)
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
        self.registry().evict(which, reason)
    }

    /// Accepts no connection any more, on any listener; those that are there go on. Whoever connects waits in the
    /// listener's queue: for whom has the same socket, or until [`serve`](Self::serve) ends and closes it.
    pub fn stop_accepting(&self) {
        self.parts.closed.cancel();
    }

    /// What happens in the broker, in numbers.
    pub fn stats(&self) -> Stats {
        let mut stats = self.counters().snapshot();
        self.quotas().count_into(&mut stats);
        self.topics().count_into(&mut stats);
        stats.sessions = self.registry().len();
        stats
    }

    // ---- The parts, for the connections ----

    pub(crate) fn context(&self) -> &Arc<BrokerContext> {
        &self.parts.context
    }

    pub(crate) fn config(&self) -> &Config {
        &self.parts.context.config
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.parts.context.counters
    }

    pub(crate) fn throttle(&self) -> &Throttle {
        &self.parts.context.throttle
    }

    pub(crate) fn quotas(&self) -> &Quotas {
        &self.parts.context.quotas
    }

    pub(crate) fn application(&self) -> &dyn Application {
        &*self.parts.application
    }

    pub(crate) fn topics(&self) -> &Topics {
        &self.parts.topics
    }

    pub(crate) fn registry(&self) -> &SessionRegistry {
        &self.parts.registry
    }

    pub(crate) fn sys(&self) -> &Sys {
        &self.parts.sys
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.parts.closed
    }
}
