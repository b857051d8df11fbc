//! The embedded broker as an ingress: requests come straight from the connection that published them, answers go
//! straight to the sessions that wait.

use super::{Client, Delivery, DeliveryProperties, Encoded, Outgoing, Responder, Sink};
use crate::config::Listen;
use crate::gateway::StartError;
use offload_broker::{
    Acknowledgement, Application, Broker, ClientInfo, Message, Properties, QoS, Received, Route, Transport,
};
use offload_protocol::topic;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The first level of each topic that belongs to the gateway, and who publishes there.
const REQUEST_LEVELS: [&str; 2] = ["localCode", "inputCode"];
const GATEWAY_LEVELS: [&str; 2] = ["result", "gateway"];

/// A gateway's own broker.
pub struct EmbeddedIngress {
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl EmbeddedIngress {
    /// Binds the address and takes connections, whose requests go to `sink`.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound, or is not a loopback address.
    pub async fn start(config: &Listen, sink: Arc<dyn Sink>) -> Result<EmbeddedIngress, StartError> {
        let failed = |error| StartError::Listen { address: config.address.to_string(), error };
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host(config.address.to_string()).await.map_err(failed)?.collect();
        if let Some(open) = addresses.iter().find(|address| !address.ip().is_loopback()) {
            return Err(StartError::NotLoopback(*open));
        }
        let listener = TcpListener::bind(&*addresses).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let hook = Arc::new(Hook { sink, broker: OnceLock::new() });
        let broker = Broker::new(broker_config(config), hook.clone());
        hook.broker.set(broker.clone()).unwrap_or_else(|_| unreachable!("set once, here"));
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let serving = tokio::spawn(async move {
            if let Err(error) = broker.serve(listener, Transport::Tcp, stop).await {
                tracing::error!(%error, "the embedded broker stopped");
            }
        });
        Ok(EmbeddedIngress { address, shutdown, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes what is queued for connected clients and closes their connections.
    pub async fn shutdown(self) {
        self.shutdown.cancel();
        let _ = self.serving.await;
    }
}

fn broker_config(listen: &Listen) -> offload_broker::Config {
    offload_broker::Config {
        max_packet_size: listen.max_packet.as_usize(),
        max_connections: listen.max_connections,
        session_queue_messages: listen.session_queue,
        session_queue_bytes: listen.session_queue_bytes.as_usize(),
        ..Default::default()
    }
}

/// What the broker asks and tells us.
struct Hook {
    sink: Arc<dyn Sink>,
    broker: OnceLock<Broker>,
}

impl Application for Hook {
    fn route(&self, _client: &ClientInfo, topic: &str) -> Route {
        let first = topic.split('/').next().unwrap_or_default();
        if REQUEST_LEVELS.contains(&first) {
            Route::Application
        } else if GATEWAY_LEVELS.contains(&first) {
            Route::Refuse
        } else {
            Route::Broker
        }
    }

    fn publish(&self, received: Received) {
        let Received { client, topic, payload, properties, ack, .. } = received;
        let broker = self.broker.get().expect("set before the broker serves").clone();
        let properties =
            properties.map_or_else(DeliveryProperties::default, |properties| DeliveryProperties {
                response_topic: properties.response_topic.clone(),
                correlation_data: properties.correlation_data.clone(),
                user_properties: properties.user_properties.clone(),
            });
        self.sink.deliver(Delivery {
            client: Client { principal: client.user.clone(), flow: client.client_id.clone() },
            topic: topic.to_string(),
            payload,
            properties,
            // A request that is published with RETAIN is run like any other, and never stored.
            retained: false,
            responder: Box::new(EmbeddedResponder { broker, client, ack: Some(ack) }),
        });
    }
}

struct EmbeddedResponder {
    broker: Broker,
    client: Arc<ClientInfo>,
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
        // A client that never learnt its name waits on `result/`, and so may others: the answer is its own.
        let unnamed = outgoing.topic == topic::RESULT_PREFIX;
        if !(unnamed && self.broker.publish_to(&self.client, &message, Some(&oversize))) {
            self.broker.publish(&message, Some(&oversize));
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
        user_properties,
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
