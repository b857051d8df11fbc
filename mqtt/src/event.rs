//! What happens on a connection.

use rumqttc::Outgoing;

use crate::{MAX_PACKET, Message, Reason, ReasonCode};

/// What happens on a connection, in the order in which it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// CONNACK: the broker accepted the connection.
    Connected(Box<Connected>),
    /// PUBLISH: a message came.
    Message {
        /// The message itself.
        message: Message,
        /// What acknowledges it; none at QoS 0.
        packet_id: Option<u16>,
        /// Whether the broker sends it again.
        dup: bool,
    },
    /// A packet of ours was written, or was being written when the connection ended; packets of one kind in the order
    /// in which they were queued.
    Sent(Sent),
    /// PUBACK: the broker has a message at QoS 1, or refuses it. MQTT 3.1.1 cannot refuse.
    PubAck {
        /// The message's packet identifier.
        packet_id: u16,
        /// Whether the broker has it.
        reason: Reason,
    },
    /// PUBREC: the broker has a message at QoS 2, or refuses it.
    PubRec {
        /// The message's packet identifier.
        packet_id: u16,
        /// Whether the broker has it.
        reason: Reason,
    },
    /// PUBCOMP: the broker has delivered a message at QoS 2.
    PubComp {
        /// The message's packet identifier.
        packet_id: u16,
        /// Whether the broker knew it.
        reason: Reason,
    },
    /// SUBACK: the broker grants subscriptions, or does not.
    SubAck {
        /// The packet identifier of the SUBSCRIBE.
        packet_id: u16,
        /// One for each subscription, in the same order.
        codes: Vec<ReasonCode>,
        /// The broker's Reason String.
        text: Option<String>,
    },
    /// UNSUBACK: the broker has ended subscriptions.
    UnsubAck {
        /// The packet identifier of the UNSUBSCRIBE.
        packet_id: u16,
        /// One for each filter, in the same order; none in MQTT 3.1.1.
        codes: Vec<ReasonCode>,
        /// The broker's Reason String.
        text: Option<String>,
    },
    /// Another packet came or was written: the queue may have room again.
    Progress,
}

/// A packet that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A message with its packet identifier, maybe again; 0 at QoS 0.
    Publish(u16),
    /// A SUBSCRIBE with its packet identifier.
    Subscribe(u16),
    /// An UNSUBSCRIBE with its packet identifier.
    Unsubscribe(u16),
    /// The last packet: to poll the connection on would be to make it again.
    Disconnect,
}

impl From<Outgoing> for Event {
    fn from(outgoing: Outgoing) -> Event {
        Event::Sent(match outgoing {
            Outgoing::Publish(packet_id) => Sent::Publish(packet_id),
            Outgoing::Subscribe(packet_id) => Sent::Subscribe(packet_id),
            Outgoing::Unsubscribe(packet_id) => Sent::Unsubscribe(packet_id),
            Outgoing::Disconnect => Sent::Disconnect,
            _ => return Event::Progress,
        })
    }
}

/// What the broker says of itself and of the session in its CONNACK (MQTT 5, section 3.2.2). What it leaves out has
/// the standard's default; MQTT 3.1.1 has `session_present` alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// Whether the broker has a session of this client from before.
    pub session_present: bool,
    /// The client id that the broker made up.
    pub assigned_client_id: Option<String>,
    /// Seconds for which the broker keeps the session.
    pub session_expiry: Option<u32>,
    /// Messages at QoS 1 and 2 that the broker takes without having acknowledged them.
    pub receive_maximum: Option<u16>,
    /// The highest quality of service that the broker has.
    pub maximum_qos: Option<u8>,
    /// Whether the broker has retained messages.
    pub retain_available: Option<bool>,
    /// Bytes of the largest packet that the broker takes.
    pub maximum_packet_size: Option<u32>,
    /// The highest topic alias that the broker takes.
    pub topic_alias_maximum: Option<u16>,
    /// Whether the broker has subscriptions with wildcards.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether the broker has subscription identifiers.
    pub subscription_identifiers_available: Option<bool>,
    /// Whether the broker has shared subscriptions.
    pub shared_subscription_available: Option<bool>,
    /// Seconds after which the broker wants to be asked whether it is there.
    pub server_keep_alive: Option<u16>,
    /// Another broker to use.
    pub server_reference: Option<String>,
    /// The broker's Reason String.
    pub text: Option<String>,
}

impl Connected {
    /// Whether the broker has QoS 1.
    pub fn has_qos_1(&self) -> bool {
        self.maximum_qos != Some(0)
    }

    /// Bytes of the largest packet that the broker takes.
    pub fn max_packet(&self) -> usize {
        self.maximum_packet_size.map_or(MAX_PACKET, |bytes| MAX_PACKET.min(bytes as usize))
    }
}
