//! What a broker answers to a packet, as the console shows it.

use std::fmt;

use offload_client::MqttVersion;
use offload_mqtt::{Connected, Event, ReasonCode};

/// What the broker answers to a packet of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Acknowledgement {
    pub packet: AckPacket,
    /// Of the packet that is acknowledged; 0 with CONNACK.
    pub id: u16,
    /// None where the version has none.
    pub codes: Vec<Code>,
    /// What else the packet says.
    pub details: Vec<String>,
}

impl Acknowledgement {
    /// Of a connection that is refused.
    pub fn refused(code: ReasonCode, text: Option<String>, version: MqttVersion) -> Self {
        let codes = vec![Code { reason: code, version }];
        Self { packet: AckPacket::ConnAck, id: 0, codes, details: text.into_iter().collect() }
    }

    /// What an event acknowledges, if it does.
    pub fn of(event: &Event, version: MqttVersion) -> Option<Self> {
        let (packet, id, reasons, details) = match event {
            Event::Connected(connected) => {
                (AckPacket::ConnAck, &0, vec![ReasonCode::Success], described(connected))
            }
            Event::PubAck { packet_id, reason } => {
                (AckPacket::PubAck, packet_id, vec![reason.code], list(&reason.text))
            }
            Event::PubRec { packet_id, reason } => {
                (AckPacket::PubRec, packet_id, vec![reason.code], list(&reason.text))
            }
            Event::PubComp { packet_id, reason } => {
                (AckPacket::PubComp, packet_id, vec![reason.code], list(&reason.text))
            }
            Event::SubAck { packet_id, codes, text } => {
                (AckPacket::SubAck, packet_id, codes.clone(), list(text))
            }
            Event::UnsubAck { packet_id, codes, text } => {
                (AckPacket::UnsubAck, packet_id, codes.clone(), list(text))
            }
            Event::Message { .. } | Event::Sent(_) | Event::Progress => return None,
        };
        let has_codes =
            version == MqttVersion::V5 || matches!(packet, AckPacket::ConnAck | AckPacket::SubAck);
        let codes = reasons.into_iter().filter(|_| has_codes).map(|reason| Code { reason, version });
        Some(Self { packet, id: *id, codes: codes.collect(), details })
    }

    /// The first code that says no.
    pub fn refusal(&self) -> Option<&Code> {
        self.codes.iter().find(|code| code.reason.is_error())
    }
}

/// Names as the standard writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckPacket {
    ConnAck,
    PubAck,
    PubRec,
    PubComp,
    SubAck,
    UnsubAck,
}

impl fmt::Display for AckPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AckPacket::ConnAck => "CONNACK",
            AckPacket::PubAck => "PUBACK",
            AckPacket::PubRec => "PUBREC",
            AckPacket::PubComp => "PUBCOMP",
            AckPacket::SubAck => "SUBACK",
            AckPacket::UnsubAck => "UNSUBACK",
        })
    }
}

/// A return or reason code, with the number that it has in this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    pub reason: ReasonCode,
    pub version: MqttVersion,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02X} {}", self.reason.number(self.version), self.reason)
    }
}

fn list(text: &Option<String>) -> Vec<String> {
    text.iter().cloned().collect()
}

/// What the broker says about the session and itself.
fn described(connected: &Connected) -> Vec<String> {
    fn named<T: fmt::Display>(name: &str, value: Option<T>) -> Option<String> {
        value.map(|value| format!("{name}: {value}"))
    }
    let c = connected;
    let flag = |name: &str, value: Option<bool>| named(name, value.map(u8::from));
    [
        named("session present", Some(if c.session_present { "yes" } else { "no" })),
        named("assigned client id", c.assigned_client_id.as_ref()),
        named("session expiry interval", c.session_expiry),
        named("receive maximum", c.receive_maximum),
        named("maximum QoS", c.maximum_qos),
        flag("retain available", c.retain_available),
        named("maximum packet size", c.maximum_packet_size),
        named("topic alias maximum", c.topic_alias_maximum),
        flag("wildcard subscription available", c.wildcard_subscription_available),
        flag("subscription identifiers available", c.subscription_identifiers_available),
        flag("shared subscription available", c.shared_subscription_available),
        named("server keep alive", c.server_keep_alive),
        named("server reference", c.server_reference.as_ref()),
        named("reason", c.text.as_ref()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_the_number_of_its_version() {
        let shown = |reason, version| Code { reason, version }.to_string();
        assert_eq!(shown(ReasonCode::NotAuthorized, MqttVersion::V5), "0x87 NotAuthorized");
        assert_eq!(shown(ReasonCode::NotAuthorized, MqttVersion::V311), "0x05 NotAuthorized");
        assert_eq!(shown(ReasonCode::GrantedQoS1, MqttVersion::V5), "0x01 granted QoS 1");
        assert_eq!(shown(ReasonCode::Failure, MqttVersion::V311), "0x80 Failure");
    }

    #[test]
    fn mqtt_3_1_1_acknowledges_a_message_without_a_code() {
        let puback = Event::PubAck { packet_id: 7, reason: ReasonCode::Success.into() };
        let acknowledgement = |version| Acknowledgement::of(&puback, version).unwrap();
        assert_eq!(acknowledgement(MqttVersion::V5).codes.len(), 1);
        assert_eq!(acknowledgement(MqttVersion::V311).codes, []);
        assert_eq!(acknowledgement(MqttVersion::V311).id, 7);
    }

    #[test]
    fn what_the_broker_leaves_out_is_not_shown() {
        let connected =
            Connected { retain_available: Some(false), maximum_qos: Some(1), ..Connected::default() };
        assert_eq!(described(&connected), ["session present: no", "maximum QoS: 1", "retain available: 0"]);
    }
}
