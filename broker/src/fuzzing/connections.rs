//! Several connections at a time that do whatever a script says, beside a bystander who must notice nothing.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    runtime::Builder,
    task::{JoinSet, yield_now},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    application::{Application, BoxFuture, Received, Route},
    broker::Broker,
    config::Config,
    connection::{self, pending::PendingConnection},
    message::{Message, QoS},
    packet::fields::Fields,
    reason::{Reason, Refusal},
    session::{
        acknowledgement::Acknowledgement,
        client::{ClientInfo, Identity, Login},
    },
    transport::peer::{Peer, TransportKind},
};

/// Connections at a time, the bystander's not counted.
const SLOTS: usize = 4;
/// Bytes that lie between the two ends of a connection, each way.
const BUFFER: usize = 1_024;
/// Times that every task is polled after each step: more than any of them needs to finish with what it has.
const POLLS: usize = 8;
/// Longest wait for something that has to come.
const DEADLINE: Duration = Duration::from_secs(20);
/// Topics that the application itself publishes to.
const TOPICS: [&str; 4] = ["a", "a/b", "b", "app/answer"];
/// Only the bystander may publish to it.
const BYSTANDER_TOPIC: &str = "bystander";
/// Where the bystander comes from; others come from the number of their slot.
const BYSTANDER_PORT: u16 = 1_000;

/// Runs a script. Its first byte's lowest bit chooses whether sessions may outlive their connections, the next one the
/// version that the bystander speaks. Then come steps: a byte that holds what to do in its upper half and a number
/// in its lower one, and for some of them a second byte.
///
/// - `0n`…`7n`, length, bytes: connection `n` (opened, if it is not) sends these bytes.
/// - `8n`: connection `n` is cut off. `9n`: it takes what it was sent.
/// - `An`, size: the application publishes 16 times as many bytes, its topic and QoS chosen by `n`.
/// - `Bn`: the application completes the oldest message it holds. `Cn`: it refuses the newest.
/// - `Dn`, size: the application publishes to the last client whose message it has, with a replacement for a message
///   that is too large.
///
/// # Panics
/// If a connection's task panics, a bound is exceeded, what a client is sent is not MQTT, the bystander's message does
/// not come back to it, or something is left behind.
pub fn connections(script: &[u8]) {
    let Some((&choice, script)) = script.split_first() else { return };
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let mut stage = Stage::new(choice & 1 != 0);
        let mut bystander = Bystander::arrive(&mut stage, choice & 2 != 0).await;
        stage.perform(script).await;
        bystander.exchange().await;
        stage.clear().await;
        bystander.exchange().await;
        bystander.leave().await;
        stage.finish().await;
    });
}

/// Small, so that a short script reaches them.
fn limits(sessions_stay: bool) -> Config {
    Config {
        max_packet_size: 2_048,
        max_connect_size: 512,
        max_properties_size: 256,
        max_sessions: SLOTS + 2,
        max_subscriptions: 4,
        session_queue_messages: 8,
        session_queue_bytes: 4_096,
        max_queued_bytes: 8 * 1_024,
        session_reserve_bytes: 512,
        receive_maximum: 3,
        max_inflight: 2,
        topic_alias_maximum: 2,
        max_retained_messages: 3,
        max_retained_bytes: 2_048,
        max_session_expiry: Duration::from_secs(if sessions_stay { 1_000 } else { 0 }),
        max_topic_length: 32,
        max_topic_levels: 4,
        write_buffer: 256,
        ..Config::default()
    }
}

/// Claims `app/…` and keeps what it gets until the script says what becomes of it.
#[derive(Default)]
struct Keeper {
    kept: Mutex<VecDeque<Acknowledgement>>,
    last: Mutex<Option<Arc<ClientInfo>>>,
}

impl Application for Keeper {
    /// Neighbouring slots are different users.
    fn authenticate(&self, login: Login) -> BoxFuture<'_, Result<Identity, Refusal>> {
        let user = match login.peer.port() {
            BYSTANDER_PORT => "bystander",
            slot if slot % 2 == 0 => "even",
            _ => "odd",
        };
        Box::pin(async move { Ok(Identity { user: Some(user.into()), ..Identity::default() }) })
    }

    fn may_subscribe(&self, _client: &ClientInfo, filter: &str) -> bool {
        filter != "secret"
    }

    fn route(&self, client: &ClientInfo, topic: &str) -> Route {
        match topic {
            BYSTANDER_TOPIC if client.peer.port() != BYSTANDER_PORT => Route::Refuse,
            topic if topic.starts_with("app/") => Route::Application(0),
            _ => Route::Broker,
        }
    }

    fn publish(&self, _broker: &Broker, message: Received) {
        self.kept.lock().push_back(message.ack);
        *self.last.lock() = Some(message.client);
    }
}

struct Stage {
    broker: Broker,
    keeper: Arc<Keeper>,
    slots: [Option<Slot>; SLOTS],
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
}

impl Stage {
    fn new(sessions_stay: bool) -> Self {
        let config = limits(sessions_stay);
        config.check().expect("limits that a broker can keep");
        let keeper = Arc::new(Keeper::default());
        Self {
            broker: Broker::new(config, keeper.clone()),
            keeper,
            slots: Default::default(),
            tasks: JoinSet::new(),
            shutdown: CancellationToken::new(),
        }
    }

    /// A new connection's other end.
    fn connect(&mut self, port: u16) -> DuplexStream {
        let (near, far) = duplex(BUFFER);
        let pending = PendingConnection {
            broker: self.broker.clone(),
            account: self.broker.quotas().accounts.of(None, Ipv4Addr::LOCALHOST.into()),
            peer: Peer::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), TransportKind::Tcp),
            over_limit: false,
            deadline: Instant::now() + self.broker.config().connect_timeout,
            shutdown: self.shutdown.clone(),
        };
        self.tasks.spawn(connection::run(pending, far));
        near
    }

    async fn perform(&mut self, mut script: &[u8]) {
        while let Some((&step, rest)) = script.split_first() {
            script = rest;
            let number = step & 0x0F;
            let at = usize::from(number) % SLOTS;
            match step >> 4 {
                0x0..=0x7 => {
                    let length = take(&mut script).into();
                    let (bytes, rest) = script.split_at(script.len().min(length));
                    script = rest;
                    if self.slots[at].is_none() {
                        self.slots[at] = Some(Slot::new(self.connect(at as u16)));
                    }
                    let slot = self.slots[at].as_mut().expect("it was just opened");
                    slot.send(bytes).await;
                }
                0x8 => self.slots[at] = None,
                0x9 => {
                    if let Some(slot) = &mut self.slots[at] {
                        slot.receive().await;
                    }
                }
                0xA => {
                    let message = message(number, take(&mut script));
                    self.broker.publish(&message, None);
                }
                0xB => {
                    let oldest = self.keeper.kept.lock().pop_front();
                    oldest.into_iter().for_each(Acknowledgement::complete);
                }
                0xC => {
                    let newest = self.keeper.kept.lock().pop_back();
                    newest.into_iter().for_each(|ack| ack.refuse(Reason::QuotaExceeded));
                }
                0xD => {
                    let message = message(number, take(&mut script));
                    let last = self.keeper.last.lock().clone();
                    if let Some(client) = last {
                        let replace = |limit: usize, size: &dyn Fn(&Message) -> usize| {
                            let replacement = Message { payload: "too large".into(), ..message.clone() };
                            (size(&replacement) <= limit).then_some(replacement)
                        };
                        self.broker.publish_to(&client, &message, Some(&replace), None);
                    }
                }
                _ => {}
            }
            settle().await;
            self.check_bounds();
        }
    }

    fn check_bounds(&self) {
        let (stats, config) = (self.broker.stats(), self.broker.config());
        assert!(stats.sessions <= config.max_sessions);
        assert!(stats.subscriptions <= config.max_sessions * config.max_subscriptions);
        assert!(stats.retained_messages <= config.max_retained_messages);
        assert!(stats.retained_bytes <= config.max_retained_bytes);
        let reserves = config.max_sessions * config.session_reserve_bytes;
        assert!(stats.queued_bytes <= config.max_queued_bytes + reserves);
        let each =
            config.session_queue_messages + config.max_retained_messages + usize::from(config.max_inflight);
        assert!(stats.queued_messages <= config.max_sessions * each);
    }

    /// The application answers everyone, and everyone but the bystander is gone.
    async fn clear(&mut self) {
        self.keeper.kept.lock().clear();
        settle().await;
        for slot in self.slots.iter_mut().flatten() {
            slot.receive().await;
        }
        self.slots = Default::default();
        while self.tasks.len() > 1 {
            self.ended().await;
        }
        self.keeper.kept.lock().clear(); // wills
    }

    async fn ended(&mut self) {
        let ended = timeout(DEADLINE, self.tasks.join_next()).await.expect("a connection does not end");
        ended.expect("there is one").expect("a connection panicked");
    }

    /// The bystander is gone, too.
    async fn finish(&mut self) {
        self.ended().await;
        let stats = self.broker.stats();
        if self.broker.config().max_session_expiry.is_zero() {
            assert_eq!((stats.sessions, stats.subscriptions), (0, 0));
            assert_eq!((stats.queued_messages, stats.queued_bytes), (0, 0));
        }
    }
}

fn take(script: &mut &[u8]) -> u8 {
    script.split_off_first().copied().unwrap_or(0)
}

fn message(number: u8, size: u8) -> Message {
    let qos = QoS::from_bits(number >> 2).unwrap_or(QoS::AtMostOnce);
    Message::new(TOPICS[usize::from(number & 3)], vec![b'm'; 16 * usize::from(size)], qos)
}

/// Lets every task do what it has to do.
async fn settle() {
    for _ in 0..POLLS {
        yield_now().await;
    }
}

/// A client of which anything may be expected.
struct Slot {
    stream: DuplexStream,
    /// Of what it was sent, the beginning of a packet whose rest is still to come.
    unread: Vec<u8>,
    greeted: bool,
}

impl Slot {
    fn new(stream: DuplexStream) -> Self {
        Self { stream, unread: Vec::new(), greeted: false }
    }

    /// Sends as much of it as the broker takes.
    async fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let stream = &mut self.stream;
            match now(|cx| Pin::new(&mut *stream).poll_write(cx, bytes)).await {
                Some(Ok(sent @ 1..)) => bytes = &bytes[sent..],
                _ => return,
            }
            settle().await;
        }
    }

    /// Takes all that the broker has for it.
    async fn receive(&mut self) {
        let mut space = [0; BUFFER];
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            let stream = &mut self.stream;
            match now(|cx| Pin::new(&mut *stream).poll_read(cx, &mut buffer)).await {
                Some(Ok(())) if !buffer.filled().is_empty() => self.unread.extend_from_slice(buffer.filled()),
                _ => return,
            }
            self.check_packets();
            settle().await;
        }
    }

    /// What a server sends is CONNACK, and then other packets that a server may send.
    fn check_packets(&mut self) {
        while let Some((&first, rest)) = self.unread.split_first() {
            let mut fields = Fields::new(rest);
            let Ok(length) = fields.variable() else {
                assert!(rest.len() < 4, "a length that is none: {rest:02x?}");
                return;
            };
            assert!(length < 8_192, "a length that nothing here has: {length}");
            if fields.take(length as usize).is_err() {
                return;
            }
            let expected: &[u8] =
                if self.greeted { &[0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xB0, 0xD0, 0xE0] } else { &[0x20] };
            assert!(expected.contains(&(first & 0xF0)), "{first:#04x} is not for a client");
            self.greeted = true;
            self.unread = fields.rest().to_vec();
        }
    }
}

/// What comes of it without waiting.
async fn now<T>(mut poll: impl FnMut(&mut std::task::Context<'_>) -> Poll<T>) -> Option<T> {
    poll_fn(|cx| match poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// A well-behaved client, whose messages come back to it.
struct Bystander {
    stream: DuplexStream,
    v5: bool,
}

impl Bystander {
    async fn arrive(stage: &mut Stage, v5: bool) -> Self {
        let mut bystander = Self { stream: stage.connect(BYSTANDER_PORT), v5 };
        let connect: &[u8] = match v5 {
            false => b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01~",
            true => b"\x10\x0E\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01~",
        };
        bystander.stream.write_all(connect).await.expect("the broker listens");
        assert_eq!(bystander.receive().await.expect("CONNACK").0, 0x20);
        let subscribe = bystander.packet(0x82, &[b"\x00\x01", bystander.section(), &topic(), b"\x01"]);
        bystander.stream.write_all(&subscribe).await.expect("the broker listens");
        let (first, body) = bystander.receive().await.expect("SUBACK");
        assert_eq!((first, body.last()), (0x90, Some(&1)));
        bystander
    }

    fn section(&self) -> &'static [u8] {
        if self.v5 { &[0] } else { &[] }
    }

    /// A short packet.
    fn packet(&self, first: u8, body: &[&[u8]]) -> Vec<u8> {
        let body = body.concat();
        [&[first, body.len() as u8], &body[..]].concat()
    }

    /// Publishes, and receives just that and its acknowledgement.
    async fn exchange(&mut self) {
        let publish = self.packet(0x32, &[&topic(), b"\x00\x07", self.section(), b"hello"]);
        self.stream.write_all(&publish).await.expect("the broker listens");
        let (mut heard, mut acknowledged) = (false, false);
        while !(heard && acknowledged) {
            let (first, body) = self.receive().await.expect("the bystander was cut off");
            if first == 0x40 {
                assert_eq!(body, [0, 7]);
                acknowledged = true;
            } else {
                assert_eq!(first, 0x32);
                assert!(body.ends_with(b"hello"), "not the bystander's message");
                let id = &body[topic().len()..][..2];
                self.stream.write_all(&[&[0x40, 2], id].concat()).await.expect("the broker listens");
                heard = true;
            }
        }
    }

    async fn leave(mut self) {
        self.stream.write_all(&[0xE0, 0]).await.expect("the broker listens");
        assert!(self.receive().await.is_err(), "a packet after goodbye");
    }

    /// The next packet, which is a short one.
    async fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let receiving = async {
            let (first, length) = (self.stream.read_u8().await?, self.stream.read_u8().await?);
            let mut body = vec![0; length.into()];
            self.stream.read_exact(&mut body).await?;
            Ok((first, body))
        };
        timeout(DEADLINE, receiving).await.expect("the broker is unresponsive")
    }
}

/// The bystander's topic, as a field.
fn topic() -> Vec<u8> {
    [&(BYSTANDER_TOPIC.len() as u16).to_be_bytes(), BYSTANDER_TOPIC.as_bytes()].concat()
}
