//! What a client keeps of its session across connections: what is not acknowledged, and what came at QoS 2.
//!
//! A state machine: packets go in, packets to send and news for the ledger come out. It does what the standard asks of
//! a client that loses nothing, so that whatever is lost or comes twice was lost or doubled by the broker.

use std::collections::HashSet;

use bytes::Bytes;

use super::packet::{Ack, Packet, Publish, Version};
use crate::key::Key;

/// In MQTT 5, what a PUBREL is answered that belongs to nothing.
const NOT_FOUND: u8 = 0x92;

/// From this reason code on a publication has failed.
const FAILURE: u8 = 0x80;

/// What the ledger and the client are to know.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// PUBACK or PUBREC came for this, with the reason code of a failure.
    Acknowledged(Key, Option<u8>),
    /// A message, without those at QoS 2 that came before.
    Message(Publish),
    /// SUBACK came, whether or not all was granted.
    Subscribed(bool),
    /// The broker ends the connection.
    Disconnected(u8),
}

#[derive(Debug)]
struct Outgoing {
    key: Key,
    publish: Publish,
    /// Whether PUBREC came, and PUBREL was sent.
    released: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Session {
    version: Version,
    /// In the order in which they were published first, which is that in which they are sent again.
    outgoing: Vec<Outgoing>,
    last_packet: u16,
    /// Packet identifiers at QoS 2 that came and are not released.
    incoming: HashSet<u16>,
    receive_maximum: u16,
}

impl Session {
    /// A new one.
    pub fn new(version: Version) -> Session {
        Session {
            version,
            outgoing: Vec::new(),
            last_packet: 0,
            incoming: HashSet::new(),
            receive_maximum: u16::MAX,
        }
    }

    /// How much more may be in flight to the broker.
    pub fn room(&self) -> usize {
        usize::from(self.receive_maximum).saturating_sub(self.outgoing.len())
    }

    /// Whether this is published and not acknowledged to its end.
    pub fn has(&self, key: Key) -> bool {
        self.outgoing.iter().any(|outgoing| outgoing.key == key)
    }

    /// Publishes at QoS 0, 1 or 2; remembers it until it is acknowledged.
    pub fn publish(&mut self, key: Key, qos: u8, retain: bool, topic: String, payload: Bytes) -> Packet {
        let packet = if qos > 0 { self.free_packet() } else { 0 };
        let correlation = (self.version == Version::V5).then(|| Bytes::from(key.to_string()));
        let publish = Publish { dup: false, qos, retain, topic, packet, correlation, payload };
        if qos > 0 {
            self.outgoing.push(Outgoing { key, publish: publish.clone(), released: false });
        }
        Packet::Publish(publish)
    }

    /// Subscribes to one filter.
    pub fn subscribe(&mut self, filter: String, qos: u8) -> Packet {
        Packet::Subscribe { packet: self.free_packet(), filter: (filter, qos) }
    }

    /// CONNACK came. What has to be sent again, and of what.
    pub fn resume(&mut self, present: bool, receive_maximum: u16) -> Vec<(Key, Packet)> {
        self.receive_maximum = receive_maximum;
        if !present {
            self.incoming.clear();
            // The broker has taken it over, and nothing is left to release.
            self.outgoing.retain(|outgoing| !outgoing.released);
        }
        let again = self.outgoing.iter_mut().map(|outgoing| {
            if outgoing.released {
                return (outgoing.key, ack(Ack::Pubrel, outgoing.publish.packet, 0));
            }
            outgoing.publish.dup = present;
            (outgoing.key, Packet::Publish(outgoing.publish.clone()))
        });
        again.collect()
    }

    /// A packet came: what to send, and what is new.
    pub fn receive(&mut self, packet: Packet) -> (Option<Packet>, Option<News>) {
        match packet {
            Packet::Publish(publish) => self.receive_publish(publish),
            Packet::Ack { ack: Ack::Puback, packet, code } => {
                let found = self.outgoing.iter().position(|outgoing| outgoing.is(packet, 1));
                let key = found.map(|index| self.outgoing.remove(index).key);
                (None, key.map(|key| News::Acknowledged(key, failure(code))))
            }
            Packet::Ack { ack: Ack::Pubrec, packet, code } => self.receive_pubrec(packet, code),
            Packet::Ack { ack: Ack::Pubrel, packet, .. } => {
                let known = self.incoming.remove(&packet);
                let code = if known || self.version == Version::V311 { 0 } else { NOT_FOUND };
                (Some(ack(Ack::Pubcomp, packet, code)), None)
            }
            Packet::Ack { ack: Ack::Pubcomp, packet, .. } => {
                self.outgoing.retain(|outgoing| !(outgoing.is(packet, 2) && outgoing.released));
                (None, None)
            }
            Packet::Suback { codes, .. } => {
                (None, Some(News::Subscribed(codes.iter().all(|code| *code < FAILURE))))
            }
            Packet::Disconnect(code) => (None, Some(News::Disconnected(code))),
            Packet::Connect { .. } | Packet::Connack { .. } | Packet::Subscribe { .. } | Packet::Pingresp => {
                (None, None)
            }
        }
    }

    fn receive_publish(&mut self, publish: Publish) -> (Option<Packet>, Option<News>) {
        let packet = publish.packet;
        match publish.qos {
            0 => (None, Some(News::Message(publish))),
            1 => (Some(ack(Ack::Puback, packet, 0)), Some(News::Message(publish))),
            _ => {
                let new = self.incoming.insert(packet);
                (Some(ack(Ack::Pubrec, packet, 0)), new.then_some(News::Message(publish)))
            }
        }
    }

    fn receive_pubrec(&mut self, packet: u16, code: u8) -> (Option<Packet>, Option<News>) {
        let Some(index) = self.outgoing.iter().position(|outgoing| outgoing.is(packet, 2)) else {
            let code = if self.version == Version::V311 { 0 } else { NOT_FOUND };
            return (Some(ack(Ack::Pubrel, packet, code)), None);
        };
        let key = self.outgoing[index].key;
        if let Some(code) = failure(code) {
            self.outgoing.remove(index);
            return (None, Some(News::Acknowledged(key, Some(code))));
        }
        let first = !std::mem::replace(&mut self.outgoing[index].released, true);
        (Some(ack(Ack::Pubrel, packet, 0)), first.then_some(News::Acknowledged(key, None)))
    }

    /// An identifier that is not in use.
    fn free_packet(&mut self) -> u16 {
        loop {
            self.last_packet = self.last_packet.checked_add(1).unwrap_or(1);
            let packet = self.last_packet;
            if self.outgoing.iter().all(|outgoing| outgoing.publish.packet != packet) {
                return packet;
            }
        }
    }
}

impl Outgoing {
    fn is(&self, packet: u16, qos: u8) -> bool {
        self.publish.packet == packet && self.publish.qos == qos
    }
}

fn ack(ack: Ack, packet: u16, code: u8) -> Packet {
    Packet::Ack { ack, packet, code }
}

fn failure(code: u8) -> Option<u8> {
    (code >= FAILURE).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key { client: 1, number: 1 };

    fn published(session: &mut Session, qos: u8) -> Publish {
        match session.publish(KEY, qos, false, "a".to_owned(), Bytes::from("x")) {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again() {
        let mut session = Session::new(Version::V311);
        let publish = published(&mut session, 1);
        let again = session.resume(true, 10);
        assert_eq!(again, [(KEY, Packet::Publish(Publish { dup: true, ..publish.clone() }))]);
        let again = session.resume(false, 10);
        assert_eq!(again, [(KEY, Packet::Publish(publish.clone()))], "to a broker that knows nothing of it");
        let (reply, news) = session.receive(ack(Ack::Puback, publish.packet, 0));
        assert_eq!((reply, news), (None, Some(News::Acknowledged(KEY, None))));
        assert_eq!(session.resume(true, 10), []);
        assert_eq!(published(&mut session, 0).packet, 0);
        assert_eq!(session.resume(true, 10), [], "nothing is at QoS 0");
    }

    #[test]
    fn at_qos_2_what_is_received_is_released() {
        let mut session = Session::new(Version::V311);
        let packet = published(&mut session, 2).packet;
        let pubrel = ack(Ack::Pubrel, packet, 0);
        let acknowledged = Some(News::Acknowledged(KEY, None));
        assert_eq!(session.receive(ack(Ack::Pubrec, packet, 0)), (Some(pubrel.clone()), acknowledged));
        assert_eq!(session.receive(ack(Ack::Pubrec, packet, 0)), (Some(pubrel.clone()), None));
        assert_eq!(session.resume(true, 10), [(KEY, pubrel)]);
        assert!(session.has(KEY));
        session.receive(ack(Ack::Pubcomp, packet, 0));
        assert!(!session.has(KEY));
    }

    #[test]
    fn a_broker_that_has_forgotten_is_not_sent_what_it_has_taken_over() {
        let mut session = Session::new(Version::V311);
        let packet = published(&mut session, 2).packet;
        session.receive(ack(Ack::Pubrec, packet, 0));
        assert_eq!(session.resume(false, 10), []);
    }

    #[test]
    fn at_qos_2_a_message_is_news_once() {
        let mut session = Session::new(Version::V5);
        let publish = published(&mut Session::new(Version::V5), 2);
        let pubrec = Some(ack(Ack::Pubrec, publish.packet, 0));
        let first = session.receive(Packet::Publish(publish.clone()));
        assert_eq!(first, (pubrec.clone(), Some(News::Message(publish.clone()))));
        session.resume(true, 10);
        let again = Publish { dup: true, ..publish.clone() };
        assert_eq!(session.receive(Packet::Publish(again)), (pubrec, None));
        let pubcomp = |code| (Some(ack(Ack::Pubcomp, publish.packet, code)), None);
        assert_eq!(session.receive(ack(Ack::Pubrel, publish.packet, 0)), pubcomp(0));
        assert_eq!(session.receive(ack(Ack::Pubrel, publish.packet, 0)), pubcomp(NOT_FOUND));
        assert_eq!(session.receive(Packet::Publish(publish.clone())).1, Some(News::Message(publish)));
    }

    #[test]
    fn a_refusal_is_told() {
        for (qos, kind) in [(1, Ack::Puback), (2, Ack::Pubrec)] {
            let mut session = Session::new(Version::V5);
            let packet = published(&mut session, qos).packet;
            assert_eq!(session.room(), usize::from(u16::MAX) - 1);
            let (reply, news) = session.receive(ack(kind, packet, 0x97));
            assert_eq!((reply, news), (None, Some(News::Acknowledged(KEY, Some(0x97)))));
            assert!(!session.has(KEY));
        }
    }
}
