//! What of MQTT 5 a broker need not have, and has.

use offload_mqtt::{Connected, ConnectionError, Message, QoS, Reason, ReasonCode};

/// What a broker has. MQTT 3.1.1 cannot say what is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    /// Messages at QoS 1.
    pub qos_1: bool,
    /// Retained messages.
    pub retained: bool,
}

impl Offer {
    pub const ALL: Offer = Offer { qos_1: true, retained: true };

    /// What a broker says that it has.
    pub fn of(connected: &Connected) -> Offer {
        Offer { qos_1: connected.has_qos_1(), retained: connected.retain_available != Some(false) }
    }

    /// What a broker that refuses the connection may have.
    pub fn after(error: &ConnectionError) -> Offer {
        let code = match error {
            ConnectionError::Refused(Reason { code, .. }) => Some(*code),
            _ => None,
        };
        Offer {
            qos_1: code != Some(ReasonCode::QoSNotSupported),
            retained: code != Some(ReasonCode::RetainNotSupported),
        }
    }

    /// What both have.
    pub fn and(self, other: Offer) -> Offer {
        Offer { qos_1: self.qos_1 && other.qos_1, retained: self.retained && other.retained }
    }

    /// The message as such a broker takes it.
    pub fn limit(self, message: Message) -> Message {
        let qos = if self.qos_1 { message.qos } else { QoS::AtMostOnce };
        Message { qos, retain: message.retain && self.retained, ..message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_asked_for_what_it_has() {
        let refused = |code: ReasonCode| Offer::after(&ConnectionError::Refused(code.into()));
        let message = Message { retain: true, ..Message::new("t", "") };
        for (offer, expected) in [
            (Offer::of(&Connected::default()), (QoS::AtLeastOnce, true)),
            (Offer::of(&Connected { maximum_qos: Some(0), ..Connected::default() }), (QoS::AtMostOnce, true)),
            (
                Offer::of(&Connected { retain_available: Some(false), ..Connected::default() }),
                (QoS::AtLeastOnce, false),
            ),
            (refused(ReasonCode::QoSNotSupported), (QoS::AtMostOnce, true)),
            (refused(ReasonCode::RetainNotSupported), (QoS::AtLeastOnce, false)),
            (refused(ReasonCode::NotAuthorized), (QoS::AtLeastOnce, true)),
            (
                refused(ReasonCode::QoSNotSupported).and(refused(ReasonCode::RetainNotSupported)),
                (QoS::AtMostOnce, false),
            ),
        ] {
            let limited = offer.limit(message.clone());
            assert_eq!((limited.qos, limited.retain), expected, "{offer:?}");
        }
    }
}
