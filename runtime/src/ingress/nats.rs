//! Requests from NATS: many gateways, one service.
//!
//! Devices speak MQTT 3.1.1 to any server of the cluster; its topics are subjects of NATS. What they publish at QoS 1
//! and 2 the servers keep in a stream of their own before they acknowledge it, so that is where these requests are
//! taken from. All others (QoS 0, and clients of NATS itself) come through a work-queue stream. Each gateway pulls as
//! many as it has room for, reports those that it holds, and acknowledges one when its answer is stored; those of a
//! gateway that dies go to another one after the acknowledgement wait.
//!
//! Answers are stored as if they had been published by MQTT at QoS 1, so that sessions get them that were away. The
//! gateway's status, which is retained and has a will, is published by MQTT itself
//! ([`external_mqtt`](super::external_mqtt)).

mod answers;
mod held;
mod jetstream;
mod keys;
mod modules;
mod objects;
mod outcomes;
mod pull;
mod responder;
mod subject;
mod unanswered;

pub use jetstream::{JetStream, NatsError};
pub use keys::GroupKeys;

use super::external_mqtt::counters::Counters;
use super::external_mqtt::{self, ExternalIngress};
use super::intake::Intake;
use super::outgoing::Outgoing;
use super::{Handover, Ingress, Notice, Notices, Statistics};
use crate::client::Client;
use crate::config::{self, BrokerUrl, BrokerUrls, Config, HostPort, MqttVersion, Scheme};
use crate::shared::Shared;
use answers::Answers;
use held::Holding;
use modules::NatsModules;
use offload_broker::{BoxFuture, OnAcknowledged};
use outcomes::NatsOutcomes;
use pull::Puller;
use responder::{Command, MAX_PARTS};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// How long the last demands for requests may take to end.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// How long a status that is lost stays so: servers acknowledge one that they then cannot store, as during an election,
/// or store that of an earlier connection after the newest.
const NOTICES_LAST: Duration = Duration::from_secs(10);
/// How long the last answers may take to be stored when the ingress shuts down.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// A gateway's connection to NATS. Dropped, it takes no more requests.
pub struct NatsIngress {
    jetstream: JetStream,
    commands: UnboundedSender<Command>,
    counters: Arc<Counters>,
    /// Publishes the status.
    notices: ExternalIngress,
    /// The tasks that take requests.
    pulling: TaskTracker,
    stop_pulling: CancellationToken,
    /// The task that publishes answers, and the answers that are not confirmed.
    answering: TaskTracker,
    stop_answering: CancellationToken,
    _reporting: AbortOnDropHandle<()>,
}

impl JetStream {
    /// What this gateway shares with the others.
    ///
    /// # Errors
    ///
    /// When what is there contradicts the configuration.
    pub async fn share(&self, config: &Config) -> Result<(Shared, GroupKeys), NatsError> {
        let retention = config.idempotency.retention.into();
        let outcomes = Arc::new(NatsOutcomes::open(self, retention).await?);
        let (sealed, bucket) = NatsOutcomes::open_sealed(self, retention).await?;
        let modules = Arc::new(NatsModules::open(self, config.limits.module.bytes()).await?);
        let keys = GroupKeys::open(self, bucket).await?;
        Ok((Shared { outcomes, sealed: Arc::new(sealed), modules }, keys))
    }
}

/// What it takes to serve on NATS.
pub struct Settings<'s> {
    /// The connection.
    pub jetstream: JetStream,
    /// The servers.
    pub broker: &'s config::Broker,
    /// Names the connection by MQTT.
    pub client_id: &'s str,
}

impl Ingress for NatsIngress {
    type Settings<'s> = Settings<'s>;
    type Error = NatsError;

    async fn start(
        settings: Self::Settings<'_>,
        intake: Intake,
        notices: Notices,
    ) -> Result<NatsIngress, NatsError> {
        let Settings { jetstream, broker, client_id } = settings;
        let urls = jetstream.config.mqtt.clone().unwrap_or_else(|| mqtt_listeners(&broker.url));
        let mqtt = config::Broker { protocol: MqttVersion::V311, url: urls.clone(), ..broker.clone() };
        let settings = external_mqtt::Settings {
            broker: &mqtt,
            urls: &urls,
            client_id,
            takes_requests: false,
            asks_others: false,
            tap: None,
            group: None,
        };
        let notices = ExternalIngress::connect(settings, intake.clone(), notices)?;

        let mqtt_requests = jetstream.mqtt_requests().await?;
        let requests = jetstream.requests().await?;
        let (commands, receiver) = unbounded_channel();
        let (counters, holding) = (Arc::new(Counters::default()), Holding::default());
        let (pulling, stop_pulling) = (TaskTracker::new(), CancellationToken::new());
        let room_for_parts = Arc::new(Semaphore::new(MAX_PARTS));
        let mqtt_requests = mqtt_requests.into_iter().map(|consumer| (consumer, true));
        for (consumer, from_mqtt_messages) in mqtt_requests.chain([(requests, false)]) {
            let puller = Puller {
                consumer,
                room: Arc::new(Semaphore::new(jetstream.config.in_flight)),
                from_mqtt_messages,
                holding: holding.clone(),
                intake: intake.clone(),
                commands: commands.clone(),
                room_for_parts: room_for_parts.clone(),
                counters: counters.clone(),
                stop: stop_pulling.clone(),
            };
            pulling.spawn(puller.run());
        }
        pulling.close();
        let (answering, stop_answering) = (TaskTracker::new(), CancellationToken::new());
        let answers = Answers {
            client: jetstream.client.clone(),
            context: jetstream.context.clone(),
            counters: counters.clone(),
            unconfirmed: answering.clone(),
        };
        answering.spawn(answers.run(receiver, stop_answering.clone()));
        let reporting = holding.report(jetstream.client.clone(), jetstream.config.ack_wait.into());
        let reporting = AbortOnDropHandle::new(tokio::spawn(reporting));
        tracing::info!("serving via {}", jetstream.urls);
        Ok(NatsIngress {
            jetstream,
            commands,
            counters,
            notices,
            pulling,
            stop_pulling,
            answering,
            stop_answering,
            _reporting: reporting,
        })
    }

    fn url(&self) -> String {
        self.jetstream.urls.to_string()
    }

    fn address(&self) -> Option<SocketAddr> {
        None
    }

    fn publish_answer(&self, _: &Client, answer: Outgoing, _: Option<OnAcknowledged>) -> Handover {
        // The task is gone only after a shutdown, when there is nothing left to do.
        let _ = self.commands.send(Command::Answer(None, Box::new(answer)));
        Handover::Complete
    }

    fn publish_notice(&self, notice: Notice) {
        self.notices.publish_notice(notice);
    }

    /// What this gateway does not hold is there for the others anyway; it demands no more.
    fn stop_taking(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.stop_pulling.cancel();
            let _ = timeout(STOP_WAIT, self.pulling.wait()).await;
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.stop_pulling.cancel();
            self.stop_answering.cancel();
            self.answering.close();
            if timeout(SHUTDOWN_WAIT, self.answering.wait()).await.is_err() {
                tracing::warn!("stopped before NATS had all answers: their requests are answered again");
            }
            let _ = timeout(SHUTDOWN_WAIT, self.jetstream.client.flush()).await;
            self.notices.shutdown().await;
        })
    }

    fn statistics(&self) -> Statistics {
        let connected = self.jetstream.client.connection_state() == async_nats::connection::State::Connected;
        self.counters.snapshot(usize::from(connected))
    }

    fn notices_last(&self) -> Option<Duration> {
        Some(NOTICES_LAST)
    }
}

impl Drop for NatsIngress {
    fn drop(&mut self) {
        self.stop_pulling.cancel();
        self.stop_answering.cancel();
    }
}

/// Where the MQTT listeners of these servers are if nothing else is said: at the registered port of the same hosts.
fn mqtt_listeners(servers: &BrokerUrls) -> BrokerUrls {
    servers.map(|BrokerUrl { scheme, address }| {
        let scheme = if scheme.is_tls() { Scheme::Mqtts } else { Scheme::Mqtt };
        BrokerUrl { scheme, address: HostPort::new(&address.host, scheme.default_port()) }
    })
}
