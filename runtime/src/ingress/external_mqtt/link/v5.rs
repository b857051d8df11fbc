//! MQTT 5 on rumqttc.

use std::io::ErrorKind;
use std::time::Duration;

use offload_mqtt::{ConnectionError, EventLoop, because};
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectProperties, ConnectReturnCode, DisconnectReasonCode, Filter, LastWill, Packet,
    PubAckReason, Publish, PublishProperties, RetainForwardRule, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, MqttOptions};
use tokio::time::timeout;

use super::{
    Busy, Connected, Event, Failure, Granted, Incoming, MAX_UNCONFIRMED, Offer, Options, REQUESTS, is_closed,
    reason,
};
use crate::ingress::external_mqtt::publication::Publication;
use crate::ingress::{DeliveryProperties, Notice};

/// How long a write may take, on top of the time to connect and that in which an idle connection is probed.
const STALL: Duration = Duration::from_secs(10);

/// A connection in MQTT 5.
pub(in super::super) struct Events {
    event_loop: EventLoop,
    connected: bool,
}

pub(super) fn open(options: &Options) -> (AsyncClient, Events) {
    let mut mqtt = MqttOptions::new(&options.client_id, &options.host, options.port);
    mqtt.set_transport(options.transport());
    mqtt.set_keep_alive(options.keep_alive)
        .set_connection_timeout(options.connect_timeout.as_secs())
        .set_clean_start(false)
        .set_manual_acks(true)
        .set_outgoing_inflight_upper_limit(MAX_UNCONFIRMED);
    let Notice { topic, payload, retain } = &options.will;
    let Offer { qos_1, retained } = options.offer;
    mqtt.set_last_will(LastWill::new(&**topic, payload.clone(), qos(qos_1), *retain && retained, None));
    if let Some((name, password)) = &options.credentials {
        mqtt.set_credentials(name, password);
    }
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval =
        Some(options.session_expiry.as_secs().try_into().unwrap_or(u32::MAX));
    properties.receive_maximum = Some(options.receive_maximum);
    properties.max_packet_size = Some(options.max_packet.try_into().unwrap_or(u32::MAX));
    mqtt.set_connect_properties(properties);
    let (client, event_loop) = offload_mqtt::connect(mqtt, REQUESTS);
    (client, Events { event_loop, connected: false })
}

impl Events {
    pub async fn next(&mut self) -> Result<Event, Failure> {
        use rumqttc::v5::Event as Raw;
        // An idle connection is probed, but not one on which a packet waits to be written.
        let connecting = Duration::from_secs(self.event_loop.options.connection_timeout());
        let longest = connecting + self.event_loop.keep_alive() * 2 + STALL;
        let event = match timeout(longest, self.event_loop.poll()).await {
            Ok(event) => event.map_err(|error| self.failure(error))?,
            Err(_) => return Err(Failure::Lost("the broker takes nothing any more".to_owned())),
        };
        Ok(match event {
            Raw::Incoming(Packet::ConnAck(connack)) => {
                self.connected = true;
                Event::Connected(connected(connack))
            }
            Raw::Incoming(Packet::SubAck(suback)) => Event::Subscribed(granted(&suback)),
            Raw::Incoming(Packet::UnsubAck(_)) => Event::Unsubscribed,
            Raw::Incoming(Packet::Publish(publish)) => Event::Publish(incoming(publish)),
            Raw::Incoming(Packet::PubAck(puback)) => {
                let accepted =
                    matches!(puback.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
                let text = puback.properties.and_then(|properties| properties.reason_string);
                Event::Confirmed(puback.pkid, (!accepted).then(|| because(puback.reason, text.as_deref())))
            }
            Raw::Outgoing(Outgoing::Publish(packet_id)) => Event::Published(packet_id),
            Raw::Outgoing(Outgoing::Disconnect) => Event::Disconnected,
            _ => Event::Other,
        })
    }

    fn failure(&self, error: ConnectionError) -> Failure {
        use ConnectReturnCode::{QoSNotSupported, RetainNotSupported, UnsupportedProtocolVersion};
        match error {
            ConnectionError::Refused { code: UnsupportedProtocolVersion, .. } => Failure::UnsupportedVersion,
            ConnectionError::Refused { code: RetainNotSupported, .. } => {
                Failure::Lacks(Offer { retained: false, ..Offer::ALL })
            }
            ConnectionError::Refused { code: QoSNotSupported, .. } => {
                Failure::Lacks(Offer { qos_1: false, ..Offer::ALL })
            }
            ConnectionError::Refused { code, reason } => Failure::Refused(because(code, reason.as_deref())),
            ConnectionError::Disconnected { code: DisconnectReasonCode::SessionTakenOver, .. } => {
                Failure::TakenOver
            }
            ConnectionError::Disconnected { .. } => Failure::Lost(error.to_string()),
            // What TLS says, once there is a connection: that it wants a certificate, for one.
            ConnectionError::Io(error) if error.kind() == ErrorKind::InvalidData => {
                Failure::Lost(reason(offload_tls::explain(&error)))
            }
            ConnectionError::Closed if self.connected => Failure::Closed,
            ConnectionError::Io(error) if self.connected && is_closed(&error) => Failure::Closed,
            ConnectionError::Io(error) if is_closed(&error) => Failure::Handshake(reason(error)),
            ConnectionError::Closed | ConnectionError::Protocol(_) if !self.connected => {
                Failure::Handshake(error.to_string())
            }
            error => Failure::Lost(reason(error)),
        }
    }
}

fn connected(connack: ConnAck) -> Connected {
    let session_present = connack.session_present;
    let properties = connack.properties;
    let properties = properties.as_ref();
    let receive_maximum = properties.and_then(|properties| properties.receive_max).unwrap_or(u16::MAX);
    let max_packet = properties.and_then(|properties| properties.max_packet_size);
    Connected {
        session_present,
        window: usize::from(receive_maximum.min(MAX_UNCONFIRMED)),
        max_packet: max_packet.map_or(usize::MAX, |bytes| bytes as usize),
        offer: Offer {
            qos_1: properties.and_then(|properties| properties.max_qos) != Some(0),
            retained: properties.and_then(|properties| properties.retain_available) != Some(0),
        },
        shared_subscriptions: properties.and_then(|properties| properties.shared_subscription_available)
            != Some(0),
    }
}

fn granted(suback: &SubAck) -> Granted {
    let text = suback.properties.as_ref().and_then(|properties| properties.reason_string.as_deref());
    let is_granted = |code: &&SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
    let refused = suback.return_codes.iter().find(|code| !is_granted(code));
    let any = suback.return_codes.iter().any(|code| is_granted(&code));
    match refused {
        None => Granted::Yes,
        Some(SubscribeReasonCode::SharedSubscriptionsNotSupported) => Granted::NotShared,
        Some(code) if any => Granted::Partly(because(code, text)),
        Some(code) => Granted::No(because(code, text)),
    }
}

fn incoming(publish: Publish) -> Incoming {
    let properties = publish.properties.unwrap_or_default();
    Incoming {
        packet_id: (publish.qos != QoS::AtMostOnce).then_some(publish.pkid),
        dup: publish.dup,
        retain: publish.retain,
        topic: String::from_utf8(publish.topic.into()).unwrap_or_default(),
        payload: publish.payload,
        properties: DeliveryProperties {
            response_topic: properties.response_topic,
            correlation_data: properties.correlation_data,
            user_properties: properties.user_properties,
        },
    }
}

pub(super) fn publish(client: &AsyncClient, publication: &Publication, offer: Offer) -> Result<(), Busy> {
    let properties = PublishProperties {
        correlation_data: publication.correlation_data.clone(),
        user_properties: publication.user_properties.clone(),
        ..Default::default()
    };
    let Publication { topic, payload, retain, .. } = publication;
    client
        .try_publish_with_properties(
            &**topic,
            qos(offer.qos_1),
            *retain && offer.retained,
            payload.clone(),
            properties,
        )
        .map_err(|_| Busy)
}

fn qos(qos_1: bool) -> QoS {
    if qos_1 { QoS::AtLeastOnce } else { QoS::AtMostOnce }
}

pub(super) fn acknowledge(client: &AsyncClient, packet_id: u16) -> Result<(), Busy> {
    let publish = Publish { qos: QoS::AtLeastOnce, pkid: packet_id, ..Default::default() };
    client.try_ack(&publish).map_err(|_| Busy)
}

pub(super) fn subscribe(client: &AsyncClient, filters: &[String]) -> Result<(), Busy> {
    let filters = filters.iter().map(|filter| Filter {
        // What was stored before we came is no request: the broker need not send it.
        retain_forward_rule: RetainForwardRule::Never,
        ..Filter::new(filter, QoS::AtLeastOnce)
    });
    client.try_subscribe_many(filters).map_err(|_| Busy)
}
