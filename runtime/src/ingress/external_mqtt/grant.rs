//! The broker's answer to a subscription to several filters.

use offload_mqtt::{Reason, ReasonCode};

/// What the broker grants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Grant {
    All,
    /// Some of the filters, and why not the others.
    Some(String),
    /// Shared subscriptions are not supported: not to be used on this connection.
    NotShared,
    None(String),
}

impl Grant {
    /// By the codes of a SUBACK and its Reason String.
    pub fn of(codes: &[ReasonCode], text: Option<String>) -> Grant {
        let Some(refusal) = codes.iter().copied().find(|code| code.is_error()) else { return Grant::All };
        let reason = || match refusal {
            // MQTT 3.1.1 has no other.
            ReasonCode::Failure => "refused without a reason".to_owned(),
            code => Reason { code, text }.to_string(),
        };
        match refusal {
            ReasonCode::SharedSubscriptionsNotSupported => Grant::NotShared,
            _ if codes.iter().any(|code| !code.is_error()) => Grant::Some(reason()),
            _ => Grant::None(reason()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ReasonCode::{Failure, GrantedQoS0, GrantedQoS1, NotAuthorized, SharedSubscriptionsNotSupported};

    #[test]
    fn each_filter_counts() {
        let none = |reason: &str| Grant::None(reason.to_owned());
        for (codes, text, expected) in [
            ([GrantedQoS1, GrantedQoS0], None, Grant::All),
            ([GrantedQoS1, NotAuthorized], None, Grant::Some("NotAuthorized".to_owned())),
            ([NotAuthorized, NotAuthorized], Some("why"), none("NotAuthorized: why")),
            ([Failure, Failure], None, none("refused without a reason")),
            ([SharedSubscriptionsNotSupported, SharedSubscriptionsNotSupported], None, Grant::NotShared),
        ] {
            assert_eq!(Grant::of(&codes, text.map(str::to_owned)), expected, "{codes:?}");
        }
    }
}
