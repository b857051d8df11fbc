//! One client: it connects whenever there is a broker, sends what the load says, and tells the ledger all that it sees.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::key::Key;
use crate::ledger::{Fault, Ledger, Promise, Sent};
use crate::load::{self, Mix};
use crate::mqtt::{News, Packet, Publish, Session, Version, decode};
use crate::random::Random;
use crate::request::{Guest, Request};

/// Pause before a lost connection is tried again.
const RECONNECT: Duration = Duration::from_millis(10);

/// Where clients roam, how long a server may take to let one in before the next one is tried; and how long an observer
/// stays.
const ROAM_AFTER: Duration = Duration::from_secs(3);

/// Where clients roam, how long a device that is owed an answer hears nothing before it connects to the next server.
/// One that connected just before its NATS server was cut off is served nothing from then on, though its answers are
/// stored and wait: the server that leads the session's consumer does not learn where the device is until it connects
/// again.
const DEAF_AFTER: Duration = Duration::from_secs(20);

/// CONNACK and SUBACK of a server that cannot serve for now, in MQTT 3.1.1.
const UNAVAILABLE: u8 = 3;
const REFUSED: u8 = 0x80;

/// Pause before a request is repeated that is to be repeated until it is answered.
const REPEAT: Duration = Duration::from_millis(400);

/// Answered ids of a device that may be sent again, and for how long: well within the time for which a gateway
/// remembers them (10 minutes).
const RECENT: usize = 64;
const RECENT_FOR: Duration = Duration::from_secs(240);

/// Of a hundred requests, how many are such repetitions.
const AGAIN_PERCENT: u64 = 6;

/// What one device sends in a round, at the most: no more than listeners that sleep have room for.
const REQUESTS: u32 = 400;
const MESSAGES: u32 = 60;
const RETAINED: u32 = 20;

/// Pause of a device after a message and after a retained value, in milliseconds: so that some are under way whenever
/// a kill comes.
const PACE_MS: std::ops::Range<u64> = 0..15;

/// Ordinary messages of one device that are not acknowledged, at the most.
const MESSAGES_IN_FLIGHT: usize = 2;

/// Of a hundred rounds, in how many a device loses its connection, and in how many it sleeps from then on.
const RECONNECT_PERCENT: u64 = 15;
const SLEEP_PERCENT: u64 = 15;

/// When in a round that happens, in milliseconds.
const OUTAGE_MS: std::ops::Range<u64> = 0..500;

/// What is asked of all clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Each device sends the module once.
    Setup,
    /// Send, and lose connections.
    Load,
    /// Wait for what is owed.
    Collect,
}

/// What all clients share.
pub struct Shared {
    /// The ledger.
    pub ledger: RefCell<Ledger>,
    /// The last statuses of the gateways, by the observer that hears them and by topic, while it is connected.
    pub statuses: RefCell<BTreeMap<(u16, String), Value>>,
    /// What is promised.
    pub promise: Promise,
    /// What is sent.
    pub mix: Mix,
    /// What requests run.
    pub guest: Guest,
    /// Where clients connect to.
    pub doors: Vec<SocketAddr>,
    /// Whether these are of one service, so that a client goes to the next one when one is away.
    pub roams: bool,
    /// Requests of one device that are not answered, at the most.
    pub window: usize,
    /// When the run began.
    pub began: Instant,
    /// What is asked of all clients.
    pub phase: watch::Sender<Phase>,
}

impl Shared {
    /// The time, as the ledger has it.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Tells the ledger of what is no message.
    pub fn observed(&self, fault: Fault, what: String) {
        self.ledger.borrow_mut().observed(self.now(), fault, what);
    }
}

/// What a client is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It sends requests with this reply id, messages and values.
    Device {
        /// The last levels of its topics; can be empty.
        reply: String,
        /// The gate that it asks; its own site, if `None`.
        gate: Option<String>,
    },
    /// It hears all ordinary messages, at this quality of service; it may sleep.
    Listener {
        /// 1 or 2.
        qos: u8,
        /// Whether it sleeps through half of the rounds.
        sleeps: bool,
    },
    /// It hears the gateway's status. It has no session.
    Observer,
}

/// How a connection ended.
enum End {
    Lost,
    /// The client wants to sleep until what is owed is collected.
    Sleeps,
}

/// What a client does to its own connection.
#[derive(Clone, Copy, Debug)]
enum Outage {
    Reconnect(Instant),
    Sleep(Instant),
}

impl Outage {
    fn at(self) -> Instant {
        match self {
            Outage::Reconnect(at) | Outage::Sleep(at) => at,
        }
    }
}

/// See the module's documentation.
pub struct Client {
    number: u16,
    /// The door that it takes: where clients roam, the first one.
    door: usize,
    version: Version,
    role: Role,
    shared: Rc<Shared>,
    phase: Phase,
    random: Random,
    session: Session,
    subscribed: bool,
    last_number: u32,
    /// What is left to send in this round.
    budget: Budget,
    outage: Option<Outage>,
    /// When a packet came last, or the connection was made.
    heard: Instant,
    /// Requests to repeat until they are answered, and when.
    repeats: BTreeMap<Key, Instant>,
    /// Requests with an `id`, when they were sent first.
    recent: VecDeque<(Key, Instant)>,
    messages: Vec<Key>,
    value: Option<Key>,
    /// The last slow request; the next one is sent when it is answered.
    slow: Option<Key>,
    /// When the next message may be sent.
    paced: Instant,
}

#[derive(Default)]
struct Budget {
    requests: u32,
    messages: u32,
    retained: u32,
}

impl Client {
    /// The client of this number, whose choices follow from the seed and from it.
    pub fn new(
        number: u16,
        door: usize,
        version: Version,
        role: Role,
        seed: u64,
        shared: Rc<Shared>,
    ) -> Client {
        Client {
            number,
            door,
            version,
            role,
            phase: Phase::Collect,
            random: Random::new(seed, u64::from(number)),
            session: Session::new(version),
            subscribed: false,
            last_number: 0,
            budget: Budget::default(),
            outage: None,
            heard: Instant::now(),
            repeats: BTreeMap::new(),
            recent: VecDeque::new(),
            messages: Vec::new(),
            value: None,
            slow: None,
            paced: Instant::now(),
            shared,
        }
    }

    /// Never returns.
    pub async fn run(mut self) {
        let mut phases = self.shared.phase.subscribe();
        self.begin(*phases.borrow_and_update());
        loop {
            if let Ok(stream) = TcpStream::connect(self.shared.doors[self.door]).await {
                match self.connection(stream, &mut phases).await {
                    Ok(End::Lost) => {}
                    Ok(End::Sleeps) => {
                        let collects = phases.wait_for(|phase| *phase == Phase::Collect).await;
                        collects.expect("the sender is in what is shared");
                        self.begin(Phase::Collect);
                    }
                    Err(error) => {
                        let what = format!("client {}: {error:#}", self.number);
                        self.shared.observed(Fault::Protocol, what);
                    }
                }
                self.shared.statuses.borrow_mut().retain(|(observer, _), _| *observer != self.number);
            }
            if self.shared.roams {
                self.door = (self.door + 1) % self.shared.doors.len();
            }
            sleep(RECONNECT).await;
            if phases.has_changed().unwrap_or(false) {
                self.begin(*phases.borrow_and_update());
            }
        }
    }

    fn begin(&mut self, phase: Phase) {
        self.phase = phase;
        self.outage = None;
        self.budget = match phase {
            Phase::Setup => Budget { requests: 1, ..Budget::default() },
            Phase::Load => Budget { requests: REQUESTS, messages: MESSAGES, retained: RETAINED },
            Phase::Collect => Budget::default(),
        };
        if phase == Phase::Load {
            let at = Instant::now() + Duration::from_millis(self.random.within(OUTAGE_MS));
            let chance = self.random.within(0..100);
            self.outage = match &self.role {
                Role::Listener { sleeps: true, .. } if chance < 50 => Some(Outage::Sleep(at)),
                Role::Device { .. } if chance < RECONNECT_PERCENT => Some(Outage::Reconnect(at)),
                Role::Device { .. } if chance < RECONNECT_PERCENT + SLEEP_PERCENT => Some(Outage::Sleep(at)),
                _ => None,
            };
        }
    }

    async fn connection(
        &mut self,
        mut stream: TcpStream,
        phases: &mut watch::Receiver<Phase>,
    ) -> Result<End> {
        // Refused where the other side has gone already.
        let _ = stream.set_nodelay(true);
        let (mut reading, mut writing) = stream.split();
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        let clean = self.role == Role::Observer;
        let client_id = format!("checked-{}", self.number);
        Packet::Connect { client_id, clean }.encode(self.version, &mut output);
        let mut connected = false;
        self.heard = Instant::now();
        let give_up = self.heard + ROAM_AFTER;
        loop {
            if connected && self.subscribed {
                self.publish(&mut output);
            }
            let wake = self.wake(connected);
            let roams = self.shared.roams && !(connected && self.subscribed && self.stays());
            tokio::select! {
                () = sleep_until(give_up), if roams => return Ok(End::Lost),
                () = sleep_until(self.heard + DEAF_AFTER), if self.is_owed() => return Ok(End::Lost),
                read = reading.read_buf(&mut input) => {
                    let Ok(1..) = read else { return Ok(End::Lost) };
                    while let Some(packet) = decode(self.version, &mut input)? {
                        if self.is_turned_away(&packet) {
                            return Ok(End::Lost);
                        }
                        if connected {
                            self.receive(packet, &mut output)?;
                        } else {
                            self.connected(&packet, &mut output)?;
                            connected = true;
                        }
                    }
                }
                written = writing.write(&output), if !output.is_empty() => {
                    let Ok(written) = written else { return Ok(End::Lost) };
                    output.advance(written);
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    match self.outage {
                        Some(outage) if outage.at() <= Instant::now() => {
                            self.outage = None;
                            let sleeps = matches!(outage, Outage::Sleep(_));
                            return Ok(if sleeps { End::Sleeps } else { End::Lost });
                        }
                        _ => self.repeat(&mut output),
                    }
                }
                changed = phases.changed() => {
                    changed.expect("the sender is in what is shared");
                    self.begin(*phases.borrow_and_update());
                }
            }
        }
    }

    /// Whether the client keeps a connection that serves it. An observer of a cluster does not: what NATS delivers
    /// again, because a server was killed, may be an old status, and comes after the newest. What is retained is the
    /// newest.
    fn stays(&self) -> bool {
        self.role != Role::Observer
    }

    /// Whether a device of a cluster waits for an answer.
    fn is_owed(&self) -> bool {
        self.shared.roams && self.shared.ledger.borrow().open_requests(self.number) > 0
    }

    /// Whether a server of a cluster cannot serve for now: another one may.
    fn is_turned_away(&self, packet: &Packet) -> bool {
        let refuses = match packet {
            Packet::Connack { code, .. } => *code == UNAVAILABLE,
            Packet::Suback { codes, .. } => codes.contains(&REFUSED),
            _ => false,
        };
        self.shared.roams && refuses
    }

    /// When something is to be done although nothing comes.
    fn wake(&self, connected: bool) -> Option<Instant> {
        let repeat = self.repeats.values().min().copied().filter(|_| connected && self.subscribed);
        let sends_more =
            connected && self.subscribed && self.phase == Phase::Load && self.budget.messages > 0;
        let message = (sends_more && self.shared.mix.messages).then_some(self.paced);
        self.outage.map(Outage::at).into_iter().chain(repeat).chain(message).min()
    }

    fn connected(&mut self, packet: &Packet, output: &mut BytesMut) -> Result<()> {
        let Packet::Connack { present, code, receive_maximum } = *packet else {
            bail!("{packet:?} in place of CONNACK")
        };
        ensure!(code == 0, "CONNACK with code {code:#04x}");
        let at = self.shared.now();
        let mut ledger = self.shared.ledger.borrow_mut();
        ledger.connected(at, self.number, present);
        // Where sessions may be lost, one can be there that is not the one that had subscribed: its CONNACK was.
        self.subscribed &= present && self.shared.promise == Promise::Acknowledged;
        let filter = match &self.role {
            Role::Device { reply, .. } => (format!("result/{reply}"), 1),
            Role::Listener { qos, .. } => ("news/#".to_owned(), *qos),
            Role::Observer => ("gateway/+/status".to_owned(), 1),
        };
        if !self.subscribed {
            self.session.subscribe(filter.0, filter.1).encode(self.version, output);
        }
        for (key, packet) in self.session.resume(present, receive_maximum) {
            if matches!(packet, Packet::Publish(_)) {
                ledger.retransmitted(at, key);
            }
            packet.encode(self.version, output);
        }
        Ok(())
    }

    fn receive(&mut self, packet: Packet, output: &mut BytesMut) -> Result<()> {
        self.heard = Instant::now();
        let (reply, news) = self.session.receive(packet);
        let at = self.shared.now();
        match news {
            Some(News::Message(publish)) => self.message(at, &publish),
            Some(News::Acknowledged(key, refused)) => {
                self.shared.ledger.borrow_mut().acknowledged(at, key, refused);
            }
            Some(News::Subscribed(granted)) => {
                ensure!(granted, "a subscription was refused");
                self.subscribed = true;
                self.shared.ledger.borrow_mut().subscribed(at, self.number);
            }
            Some(News::Disconnected(code)) => bail!("DISCONNECT with code {code:#04x}"),
            None => {}
        }
        // After the ledger knows of it: what is acknowledged may never come again.
        if let Some(reply) = reply {
            reply.encode(self.version, output);
        }
        Ok(())
    }

    fn message(&self, at: Duration, publish: &Publish) {
        let mut ledger = self.shared.ledger.borrow_mut();
        let (topic, payload) = (&publish.topic, &publish.payload);
        match &self.role {
            Role::Device { reply, .. } if topic.strip_prefix("result/") == Some(reply) => {
                ledger.answered(at, self.number, publish.correlation.as_deref(), payload);
            }
            Role::Listener { .. } if topic.starts_with("news/") => {
                ledger.received(at, self.number, payload);
            }
            Role::Observer => {
                if let Ok(status) = serde_json::from_slice(payload) {
                    self.shared.statuses.borrow_mut().insert((self.number, topic.clone()), status);
                }
            }
            _ => {
                let what = format!("client {} received a message on {topic}", self.number);
                ledger.observed(at, Fault::Misdirected, what);
            }
        }
    }

    /// Publishes as much as there is room for.
    fn publish(&mut self, output: &mut BytesMut) {
        let Role::Device { reply, .. } = self.role.clone() else { return };
        let mix = self.shared.mix;
        if mix.requests {
            let open = self.shared.ledger.borrow().open_requests(self.number);
            for _ in open..self.shared.window {
                if self.budget.requests == 0 || self.session.room() == 0 {
                    break;
                }
                self.budget.requests -= 1;
                self.publish_request(&reply, output);
            }
        }
        if mix.messages && self.phase == Phase::Load && self.paced <= Instant::now() {
            self.paced = Instant::now() + Duration::from_millis(self.random.within(PACE_MS));
            self.messages.retain(|key| self.session.has(*key));
            let messages_are_few = self.messages.len() < MESSAGES_IN_FLIGHT;
            if self.budget.messages > 0 && messages_are_few && self.session.room() > 0 {
                self.budget.messages -= 1;
                self.publish_message(output);
            }
            // One after the other: the last one is then the one that was acknowledged last.
            let value_is_free = self.value.is_none_or(|key| !self.session.has(key));
            if self.budget.retained > 0 && value_is_free && self.session.room() > 0 {
                self.budget.retained -= 1;
                self.publish_value(output);
            }
        }
    }

    fn publish_request(&mut self, reply: &str, output: &mut BytesMut) {
        if self.phase == Phase::Setup {
            let key = self.next_key();
            return self.send_first(key, load::FIRST, reply, output);
        }
        if let Some(key) = self.answered_before() {
            return self.send_again(key, reply, output);
        }
        // The `id` of a client with an empty reply id belongs to its connection, which does not survive.
        let mix = self.shared.mix;
        let slow = self.slow.is_none_or(|key| !self.shared.ledger.borrow().is_open(key));
        let mut request = load::request(&mut self.random, mix.anonymous, !reply.is_empty(), slow);
        if !mix.exactly_once {
            request.qos = request.qos.min(1);
        }
        let key = self.next_key();
        if request.is_slow() {
            self.slow = Some(key);
        }
        self.send_first(key, request, reply, output);
        if request.id {
            self.recent.push_back((key, Instant::now()));
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
        }
        if request.qos == 0 || self.shared.promise == Promise::Ids {
            self.repeats.insert(key, Instant::now() + REPEAT);
        }
    }

    /// An `id` that was answered not long ago, now and then.
    fn answered_before(&mut self) -> Option<Key> {
        if self.recent.is_empty() || !self.random.percent(AGAIN_PERCENT) {
            return None;
        }
        let chosen = self.random.within(0..self.recent.len() as u64);
        let (key, sent) = self.recent[usize::try_from(chosen).ok()?];
        let ledger = self.shared.ledger.borrow();
        let is_free = sent.elapsed() < RECENT_FOR && !ledger.is_open(key) && !self.session.has(key);
        (is_free && ledger.request(key).is_some()).then_some(key)
    }

    /// Repeats what is due and not answered yet.
    fn repeat(&mut self, output: &mut BytesMut) {
        let Role::Device { reply, .. } = self.role.clone() else { return };
        let now = Instant::now();
        let due: Vec<Key> = self.repeats.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
        for key in due {
            if !self.shared.ledger.borrow().is_open(key) {
                self.repeats.remove(&key);
                continue;
            }
            self.repeats.insert(key, now + REPEAT);
            // What is not acknowledged is sent again by the session.
            if !self.session.has(key) && self.session.room() > 0 {
                self.send_again(key, &reply, output);
            }
        }
    }

    fn send_first(&mut self, key: Key, request: Request, reply: &str, output: &mut BytesMut) {
        self.shared.ledger.borrow_mut().sent(self.shared.now(), key, Sent::Request(request));
        self.send(key, request, reply, output);
    }

    fn send_again(&mut self, key: Key, reply: &str, output: &mut BytesMut) {
        let Some(request) = self.shared.ledger.borrow().request(key) else { return };
        self.shared.ledger.borrow_mut().sent_again(self.shared.now(), key);
        if request.qos == 0 || self.shared.promise == Promise::Ids {
            self.repeats.insert(key, Instant::now() + REPEAT);
        }
        self.send(key, request, reply, output);
    }

    fn send(&mut self, key: Key, request: Request, reply: &str, output: &mut BytesMut) {
        let payload = request.payload(key, &self.shared.guest);
        let plain = request.topic(reply);
        let topic = match &self.role {
            Role::Device { gate: Some(gate), .. } => format!("net/{gate}/{plain}"),
            _ => plain,
        };
        let packet = self.session.publish(key, request.qos, false, topic, payload);
        packet.encode(self.version, output);
    }

    fn publish_message(&mut self, output: &mut BytesMut) {
        let key = self.next_key();
        let (qos, payload) = load::message(&mut self.random, key);
        let sent = Sent::Message { qos, payload: payload.clone() };
        self.shared.ledger.borrow_mut().sent(self.shared.now(), key, sent);
        self.messages.push(key);
        let topic = format!("news/{}", self.number);
        self.session.publish(key, qos, false, topic, payload).encode(self.version, output);
    }

    fn publish_value(&mut self, output: &mut BytesMut) {
        let key = self.next_key();
        let (topic, payload) = load::retained(&mut self.random, key);
        let sent = Sent::Retained { topic: topic.clone(), payload: payload.clone() };
        self.shared.ledger.borrow_mut().sent(self.shared.now(), key, sent);
        self.value = Some(key);
        self.session.publish(key, 1, true, topic, payload).encode(self.version, output);
    }

    fn next_key(&mut self) -> Key {
        self.last_number += 1;
        Key { client: self.number, number: self.last_number }
    }
}

/// What a new client finds retained, as soon as that is what is expected, or when nothing more comes for this long.
///
/// # Errors
///
/// The broker does not let it connect or subscribe, or closes the connection.
pub async fn read_retained(
    address: SocketAddr,
    expected: &BTreeMap<String, Bytes>,
    patience: Duration,
) -> Result<BTreeMap<String, Bytes>> {
    let version = Version::V311;
    let mut stream = TcpStream::connect(address).await?;
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let client_id = "checked-retained".to_owned();
    Packet::Connect { client_id, clean: true }.encode(version, &mut output);
    let mut session = Session::new(version);
    let mut found = BTreeMap::new();
    let mut subscribed = false;
    while !(subscribed && found == *expected) {
        stream.write_all(&output.split()).await?;
        match tokio::time::timeout(patience, stream.read_buf(&mut input)).await {
            Ok(read) => ensure!(read? > 0, "the broker closed the connection"),
            Err(_) if subscribed => break,
            Err(_) => bail!("the broker does not answer"),
        }
        while let Some(packet) = decode(version, &mut input)? {
            if let Packet::Connack { code, .. } = packet {
                ensure!(code == 0, "CONNACK with code {code:#04x}");
                session.subscribe("state/#".to_owned(), 1).encode(version, &mut output);
            }
            let (reply, news) = session.receive(packet);
            match news {
                Some(News::Subscribed(granted)) => {
                    ensure!(granted, "a subscription was refused");
                    subscribed = true;
                }
                Some(News::Message(publish)) => drop(found.insert(publish.topic, publish.payload)),
                _ => {}
            }
            if let Some(reply) = reply {
                reply.encode(version, &mut output);
            }
        }
    }
    Ok(found)
}
