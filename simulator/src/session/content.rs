//! What packets say, and their types, each beside the name that MQTT has for it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::code::Code;

/// What a packet says: JSON, so that it can be read where it is in clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A newcomer says its name, and a server tells it its own, and its public key.
    Join {
        /// Of the session that says it.
        name: String,
        /// The public key of a server, in hexadecimal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// It leaves the network.
    Left {
        /// Of the session that leaves.
        name: String,
    },
    /// It wants to be connected.
    ConnectionRequest {
        /// After one and a half of which its silence ends the connection, in milliseconds; zero is never.
        keep_alive_ms: u64,
        /// The client's own words.
        description: String,
        /// Of a router: the network that it connects.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        network: Option<String>,
    },
    /// Whether it is.
    ConnectionResponse {
        /// Whether it is.
        code: Code,
    },
    /// It wants the values of topics.
    SubscriptionRequest {
        /// A topic filter.
        topic: String,
        /// The client's own words.
        description: String,
    },
    /// Whether it gets them.
    SubscriptionResponse {
        /// The topic filter.
        topic: String,
        /// Whether it gets them.
        code: Code,
    },
    /// It wants them no more.
    UnsubscriptionRequest {
        /// The topic filter.
        topic: String,
    },
    /// It gets them no more.
    UnsubscriptionResponse {
        /// The topic filter.
        topic: String,
        /// Whether there was one.
        code: Code,
    },
    /// A topic's new value.
    Publish {
        /// The topic.
        topic: String,
        /// Its value.
        value: String,
        /// Who has published it first: routers rewrite it.
        from: Address,
    },
    /// The client is there.
    Ping {},
    /// The server is there.
    PingResponse {},
    /// The connection ends.
    Disconnection {
        /// Why.
        code: Code,
    },
}

/// The type of a packet, which everybody on the way can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// See [`Content::Join`].
    Join,
    /// See [`Content::Left`].
    Left,
    /// See [`Content::ConnectionRequest`].
    ConnectionRequest,
    /// See [`Content::ConnectionResponse`].
    ConnectionResponse,
    /// See [`Content::SubscriptionRequest`].
    SubscriptionRequest,
    /// See [`Content::SubscriptionResponse`].
    SubscriptionResponse,
    /// See [`Content::UnsubscriptionRequest`].
    UnsubscriptionRequest,
    /// See [`Content::UnsubscriptionResponse`].
    UnsubscriptionResponse,
    /// See [`Content::Publish`].
    Publish,
    /// See [`Content::Ping`].
    Ping,
    /// See [`Content::PingResponse`].
    PingResponse,
    /// See [`Content::Disconnection`].
    Disconnection,
}

/// Each with its name here, its name in MQTT, and what it is for.
pub const KINDS: [(Kind, &str, &str, &str); 12] = [
    (Kind::Join, "join", "TCP open", "a session enters a network; a server tells it its public key"),
    (Kind::Left, "left", "TCP close", "a session leaves its network"),
    (Kind::ConnectionRequest, "connection request", "CONNECT", "opens a connection, and makes its key"),
    (Kind::ConnectionResponse, "connection response", "CONNACK", "the first packet that the key seals"),
    (Kind::SubscriptionRequest, "subscription request", "SUBSCRIBE", "asks for the values of topics"),
    (Kind::SubscriptionResponse, "subscription response", "SUBACK", "then come the topics' last values"),
    (Kind::UnsubscriptionRequest, "unsubscription request", "UNSUBSCRIBE", "asks for them no more"),
    (Kind::UnsubscriptionResponse, "unsubscription response", "UNSUBACK", "and gets them no more"),
    (Kind::Publish, "publish", "PUBLISH", "a topic's new value, with QoS 0: it is not acknowledged"),
    (Kind::Ping, "ping", "PINGREQ", "a client that has nothing else to say is still there"),
    (Kind::PingResponse, "ping response", "PINGRESP", "so is the server"),
    (Kind::Disconnection, "disconnection", "DISCONNECT", "a client ends its connection, or a server does"),
];

impl Kind {
    /// Its name here.
    pub fn name(self) -> &'static str {
        KINDS[self as usize].1
    }

    /// Its name in MQTT, or what a network has in its stead where MQTT has none.
    pub fn mqtt(self) -> &'static str {
        KINDS[self as usize].2
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.mqtt())
    }
}

impl Content {
    /// The type of a packet that says it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Join { .. } => Kind::Join,
            Self::Left { .. } => Kind::Left,
            Self::ConnectionRequest { .. } => Kind::ConnectionRequest,
            Self::ConnectionResponse { .. } => Kind::ConnectionResponse,
            Self::SubscriptionRequest { .. } => Kind::SubscriptionRequest,
            Self::SubscriptionResponse { .. } => Kind::SubscriptionResponse,
            Self::UnsubscriptionRequest { .. } => Kind::UnsubscriptionRequest,
            Self::UnsubscriptionResponse { .. } => Kind::UnsubscriptionResponse,
            Self::Publish { .. } => Kind::Publish,
            Self::Ping {} => Kind::Ping,
            Self::PingResponse {} => Kind::PingResponse,
            Self::Disconnection { .. } => Kind::Disconnection,
        }
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }

    /// From bytes; `None` where they are none of this type.
    pub fn decode(kind: Kind, bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|content: &Self| content.kind() == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_row() {
        assert!(KINDS.iter().enumerate().all(|(at, row)| row.0 as usize == at));
    }

    #[test]
    fn what_is_encoded_is_decoded_as_its_own_type_alone() {
        let content = Content::Publish { topic: "a".into(), value: "1".into(), from: Address::BROKER };
        let bytes = content.encode();
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            r#"{"publish":{"topic":"a","value":"1","from":"10.0.0.1"}}"#
        );
        assert_eq!(Content::decode(Kind::Publish, &bytes), Some(content));
        assert_eq!(Content::decode(Kind::Ping, &bytes), None);
    }
}
