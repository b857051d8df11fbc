//! MQTT 5.

use offload_mqtt::{ConnectionError, EventLoop, because};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, ConnectReturnCode, DisconnectReasonCode, Packet, PubAckReason, Publish,
    PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use rumqttc::{Outgoing, Transport};

use super::{Acknowledgement, Failure, Full, Happened, Incoming, Message, NO_ANSWERS};
use crate::options::KEEP_ALIVE;
use crate::{Error, Options};

pub(crate) struct Events {
    events: EventLoop,
}

pub(super) fn open(options: &Options, transport: Transport, capacity: usize) -> (AsyncClient, Events) {
    let mut mqtt = MqttOptions::new(&options.client_id, options.link_host(), options.port);
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
    let (client, events) = offload_mqtt::connect(mqtt, capacity);
    (client, Events { events })
}

impl Events {
    pub(super) async fn poll(&mut self) -> Result<Happened, Failure> {
        Ok(match self.events.poll().await.map_err(failure)? {
            Event::Incoming(Packet::ConnAck(connack)) => {
                let properties = connack.properties.as_ref();
                Happened::Connected {
                    session_present: connack.session_present,
                    max_packet: properties.and_then(|given| given.max_packet_size),
                    has_qos_1: properties.and_then(|given| given.max_qos) != Some(0),
                }
            }
            Event::Incoming(Packet::SubAck(suback)) => {
                Happened::Subscribed(match suback.return_codes.first() {
                    Some(SubscribeReasonCode::Success(_)) => Ok(()),
                    Some(code) => {
                        let text =
                            suback.properties.as_ref().and_then(|given| given.reason_string.as_deref());
                        let why = because(code, text);
                        Err(Error::Unauthorized(format!("{NO_ANSWERS}: {why}")))
                    }
                    None => Err(Error::Closed("the broker's SUBACK is empty".to_owned())),
                })
            }
            Event::Incoming(Packet::PubAck(puback)) => {
                let text = puback.properties.and_then(|given| given.reason_string);
                let acknowledgement = match puback.reason {
                    PubAckReason::Success => Acknowledgement::Taken,
                    PubAckReason::NoMatchingSubscribers => Acknowledgement::NobodyListens,
                    PubAckReason::NotAuthorized => Acknowledgement::Unauthorized(text),
                    reason => Acknowledgement::Refused(because(reason, text.as_deref())),
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

pub(super) fn try_publish(client: &AsyncClient, message: Message, has_qos_1: bool) -> Result<(), Full> {
    let properties = properties(&message);
    let qos = if has_qos_1 { QoS::AtLeastOnce } else { QoS::AtMostOnce };
    client
        .try_publish_with_properties(message.topic, qos, false, message.payload, properties)
        .map_err(|_| Full)
}

fn failure(error: ConnectionError) -> Failure {
    match error {
        ConnectionError::Disconnected { code: DisconnectReasonCode::SessionTakenOver, .. } => {
            Failure::TakenOver
        }
        ConnectionError::Refused { code: ConnectReturnCode::BadUserNamePassword, reason } => {
            Failure::wrong_password(reason)
        }
        ConnectionError::Refused { code: ConnectReturnCode::NotAuthorized, reason } => {
            Failure::not_let_in(reason)
        }
        ConnectionError::Refused { .. } => Failure::Refused(error.to_string()),
        ConnectionError::Io(error) => Failure::io(&error),
        ConnectionError::TimedOut => Failure::TimedOut,
        other => Failure::Lost(other.to_string()),
    }
}
