//! The embedded broker as an ingress: requests come straight from the connection that published them, answers go
//! straight to the sessions that wait.

use super::{Client, Delivery, DeliveryProperties, Encoded, Notice, Notices, Outgoing, Responder, Sink};
use crate::auth::Auth;
use crate::auth::access::{Access, Who};
use crate::auth::authentication::{self, Authentication, KnownBy, Refused};
use crate::config::{Config, HostPort, Listen, Watchdog};
use crate::gateway::StartError;
use crate::watchdog::{self, Credentials};
use offload_broker::config::DEFAULT_MAX_QUEUED_BYTES;
use offload_broker::{
    Acknowledgement, Application, BoxFuture, Broker, ClientInfo, Identity, Login, Message, Properties, QoS,
    Reason, Received, Refusal, Route, Transport, WebSocket,
};
use offload_protocol::topic;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The first level of each topic on which requests come.
const REQUEST_LEVELS: [&str; 2] = ["localCode", "inputCode"];

/// What [`Hook::route`] has found a topic to be: one that carries requests.
const REQUEST: u32 = 0;
/// The watchdog's own topic.
const WATCHDOG: u32 = 1;

/// A gateway's own broker.
pub struct EmbeddedIngress {
    address: SocketAddr,
    /// Ends the watchdog when dropped.
    watchdog: DropGuard,
    shutdown: CancellationToken,
    /// One for each listener.
    serving: TaskTracker,
    /// Ends the task that publishes notices, with the last of them.
    leave: CancellationToken,
    announcing: JoinHandle<()>,
}

impl EmbeddedIngress {
    /// Binds the addresses of `config` and takes the connections that `auth` lets in, whose requests go to `sink`;
    /// `notices` are published.
    ///
    /// # Errors
    ///
    /// When an address cannot be bound, or strangers could reach it and nothing keeps them out.
    pub async fn start(
        config: &Config,
        auth: Auth,
        sink: Arc<dyn Sink>,
        mut notices: Notices,
    ) -> Result<EmbeddedIngress, StartError> {
        let Auth { access, authentication, tls } = auth;
        let credentials =
            Credentials::new(&config.name).map_err(|error| StartError::Io("randomness", error.into()))?;
        let plain = bind(&config.listen.address, &authentication).await?;
        let address = plain.local_addr().map_err(|error| StartError::Io("listener", error))?;
        let mut listeners = vec![(plain, Transport::Tcp)];
        if let (Some(config), Some(tls)) = (&config.tls, &tls) {
            listeners.push((bind(&config.address, &authentication).await?, Transport::Tls(tls.clone())));
        }
        if let Some(config) = &config.websocket {
            let tls = tls.filter(|_| config.tls);
            let websocket = WebSocket { origins: config.origins.clone(), tls };
            listeners.push((bind(&config.address, &authentication).await?, Transport::WebSocket(websocket)));
        }

        let hook = Arc::new(Hook { access, authentication, credentials: credentials.clone(), sink });
        let broker = Broker::new(broker_config(&config.listen, &config.watchdog), hook.clone());
        let (lost, asked) = (broker.clone(), hook.authentication.clone());
        hook.authentication.on_reload(Box::new(move || {
            let is_lost = |client: &ClientInfo| confirm(&asked, client).is_err();
            let ended = lost.disconnect(is_lost, Reason::NotAuthorized);
            if ended > 0 {
                tracing::info!(ended, "clients are no longer let in: their connections and sessions end");
            }
        }));
        publish(&broker, notices.status.borrow_and_update().clone());
        let leave = CancellationToken::new();
        let announcing = tokio::spawn(announce(broker.clone(), notices, leave.clone()));
        let shutdown = CancellationToken::new();
        let serving = TaskTracker::new();
        for (listener, transport) in listeners {
            if let (Ok(address), false) = (listener.local_addr(), matches!(transport, Transport::Tcp)) {
                tracing::info!(%address, "listening, {}", transport_name(&transport));
            }
            let (broker, stop) = (broker.clone(), shutdown.clone());
            serving.spawn(async move {
                if let Err(error) = broker.serve(listener, transport, stop).await {
                    tracing::error!(%error, "the embedded broker stopped");
                }
            });
        }
        serving.close();
        let watched = CancellationToken::new();
        if config.watchdog.enabled {
            watchdog::start(
                address,
                credentials,
                config.watchdog.clone(),
                watched.clone(),
                exit_unresponsive,
            )
            .map_err(|error| StartError::Io("watchdog", error))?;
        }
        let watchdog = watched.drop_guard();
        Ok(EmbeddedIngress { address, watchdog, shutdown, serving, leave, announcing })
    }

    /// Where it listens, without TLS.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says goodbye, writes what is queued for connected clients and closes their connections.
    pub async fn shutdown(self) {
        drop(self.watchdog);
        self.leave.cancel();
        let _ = self.announcing.await;
        self.shutdown.cancel();
        self.serving.wait().await;
    }
}

/// Binds an address that strangers cannot reach, or where they are kept out.
async fn bind(address: &HostPort, authentication: &Authentication) -> Result<TcpListener, StartError> {
    let failed = |error| StartError::Listen { address: address.to_string(), error };
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host(address.to_string()).await.map_err(failed)?.collect();
    if let Some(exposed) = addresses.iter().find(|address| !address.ip().is_loopback())
        && !authentication.may_be_exposed()
    {
        return Err(StartError::Exposed(*exposed));
    }
    TcpListener::bind(&*addresses).await.map_err(failed)
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

/// Publishes notices until `leave`, and then the last.
async fn announce(broker: Broker, mut notices: Notices, leave: CancellationToken) {
    loop {
        tokio::select! {
            Ok(()) = notices.status.changed() => publish(&broker, notices.status.borrow_and_update().clone()),
            Some(line) = notices.audit_log.recv() => publish(&broker, line),
            () = leave.cancelled() => break,
        }
    }
    while let Ok(line) = notices.audit_log.try_recv() {
        publish(&broker, line);
    }
    publish(&broker, notices.offline);
}

fn publish(broker: &Broker, Notice { topic, payload, retain }: Notice) {
    broker.publish(&Message { topic, payload, qos: QoS::AtLeastOnce, retain, properties: None }, None);
}

/// The broker's limits: what the configuration says, and what follows from that.
pub(crate) fn broker_config(listen: &Listen, watchdog: &Watchdog) -> offload_broker::Config {
    let session_queue_bytes = listen.session_queue_bytes.as_usize();
    offload_broker::Config {
        max_packet_size: listen.max_packet.as_usize(),
        // The watchdog's own takes nobody's place.
        max_connections: listen.max_connections + usize::from(watchdog.enabled),
        max_connections_per_address: listen.max_connections_per_address,
        max_sessions_away_per_identity: listen.max_sessions_away_per_identity,
        max_subscriptions: listen.max_subscriptions,
        max_subscriptions_per_user: listen.max_subscriptions_per_user,
        max_subscriptions_per_address: listen.max_subscriptions_per_address,
        max_subscription_bytes: listen.max_subscription_bytes.as_usize(),
        max_receivers_per_identity: listen.max_answer_receivers,
        max_connections_per_user: listen.max_connections_per_user,
        max_input_bytes: listen.max_input.as_usize(),
        max_input_bytes_per_identity: listen.max_input_per_user.as_usize(),
        receive_buffer: listen.receive_buffer.as_usize(),
        min_input_rate: listen.min_input_rate.bytes(),
        sys_interval: listen.sys_interval.duration(),
        max_message_rate: listen.max_message_rate,
        max_byte_rate: listen.max_byte_rate.bytes(),
        session_queue_messages: listen.session_queue,
        session_queue_bytes,
        // One identity alone may have half of it: enough for the queue of one session.
        max_queued_bytes: DEFAULT_MAX_QUEUED_BYTES.max(session_queue_bytes.saturating_mul(2)),
        max_retained_messages: listen.max_retained_messages,
        max_retained_bytes: listen.max_retained_bytes.as_usize(),
        max_topic_length: listen.max_topic_length,
        max_topic_levels: listen.max_topic_levels,
        ..Default::default()
    }
}

/// What the broker asks and tells us.
struct Hook {
    access: Arc<Access>,
    authentication: Arc<Authentication>,
    credentials: Credentials,
    sink: Arc<dyn Sink>,
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

    fn may_subscribe(&self, client: &ClientInfo, filter: &str) -> bool {
        self.credentials.is_own(client.user.as_deref(), filter)
            || self.access.may_subscribe(who(client), filter)
    }

    fn route(&self, client: &ClientInfo, topic: &str) -> Route {
        let first = topic.split('/').next().unwrap_or_default();
        if self.credentials.is_own(client.user.as_deref(), topic) {
            Route::Application(WATCHDOG)
        } else if !self.access.may_publish(who(client), topic) {
            Route::Refuse
        } else if REQUEST_LEVELS.contains(&first) {
            Route::Application(REQUEST)
        } else {
            Route::Broker
        }
    }

    fn publish(&self, broker: &Broker, received: Received) {
        let Received { client, topic, claim, payload, properties, ack, .. } = received;
        if claim == WATCHDOG {
            // Back to the watchdog alone: nobody else is to see it.
            let message = Message { topic, payload, qos: QoS::AtLeastOnce, retain: false, properties: None };
            broker.publish_to(&client, &message, None);
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
        self.sink.deliver(Delivery {
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
            responder: Box::new(EmbeddedResponder {
                broker: broker.clone(),
                client,
                is_shared,
                ack: Some(ack),
            }),
        });
    }

    fn published(&self, _broker: &Broker) {
        self.sink.delivered();
    }
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

struct EmbeddedResponder {
    broker: Broker,
    client: Arc<ClientInfo>,
    /// An answer on `result/` may go to others: nothing tells clients apart, and this one had no such subscription of
    /// its own when it asked.
    is_shared: bool,
    ack: Option<Acknowledgement>,
}

impl Responder for EmbeddedResponder {
    fn accepted(&mut self) {
        if let Some(ack) = self.ack.take() {
            ack.complete();
        }
    }

    fn answer(mut self: Box<Self>, outgoing: Outgoing) {
        self.accepted();
        let message = message(&outgoing, outgoing.encode());
        let oversize = |limit: usize, size: &dyn Fn(&Message) -> usize| fitting(&outgoing, limit, size);
        // A client that never learnt its name waits on `result/`, and so may others: the answer is its own, and
        // nobody's if it cannot take it.
        let unnamed = outgoing.topic == topic::RESULT_PREFIX;
        let is_shared = self.is_shared && !self.broker.is_subscribed(&self.client, topic::RESULT_PREFIX);
        if unnamed && !is_shared {
            self.broker.publish_to(&self.client, &message, Some(&oversize));
        } else {
            self.broker.publish_for(&self.client, &message, Some(&oversize));
        }
    }

    fn ignore(mut self: Box<Self>) {
        self.accepted();
    }
}

/// Bytes by which length fields may grow between an empty message and a full one: three of the remaining length, three
/// of the property length.
const LENGTH_GROWTH: usize = 6;

/// A smaller answer for a receiver that takes packets of `limit` bytes; `size` tells a message's encoded size.
fn fitting(outgoing: &Outgoing, limit: usize, size: &dyn Fn(&Message) -> usize) -> Option<Message> {
    let room = limit.checked_sub(size(&message(outgoing, Encoded::default())) + LENGTH_GROWTH)?;
    Some(message(outgoing, outgoing.encode_within(room)?))
}

fn message(outgoing: &Outgoing, (payload, user_properties): Encoded) -> Message {
    let properties = Properties {
        correlation_data: outgoing.correlation_data.clone(),
        user_properties: user_properties.into_iter().collect(),
        ..Properties::default()
    };
    Message {
        topic: outgoing.topic.as_str().into(),
        payload,
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Some(Arc::new(properties)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_the_configuration_are_the_brokers() {
        let listen = Listen {
            max_subscriptions: 2,
            max_retained_messages: 3,
            max_retained_bytes: crate::config::ByteSize::kib(64),
            max_topic_length: 200,
            max_topic_levels: 8,
            ..Listen::default()
        };
        let config = broker_config(&listen, &Watchdog::default());
        assert!(config.check().is_ok());
        let limits = (config.max_subscriptions, config.max_retained_messages, config.max_retained_bytes);
        assert_eq!(limits, (2, 3, 64 * 1024));
        assert_eq!((config.max_topic_length, config.max_topic_levels), (200, 8));
        // What is said of the defaults in both places is the same.
        let (ours, theirs) =
            (broker_config(&Listen::default(), &Watchdog::default()), offload_broker::Config::default());
        assert!(ours.check().is_ok());
        let limits = |config: &offload_broker::Config| {
            let topics = (config.max_topic_length, config.max_topic_levels);
            (config.max_subscriptions, config.max_retained_messages, config.max_retained_bytes, topics)
        };
        assert_eq!(limits(&ours), limits(&theirs));
    }
}
