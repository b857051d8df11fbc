//! What a session does with packets: a state machine without I/O. Brokers and masters serve, clients and routers are
//! connected to them.

mod client;
mod server;

use std::collections::BTreeMap;
use std::fmt;

use offload_seal::PublicKey;

use super::address::Address;
use super::code::Code;
use super::connection::Connection;
use super::content::{Content, Kind};
use super::keys::{self, ConnectionKey, ServerKey, TeachingRandom};
use super::packet::{Authenticity, Packet, Payload};
use crate::clock::Nanos;

/// Topics whose last value a server keeps; those that come later have none.
pub const MAX_VALUES: usize = 256;

/// Subscriptions of a connection; more are answered with 507.
pub const MAX_SUBSCRIPTIONS: usize = 64;

/// Rows of a table of addresses; more are not learned.
pub const MAX_ROUTES: usize = 512;

/// What a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes what clients of its network publish to those who have subscribed.
    Broker,
    /// Publishes and subscribes.
    Client,
    /// Connects its network's broker to the master.
    Router,
    /// Connects routers: a broker whose clients are networks.
    Master,
}

/// A session on the virtual network.
pub struct Endpoint {
    /// As others see it.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// It takes packets. Where it does not, they wait at their senders.
    pub listens: bool,
    /// Its slot in a local network.
    pub local: Option<Local>,
    /// Its address between networks.
    pub global: Option<Address>,
    /// By the address of the other end.
    pub connections: BTreeMap<Address, Connection>,
    /// Of a server, by topic: its last value, and who has published it.
    pub values: BTreeMap<String, (String, Address)>,
    /// Of a router or master, by global address.
    pub routes: BTreeMap<Address, Route>,
    key: ServerKey,
    /// Public keys of servers, as they have told them.
    server_keys: BTreeMap<Address, PublicKey>,
}

/// A session's slot in a local network.
pub struct Local {
    /// The network's number.
    pub network: u8,
    /// The network's name.
    pub name: String,
    /// The session's address in it.
    pub address: Address,
}

/// What is behind a global address.
pub struct Route {
    /// The network's name.
    pub network: String,
    /// The address there.
    pub local: Address,
    /// When it was learned.
    pub since: Nanos,
}

/// What comes of a command or a packet.
#[derive(Default)]
pub struct Effects {
    /// What is to be sent, and to whom.
    pub sends: Vec<(Address, Content)>,
    /// What a class may want to know.
    pub notes: Vec<String>,
}

/// A packet that was opened.
struct Opened {
    content: Content,
    authenticity: Authenticity,
    /// Of a connection that begins with it.
    key: Option<ConnectionKey>,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Broker, Self::Client, Self::Router, Self::Master];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Client => "client",
            Self::Router => "router",
            Self::Master => "master",
        }
    }

    /// Others connect to it.
    pub fn serves(self) -> bool {
        matches!(self, Self::Broker | Self::Master)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Effects {
    fn note(note: String) -> Self {
        Self { notes: vec![note], ..Self::default() }
    }

    fn send(to: Address, content: Content) -> Self {
        Self { sends: vec![(to, content)], ..Self::default() }
    }
}

impl Endpoint {
    /// On no network yet.
    pub fn new(name: String, role: Role, random: &mut TeachingRandom) -> Self {
        Self {
            name,
            role,
            listens: true,
            local: None,
            global: None,
            connections: BTreeMap::new(),
            values: BTreeMap::new(),
            routes: BTreeMap::new(),
            key: ServerKey::new(random),
            server_keys: BTreeMap::new(),
        }
    }

    /// What it sends from to this address.
    pub fn address_towards(&self, to: Address) -> Option<Address> {
        if to.is_global() { self.global } else { self.local.as_ref().map(|local| local.address) }
    }

    /// It is on a network.
    pub fn has_joined(&self) -> bool {
        self.local.is_some() || self.global.is_some()
    }

    /// The fingerprint of its public key, where it has told that.
    pub fn public_fingerprint(&self) -> String {
        keys::fingerprint(self.key.public().as_bytes())
    }

    /// Seals what is about to be sent into `packet`, whose header is complete. The notes say what was done for it.
    pub fn seal(
        &mut self,
        packet: &mut Packet,
        content: &Content,
        now: Nanos,
        random: &mut TeachingRandom,
    ) -> Vec<String> {
        let clear = content.encode();
        let header = packet.header();
        packet.clear = clear.clone();
        if let Content::ConnectionRequest { keep_alive_ms, description, .. } = content
            && let Some(server) = self.server_keys.get(&packet.to)
            && let Some((encapsulated, ciphertext, key)) = keys::seal_request(server, &clear, &header, random)
        {
            let (name, to) = (&self.name, packet.to);
            let notes = vec![
                format!(
                    "key exchange 1: {name} has the public key (X25519) that {to} has told it, fingerprint {}",
                    keys::fingerprint(server.as_bytes())
                ),
                format!(
                    "key exchange 2: {name} makes a key pair for this connection alone; its public half is the first \
                     {} bytes that travel",
                    encapsulated.len()
                ),
                format!(
                    "key exchange 3: {name} computes X25519(its new secret half, public key of {to}); HKDF-SHA256 \
                     makes of it the connection's key, fingerprint {}",
                    key.fingerprint()
                ),
            ];
            let connection = Connection {
                code: Code::Waiting,
                since: now,
                key,
                description: description.clone(),
                keep_alive_ms: *keep_alive_ms,
                heard: now,
                last_ping: None,
                received: 0,
                subscriptions: BTreeMap::new(),
            };
            self.connections.insert(to, connection);
            packet.payload = Payload::Exchange { encapsulated, ciphertext };
            return notes;
        }
        let connection = self.connections.get(&packet.to).filter(|_| packet.kind != Kind::Join);
        packet.payload = match connection {
            Some(connection) => Payload::Sealed(connection.key.seal(&clear, &header, random)),
            None => Payload::Clear(clear),
        };
        Vec::new()
    }

    /// Takes a packet that has arrived.
    pub fn receive(&mut self, packet: &Packet, now: Nanos) -> (Authenticity, Effects) {
        match self.open(packet, now) {
            Ok(Opened { content, authenticity, key }) => {
                let effects = if self.role.serves() {
                    self.serve(packet.from, content, key, now)
                } else {
                    self.hear(packet.from, content, now)
                };
                if let Some(connection) = self.connections.get_mut(&packet.from) {
                    // Also of the packet that has opened it: once more, it would open nothing.
                    connection.received = connection.received.max(packet.number);
                }
                (authenticity, effects)
            }
            Err(why) => (Authenticity::Refused(why), Effects::default()),
        }
    }

    /// Listens or stops listening. What others said meanwhile is still to come, so their time starts again.
    pub fn toggle_listening(&mut self, now: Nanos) -> bool {
        self.listens = !self.listens;
        if self.listens {
            self.connections.values_mut().for_each(|connection| connection.heard = now);
        }
        self.listens
    }

    fn open(&mut self, packet: &Packet, now: Nanos) -> Result<Opened, &'static str> {
        const REPLAYED: &str =
            "it, or one that was sent after it, has come before: somebody sends it once more";
        const NOT_SEALED: &str = "it is in clear, where it has to be sealed";
        const NO_CONNECTION: &str = "there is no connection with its sender, so no key either";
        const UNREADABLE: &str = "its payload is none of its type";
        let header = packet.header();
        let decode = |bytes: &[u8]| Content::decode(packet.kind, bytes).ok_or(UNREADABLE);
        let known = self.connections.get(&packet.from);
        if packet.kind != Kind::Join && known.is_some_and(|known| packet.number <= known.received) {
            return Err(REPLAYED);
        }
        match &packet.payload {
            Payload::Clear(bytes) => {
                let is_open = known.is_some_and(Connection::is_open);
                if packet.kind != Kind::Join && (packet.kind != Kind::Left || is_open) {
                    return Err(NOT_SEALED);
                }
                Ok(Opened { content: decode(bytes)?, authenticity: Authenticity::InClear, key: None })
            }
            Payload::Exchange { encapsulated, ciphertext } => {
                let opened = self.key.open(encapsulated, ciphertext, &header);
                let (clear, key) = opened.ok_or(keys::UNOPENED)?;
                Ok(Opened { content: decode(&clear)?, authenticity: Authenticity::Holds, key: Some(key) })
            }
            Payload::Sealed(sealed) => {
                let connection = self.connections.get_mut(&packet.from).ok_or(NO_CONNECTION)?;
                let clear = connection.key.open(sealed, &header).ok_or(keys::UNOPENED)?;
                connection.heard = now;
                Ok(Opened { content: decode(&clear)?, authenticity: Authenticity::Holds, key: None })
            }
        }
    }

    /// Writes down what is behind a global address. Whether that is news.
    fn learn(&mut self, global: Address, network: String, now: Nanos) -> bool {
        if self.routes.contains_key(&global) || self.routes.len() >= MAX_ROUTES {
            return false;
        }
        self.routes.insert(global, Route { network, local: global.inside(), since: now });
        true
    }
}
