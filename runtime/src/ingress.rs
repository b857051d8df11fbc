//! The one interface between brokers and the gateway.
//!
//! An [`Ingress`] turns MQTT publishes on the request topics into [`Delivery`]s, gives them to an [`Intake`], and
//! publishes the answers. Nothing behind it knows whether the broker is our own ([`embedded`]) or somebody else's
//! ([`external_mqtt`], [`nats`]). What differs is inside: when a request is acknowledged is in the [`Acceptance`] that
//! comes with each delivery, how an answer finds its session in the [`Responder`].
//!
//! Another kind of broker is another file in here that implements [`Ingress`], and one more line where the gateway
//! starts.

mod delivery;
pub mod embedded;
pub mod external_mqtt;
mod intake;
pub mod nats;
mod outgoing;

pub use crate::client::Client;
use bytes::Bytes;
pub use delivery::{Acceptance, Delivery, DeliveryProperties, Handover, Left, Parts, Responder};
pub use intake::{Batch, Intake, Sink};
use offload_broker::{BoxFuture, OnAcknowledged};
pub use outgoing::{Encoded, Outgoing, ReplyAddress, Seal, SealWith};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A connection to a broker, or a broker of our own, that requests come from.
///
/// All methods but [`start`](Self::start) can be called on any thread, and none of them blocks it.
pub trait Ingress: Send + Sync + 'static {
    /// What this kind needs to start.
    type Settings<'s>
    where
        Self: Sized;

    /// Why this kind cannot start.
    type Error: std::error::Error
    where
        Self: Sized;

    /// Starts to take requests, which go to `intake`, and publishes `notices`. Returns when requests are taken; call it
    /// within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When requests can never be taken with these settings. A broker that is away is waited for.
    fn start(
        settings: Self::Settings<'_>,
        intake: Intake,
        notices: Notices,
    ) -> impl Future<Output = Result<Self, Self::Error>> + Send
    where
        Self: Sized;

    /// The URL that clients connect to.
    fn url(&self) -> String;

    /// Where it listens without TLS; `None` where the broker is not our own.
    fn address(&self) -> Option<SocketAddr>;

    /// Publishes an answer at QoS 1 to all who wait on its topic, without the connection that asked: the answer to a
    /// request that a journal has kept, or a router has brought. On a broker that tells connections apart, an answer
    /// that was for that connection alone goes to the session that `asker` has now, if it has one. `on_acknowledged` is
    /// as for [`Responder::answer`].
    fn publish_answer(
        &self,
        asker: &Client,
        answer: Outgoing,
        on_acknowledged: Option<OnAcknowledged>,
    ) -> Handover;

    /// Publishes a message of the gateway's own at QoS 1. One on the status's topic is the status from now on; others
    /// are dropped while there is no connection.
    fn publish_notice(&self, notice: Notice);

    /// Asks for no more requests, and returns when the broker gives them to others, or after a short time. A broker of
    /// our own has nobody to give them to: those that still come are the sink's to refuse.
    fn stop_taking(&self) -> BoxFuture<'_, ()>;

    /// Publishes the last notice and the answers that were given, for a short time at most, and closes the connections.
    fn shutdown(&self) -> BoxFuture<'_, ()>;

    /// What has passed through it.
    fn statistics(&self) -> Statistics;

    /// After which time the last notice is published again, where a broker may lose what it has acknowledged.
    fn notices_last(&self) -> Option<Duration> {
        None
    }
}

/// What takes copies of ordinary messages, for other sites.
pub struct Tap {
    /// Of which topics.
    pub filters: Vec<String>,
    /// Topics below this one are none of them.
    pub but_below: String,
    /// Takes a copy: its topic, its payload, and whether it is retained. Never blocks.
    pub take: TakeCopy,
}

/// Takes a copy of a message.
pub type TakeCopy = Box<dyn Fn(&str, &Bytes, bool) + Send + Sync>;

impl Tap {
    /// Whether messages on this topic are to be taken.
    pub fn wants(&self, topic: &str) -> bool {
        let is_below = |prefix: &str| topic.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
        !is_below(&self.but_below)
            && self.filters.iter().any(|filter| offload_protocol::topic::matches(filter, topic))
    }
}

/// Answers where nothing is left of the connection that asked.
pub struct Detached {
    /// Where the request came from.
    pub ingress: Arc<dyn Ingress>,
    /// Who has asked.
    pub asker: Client,
}

impl Responder for Detached {
    fn answer(self: Box<Self>, answer: Outgoing, on_acknowledged: Option<OnAcknowledged>) -> Handover {
        // Its topic is one of another site, whose router asks again.
        if self.asker.is_routed() {
            return Handover::Complete;
        }
        self.ingress.publish_answer(&self.asker, answer, on_acknowledged)
    }

    fn ignore(self: Box<Self>) {}
}

/// What has passed through an ingress since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Connections that are open now: those of clients, or the one to an external broker.
    pub connections: usize,
    /// Messages that came in, requests or not.
    pub messages_in: u64,
    /// Messages that went out: counted for each receiver by the embedded broker, else when the broker has them.
    pub messages_out: u64,
    /// Messages that did not reach a receiver.
    pub dropped: u64,
}

/// A message of the gateway's own, beside the answers, on a topic below `gateway/`. Published at QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Where it goes.
    pub topic: Arc<str>,
    /// What it says.
    pub payload: Bytes,
    /// Whether the broker keeps it for those who come later.
    pub retain: bool,
}

/// What an ingress publishes beside the answers, from the moment when it can until it shuts down.
#[derive(Debug)]
pub struct Notices {
    /// The gateway's status: published at each connection to a broker, until [`Ingress::publish_notice`] replaces it.
    pub status: Notice,
    /// The status that is left behind, however the gateway goes.
    pub offline: Notice,
    /// What the audit log shows. Taken only while there is room, and lost with the connection.
    pub audit_log: mpsc::Receiver<Notice>,
    /// What tells the gateway from others of its name, if it is to be told.
    pub instance: Option<String>,
}

impl Notices {
    /// A status, and no audit log.
    pub fn fixed(status: Notice, offline: Notice) -> Notices {
        Notices { status, offline, audit_log: mpsc::channel(1).1, instance: None }
    }
}
