//! MQTT 5.

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, ConnectReturnCode, DisconnectReasonCode, Packet, PubAckReason, Publish,
    PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, MqttState, StateError};
use rumqttc::{NetworkOptions, Outgoing, Transport};

use super::{Acknowledgement, Failure, Full, Happened, Incoming, Message};
use crate::options::KEEP_ALIVE;
use crate::{Error, Options};

pub(crate) struct Events {
    events: EventLoop,
    max_in_flight: u16,
}

pub(super) fn open(options: &Options, transport: Transport, capacity: usize) -> (AsyncClient, Events) {
    let mut mqtt = MqttOptions::new(&options.client_id, options.link_host(), options.port);
    let mut network = NetworkOptions::new();
    // With Nagle's algorithm a round trip at QoS 1 takes 44 ms.
    network.set_tcp_nodelay(true);
    mqtt.set_network_options(network);
    mqtt.set_transport(transport);
    mqtt.set_keep_alive(KEEP_ALIVE);
    mqtt.set_connection_timeout(options.connect_timeout.as_secs().max(1));
    // The first connection starts from nothing; `keep_session` turns this off for those after it.
    mqtt.set_clean_start(true);
    mqtt.set_outgoing_inflight_upper_limit(options.max_in_flight);
    if let Some((user, password)) = &options.credentials {
        mqtt.set_credentials(user, password);
    }
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval =
        Some(options.session_expiry.as_secs().try_into().unwrap_or(u32::MAX));
    properties.max_packet_size = Some(options.max_answer);
    mqtt.set_connect_properties(properties);
    let (client, events) = AsyncClient::new(mqtt, capacity);
    (client, Events { events, max_in_flight: options.max_in_flight })
}

impl Events {
    pub(super) async fn poll(&mut self) -> Result<Happened, Failure> {
        Ok(match self.events.poll().await.map_err(failure)? {
            Event::Incoming(Packet::ConnAck(connack)) => {
                let session_present = connack.session_present;
                let max_packet = connack.properties.as_ref().and_then(|given| given.max_packet_size);
                if !session_present {
                    // Of the old session rumqttc would keep its packet ids, which may exceed the new Receive Maximum, and
                    // a message that waits for one of them.
                    let queued = std::mem::take(&mut self.events.state.events);
                    self.events.state = MqttState::new(self.max_in_flight, false);
                    let taken = self.events.state.handle_incoming_packet(Packet::ConnAck(connack));
                    taken.map_err(|error| Failure::Lost(error.to_string()))?;
                    self.events.state.events = queued;
                }
                Happened::Connected { session_present, max_packet }
            }
            Event::Incoming(Packet::SubAck(suback)) => {
                Happened::Subscribed(match suback.return_codes.first() {
                    Some(SubscribeReasonCode::Success(_)) => Ok(()),
                    Some(code) => {
                        Err(Error::Unauthorized(format!("no subscription to the answers: {code:?}")))
                    }
                    None => Err(Error::Closed("the broker's SUBACK is empty".to_owned())),
                })
            }
            Event::Incoming(Packet::PubAck(puback)) => {
                let acknowledgement = match puback.reason {
                    PubAckReason::Success => Acknowledgement::Taken,
                    PubAckReason::NoMatchingSubscribers => Acknowledgement::NobodyListens,
                    PubAckReason::NotAuthorized => Acknowledgement::Unauthorized,
                    reason => Acknowledgement::Refused(format!("{reason:?}")),
                };
                Happened::Acknowledged(puback.pkid, acknowledgement)
            }
            Event::Incoming(Packet::Publish(publish)) => {
                let properties = publish.properties.unwrap_or_default();
                Happened::Message(Incoming {
                    payload: publish.payload,
                    correlation: properties.correlation_data,
                    user_properties: properties.user_properties,
                })
            }
            Event::Outgoing(Outgoing::Publish(packet_id)) => Happened::Written(packet_id),
            Event::Outgoing(Outgoing::Disconnect) => Happened::Disconnected,
            _ => Happened::Other,
        })
    }

    pub(super) fn keep_session(&mut self) {
        self.events.options.set_clean_start(false);
    }
}

fn properties(message: &Message) -> PublishProperties {
    PublishProperties {
        response_topic: Some(message.response_topic.clone()),
        correlation_data: Some(message.correlation.clone()),
        user_properties: message.user_properties.clone(),
        ..PublishProperties::default()
    }
}

pub(super) fn packet_size(message: &Message) -> usize {
    let (topic, payload) = (message.topic.as_str(), message.payload.clone());
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload, Some(properties(message)));
    // Any packet id has the same size, but none has none.
    publish.pkid = 1;
    publish.size()
}

pub(super) fn try_publish(client: &AsyncClient, message: Message) -> Result<(), Full> {
    let properties = properties(&message);
    client
        .try_publish_with_properties(message.topic, QoS::AtLeastOnce, false, message.payload, properties)
        .map_err(|_| Full)
}

fn failure(error: ConnectionError) -> Failure {
    match error {
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            ..
        }) => Failure::TakenOver,
        ConnectionError::ConnectionRefused(ConnectReturnCode::BadUserNamePassword) => {
            Failure::wrong_password()
        }
        ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized) => Failure::not_let_in(),
        ConnectionError::ConnectionRefused(code) => Failure::refused(code),
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => Failure::io(&error),
        ConnectionError::Timeout(_) => Failure::TimedOut,
        ConnectionError::MqttState(StateError::ConnectionAborted) => Failure::closed(),
        ConnectionError::Tls(error) => Failure::Lost(offload_tls::explain(&error)),
        other => Failure::Lost(other.to_string()),
    }
}
