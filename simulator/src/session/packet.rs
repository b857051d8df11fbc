//! A packet: its header, which everybody on the way can read, and its payload, which travels sealed once there is a
//! key.

use super::address::Address;
use super::content::Kind;
use crate::clock::Nanos;

/// Names a session on the virtual network.
pub type SessionId = u32;

/// What a packet travels through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// The local network of this number.
    Local(u8),
    /// Between routers and their master.
    Global,
}

/// One packet, from its sending on.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Packets are numbered as they are sent, all of them together. A receiver takes none twice.
    pub number: u64,
    /// When it was sent.
    pub sent: Nanos,
    /// What it travels through.
    pub segment: Segment,
    /// Its type.
    pub kind: Kind,
    /// As its header says.
    pub from: Address,
    /// As its header says.
    pub to: Address,
    /// Who has sent it in truth, whatever the header says.
    pub sender: SessionId,
    /// Who has the address of the receiver.
    pub receiver: Option<SessionId>,
    /// What they are called, also when they have ended; `None` where nobody has the address.
    pub names: [Option<String>; 2],
    /// What the sender has sealed: for who looks at the class's network from above.
    pub clear: Vec<u8>,
    /// What travels.
    pub payload: Payload,
    /// What was done to it on the way.
    pub tampered: Option<Tampering>,
    /// Where it is.
    pub fate: Fate,
    /// What its receiver could tell of it.
    pub authenticity: Authenticity,
}

/// The bytes that travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Before there is a key.
    Clear(Vec<u8>),
    /// Sealed to the public key of a server (HPKE): makes a key that only both ends have.
    Exchange {
        /// The public half of a key pair that was made for this packet.
        encapsulated: Vec<u8>,
        /// Ciphertext and tag.
        ciphertext: Vec<u8>,
    },
    /// Sealed with the connection's key: nonce, ciphertext, tag.
    Sealed(Vec<u8>),
}

/// Where a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives then.
    OnTheWay(Nanos),
    /// Its sender keeps it until the receiver listens.
    Waiting,
    /// It has arrived.
    Delivered(Nanos),
    /// It never arrives.
    Lost(&'static str),
}

/// What a receiver can tell of who has sent a packet, and whether it was altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authenticity {
    /// It has not arrived.
    Open,
    /// Nothing, since it is not sealed.
    InClear,
    /// Who has the key has sent exactly this.
    Holds,
    /// It is refused.
    Refused(&'static str),
}

/// What somebody does to a packet on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampering {
    /// One bit of the payload is another one.
    Bit,
    /// The header names another sender.
    Sender,
    /// It arrives once more.
    Replay,
    /// It tells another public key than the server's.
    Key,
}

impl Packet {
    /// The header, which the seal covers: a packet of another type, sender or receiver does not open.
    pub fn header(&self) -> String {
        format!("{} {} {} {}", self.number, self.kind.name(), self.from, self.to)
    }
}

impl Payload {
    /// As one row of bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Clear(bytes) | Self::Sealed(bytes) => bytes.clone(),
            Self::Exchange { encapsulated, ciphertext } => [&encapsulated[..], ciphertext].concat(),
        }
    }

    /// Its last bytes, in which a bit can be turned: of the tag, where there is one.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Clear(bytes) | Self::Sealed(bytes) => bytes,
            Self::Exchange { ciphertext, .. } => ciphertext,
        }
    }
}
