//! The virtual network: sessions, the packets between them, and the time, which goes on by `step` and `run` alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::address::Address;
use super::content::Content;
use super::endpoint::{Effects, Endpoint, Local, Role};
use super::keys::{ServerKey, TeachingRandom, hex};
use super::packet::{Authenticity, Fate, Packet, Payload, Segment, SessionId, Tampering};
use crate::clock::{MILLISECOND, Nanos};

/// Sessions at once: a class, not a fleet.
pub const MAX_SESSIONS: usize = 64;

/// Local networks.
pub const MAX_NETWORKS: usize = 16;

/// Packets that a sender keeps for one receiver that does not listen; more are lost.
pub const BUFFER: usize = 8;

/// Packets on the way at once; more are lost.
pub const MAX_ON_THE_WAY: usize = 4_096;

/// Packets that are remembered; the oldest are forgotten.
pub const MAX_REMEMBERED: usize = 10_000;

/// A packet's time within a network.
pub const LOCAL_LATENCY: Nanos = MILLISECOND;

/// A packet's time between networks.
pub const GLOBAL_LATENCY: Nanos = 20 * MILLISECOND;

/// Sessions and what is between them.
pub struct Network {
    seed: u64,
    now: Nanos,
    random: TeachingRandom,
    sessions: BTreeMap<SessionId, Endpoint>,
    next_session: SessionId,
    /// Names of local networks; their numbers begin with one.
    networks: Vec<String>,
    /// All that were sent, by their order.
    packets: BTreeMap<Serial, Packet>,
    next_serial: Serial,
    /// By the time at which they arrive.
    on_the_way: BTreeSet<(Nanos, Serial)>,
    buffers: BTreeMap<(SessionId, SessionId), Buffer>,
    events: Vec<Event>,
}

/// Which of all packets. A packet that somebody sends once more has the number of the first, and a serial of its own.
pub type Serial = u64;

/// What a sender keeps for a receiver that does not listen.
#[derive(Default)]
pub struct Buffer {
    /// The oldest first.
    waiting: VecDeque<Serial>,
    /// How many had no room.
    lost: u64,
}

/// Something that whoever watches one of `sessions` sees.
pub struct Event {
    /// When.
    pub at: Nanos,
    /// Whom it concerns.
    pub sessions: [Option<SessionId>; 2],
    /// What.
    pub what: What,
    /// What a class may want to know.
    pub notes: Vec<String>,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A packet is on the way.
    Sent(Serial),
    /// It has arrived.
    Delivered(Serial),
    /// Its receiver does not listen.
    Waits(Serial),
    /// It never arrives.
    Lost(Serial),
    /// No packet arrives or leaves: the notes say what it is.
    Noted,
}

impl Network {
    /// Without sessions.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            now: 0,
            random: TeachingRandom::new(seed),
            sessions: BTreeMap::new(),
            next_session: 1,
            networks: Vec::new(),
            packets: BTreeMap::new(),
            next_serial: 1,
            on_the_way: BTreeSet::new(),
            buffers: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// The seed of its keys.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The virtual time.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Packets on the way.
    pub fn on_the_way(&self) -> usize {
        self.on_the_way.len()
    }

    /// All sessions.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Endpoint)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// A session.
    pub fn session(&self, id: SessionId) -> Option<&Endpoint> {
        self.sessions.get(&id)
    }

    /// All packets that are remembered, the oldest first.
    pub fn packets(&self) -> impl Iterator<Item = (Serial, &Packet)> {
        self.packets.iter().map(|(serial, packet)| (*serial, packet))
    }

    /// A packet.
    pub fn packet(&self, serial: Serial) -> Option<&Packet> {
        self.packets.get(&serial)
    }

    /// The packet that arrives next.
    pub fn next_packet(&self) -> Option<Serial> {
        self.on_the_way.first().map(|(_, serial)| *serial)
    }

    /// How many packets a session keeps for another one that does not listen, and how many had no room.
    pub fn buffered(&self, sender: SessionId, receiver: SessionId) -> (usize, u64) {
        self.buffers.get(&(sender, receiver)).map_or((0, 0), |buffer| (buffer.waiting.len(), buffer.lost))
    }

    /// A segment in words.
    pub fn segment_name(&self, segment: Segment) -> &str {
        match segment {
            Segment::Local(number) => &self.networks[usize::from(number) - 1],
            Segment::Global => "between networks",
        }
    }

    /// Who has an address on a segment.
    pub fn holder(&self, segment: Segment, address: Address) -> Option<SessionId> {
        let has = |session: &Endpoint| match segment {
            Segment::Local(number) => session
                .local
                .as_ref()
                .is_some_and(|local| local.network == number && local.address == address),
            Segment::Global => session.global == Some(address),
        };
        self.sessions.iter().find(|(_, session)| has(session)).map(|(id, _)| *id)
    }

    /// The segment on which a session has to do with an address.
    pub fn segment_of(&self, session: SessionId, address: Address) -> Option<Segment> {
        let session = self.sessions.get(&session)?;
        if address.is_global() {
            return session.global.map(|_| Segment::Global);
        }
        session.local.as_ref().map(|local| Segment::Local(local.network))
    }

    /// What has happened since this was asked last.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// A new session.
    ///
    /// # Errors
    /// If the name is taken, or there are too many.
    pub fn open(&mut self, role: Role, name: &str) -> Result<SessionId, String> {
        if self.sessions.values().any(|session| session.name == name) {
            return Err(format!("there is a session {name} already: give another name, or `use {name}`"));
        }
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(format!("there are {MAX_SESSIONS} sessions, and no more are possible: `close` one"));
        }
        let id = self.next_session;
        self.next_session += 1;
        self.sessions.insert(id, Endpoint::new(name.to_owned(), role, &mut self.random));
        Ok(id)
    }

    /// A session ends; where it is on a network it leaves that first.
    pub fn close(&mut self, id: SessionId) {
        let _ = self.leave(id);
        self.sessions.remove(&id);
    }

    /// A session gets its addresses, and says that it is there.
    ///
    /// # Errors
    /// If it has some already, or there is nobody whom it could join.
    pub fn join(&mut self, id: SessionId, network: &str) -> Result<(), String> {
        let session = self.sessions.get(&id).ok_or("the session has ended")?;
        let (role, name) = (session.role, session.name.clone());
        if session.has_joined() {
            return Err(format!("{name} has joined already: `leave` first"));
        }
        if role == Role::Master {
            if self.holder(Segment::Global, Address::MASTER).is_some() {
                return Err("there is a master already, and one is enough".to_owned());
            }
            self.sessions.entry(id).and_modify(|session| session.global = Some(Address::MASTER));
            return Ok(());
        }
        let number = match self.networks.iter().position(|known| known == network) {
            Some(at) => at as u8 + 1,
            None if role == Role::Broker && self.networks.len() < MAX_NETWORKS => {
                self.networks.push(network.to_owned());
                self.networks.len() as u8
            }
            None if role == Role::Broker => return Err(format!("there are {MAX_NETWORKS} networks already")),
            None => {
                return Err(format!("there is no network {network}: a broker makes one, `join {network}`"));
            }
        };
        let segment = Segment::Local(number);
        let address = match role {
            Role::Broker => Some(Address::BROKER),
            Role::Router => Some(Address::ROUTER),
            _ => Address::CLIENT_HOSTS.map(|host| Address::Local { host }).find(|address| {
                let is_new = !self.sessions.iter().any(|(_, session)| {
                    session.connections.contains_key(address)
                        && session.local.as_ref().is_some_and(|local| local.network == number)
                });
                is_new && self.holder(segment, *address).is_none()
            }),
        };
        let address = address.ok_or_else(|| format!("{network} has no address left"))?;
        if self.holder(segment, address).is_some() {
            return Err(format!("{network} has a {role} already: `join` another network, by its name"));
        }
        if role != Role::Broker && self.holder(segment, Address::BROKER).is_none() {
            return Err(format!(
                "the broker of {network} has left: another one has to `join {network}` first"
            ));
        }
        if role == Role::Router && self.holder(Segment::Global, Address::MASTER).is_none() {
            return Err("there is no master that could join routers: `open master m`, `m: join`".to_owned());
        }
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        session.local = Some(Local { network: number, name: network.to_owned(), address });
        session.global = (role == Role::Router).then(|| address.outside(number));
        let effects = session.joined();
        self.carry_out(id, effects);
        Ok(())
    }

    /// A session leaves its network.
    ///
    /// # Errors
    /// If it is on none.
    pub fn leave(&mut self, id: SessionId) -> Result<(), String> {
        let now = self.now;
        let session = self.sessions.get_mut(&id).ok_or("the session has ended")?;
        if !session.has_joined() {
            return Err(format!("{} is on no network", session.name));
        }
        let effects = session.leave(now);
        self.carry_out(id, effects);
        if let Some(session) = self.sessions.get_mut(&id) {
            (session.local, session.global) = (None, None);
            session.connections.clear();
        }
        Ok(())
    }

    /// A session does what it is told.
    ///
    /// # Errors
    /// What it says.
    pub fn act(
        &mut self,
        id: SessionId,
        act: impl FnOnce(&mut Endpoint, Nanos) -> Result<Effects, String>,
    ) -> Result<(), String> {
        let now = self.now;
        let effects = act(self.sessions.get_mut(&id).ok_or("the session has ended")?, now)?;
        self.carry_out(id, effects);
        Ok(())
    }

    /// A session listens, or stops listening. Whether it listens now.
    pub fn toggle_listening(&mut self, id: SessionId) -> bool {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let listens = session.toggle_listening(now);
        if listens {
            let buffers = self.buffers.iter_mut().filter(|((_, receiver), _)| *receiver == id);
            for serial in buffers.flat_map(|(_, buffer)| buffer.waiting.drain(..)) {
                if let Some(packet) = self.packets.get_mut(&serial) {
                    // They have come this far already, and are in front of all that were sent later.
                    packet.fate = Fate::OnTheWay(now);
                    self.on_the_way.insert((now, serial));
                }
            }
        }
        listens
    }

    /// Time goes on to the next packet's arrival. Whether there was one.
    pub fn step(&mut self) -> bool {
        while let Some((due, serial)) = self.on_the_way.first().copied() {
            match self.next_deadline().filter(|deadline| *deadline <= due) {
                Some(deadline) => self.drop_silent(deadline),
                None => {
                    self.now = self.now.max(due);
                    self.on_the_way.remove(&(due, serial));
                    self.arrive(serial);
                    return true;
                }
            }
        }
        false
    }

    /// All that happens until then.
    pub fn run_until(&mut self, end: Nanos) {
        loop {
            let due = self.on_the_way.first().map(|(due, _)| *due);
            match [due, self.next_deadline()].into_iter().flatten().min().filter(|next| *next <= end) {
                Some(next) if Some(next) == due && self.next_deadline() != Some(next) => {
                    self.step();
                }
                Some(next) => self.drop_silent(next),
                None => break,
            }
        }
        self.now = self.now.max(end);
    }

    /// When the next client has been silent for too long.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.sessions.values().filter_map(Endpoint::next_deadline).min()
    }

    fn drop_silent(&mut self, deadline: Nanos) {
        self.now = self.now.max(deadline);
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if session.next_deadline().is_some_and(|due| due <= deadline) {
                let mut effects = session.drop_silent(self.now);
                let notes = std::mem::take(&mut effects.notes);
                self.events.push(Event {
                    at: self.now,
                    sessions: [Some(id), None],
                    what: What::Noted,
                    notes,
                });
                self.carry_out(id, effects);
            }
        }
    }

    fn carry_out(&mut self, id: SessionId, effects: Effects) {
        for (to, content) in effects.sends {
            self.send(id, to, &content);
        }
        if !effects.notes.is_empty() {
            self.events.push(Event {
                at: self.now,
                sessions: [Some(id), None],
                what: What::Noted,
                notes: effects.notes,
            });
        }
    }

    fn send(&mut self, id: SessionId, to: Address, content: &Content) {
        let segment = self.segment_of(id, to);
        let receiver = segment.and_then(|segment| self.holder(segment, to));
        let name = |id: SessionId| self.sessions.get(&id).map(|session| session.name.clone());
        let names = [name(id), receiver.and_then(name)];
        let (Some(session), Some(segment)) = (self.sessions.get_mut(&id), segment) else { return };
        let Some(from) = session.address_towards(to) else { return };
        let latency = if segment == Segment::Global { GLOBAL_LATENCY } else { LOCAL_LATENCY };
        let (serial, due) = (self.next_serial, self.now.saturating_add(latency));
        self.next_serial += 1;
        let mut packet = Packet {
            number: serial,
            sent: self.now,
            segment,
            kind: content.kind(),
            from,
            to,
            sender: id,
            receiver,
            names,
            clear: Vec::new(),
            payload: Payload::Clear(Vec::new()),
            tampered: None,
            fate: Fate::OnTheWay(due),
            authenticity: Authenticity::Open,
        };
        let notes = session.seal(&mut packet, content, self.now, &mut self.random);
        self.packets.insert(serial, packet);
        self.report(serial, What::Sent(serial), notes);
        if self.on_the_way.len() >= MAX_ON_THE_WAY {
            self.lose(serial, "too many packets are on the way");
        } else {
            self.on_the_way.insert((due, serial));
        }
        while self.packets.len() > MAX_REMEMBERED {
            let oldest = self.packets.first_key_value().map(|(serial, packet)| (*serial, packet.fate));
            match oldest {
                Some((serial, Fate::Delivered(_) | Fate::Lost(_))) => self.packets.remove(&serial),
                _ => break,
            };
        }
    }

    fn arrive(&mut self, serial: Serial) {
        let Some(packet) = self.packets.get_mut(&serial) else { return };
        let (sender, receiver) = (packet.sender, packet.receiver);
        let present = receiver.and_then(|id| Some((id, self.sessions.get_mut(&id)?)));
        // Who has left has no address.
        let Some((id, session)) = present.filter(|(_, session)| session.has_joined()) else {
            return self.lose(serial, "nobody has this address any more");
        };
        if !session.listens {
            let buffer = self.buffers.entry((sender, id)).or_default();
            if buffer.waiting.len() >= BUFFER {
                buffer.lost += 1;
                return self.lose(serial, "its sender's buffer is full");
            }
            buffer.waiting.push_back(serial);
            packet.fate = Fate::Waiting;
            let note = format!("{} does not listen: {} of {BUFFER} wait", session.name, buffer.waiting.len());
            return self.report(serial, What::Waits(serial), vec![note]);
        }
        let (authenticity, mut effects) = session.receive(packet, self.now);
        (packet.fate, packet.authenticity) = (Fate::Delivered(self.now), authenticity);
        let notes = std::mem::take(&mut effects.notes);
        self.report(serial, What::Delivered(serial), notes);
        self.carry_out(id, effects);
    }

    fn lose(&mut self, serial: Serial, why: &'static str) {
        if let Some(packet) = self.packets.get_mut(&serial) {
            packet.fate = Fate::Lost(why);
        }
        self.report(serial, What::Lost(serial), vec![why.to_owned()]);
    }

    fn report(&mut self, serial: Serial, what: What, notes: Vec<String>) {
        let Some(packet) = self.packets.get(&serial) else { return };
        let sessions = [Some(packet.sender), packet.receiver];
        self.events.push(Event { at: self.now, sessions, what, notes });
    }

    /// Somebody on the way does something to a packet: the one of this number, or the next one. Its serial.
    ///
    /// # Errors
    /// If it is not on the way.
    pub fn tamper(&mut self, number: Option<u64>, how: Tampering) -> Result<Serial, String> {
        let on_the_way = |number| {
            self.on_the_way
                .iter()
                .find(|(_, serial)| self.packets.get(serial).is_some_and(|packet| packet.number == number))
                .map(|(_, serial)| *serial)
        };
        let serial = match number {
            Some(number) => on_the_way(number)
                .ok_or_else(|| format!("packet #{number} is not on the way; `packets` shows which are"))?,
            None => self.next_packet().ok_or(
                "no packet is on the way: `publ`, `ping` or another command sends one, and `tamper` comes before `run`",
            )?,
        };
        let (next, now) = (self.next_serial, self.now);
        let packet = self.packets.get_mut(&serial).ok_or("the packet is forgotten")?;
        if packet.tampered.is_some() {
            // A bit that is turned twice is as it was.
            return Err(format!(
                "#{} is tampered with already: `run` shows what becomes of it",
                packet.number
            ));
        }
        match how {
            Tampering::Bit => {
                if let Some(byte) = packet.payload.bytes_mut().last_mut() {
                    *byte ^= 1;
                }
                packet.tampered = Some(how);
            }
            Tampering::Sender => {
                // Somebody else who is there, so that the lie is not seen by its address.
                let addresses = self.sessions.values().filter_map(|session| match packet.segment {
                    Segment::Global => session.global,
                    Segment::Local(number) => session
                        .local
                        .as_ref()
                        .filter(|local| local.network == number)
                        .map(|local| local.address),
                });
                let mut others = addresses.filter(|address| ![packet.from, packet.to].contains(address));
                packet.from = others.next().ok_or("nobody else is there whose address it could have")?;
                packet.tampered = Some(how);
            }
            Tampering::Key => {
                let told = Content::decode(packet.kind, &packet.clear);
                let Some(Content::Join { name, key: Some(_) }) = told else {
                    return Err(format!(
                        "#{} tells no public key: only a server's join does, in clear, after a session's own",
                        packet.number
                    ));
                };
                let key = hex(ServerKey::new(&mut self.random).public().as_bytes());
                packet.payload = Payload::Clear(Content::Join { name, key: Some(key) }.encode());
                packet.tampered = Some(how);
            }
            Tampering::Replay => {
                let mut again = packet.clone();
                again.tampered = Some(how);
                let due = match packet.fate {
                    Fate::OnTheWay(due) => due,
                    _ => now,
                };
                self.packets.insert(next, again);
                self.on_the_way.insert((due, next));
                self.next_serial += 1;
                return Ok(next);
            }
        }
        Ok(serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::content::Kind;
    use crate::session::endpoint::{MAX_SUBSCRIPTIONS, MAX_VALUES};

    /// Networks of a broker and a client each, that a master joins; the clients are returned.
    fn networks(count: usize) -> (Network, Vec<SessionId>) {
        let mut network = Network::new(1);
        let master = network.open(Role::Master, "m").unwrap();
        network.join(master, "").unwrap();
        let mut clients = Vec::new();
        for number in 0..count {
            let name = format!("n{number}");
            for role in [Role::Broker, Role::Router, Role::Client] {
                let id = network.open(role, &format!("{}{number}", role.name())).unwrap();
                network.join(id, &name).unwrap();
                settle(&mut network);
                if !role.serves() {
                    network.act(id, |session, _| session.connect(0, "")).unwrap();
                    settle(&mut network);
                }
                clients.extend((role == Role::Client).then_some(id));
            }
        }
        (network, clients)
    }

    fn settle(network: &mut Network) {
        while network.step() {}
    }

    fn publish(network: &mut Network, id: SessionId, topic: &str) {
        network.act(id, |session, _| session.publish(topic, "1")).unwrap();
        settle(network);
    }

    #[test]
    fn a_value_comes_to_each_subscriber_once_and_not_back() {
        let (mut network, clients) = networks(3);
        for client in &clients {
            network.act(*client, |session, now| session.subscribe("lamp", "", now)).unwrap();
        }
        settle(&mut network);
        publish(&mut network, clients[0], "lamp");
        let publishes: Vec<&Packet> = network
            .packets()
            .map(|(_, packet)| packet)
            .filter(|packet| packet.kind == Kind::Publish)
            .collect();
        for client in &clients {
            let got = publishes.iter().filter(|packet| packet.receiver == Some(*client)).count();
            // A broker does not send a client what it has published itself.
            assert_eq!(got, usize::from(*client != clients[0]));
        }
        // To the broker and out by router and master, then by two routers and brokers to two clients.
        assert_eq!(publishes.len(), 3 + 2 * 3);
        assert!(publishes.iter().all(|packet| packet.authenticity == Authenticity::Holds));
    }

    #[test]
    fn a_network_that_connects_again_echoes_nothing() {
        let (mut network, clients) = networks(2);
        publish(&mut network, clients[0], "lamp");
        let router = network.sessions().find(|(_, session)| session.name == "router1").unwrap().0;
        network.act(router, |session, now| session.disconnect(now)).unwrap();
        settle(&mut network);
        network.act(router, |session, _| session.connect(0, "")).unwrap();
        settle(&mut network);
        let to_master = network
            .packets()
            .filter(|(_, packet)| packet.kind == Kind::Publish && packet.to == Address::MASTER)
            .count();
        assert_eq!(to_master, 1, "what the other network has published does not come back");
    }

    #[test]
    fn what_a_class_can_fill_has_bounds() {
        let (mut network, clients) = networks(1);
        for number in 0..MAX_VALUES + 5 {
            publish(&mut network, clients[0], &format!("t/{number}"));
        }
        for (_, session) in network.sessions().filter(|(_, session)| session.role.serves()) {
            assert_eq!(session.values.len(), MAX_VALUES, "{}", session.name);
        }
        let subscribe = |network: &mut Network, number: usize| {
            network.act(clients[0], |session, now| session.subscribe(&format!("s/{number}"), "", now))
        };
        for number in 0..MAX_SUBSCRIPTIONS {
            subscribe(&mut network, number).unwrap();
        }
        assert!(subscribe(&mut network, MAX_SUBSCRIPTIONS).is_err());
        settle(&mut network);
        network.act(clients[0], |session, now| session.subscribe("s/0", "again", now)).unwrap();
        // Nothing is delivered meanwhile.
        for _ in 0..MAX_ON_THE_WAY + 5 {
            network.act(clients[0], |session, _| session.publish("t/0", "2")).unwrap();
        }
        assert_eq!(network.on_the_way(), MAX_ON_THE_WAY);
        settle(&mut network);
        assert!(network.packets().count() <= MAX_REMEMBERED);
        for number in network.sessions().count()..MAX_SESSIONS {
            network.open(Role::Client, &format!("more{number}")).unwrap();
        }
        assert!(network.open(Role::Client, "one-more").unwrap_err().contains("`close` one"));
    }
}
