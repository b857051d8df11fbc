//! What a broker says of a packet: a code, and maybe a text.

use std::fmt;

use rumqttc::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, DisconnectReasonCode, PubAckReason, PubCompReason, PubRecReason, SubscribeReasonCode,
    UnsubAckReason,
};

use crate::{Version, one_line, qos};

/// What a broker says of a packet. Its text is for people: one bounded line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The code.
    pub code: ReasonCode,
    /// The broker's Reason String, as it is.
    pub text: Option<String>,
}

impl From<ReasonCode> for Reason {
    fn from(code: ReasonCode) -> Reason {
        Reason { code, text: None }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => write!(f, "{}: {}", self.code, one_line(text)),
            None => write!(f, "{}", self.code),
        }
    }
}

macro_rules! reason_codes {
    ($($name:ident = $number:literal,)*) => {
        /// A reason code of MQTT 5 (section 2.4) or a return code of MQTT 3.1.1 (sections 3.2.2.3 and 3.9.3).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ReasonCode {
            $(#[doc = concat!("`", stringify!($number), "`")] $name,)*
        }

        impl ReasonCode {
            /// The number that stands for it in packets. Two have another one in MQTT 3.1.1.
            pub fn number(self, version: Version) -> u8 {
                match self {
                    ReasonCode::BadUserNamePassword if version == Version::V311 => 0x04,
                    ReasonCode::NotAuthorized if version == Version::V311 => 0x05,
                    $(ReasonCode::$name => $number,)*
                }
            }
        }
    };
}

reason_codes! {
    Success = 0x00,
    NormalDisconnection = 0x00,
    GrantedQoS0 = 0x00,
    GrantedQoS1 = 0x01,
    GrantedQoS2 = 0x02,
    RefusedProtocolVersion = 0x01,
    BadClientId = 0x02,
    ServiceUnavailable = 0x03,
    DisconnectWithWillMessage = 0x04,
    NoMatchingSubscribers = 0x10,
    NoSubscriptionExisted = 0x11,
    Failure = 0x80,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNamePassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdentifierInUse = 0x91,
    PacketIdentifierNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
    QoSNotSupported = 0x9B,
    UseAnotherServer = 0x9C,
    ServerMoved = 0x9D,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
    MaximumConnectTime = 0xA0,
    SubscriptionIdentifiersNotSupported = 0xA1,
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// A subscription at this quality of service.
    pub fn granted(qos: QoS) -> ReasonCode {
        match qos {
            QoS::AtMostOnce => ReasonCode::GrantedQoS0,
            QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
            QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
        }
    }

    /// Whether the broker refuses something (MQTT 5, section 2.4), or has not understood it.
    pub fn is_error(self) -> bool {
        use ReasonCode::{BadClientId, RefusedProtocolVersion, ServiceUnavailable};
        matches!(self, RefusedProtocolVersion | BadClientId | ServiceUnavailable)
            || self.number(Version::V5) >= 0x80
    }
}

/// Its name in one word, or what is granted.
impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReasonCode::GrantedQoS0 => f.write_str("granted QoS 0"),
            ReasonCode::GrantedQoS1 => f.write_str("granted QoS 1"),
            ReasonCode::GrantedQoS2 => f.write_str("granted QoS 2"),
            named => write!(f, "{named:?}"),
        }
    }
}

/// rumqttc has a type for each packet, some with names of their own.
macro_rules! from_rumqttc {
    ($from:ident: $($same:ident)* $(, $theirs:pat => $ours:expr)* $(,)?) => {
        impl From<$from> for ReasonCode {
            fn from(code: $from) -> ReasonCode {
                match code {
                    $($from::$same => ReasonCode::$same,)*
                    $($theirs => $ours,)*
                }
            }
        }
    };
}

from_rumqttc! {
    ConnectReturnCode: Success RefusedProtocolVersion BadClientId ServiceUnavailable UnspecifiedError
        MalformedPacket ProtocolError ImplementationSpecificError UnsupportedProtocolVersion
        ClientIdentifierNotValid BadUserNamePassword NotAuthorized ServerUnavailable ServerBusy Banned
        BadAuthenticationMethod TopicNameInvalid PacketTooLarge QuotaExceeded PayloadFormatInvalid
        RetainNotSupported QoSNotSupported UseAnotherServer ServerMoved ConnectionRateExceeded
}

from_rumqttc! {
    PubAckReason: Success NoMatchingSubscribers UnspecifiedError ImplementationSpecificError NotAuthorized
        TopicNameInvalid PacketIdentifierInUse QuotaExceeded PayloadFormatInvalid
}

from_rumqttc! {
    PubRecReason: Success NoMatchingSubscribers UnspecifiedError ImplementationSpecificError NotAuthorized
        TopicNameInvalid PacketIdentifierInUse QuotaExceeded PayloadFormatInvalid
}

from_rumqttc! {
    PubCompReason: Success PacketIdentifierNotFound
}

from_rumqttc! {
    SubscribeReasonCode: Failure NotAuthorized TopicFilterInvalid QuotaExceeded
        SharedSubscriptionsNotSupported WildcardSubscriptionsNotSupported,
    SubscribeReasonCode::Success(granted) => ReasonCode::granted(qos::from_v5(granted)),
    SubscribeReasonCode::Unspecified => ReasonCode::UnspecifiedError,
    SubscribeReasonCode::ImplementationSpecific => ReasonCode::ImplementationSpecificError,
    SubscribeReasonCode::PkidInUse => ReasonCode::PacketIdentifierInUse,
    SubscribeReasonCode::SubscriptionIdNotSupported => ReasonCode::SubscriptionIdentifiersNotSupported,
}

from_rumqttc! {
    UnsubAckReason: Success NoSubscriptionExisted UnspecifiedError ImplementationSpecificError NotAuthorized
        TopicFilterInvalid PacketIdentifierInUse
}

from_rumqttc! {
    DisconnectReasonCode: NormalDisconnection DisconnectWithWillMessage UnspecifiedError MalformedPacket
        ProtocolError ImplementationSpecificError NotAuthorized ServerBusy ServerShuttingDown KeepAliveTimeout
        SessionTakenOver TopicFilterInvalid TopicNameInvalid ReceiveMaximumExceeded TopicAliasInvalid
        PacketTooLarge MessageRateTooHigh QuotaExceeded AdministrativeAction PayloadFormatInvalid
        RetainNotSupported QoSNotSupported UseAnotherServer ServerMoved ConnectionRateExceeded
        MaximumConnectTime SubscriptionIdentifiersNotSupported WildcardSubscriptionsNotSupported,
    DisconnectReasonCode::SharedSubscriptionNotSupported => ReasonCode::SharedSubscriptionsNotSupported,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_standards_numbers() {
        for (code, number, shown, is_error) in [
            (ConnectReturnCode::Success.into(), 0x00, "Success", false),
            (ConnectReturnCode::BadUserNamePassword.into(), 0x86, "BadUserNamePassword", true),
            (PubAckReason::NoMatchingSubscribers.into(), 0x10, "NoMatchingSubscribers", false),
            (PubAckReason::NotAuthorized.into(), 0x87, "NotAuthorized", true),
            (UnsubAckReason::NoSubscriptionExisted.into(), 0x11, "NoSubscriptionExisted", false),
            (SubscribeReasonCode::PkidInUse.into(), 0x91, "PacketIdentifierInUse", true),
            (SubscribeReasonCode::Unspecified.into(), 0x80, "UnspecifiedError", true),
            (DisconnectReasonCode::SessionTakenOver.into(), 0x8E, "SessionTakenOver", true),
            (ReasonCode::granted(QoS::ExactlyOnce), 0x02, "granted QoS 2", false),
        ] {
            let code: ReasonCode = code;
            assert_eq!((code.number(Version::V5), code.to_string().as_str()), (number, shown));
            assert_eq!(code.is_error(), is_error, "{code}");
        }
        // rumqttc has the numbers of these alone.
        for code in
            [DisconnectReasonCode::ServerBusy, DisconnectReasonCode::WildcardSubscriptionsNotSupported]
        {
            assert_eq!(ReasonCode::from(code).number(Version::V5), code as u8);
        }
    }

    #[test]
    fn mqtt_3_1_1_has_numbers_of_its_own_for_a_refused_connection() {
        for (code, number) in [
            (ReasonCode::Success, 0),
            (ReasonCode::RefusedProtocolVersion, 1),
            (ReasonCode::BadClientId, 2),
            (ReasonCode::ServiceUnavailable, 3),
            (ReasonCode::BadUserNamePassword, 4),
            (ReasonCode::NotAuthorized, 5),
        ] {
            assert_eq!((code.number(Version::V311), code.is_error()), (number, number != 0), "{code}");
        }
    }

    #[test]
    fn a_reason_is_one_bounded_line() {
        let shown = |text: Option<&str>| {
            Reason { code: ReasonCode::Banned, text: text.map(str::to_owned) }.to_string()
        };
        assert_eq!(shown(None), "Banned");
        assert_eq!(shown(Some("")), "Banned");
        assert_eq!(shown(Some("not\nyou\u{1b}")), "Banned: not you ");
        assert!(shown(Some(&"x".repeat(100_000))).len() < 300);
    }
}
