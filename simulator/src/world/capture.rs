//! The MQTT packets of devices as a capture file that Wireshark opens: Ethernet, IPv4, TCP and MQTT 3.1.1, each packet
//! at the moment at which its receiver has it. What is not simulated is not in it: keep-alives, packets that are lost
//! and sent again, connections that are made again. Acknowledgements are there at once.

use std::collections::HashMap;
use std::io::Write;

use crate::clock::{Nanos, SECOND};

/// The file's format: pcap with nanoseconds, in this machine's order of bytes, which readers tell by it.
const MAGIC: u32 = 0xa1b2_3c4d;

/// Link type of Ethernet.
const ETHERNET: u32 = 1;

/// Most bytes of a packet.
const SNAP_LENGTH: u32 = 65_535;

/// Bytes of MQTT in one packet: what Ethernet's 1500 leave beside IP and TCP.
const SEGMENT: usize = 1_460;

/// MQTT's port.
const PORT: u16 = 1_883;

const SYN: u8 = 0x02;
const PUSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// Bytes of a message's text, beyond which it is filled up with spaces.
const MAX_PAYLOAD: u64 = 1 << 20;

/// Where packets go.
pub struct Capture<'w> {
    writer: Box<dyn Write + Send + 'w>,
    /// Packets that are still written.
    left: u64,
    connections: HashMap<u32, Connection>,
    has_begun: bool,
    /// After an error nothing more is written; whoever flushes the writer is told of it.
    has_failed: bool,
}

/// The connection of a device.
struct Connection {
    device: u32,
    server: u32,
    /// The next byte of the device, and of the gateway.
    sequence: [u32; 2],
    /// The next packet identifier of each.
    identifier: [u16; 2],
    now: Nanos,
}

/// Who sends a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    Device,
    Gateway,
}

/// A message of a device or for it.
pub struct Message<'t> {
    /// Its device.
    pub device: u32,
    /// The gateway, or the broker.
    pub server: u32,
    /// Its topic.
    pub topic: &'t str,
    /// What is in it.
    pub text: String,
    /// Bytes that it has.
    pub bytes: u64,
    /// 0 or 1.
    pub qos: u8,
    /// Whether it was sent before.
    pub again: bool,
}

impl<'w> Capture<'w> {
    /// Writes this many packets at the most.
    pub fn new(writer: impl Write + Send + 'w, most: u64) -> Self {
        let connections = HashMap::new();
        Self { writer: Box::new(writer), left: most, connections, has_begun: false, has_failed: false }
    }

    /// A device sends something; before the first time it connects, and subscribes to its answers.
    pub fn connects(&mut self, device: u32, server: u32, now: Nanos) {
        if self.left == 0 || self.connections.contains_key(&device) {
            return;
        }
        let mut connection =
            Connection { device, server, sequence: [device, server], identifier: [1, 1], now };
        for (sender, flags) in [(Sender::Device, SYN), (Sender::Gateway, SYN | ACK), (Sender::Device, ACK)] {
            self.write(&mut connection, sender, flags, &[]);
        }
        let client = format!("device-{device}");
        // Protocol level 4, a clean session, and a minute to keep alive.
        let mut connect = b"\x00\x04MQTT\x04\x02\x00\x3c".to_vec();
        connect.extend(text(&client));
        self.send(&mut connection, Sender::Device, &packet(0x10, &connect));
        self.send(&mut connection, Sender::Gateway, &packet(0x20, &[0, 0]));
        let mut subscribe = connection.identify(Sender::Device).to_vec();
        let identifier = [subscribe[0], subscribe[1]];
        subscribe.extend(text(&format!("result/{device}")));
        subscribe.push(1);
        self.send(&mut connection, Sender::Device, &packet(0x82, &subscribe));
        self.send(&mut connection, Sender::Gateway, &packet(0x90, &[identifier[0], identifier[1], 1]));
        self.connections.insert(device, connection);
    }

    /// A gateway has a request.
    pub fn request(&mut self, message: &Message<'_>, now: Nanos) {
        self.publish(Sender::Device, message, now);
    }

    /// A device has an answer.
    pub fn answer(&mut self, message: &Message<'_>, now: Nanos) {
        self.publish(Sender::Gateway, message, now);
    }

    fn publish(&mut self, sender: Sender, message: &Message<'_>, now: Nanos) {
        self.connects(message.device, message.server, now);
        let Some(mut connection) = self.connections.remove(&message.device) else { return };
        connection.now = now;
        let mut body = text(message.topic);
        let identifier = (message.qos > 0).then(|| connection.identify(sender));
        body.extend(identifier.iter().flatten());
        body.extend(message.text.as_bytes());
        let bytes = message.bytes.min(MAX_PAYLOAD) as usize;
        body.resize(body.len().max(body.len() - message.text.len() + bytes), b' ');
        let kind = 0x30 | u8::from(message.again) << 3 | message.qos << 1;
        self.send(&mut connection, sender, &packet(kind, &body));
        if let Some(identifier) = identifier {
            self.send(&mut connection, sender.other(), &packet(0x40, &identifier));
        }
        self.connections.insert(message.device, connection);
    }

    fn send(&mut self, connection: &mut Connection, sender: Sender, bytes: &[u8]) {
        for segment in bytes.chunks(SEGMENT) {
            self.write(connection, sender, PUSH | ACK, segment);
        }
    }

    /// Writes one packet of TCP.
    fn write(&mut self, connection: &mut Connection, sender: Sender, flags: u8, payload: &[u8]) {
        if self.left == 0 || self.has_failed {
            return;
        }
        self.left -= 1;
        let frame = connection.frame(sender, flags, payload);
        let mut record = Vec::with_capacity(frame.len() + 40);
        if !std::mem::replace(&mut self.has_begun, true) {
            // Version 2.4, times in UTC.
            for word in [MAGIC, 4 << 16 | 2, 0, 0, SNAP_LENGTH, ETHERNET] {
                record.extend(word.to_le_bytes());
            }
        }
        let length = frame.len() as u32;
        for word in [(connection.now / SECOND) as u32, (connection.now % SECOND) as u32, length, length] {
            record.extend(word.to_le_bytes());
        }
        record.extend(frame);
        self.has_failed = self.writer.write_all(&record).is_err();
    }
}

impl Sender {
    fn other(self) -> Self {
        match self {
            Self::Device => Self::Gateway,
            Self::Gateway => Self::Device,
        }
    }
}

impl Connection {
    fn identify(&mut self, sender: Sender) -> [u8; 2] {
        let next = &mut self.identifier[sender as usize];
        let identifier = *next;
        *next = next.checked_add(1).unwrap_or(1);
        identifier.to_be_bytes()
    }

    fn frame(&mut self, sender: Sender, flags: u8, payload: &[u8]) -> Vec<u8> {
        // Devices are in 10.0.0.0/8, gateways in 172.16.0.0/12.
        let device = (0x0a00_0001 + self.device % 0x00ff_fffe).to_be_bytes();
        let server = (0xac10_0001 + self.server % 0x000f_fffe).to_be_bytes();
        let port = 49_152 + (self.device % 16_384) as u16;
        let (from, to, ports) = match sender {
            Sender::Device => (device, server, [port, PORT]),
            Sender::Gateway => (server, device, [PORT, port]),
        };
        let mut segment = ports.map(u16::to_be_bytes).concat();
        segment.extend(self.sequence[sender as usize].to_be_bytes());
        let acknowledged = if flags & ACK == 0 { 0 } else { self.sequence[sender.other() as usize] };
        segment.extend(acknowledged.to_be_bytes());
        // Five words of header, the largest window, no checksum yet, nothing urgent.
        segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(payload);
        let consumed = payload.len() as u32 + u32::from(flags & SYN != 0);
        self.sequence[sender as usize] = self.sequence[sender as usize].wrapping_add(consumed);
        let length = segment.len() as u16;
        let pseudo = [&from[..], &to[..], &[0, 6], &length.to_be_bytes()].concat();
        let sum = checksum(&[&pseudo, &segment]);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());

        let mut header = vec![0x45, 0];
        header.extend((20 + length).to_be_bytes());
        // Not to be fragmented, 64 hops, TCP, no checksum yet.
        header.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        header.extend([from, to].concat());
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());

        // Addresses that the local administrator gives, as those of IP; then IPv4.
        let ethernet = [&[2, 0][..], &to, &[2, 0], &from, &[8, 0]].concat();
        [ethernet, header, segment].concat()
    }
}

/// An MQTT packet: its kind, how long it is, and what is in it.
fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut left = body.len();
    loop {
        let digit = (left % 128) as u8;
        left /= 128;
        packet.push(digit | if left > 0 { 0x80 } else { 0 });
        if left == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// A text as MQTT has it, with its length.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// The Internet's checksum (RFC 1071); all parts but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded + (folded >> 16)) as u16)
}
