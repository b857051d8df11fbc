//! Conversations that are right, and what becomes of them on the way to a broker that should survive it. Repeatable:
//! the same seed makes the same damage.

use offload_broker::Version::{self, V5, V311};

use crate::client::{Connect, Will, packet, section, string};

/// A small generator of numbers (xorshift): nothing here needs better ones.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(0x2545_F491_4F6C_DD1D ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// Below the bound, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}

/// Where a connection is when the damage begins.
#[derive(Clone, Copy, Debug)]
pub enum State {
    Unconnected,
    Connected,
    /// Both ways: a QoS 2 message of the client's awaits PUBREL, one for the client awaits PUBREC.
    WithinQos2,
}

pub const STATES: [State; 3] = [State::Unconnected, State::Connected, State::WithinQos2];

/// What leads to a state, to be sent as it is. Sessions of one id follow each other.
pub fn prologue(state: State, version: Version, id: &str) -> Vec<u8> {
    let connect = Connect::persistent(version, id).will(Will { retain: true, ..Will::new("damage/will") });
    match state {
        State::Unconnected => Vec::new(),
        State::Connected => connect.bytes(),
        State::WithinQos2 => {
            let subscribe = subscribe(version, "damage/own", 2);
            [connect.bytes(), subscribe, publish(version, 0x34, "damage/own", 9)].concat()
        }
    }
}

/// One packet of every kind that a client sends; CONNECT comes first.
pub fn packets(version: Version, id: &str) -> Vec<Vec<u8>> {
    let unsubscribe = [&[0, 3][..], empty_section(version), &string("damage/#")].concat();
    vec![
        prologue(State::Connected, version, id),
        publish(version, 0x31, "damage/kept", 0),
        publish(version, 0x33, "damage/at-least-once", 4),
        publish(version, 0x34, "damage/exactly-once", 5),
        packet(0x40, &[0, 1]),
        packet(0x50, &[0, 1]),
        packet(0x62, &[0, 9]),
        packet(0x70, &[0, 1]),
        subscribe(version, "damage/#", 1),
        packet(0xA2, &unsubscribe),
        vec![0xC0, 0],
        vec![0xE0, 0],
    ]
}

fn publish(version: Version, first: u8, topic: &str, id: u16) -> Vec<u8> {
    let properties: &[u8] = &[1, 1, 35, 0, 1, 38, 0, 1, b'k', 0, 1, b'v'];
    let id = id.to_be_bytes();
    let id: &[u8] = if first & 6 == 0 { &[] } else { &id };
    let properties = if version == V5 { section(properties) } else { Vec::new() };
    packet(first, &[&string(topic), id, &properties, b"payload"].concat())
}

pub fn subscribe(version: Version, filter: &str, options: u8) -> Vec<u8> {
    packet(0x82, &[&[0, 2][..], empty_section(version), &string(filter), &[options]].concat())
}

fn empty_section(version: Version) -> &'static [u8] {
    match version {
        V311 => &[],
        V5 => &[0],
    }
}

/// Bytes are changed, doubled or lost, and perhaps the end is missing.
pub fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes.insert(at, random.below(256) as u8),
            1 if bytes.len() > 1 => _ = bytes.remove(at),
            2 => bytes[at] ^= 1 << random.below(8),
            _ => bytes[at] = random.below(256) as u8,
        }
    }
    if random.below(3) == 0 {
        bytes.truncate(1 + random.below(bytes.len()));
    }
}
