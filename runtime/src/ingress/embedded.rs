//! The embedded broker as an ingress: requests come straight from the connection that published them, answers go
//! straight to the sessions that wait.

use super::delivery::{Acceptance, Delivery, DeliveryProperties, Handover, Parts, Responder};
use super::intake::Intake;
use super::outgoing::{Encoded, Outgoing, ReplyAddress};
use super::{Ingress, Notice, Notices, Statistics, Tap};
use crate::auth::Auth;
use crate::auth::access::{Access, Who};
use crate::auth::authentication::{self, Authentication, Dismiss, KnownBy, Refused};
use crate::client::Client;
use crate::config::{Config, HostPort, TimeSpan};
use crate::durability::sessions::BrokerStorage;
use crate::log_sampling::sampled;
use crate::systemd::{InheritedSockets, Role, SocketError, Systemd};
use crate::watchdog::{self, Credentials};
use arc_swap::ArcSwap;
use bytes::Bytes;
use offload_broker::{
    Application, BoxFuture, Broker, ClientInfo, Dropped, Identity, Login, Message, OnAcknowledged, Placed,
    Properties, Published, QoS, Reason, Received, Refusal, Route, Transport, WebSocket,
};
use offload_protocol::topic;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The first level of each topic on which requests come.
const REQUEST_LEVELS: [&str; 2] = ["localCode", "inputCode"];

/// The part of the journal's log that messages in sessions may take: half of what records may. Requests, sessions and
/// retained messages have the rest.
const MESSAGES_OF_LOG: u64 = 4;

/// What [`Hook::route`] has found a topic to be: one that carries requests.
const REQUEST: u32 = 0;
/// The watchdog's own topic.
const WATCHDOG: u32 = 1;

/// A gateway's own broker. Dropped, it takes no more connections and ends those that there are.
pub struct EmbeddedIngress {
    address: SocketAddr,
    broker: Broker,
    /// Whether the sockets are another's, too: whoever connects while the gateway stops is for the next one.
    keeps_sockets: bool,
    /// Ends the watchdog, and the task that publishes the audit log.
    leave: CancellationToken,
    publishing: TaskTracker,
    /// Ends the listeners and the connections.
    stop: CancellationToken,
    /// One task for each listener.
    serving: TaskTracker,
    /// The status that is left behind.
    offline: Notice,
}

/// What an embedded broker needs to start.
pub struct Settings<'s> {
    /// Where it listens, within which limits.
    pub config: &'s Config,
    /// Who may connect, and what each may do.
    pub auth: Auth,
    /// Sockets that are open already, and who hears that the broker lives.
    pub systemd: Systemd,
    /// Where it keeps what outlives the process, and what an earlier one has left; `None` keeps it in memory.
    pub storage: Option<BrokerStorage>,
    /// Takes copies of ordinary messages.
    pub tap: Option<Tap>,
}

/// Why an embedded broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}{}", hint(.error))]
    Listen {
        /// The address.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// Strangers could reach it.
    #[error(
        "cannot listen on {0}: strangers could reach it, and nothing keeps them out; say who may by `access.passwords` \
         or `tls.client_ca`, or let everyone in with --allow-anonymous"
    )]
    Exposed(SocketAddr),
    /// Sockets were handed over that are not for this gateway.
    #[error(transparent)]
    Sockets(#[from] SocketError),
    /// Something else that the operating system refused.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
}

impl Ingress for EmbeddedIngress {
    type Settings<'s> = Settings<'s>;
    type Error = EmbeddedError;

    async fn start(
        settings: Self::Settings<'_>,
        intake: Intake,
        notices: Notices,
    ) -> Result<EmbeddedIngress, EmbeddedError> {
        let Settings { config, auth: Auth { access, authentication, tls, .. }, systemd, storage, tap } =
            settings;
        let Systemd { mut sockets, notifier } = systemd;
        let keeps_sockets = !sockets.is_empty();
        let credentials =
            Credentials::new(&config.name).map_err(|error| EmbeddedError::Io("randomness", error.into()))?;
        let mut open = Opening { sockets: &mut sockets, authentication: &authentication };
        let plain = open.listener(Role::Mqtt, &config.listen.address).await?;
        let address = plain.local_addr().map_err(|error| EmbeddedError::Io("listener", error))?;
        let mut listeners = vec![(plain, Transport::Tcp)];
        if let (Some(config), Some(tls)) = (&config.tls, &tls) {
            let listener = open.listener(Role::Mqtts, &config.address).await?;
            listeners.push((listener, Transport::Tls(tls.clone())));
        }
        if let Some(config) = &config.websocket {
            let tls = tls.filter(|_| config.tls);
            let websocket = WebSocket { origins: config.origins.clone(), tls };
            let role = if config.tls { Role::Wss } else { Role::Ws };
            let listener = open.listener(role, &config.address).await?;
            listeners.push((listener, Transport::WebSocket(websocket)));
        }
        sockets.none_left()?;

        let hook = Arc::new(Hook { access, authentication, credentials: credentials.clone(), intake, tap });
        let limits = offload_broker::Config {
            max_stored_bytes: (config.journal.log.bytes() / MESSAGES_OF_LOG) as usize,
            ..config.listen.broker_config(&config.watchdog)
        };
        let broker = match storage {
            Some(BrokerStorage { storage, records }) => {
                Broker::with_storage(limits, hook.clone(), storage, records)
            }
            None => Broker::new(limits, hook.clone()),
        };
        hook.authentication.on_reload(dismissal(&hook, &broker));
        let Notices { status, offline, audit_log, .. } = notices;
        let ingress = EmbeddedIngress {
            address,
            broker,
            keeps_sockets,
            leave: CancellationToken::new(),
            publishing: TaskTracker::new(),
            stop: CancellationToken::new(),
            serving: TaskTracker::new(),
            offline,
        };
        ingress.publish_notice(status);
        let (broker, leave) = (ingress.broker.clone(), ingress.leave.clone());
        ingress.publishing.spawn(publish_audit_log(broker, audit_log, leave));
        ingress.publishing.close();
        for (listener, transport) in listeners {
            ingress.serve(listener, transport);
        }
        ingress.serving.close();
        if config.watchdog.enabled {
            let mut config = config.watchdog.clone();
            if let Some(interval) = notifier.watchdog_interval() {
                config.interval = config.interval.min(TimeSpan::micros(interval.as_micros() as u64));
            }
            let (leave, alive) = (ingress.leave.clone(), move || notifier.alive());
            watchdog::start(address, credentials, config, leave, alive, exit_unresponsive)
                .map_err(|error| EmbeddedError::Io("watchdog", error))?;
        }
        Ok(ingress)
    }

    fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }

    fn publish_answer(
        &self,
        asker: &Client,
        answer: Outgoing,
        on_acknowledged: Option<OnAcknowledged>,
    ) -> Handover {
        let oversize = |limit: usize, size: &dyn Fn(&Message) -> usize| fitting(&answer, limit, size);
        let message = message(&answer);
        // A client that never learnt its name waits there, as others do.
        if answer.address.topic != topic::RESULT_PREFIX {
            published(self.broker.publish_for(&asker.account, &message, Some(&oversize), on_acknowledged))
        } else if let Some(client) = self.broker.client(&asker.flow, asker.principal.as_deref()) {
            placed(self.broker.publish_to(&client, &message, Some(&oversize), on_acknowledged))
        } else {
            sampled!(info, "an answer is dropped: the connection that it was for is gone");
            Handover::Complete
        }
    }

    fn publish_notice(&self, notice: Notice) {
        publish(&self.broker, notice);
    }

    fn stop_taking(&self) -> BoxFuture<'_, ()> {
        if self.keeps_sockets {
            self.broker.stop_accepting();
        }
        Box::pin(async {})
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.leave.cancel();
            self.publishing.wait().await;
            publish(&self.broker, self.offline.clone());
            // What is queued for connected clients is written first.
            self.stop.cancel();
            self.serving.wait().await;
        })
    }

    fn statistics(&self) -> Statistics {
        let stats = self.broker.stats();
        let Dropped { qos0_queue, queue_full, expired, oversize, gone, too_many_receivers, .. } =
            stats.dropped;
        Statistics {
            connections: stats.connections,
            messages_in: stats.messages_received,
            messages_out: stats.messages_sent,
            dropped: qos0_queue + queue_full + expired + oversize + gone + too_many_receivers,
        }
    }
}

impl EmbeddedIngress {
    fn serve(&self, listener: TcpListener, transport: Transport) {
        if let (Ok(address), false) = (listener.local_addr(), matches!(transport, Transport::Tcp)) {
            tracing::info!(%address, "listening, {}", transport_name(&transport));
        }
        let (broker, stop) = (self.broker.clone(), self.stop.clone());
        self.serving.spawn(async move {
            if let Err(error) = broker.serve(listener, transport, stop).await {
                tracing::error!(%error, "the embedded broker stopped");
            }
        });
    }
}

impl Drop for EmbeddedIngress {
    fn drop(&mut self) {
        self.leave.cancel();
        self.stop.cancel();
    }
}

/// Opens listeners that strangers cannot reach, or where they are kept out.
struct Opening<'o> {
    sockets: &'o mut InheritedSockets,
    authentication: &'o Authentication,
}

impl Opening<'_> {
    /// The socket that was handed over for this listener, or a new one at its address.
    async fn listener(&mut self, role: Role, address: &HostPort) -> Result<TcpListener, EmbeddedError> {
        let failed = |error| EmbeddedError::Listen { address: address.to_string(), error };
        if let Some(socket) = self.sockets.take(role) {
            self.keep_out_strangers(&[socket.local_addr().map_err(failed)?])?;
            return TcpListener::from_std(socket).map_err(failed);
        }
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host(address.to_string()).await.map_err(failed)?.collect();
        self.keep_out_strangers(&addresses)?;
        TcpListener::bind(&*addresses).await.map_err(failed)
    }

    fn keep_out_strangers(&self, addresses: &[SocketAddr]) -> Result<(), EmbeddedError> {
        match addresses.iter().find(|address| !address.ip().is_loopback()) {
            Some(exposed) if !self.authentication.may_be_exposed() => Err(EmbeddedError::Exposed(*exposed)),
            _ => Ok(()),
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; is another broker running? `--listen 127.0.0.1:0` picks a free port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 are for root",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address; 0.0.0.0 is all that it has",
        _ => "",
    }
}

/// What the watchdog does when the broker does not answer.
fn exit_unresponsive(reason: String) {
    tracing::error!(reason, "the embedded broker is unresponsive: the gateway exits");
    std::process::exit(watchdog::EXIT_UNRESPONSIVE);
}

fn transport_name(transport: &Transport) -> &'static str {
    match transport {
        Transport::Tcp => "MQTT",
        Transport::Tls(_) => "MQTT over TLS",
        Transport::WebSocket(WebSocket { tls: None, .. }) => "MQTT over WebSocket",
        Transport::WebSocket(_) => "MQTT over WebSocket and TLS",
    }
}

/// Publishes the audit log until `leave`, and then what is left of it.
async fn publish_audit_log(broker: Broker, mut lines: mpsc::Receiver<Notice>, leave: CancellationToken) {
    while let Some(Some(line)) = leave.run_until_cancelled(lines.recv()).await {
        publish(&broker, line);
    }
    while let Ok(line) = lines.try_recv() {
        publish(&broker, line);
    }
}

fn publish(broker: &Broker, Notice { topic, payload, retain }: Notice) {
    broker.publish(&Message { topic, payload, qos: QoS::AtLeastOnce, retain, properties: None }, None);
}

/// What the broker asks and tells us.
struct Hook {
    access: Arc<ArcSwap<Access>>,
    authentication: Arc<Authentication>,
    credentials: Credentials,
    intake: Intake,
    /// Takes copies of ordinary messages.
    tap: Option<Tap>,
}

impl Application for Hook {
    fn authenticate(&self, login: Login) -> BoxFuture<'_, Result<Identity, Refusal>> {
        Box::pin(async move {
            if let Some(user) =
                self.credentials.identify(login.user_name.as_deref(), login.password.as_deref())
            {
                return Ok(Identity { user: Some(user), credential: 0 });
            }
            self.authentication.check(&login).await.map_err(refusal)
        })
    }

    fn confirm(&self, client: &ClientInfo) -> Result<(), Refusal> {
        confirm(&self.authentication, client).map_err(refusal)
    }

    fn keeps_session(&self, client: &ClientInfo) -> bool {
        self.authentication.keeps(client.user.as_deref(), &client.client_id, client.transport)
    }

    fn may_subscribe(&self, client: &ClientInfo, filter: &str) -> bool {
        self.credentials.is_own(client.user.as_deref(), filter)
            || self.access.load().may_subscribe(who(client), filter)
    }

    fn route(&self, client: &ClientInfo, topic: &str) -> Route {
        let first = topic.split('/').next().unwrap_or_default();
        if self.credentials.is_own(client.user.as_deref(), topic) {
            Route::Application(WATCHDOG)
        } else if !self.access.load().may_publish(who(client), topic) {
            Route::Refuse
        } else if REQUEST_LEVELS.contains(&first) || topic::parse_routed(topic).is_some() {
            Route::Application(REQUEST)
        } else {
            Route::Broker
        }
    }

    fn passes(&self, message: &Message) {
        if let Some(tap) = self.tap.as_ref().filter(|tap| tap.wants(&message.topic)) {
            (tap.take)(&message.topic, &message.payload, message.retain);
        }
    }

    fn publish(&self, broker: &Broker, received: Received) {
        let Received { client, topic, claim, payload, properties, qos, ack, .. } = received;
        if claim == WATCHDOG {
            // Back to the watchdog alone: nobody else is to see it.
            let message = Message { topic, payload, qos: QoS::AtLeastOnce, retain: false, properties: None };
            broker.publish_to(&client, &message, None, None);
            return ack.complete();
        }
        let properties =
            properties.map_or_else(DeliveryProperties::default, |properties| DeliveryProperties {
                response_topic: properties.response_topic.clone(),
                correlation_data: properties.correlation_data.clone(),
                user_properties: properties
                    .user_properties
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
            });
        // Only such a request can be answered on the topic of those that do not know their name.
        let unnamed =
            topic.ends_with('/') || properties.response_topic.as_deref() == Some(topic::RESULT_PREFIX);
        let is_shared = unnamed
            && self.authentication.known_by() == KnownBy::Nothing
            && !broker.is_subscribed(&client, topic::RESULT_PREFIX);
        let batch = self.intake.batch();
        batch.deliver(Delivery {
            client: Client {
                principal: client.user.clone(),
                flow: client.client_id.clone(),
                account: client.account().clone(),
                web: authentication::is_web(client.transport),
            },
            topic: topic.to_string(),
            payload,
            properties,
            // A request that is published with RETAIN is run like any other, and never stored.
            retained: false,
            acceptance: Acceptance::acknowledging(ack),
            responder: Box::new(EmbeddedResponder { broker: broker.clone(), client, is_shared, qos }),
        });
        // The broker calls `published` when it has handed over all that it has read.
        batch.suspend();
    }

    fn published(&self, _broker: &Broker) {
        self.intake.batch().end();
    }
}

/// Ends the connections and sessions of those who may no longer be let in, or may hold a subscription that the rules
/// took from them: they connect again, and subscribe to what they may.
fn dismissal(hook: &Arc<Hook>, broker: &Broker) -> Dismiss {
    let before = Mutex::new(hook.access.load_full());
    // The broker keeps the hook, which keeps the authentication, which keeps this.
    let (broker, hook) = (broker.downgrade(), Arc::downgrade(hook));
    Box::new(move || {
        let Some((broker, hook)) = broker.upgrade().zip(hook.upgrade()) else { return };
        let now = hook.access.load_full();
        let before = std::mem::replace(&mut *before.lock().expect("no panic while it is held"), now.clone());
        let is_lost = |client: &ClientInfo| {
            confirm(&hook.authentication, client).is_err()
                || !hook.keeps_session(client)
                || before.grants_more_than(&now, who(client))
        };
        let ended = broker.disconnect(is_lost, Reason::NotAuthorized);
        if ended > 0 {
            tracing::info!(
                ended,
                "clients are no longer let in, or may do less: their connections and sessions end"
            );
        }
    })
}

fn confirm(authentication: &Authentication, client: &ClientInfo) -> Result<(), Refused> {
    authentication.confirm(client.user.as_deref(), client.credential, &client.client_id)
}

/// What the client is told, and the cause for the log.
fn refusal(refused: Refused) -> Refusal {
    let (reason, cause) = match refused {
        Refused::Credentials => {
            (Reason::BadUserNameOrPassword, "the user name is unknown, or its password is wrong")
        }
        Refused::Nameless => {
            (Reason::BadUserNameOrPassword, "the client id is a user's name, and no user name was given")
        }
        Refused::Anonymous => (
            Reason::NotAuthorized,
            "no user name was given, and clients without one are not let in (access.anonymous)",
        ),
        Refused::ClientId => (Reason::ClientIdentifierNotValid, "the client id is the name of another user"),
        Refused::Busy => (Reason::ServerBusy, "too many passwords wait to be checked"),
    };
    Refusal::new(reason, cause)
}

fn who(client: &ClientInfo) -> Who<'_> {
    Who {
        user: client.user.as_deref(),
        client_id: &client.client_id,
        web: authentication::is_web(client.transport),
    }
}

/// The session of the client that asked.
struct EmbeddedResponder {
    broker: Broker,
    client: Arc<ClientInfo>,
    /// An answer on `result/` may go to others: nothing tells clients apart, and this one had no such subscription of
    /// its own when it asked.
    is_shared: bool,
    /// That of the request.
    qos: QoS,
}

impl Responder for EmbeddedResponder {
    fn answer(self: Box<Self>, answer: Outgoing, on_acknowledged: Option<OnAcknowledged>) -> Handover {
        let oversize = |limit: usize, size: &dyn Fn(&Message) -> usize| fitting(&answer, limit, size);
        // A client that never learnt its name waits on `result/`, and so may others: the answer is its own, and
        // nobody's if it cannot take it.
        let unnamed = answer.address.topic == topic::RESULT_PREFIX;
        let is_shared = self.is_shared && !self.broker.is_subscribed(&self.client, topic::RESULT_PREFIX);
        if unnamed && !is_shared {
            placed(self.broker.publish_to(&self.client, &message(&answer), Some(&oversize), on_acknowledged))
        } else {
            let account = self.client.account();
            published(self.broker.publish_for(account, &message(&answer), Some(&oversize), on_acknowledged))
        }
    }

    fn ignore(self: Box<Self>) {}

    fn max_payload(&self, address: &ReplyAddress) -> Option<usize> {
        let limit = Some(self.client.max_packet).filter(|limit| *limit < usize::MAX)?;
        let correlation_data = address.correlation_data.as_ref().map_or(0, Bytes::len);
        Some(limit.saturating_sub(AROUND_PAYLOAD + address.topic.len() + correlation_data))
    }

    fn parts(&self) -> Option<Box<dyn Parts>> {
        let (broker, client) = (self.broker.clone(), self.client.clone());
        let qos = if self.qos == QoS::AtMostOnce { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        Some(Box::new(EmbeddedParts { broker, client, qos }))
    }
}

/// The way of parts of an answer to the sessions that are connected and take them.
struct EmbeddedParts {
    broker: Broker,
    client: Arc<ClientInfo>,
    qos: QoS,
}

impl Parts for EmbeddedParts {
    fn publish(&self, topic: String, _: u64, part: Bytes) {
        // What goes below `result/` itself is of a client that has no name there.
        let unnamed = topic.strip_prefix(topic::RESULT_PREFIX).is_some_and(|rest| rest.starts_with('/'));
        let message =
            Message { topic: topic.into(), payload: part, qos: self.qos, retain: false, properties: None };
        self.broker.publish_if_room(&message, unnamed.then_some(&*self.client));
    }
}

fn placed(placed: Placed) -> Handover {
    if placed == Placed::Unstored { Handover::InMemory } else { Handover::Complete }
}

fn published(published: Published) -> Handover {
    if published.unstored > 0 { Handover::InMemory } else { Handover::Complete }
}

/// Bytes by which length fields may grow between an empty message and a full one: three of the remaining length, three
/// of the property length.
const LENGTH_GROWTH: usize = 6;

/// Most bytes of a packet beside topic, Correlation Data and payload: headers, lengths, and the identifiers of some
/// subscriptions.
const AROUND_PAYLOAD: usize = 40;

/// A smaller answer for a receiver that takes packets of `limit` bytes; `size` tells a message's encoded size.
fn fitting(answer: &Outgoing, limit: usize, size: &dyn Fn(&Message) -> usize) -> Option<Message> {
    let address = &answer.address;
    let room = limit.checked_sub(size(&message_with(address, Encoded::default())) + LENGTH_GROWTH)?;
    Some(message_with(address, answer.encode(Some(room))?))
}

/// The answer for a receiver that takes packets of any size; empty where the configuration leaves no room for it.
fn message(answer: &Outgoing) -> Message {
    message_with(&answer.address, answer.encode(None).unwrap_or_default())
}

fn message_with(address: &ReplyAddress, (payload, user_properties): Encoded) -> Message {
    let properties = Properties {
        correlation_data: address.correlation_data.clone(),
        user_properties: user_properties.into_iter().collect(),
        ..Properties::default()
    };
    Message {
        topic: address.topic.as_str().into(),
        payload,
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Some(Arc::new(properties)),
    }
}
