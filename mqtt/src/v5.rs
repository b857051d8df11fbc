//! MQTT 5 on rumqttc's packets and state.

mod codec;
mod event_loop;
mod qos0;

use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectProperties, Filter, LastWill, Packet, Publish, PublishProperties, RetainForwardRule,
};
use rumqttc::v5::{AsyncClient, Event as RumqttcEvent, MqttOptions};

use self::event_loop::EventLoop;
pub use self::qos0::{Opened, Publisher, Qos0Connection};
use crate::{
    Connected, ConnectionError, ConnectionOptions, Event, Full, Message, Properties, Reason, Subscription,
    qos,
};

pub(crate) struct Connection {
    event_loop: EventLoop,
}

pub(crate) fn open(options: &ConnectionOptions) -> (AsyncClient, Connection) {
    let (sender, event_loop) = event_loop::open(rumqttc_options(options), options);
    (sender, Connection { event_loop })
}

fn rumqttc_options(options: &ConnectionOptions) -> MqttOptions {
    let mut mqtt = MqttOptions::new(&options.client_id, options.bare_host(), options.port);
    mqtt.set_keep_alive(options.keep_alive_seconds())
        .set_connection_timeout(options.connect_timeout_seconds())
        .set_clean_start(options.clean_start)
        .set_manual_acks(options.manual_acknowledgement)
        .set_outgoing_inflight_upper_limit(options.max_in_flight);
    if let Some(will) = &options.will {
        let (topic, payload) = (will.topic.as_str(), will.payload.clone());
        mqtt.set_last_will(LastWill::new(topic, payload, qos::to_v5(will.qos), will.retain, None));
    }
    if let Some((user, password)) = &options.credentials {
        mqtt.set_credentials(user, password);
    }
    let mut properties = ConnectProperties::new();
    let session_expiry = options.session_expiry.as_secs().try_into().unwrap_or(u32::MAX);
    properties.session_expiry_interval = Some(session_expiry).filter(|seconds| *seconds > 0);
    properties.receive_maximum = options.receive_maximum;
    properties.max_packet_size = Some(options.max_packet.try_into().unwrap_or(u32::MAX));
    mqtt.set_connect_properties(properties);
    mqtt
}

impl Connection {
    pub(crate) async fn next(&mut self) -> Result<Event, ConnectionError> {
        Ok(match self.event_loop.poll().await? {
            RumqttcEvent::Incoming(packet) => incoming(packet),
            RumqttcEvent::Outgoing(outgoing) => outgoing.into(),
        })
    }

    pub(crate) fn resume_session(&mut self) {
        self.event_loop.options.set_clean_start(false);
    }
}

fn incoming(packet: Packet) -> Event {
    match packet {
        Packet::ConnAck(connack) => Event::Connected(Box::new(connected(connack))),
        Packet::Publish(publish) => event(publish),
        Packet::PubAck(ack) => {
            let text = ack.properties.and_then(|given| given.reason_string);
            Event::PubAck { packet_id: ack.pkid, reason: Reason { code: ack.reason.into(), text } }
        }
        Packet::PubRec(ack) => {
            let text = ack.properties.and_then(|given| given.reason_string);
            Event::PubRec { packet_id: ack.pkid, reason: Reason { code: ack.reason.into(), text } }
        }
        Packet::PubComp(ack) => {
            let text = ack.properties.and_then(|given| given.reason_string);
            Event::PubComp { packet_id: ack.pkid, reason: Reason { code: ack.reason.into(), text } }
        }
        Packet::SubAck(ack) => {
            let text = ack.properties.and_then(|given| given.reason_string);
            let codes = ack.return_codes.into_iter().map(Into::into).collect();
            Event::SubAck { packet_id: ack.pkid, codes, text }
        }
        Packet::UnsubAck(ack) => {
            let text = ack.properties.and_then(|given| given.reason_string);
            let codes = ack.reasons.into_iter().map(Into::into).collect();
            Event::UnsubAck { packet_id: ack.pkid, codes, text }
        }
        // A DISCONNECT is told as the connection's end, which follows.
        _ => Event::Progress,
    }
}

fn connected(connack: ConnAck) -> Connected {
    let session_present = connack.session_present;
    let Some(given) = connack.properties else {
        return Connected { session_present, ..Connected::default() };
    };
    let available = |flag: Option<u8>| flag.map(|flag| flag != 0);
    Connected {
        session_present,
        assigned_client_id: given.assigned_client_identifier,
        session_expiry: given.session_expiry_interval,
        receive_maximum: given.receive_max,
        maximum_qos: given.max_qos,
        retain_available: available(given.retain_available),
        maximum_packet_size: given.max_packet_size,
        topic_alias_maximum: given.topic_alias_max,
        wildcard_subscription_available: available(given.wildcard_subscription_available),
        subscription_identifiers_available: available(given.subscription_identifiers_available),
        shared_subscription_available: available(given.shared_subscription_available),
        server_keep_alive: given.server_keep_alive,
        server_reference: given.server_reference,
        text: given.reason_string,
    }
}

fn event(publish: Publish) -> Event {
    let packet_id = (publish.qos != QoS5::AtMostOnce).then_some(publish.pkid);
    Event::Message { packet_id, dup: publish.dup, message: message(publish) }
}

fn message(publish: Publish) -> Message {
    let given = publish.properties.unwrap_or_default();
    Message {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: publish.payload,
        qos: qos::from_v5(publish.qos),
        retain: publish.retain,
        properties: Properties {
            response_topic: given.response_topic,
            correlation_data: given.correlation_data,
            content_type: given.content_type,
            user_properties: given.user_properties,
        },
    }
}

fn publish_properties(properties: Properties) -> PublishProperties {
    let Properties { response_topic, correlation_data, content_type, user_properties } = properties;
    PublishProperties {
        response_topic,
        correlation_data,
        content_type,
        user_properties,
        ..PublishProperties::default()
    }
}

pub(crate) fn packet_size(message: &Message) -> usize {
    let properties = publish_properties(message.properties.clone());
    let (topic, payload) = (message.topic.as_str(), message.payload.clone());
    let mut publish = Publish::new(topic, qos::to_v5(message.qos), payload, Some(properties));
    // Any packet identifier has the same size, but none has none.
    publish.pkid = 1;
    publish.size()
}

pub(crate) fn publish(sender: &AsyncClient, message: Message) -> Result<(), Full> {
    let Message { topic, payload, qos, retain, properties } = message;
    let properties = publish_properties(properties);
    sender.try_publish_with_properties(topic, qos::to_v5(qos), retain, payload, properties).map_err(|_| Full)
}

pub(crate) fn acknowledge(sender: &AsyncClient, packet_id: u16) -> Result<(), Full> {
    let publish = Publish { qos: QoS5::AtLeastOnce, pkid: packet_id, ..Publish::default() };
    sender.try_ack(&publish).map_err(|_| Full)
}

pub(crate) fn subscribe(sender: &AsyncClient, subscriptions: &[Subscription]) -> Result<(), Full> {
    sender.try_subscribe_many(filters(subscriptions)).map_err(|_| Full)
}

fn filters(subscriptions: &[Subscription]) -> impl Iterator<Item = Filter> {
    subscriptions.iter().map(|Subscription { filter, qos, wants_retained }| {
        let rule =
            if *wants_retained { RetainForwardRule::OnEverySubscribe } else { RetainForwardRule::Never };
        Filter { retain_forward_rule: rule, ..Filter::new(filter, qos::to_v5(*qos)) }
    })
}
