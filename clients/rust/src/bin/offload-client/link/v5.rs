//! The connection in MQTT 5.

use std::fmt::{Debug, Display};

use offload_client::Options;
use offload_mqtt::{ConnectionError, EventLoop};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, ConnectProperties, Packet, Publish, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use rumqttc::{Outgoing, Transport};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{AckPacket, Acknowledgement, Code, Connection, KEEP_ALIVE, MAX_REQUESTS, describe_io, hand_out};
use crate::link;
use crate::message::Message;

/// Codes below this one are no refusals (MQTT 5, section 2.4).
const FIRST_REFUSAL: u8 = 0x80;

/// The numbers that rumqttc keeps to itself, by the names that it gives them (MQTT 5, section 2.4).
const REASONS: [(&str, u8); 46] = [
    ("Success", 0x00),
    ("NormalDisconnection", 0x00),
    ("DisconnectWithWillMessage", 0x04),
    ("NoMatchingSubscribers", 0x10),
    ("NoSubscriptionExisted", 0x11),
    ("UnspecifiedError", 0x80),
    ("Unspecified", 0x80),
    ("Failure", 0x80),
    ("MalformedPacket", 0x81),
    ("ProtocolError", 0x82),
    ("ImplementationSpecificError", 0x83),
    ("ImplementationSpecific", 0x83),
    ("UnsupportedProtocolVersion", 0x84),
    ("ClientIdentifierNotValid", 0x85),
    ("BadUserNamePassword", 0x86),
    ("NotAuthorized", 0x87),
    ("ServerUnavailable", 0x88),
    ("ServerBusy", 0x89),
    ("Banned", 0x8A),
    ("ServerShuttingDown", 0x8B),
    ("BadAuthenticationMethod", 0x8C),
    ("KeepAliveTimeout", 0x8D),
    ("SessionTakenOver", 0x8E),
    ("TopicFilterInvalid", 0x8F),
    ("TopicNameInvalid", 0x90),
    ("PacketIdentifierInUse", 0x91),
    ("PkidInUse", 0x91),
    ("PacketIdentifierNotFound", 0x92),
    ("ReceiveMaximumExceeded", 0x93),
    ("TopicAliasInvalid", 0x94),
    ("PacketTooLarge", 0x95),
    ("MessageRateTooHigh", 0x96),
    ("QuotaExceeded", 0x97),
    ("AdministrativeAction", 0x98),
    ("PayloadFormatInvalid", 0x99),
    ("RetainNotSupported", 0x9A),
    ("QoSNotSupported", 0x9B),
    ("UseAnotherServer", 0x9C),
    ("ServerMoved", 0x9D),
    ("SharedSubscriptionNotSupported", 0x9E),
    ("SharedSubscriptionsNotSupported", 0x9E),
    ("ConnectionRateExceeded", 0x9F),
    ("MaximumConnectTime", 0xA0),
    ("SubscriptionIdNotSupported", 0xA1),
    ("SubscriptionIdentifiersNotSupported", 0xA1),
    ("WildcardSubscriptionsNotSupported", 0xA2),
];

/// Starts the task that owns the connection.
pub fn start(
    options: &Options,
    transport: Transport,
    events: mpsc::Sender<link::Event>,
) -> (AsyncClient, JoinHandle<()>) {
    let mut mqtt = MqttOptions::new(&options.client_id, options.link_host(), options.port);
    mqtt.set_connection_timeout(options.connect_timeout.as_secs().max(1));
    mqtt.set_transport(transport);
    mqtt.set_keep_alive(KEEP_ALIVE);
    if let Some((user, password)) = &options.credentials {
        mqtt.set_credentials(user, password);
    }
    let mut properties = ConnectProperties::new();
    properties.max_packet_size = Some(options.max_answer);
    mqtt.set_connect_properties(properties);
    let (client, connection) = offload_mqtt::connect(mqtt, MAX_REQUESTS);
    (client, tokio::spawn(hand_out(connection, options.clone(), events)))
}

impl Connection for EventLoop {
    type Event = Event;
    type Error = ConnectionError;

    fn poll(&mut self) -> impl Future<Output = Result<Event, ConnectionError>> + Send {
        EventLoop::poll(self)
    }

    fn left_over(&mut self) -> Option<Event> {
        self.state.events.pop_front()
    }

    fn translate(event: Event) -> Option<link::Event> {
        translate(event)
    }

    fn refusal(error: &ConnectionError) -> Option<Acknowledgement> {
        match error {
            ConnectionError::Refused { code: refusal, reason } => Some(Acknowledgement {
                packet: AckPacket::ConnAck,
                id: 0,
                codes: vec![code(refusal)],
                details: because(reason.clone()),
            }),
            _ => None,
        }
    }

    fn describe(error: &ConnectionError) -> String {
        describe(error)
    }
}

fn translate(event: Event) -> Option<link::Event> {
    Some(match event {
        Event::Outgoing(Outgoing::Publish(id)) => link::Event::Sent(link::Packet::Publish, id),
        Event::Outgoing(Outgoing::Subscribe(id)) => link::Event::Sent(link::Packet::Subscribe, id),
        Event::Outgoing(Outgoing::Unsubscribe(id)) => link::Event::Sent(link::Packet::Unsubscribe, id),
        Event::Outgoing(Outgoing::Disconnect) => link::Event::Sent(link::Packet::Disconnect, 0),
        Event::Incoming(Packet::ConnAck(ConnAck { session_present, code: answer, properties })) => {
            let present = if session_present { "yes" } else { "no" };
            let mut details = vec![format!("session present: {present}")];
            details.extend(properties.iter().flat_map(offered));
            acknowledged(AckPacket::ConnAck, 0, vec![code(answer)], details)
        }
        Event::Incoming(Packet::PubAck(ack)) => {
            let text = ack.properties.and_then(|properties| properties.reason_string);
            acknowledged(AckPacket::PubAck, ack.pkid, vec![code(ack.reason)], because(text))
        }
        Event::Incoming(Packet::PubRec(ack)) => {
            let text = ack.properties.and_then(|properties| properties.reason_string);
            acknowledged(AckPacket::PubRec, ack.pkid, vec![code(ack.reason)], because(text))
        }
        Event::Incoming(Packet::PubComp(ack)) => {
            let text = ack.properties.and_then(|properties| properties.reason_string);
            acknowledged(AckPacket::PubComp, ack.pkid, vec![code(ack.reason)], because(text))
        }
        Event::Incoming(Packet::SubAck(ack)) => {
            let codes = ack.return_codes.into_iter().map(|reason| match reason {
                SubscribeReasonCode::Success(qos) => Code::granted(qos as u8),
                refusal => code(refusal),
            });
            let text = ack.properties.and_then(|properties| properties.reason_string);
            acknowledged(AckPacket::SubAck, ack.pkid, codes.collect(), because(text))
        }
        Event::Incoming(Packet::UnsubAck(ack)) => {
            let text = ack.properties.and_then(|properties| properties.reason_string);
            let codes = ack.reasons.into_iter().map(code);
            acknowledged(AckPacket::UnsubAck, ack.pkid, codes.collect(), because(text))
        }
        Event::Incoming(Packet::Publish(publish)) => link::Event::Message(message(publish)),
        Event::Incoming(Packet::Disconnect(packet)) => {
            let text = packet.properties.and_then(|properties| properties.reason_string);
            link::Event::Disconnected(code(packet.reason_code), text)
        }
        _ => return None,
    })
}

fn acknowledged(packet: AckPacket, id: u16, codes: Vec<Code>, details: Vec<String>) -> link::Event {
    link::Event::Acknowledged(Acknowledgement { packet, id, codes, details })
}

fn code(variant: impl Debug) -> Code {
    let name = format!("{variant:?}");
    // The table has all that MQTT 5 has; what it lacks can only be a refusal of no particular kind.
    let number =
        REASONS.iter().find(|(known, _)| *known == name).map_or(FIRST_REFUSAL, |(_, number)| *number);
    Code { number, name, refused: number >= FIRST_REFUSAL }
}

fn because(reason_string: Option<String>) -> Vec<String> {
    reason_string.into_iter().collect()
}

/// What the broker says about itself.
fn offered(properties: &ConnAckProperties) -> Vec<String> {
    fn named<T: Display>(name: &str, value: &Option<T>) -> Option<String> {
        value.as_ref().map(|value| format!("{name}: {value}"))
    }
    let p = properties;
    [
        named("assigned client id", &p.assigned_client_identifier),
        named("session expiry interval", &p.session_expiry_interval),
        named("receive maximum", &p.receive_max),
        named("maximum QoS", &p.max_qos),
        named("retain available", &p.retain_available),
        named("maximum packet size", &p.max_packet_size),
        named("topic alias maximum", &p.topic_alias_max),
        named("wildcard subscription available", &p.wildcard_subscription_available),
        named("subscription identifiers available", &p.subscription_identifiers_available),
        named("shared subscription available", &p.shared_subscription_available),
        named("server keep alive", &p.server_keep_alive),
        named("server reference", &p.server_reference),
        named("reason", &p.reason_string),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn message(publish: Publish) -> Message {
    let known = publish.properties.unwrap_or_default();
    let own = [("response topic", known.response_topic), ("content type", known.content_type)];
    let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Message {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: publish.payload,
        qos: publish.qos as u8,
        retain: publish.retain,
        properties: own.chain(known.user_properties).collect(),
    }
}

/// rumqttc has a type for each version.
pub fn qos(qos: rumqttc::QoS) -> QoS {
    match qos {
        rumqttc::QoS::AtMostOnce => QoS::AtMostOnce,
        rumqttc::QoS::AtLeastOnce => QoS::AtLeastOnce,
        rumqttc::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Refused { .. } => "the broker refused it".to_owned(),
        ConnectionError::Io(error) => describe_io(error),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode, PubAckReason, UnsubAckReason};

    use super::*;

    #[test]
    fn codes_have_the_standards_numbers() {
        let shown = |code: Code| (code.to_string(), code.refused);
        for (code, expected) in [
            (code(ConnectReturnCode::Success), ("0x00 Success", false)),
            (code(ConnectReturnCode::BadUserNamePassword), ("0x86 BadUserNamePassword", true)),
            (code(PubAckReason::NoMatchingSubscribers), ("0x10 NoMatchingSubscribers", false)),
            (code(PubAckReason::NotAuthorized), ("0x87 NotAuthorized", true)),
            (code(UnsubAckReason::NoSubscriptionExisted), ("0x11 NoSubscriptionExisted", false)),
            (code(SubscribeReasonCode::PkidInUse), ("0x91 PkidInUse", true)),
            (code(DisconnectReasonCode::SessionTakenOver), ("0x8E SessionTakenOver", true)),
            (Code::granted(2), ("0x02 granted QoS 2", false)),
        ] {
            assert_eq!(shown(code), (expected.0.to_owned(), expected.1));
        }
        for number in [0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95] {
            assert!(REASONS.iter().any(|(_, known)| *known == number), "{number:x}");
        }
    }
}
