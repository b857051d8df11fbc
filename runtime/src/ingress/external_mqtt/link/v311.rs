//! MQTT 3.1.1 on rumqttc.

use std::io::ErrorKind;

use rumqttc::mqttbytes::Error as MqttError;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, EventLoop, LastWill, MqttOptions, Outgoing, Packet,
    Publish, QoS, StateError, SubAck, SubscribeFilter, SubscribeReasonCode,
};

use super::{
    Busy, Connected, Event, Failure, Granted, Incoming, MAX_UNCONFIRMED, Offer, Options, REQUESTS, is_closed,
    reason,
};
use crate::ingress::external_mqtt::publication::Publication;
use crate::ingress::{DeliveryProperties, Notice};

/// The largest packet that MQTT has. A packet over our own limit would end the connection, and be delivered again on
/// the next one, for ever: in 3.1.1 the broker cannot be told, so all are taken, and admission refuses what is too
/// large.
const MAX_PACKET: usize = 268_435_455 + 5;

/// A connection in MQTT 3.1.1.
pub(in super::super) struct Events {
    event_loop: EventLoop,
    connected: bool,
}

pub(super) fn open(options: &Options) -> (AsyncClient, Events) {
    let mut mqtt = MqttOptions::new(&options.client_id, &options.host, options.port);
    mqtt.set_transport(options.transport());
    mqtt.set_keep_alive(options.keep_alive)
        .set_clean_session(false)
        .set_manual_acks(true)
        .set_inflight(MAX_UNCONFIRMED)
        .set_max_packet_size(MAX_PACKET, MAX_PACKET);
    let Notice { topic, payload, retain } = &options.will;
    mqtt.set_last_will(LastWill::new(&**topic, payload.clone(), QoS::AtLeastOnce, *retain));
    if let Some((name, password)) = &options.credentials {
        mqtt.set_credentials(name, password);
    }
    let (client, mut event_loop) = AsyncClient::new(mqtt, REQUESTS);
    event_loop.network_options.set_tcp_nodelay(true);
    event_loop.network_options.set_connection_timeout(options.connect_timeout.as_secs());
    (client, Events { event_loop, connected: false })
}

impl Events {
    pub async fn next(&mut self) -> Result<Event, Failure> {
        use rumqttc::Event as Raw;
        let event = self.event_loop.poll().await.map_err(|error| self.failure(error))?;
        Ok(match event {
            Raw::Incoming(Packet::ConnAck(connack)) => {
                self.connected = true;
                Event::Connected(Connected {
                    session_present: connack.session_present,
                    window: usize::from(MAX_UNCONFIRMED),
                    max_packet: MAX_PACKET,
                    // MQTT 3.1.1 cannot say what is not there.
                    offer: Offer::ALL,
                    shared_subscriptions: false,
                })
            }
            Raw::Incoming(Packet::SubAck(suback)) => Event::Subscribed(granted(&suback)),
            Raw::Incoming(Packet::UnsubAck(_)) => Event::Unsubscribed,
            Raw::Incoming(Packet::Publish(publish)) => Event::Publish(incoming(publish)),
            Raw::Incoming(Packet::PubAck(puback)) => Event::Confirmed(puback.pkid, None),
            Raw::Outgoing(Outgoing::Publish(packet_id)) => Event::Published(packet_id),
            Raw::Outgoing(Outgoing::Disconnect) => Event::Disconnected,
            _ => Event::Other,
        })
    }

    fn failure(&self, error: ConnectionError) -> Failure {
        match error {
            ConnectionError::ConnectionRefused(ConnectReturnCode::RefusedProtocolVersion) => {
                Failure::UnsupportedVersion
            }
            ConnectionError::ConnectionRefused(code) => Failure::Refused(reason(format!("{code:?}"))),
            // What TLS says, once there is a connection: that it wants a certificate, for one.
            ConnectionError::MqttState(
                StateError::Io(error) | StateError::Deserialization(MqttError::Io(error)),
            ) if error.kind() == ErrorKind::InvalidData => {
                Failure::Lost(reason(offload_tls::explain(&error)))
            }
            ConnectionError::MqttState(error) if self.connected => match error {
                StateError::ConnectionAborted => Failure::Closed,
                StateError::Io(error) | StateError::Deserialization(MqttError::Io(error))
                    if is_closed(&error) =>
                {
                    Failure::Closed
                }
                error => Failure::Lost(reason(error)),
            },
            ConnectionError::MqttState(error) => Failure::Handshake(reason(error)),
            ConnectionError::Tls(error) => Failure::Lost(reason(offload_tls::explain(&error))),
            error => Failure::Lost(reason(error)),
        }
    }
}

fn granted(suback: &SubAck) -> Granted {
    let refused = suback.return_codes.iter().filter(|code| **code == SubscribeReasonCode::Failure).count();
    let why = "refused without a reason".to_owned();
    match refused {
        0 => Granted::Yes,
        _ if refused < suback.return_codes.len() => Granted::Partly(why),
        _ => Granted::No(why),
    }
}

fn incoming(publish: Publish) -> Incoming {
    Incoming {
        packet_id: (publish.qos != QoS::AtMostOnce).then_some(publish.pkid),
        dup: publish.dup,
        retain: publish.retain,
        topic: publish.topic,
        payload: publish.payload,
        properties: DeliveryProperties::default(),
    }
}

pub(super) fn publish(client: &AsyncClient, publication: &Publication) -> Result<(), Busy> {
    let Publication { topic, payload, retain, .. } = publication;
    client.try_publish(&**topic, QoS::AtLeastOnce, *retain, payload.clone()).map_err(|_| Busy)
}

pub(super) fn acknowledge(client: &AsyncClient, packet_id: u16) -> Result<(), Busy> {
    let mut publish = Publish::new("", QoS::AtLeastOnce, Vec::new());
    publish.pkid = packet_id;
    client.try_ack(&publish).map_err(|_| Busy)
}

pub(super) fn subscribe(client: &AsyncClient, filters: &[String]) -> Result<(), Busy> {
    let filters = filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
    client.try_subscribe_many(filters).map_err(|_| Busy)
}
