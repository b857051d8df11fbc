//! Clients that do what they should, and check that each message that was acknowledged arrives: once, in order, and
//! whether they are connected at the time or not.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use offload_broker::Version::{self, V5};
use tokio::{
    net::TcpStream,
    sync::Barrier,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    broker_process::{HONEST, PASSWORD},
    client::{BOTH, Client, Connect, Packet, packet},
    server::DEADLINE,
};

/// Messages published one after the other before the subscriber is asked for them.
const BATCH: u64 = 8;
/// Between two batches of a pair: a device, not a flood.
const PACE: Duration = Duration::from_millis(20);
/// Every so many batches the subscriber is away for one.
const AWAY: u64 = 10;

/// What they have done.
#[derive(Default)]
struct Tally {
    messages: AtomicU64,
    absences: AtomicU64,
    longest_batch: AtomicU64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [messages, absences, longest] =
            [&self.messages, &self.absences, &self.longest_batch].map(|counter| counter.load(Relaxed));
        write!(f, "{messages} messages, {absences} absences, {longest} ms for the slowest batch of {BATCH}")
    }
}

pub struct Honest {
    pairs: JoinSet<()>,
    ready: Arc<Barrier>,
    enough: CancellationToken,
    tally: Arc<Tally>,
}

/// A publisher and a subscriber for each version, QoS, and kind of session.
pub fn start(broker: SocketAddr) -> Honest {
    let kinds: Vec<_> = BOTH.into_iter().flat_map(|version| (0..=2).map(move |qos| (version, qos))).collect();
    let mut honest = Honest {
        pairs: JoinSet::new(),
        ready: Arc::new(Barrier::new(kinds.len() + 1)),
        enough: CancellationToken::new(),
        tally: Arc::default(),
    };
    for (version, qos) in kinds {
        let (ready, enough, tally) = (honest.ready.clone(), honest.enough.clone(), honest.tally.clone());
        honest.pairs.spawn(async move {
            let mut pair = Pair::connect(broker, version, qos).await;
            ready.wait().await;
            pair.work(&enough, &tally).await;
        });
    }
    honest
}

impl Honest {
    /// Waits until all are connected.
    pub async fn ready(&mut self) {
        self.ready.wait().await;
    }

    /// Waits until all of them together have sent as much as a batch of each.
    pub async fn go_on(&self) {
        let enough = self.tally.messages.load(Relaxed) + self.pairs.len() as u64 * (BATCH + 1);
        let going_on = async {
            while self.tally.messages.load(Relaxed) < enough {
                sleep(PACE).await;
            }
        };
        timeout(DEADLINE, going_on).await.expect("honest clients stand still");
    }

    /// Waits until one of them is disturbed.
    pub async fn failed(&mut self) -> String {
        match self.pairs.join_next().await {
            Some(Err(error)) => error.to_string(),
            Some(Ok(())) | None => "a pair stopped".into(),
        }
    }

    /// Lets them finish what they are at; panics if one of them was disturbed.
    pub async fn stop(mut self) -> String {
        self.enough.cancel();
        while let Some(ended) = self.pairs.join_next().await {
            ended.expect("an honest client was disturbed");
        }
        self.tally.to_string()
    }
}

struct Pair {
    broker: SocketAddr,
    version: Version,
    qos: u8,
    topic: String,
    publisher: Client,
    subscriber: Client,
    /// The number of the next message, and the last packet identifier.
    next: u64,
    last_id: u16,
}

async fn connect(broker: SocketAddr, connect: Connect) -> Client {
    let stream = TcpStream::connect(broker).await.expect("the broker accepts");
    stream.set_nodelay(true).unwrap();
    let mut client = Client::on(stream, connect.version);
    client.say_hello(&connect.user(HONEST).password(PASSWORD)).await;
    assert_eq!(client.connack[1], 0, "an honest client was refused");
    client
}

impl Pair {
    async fn connect(broker: SocketAddr, version: Version, qos: u8) -> Self {
        let name = format!("{HONEST}/{version:?}/{qos}");
        let publisher = connect(broker, Connect::new(version, &format!("{name}/publisher"))).await;
        let mut pair = Self {
            broker,
            version,
            qos,
            topic: format!("{name}/messages"),
            publisher,
            subscriber: connect(broker, Connect::persistent(version, &format!("{name}/subscriber"))).await,
            next: 0,
            last_id: 0,
        };
        pair.subscriber.subscribe(&pair.topic, qos).await;
        pair
    }

    async fn work(&mut self, enough: &CancellationToken, tally: &Tally) {
        let mut pace = interval(PACE);
        let mut batch = 0;
        while !enough.is_cancelled() {
            pace.tick().await;
            let started = Instant::now();
            batch += 1;
            let first = self.next;
            if batch % AWAY == 0 && self.qos > 0 {
                self.while_away().await;
                tally.absences.fetch_add(1, Relaxed);
            } else {
                self.publish().await;
            }
            self.receive(first).await;
            self.retained().await;
            tally.messages.fetch_add(BATCH + 1, Relaxed);
            tally.longest_batch.fetch_max(started.elapsed().as_millis() as u64, Relaxed);
        }
    }

    /// The subscriber's session collects what comes meanwhile.
    async fn while_away(&mut self) {
        let id = format!("{HONEST}/{:?}/{}/subscriber", self.version, self.qos);
        let back = Connect::persistent(self.version, &id);
        self.subscriber.ping().await; // all acknowledgements have arrived, so nothing will be sent twice
        self.subscriber.stream = Box::new(tokio::io::empty());
        self.publish().await;
        self.subscriber = connect(self.broker, back).await;
        assert!(self.subscriber.session_present(), "a session was lost");
    }

    /// Publishes a batch, and waits until the broker has taken the responsibility for it.
    async fn publish(&mut self) {
        for _ in 0..BATCH {
            self.last_id = self.last_id % 60_000 + 1;
            let (number, id) = (self.next.to_string(), self.last_id);
            self.publisher.publish(&self.topic, &number, self.qos, id).await;
            match self.qos {
                0 => {}
                1 => assert_eq!(
                    self.publisher.acknowledged(0x40, id).await,
                    0,
                    "an honest message was refused"
                ),
                _ => {
                    assert_eq!(
                        self.publisher.acknowledged(0x50, id).await,
                        0,
                        "an honest message was refused"
                    );
                    self.publisher.acknowledge(0x62, id).await;
                    assert_eq!(self.publisher.acknowledged(0x70, id).await, 0);
                }
            }
            self.next += 1;
        }
    }

    /// Takes all that was published since, in order and once, and acknowledges it.
    async fn receive(&mut self, first: u64) {
        let mut expected = first;
        let mut unreleased = 0;
        while expected < self.next || unreleased > 0 {
            let Packet { first, body } = self.subscriber.receive().await;
            if first == 0x62 {
                self.subscriber.send(&packet(0x70, &body[..2])).await;
                unreleased -= 1;
                continue;
            }
            assert_eq!((first >> 4, first >> 1 & 3), (3, self.qos), "not a message");
            let (topic, rest) = body[2..].split_at(self.topic.len());
            let (id, rest) = rest.split_at(if self.qos == 0 { 0 } else { 2 });
            let text = if self.version == V5 { &rest[1..] } else { rest }; // without properties
            assert_eq!(topic, self.topic.as_bytes());
            assert_eq!(
                str::from_utf8(text).unwrap(),
                expected.to_string(),
                "a message was lost, or came twice"
            );
            match self.qos {
                0 => {}
                1 => self.subscriber.send(&packet(0x40, id)).await,
                _ => {
                    self.subscriber.send(&packet(0x50, id)).await;
                    unreleased += 1;
                }
            }
            expected += 1;
        }
    }

    /// What is retained is there for whoever comes later.
    async fn retained(&mut self) {
        let topic = format!("{HONEST}/{:?}/{}/retained", self.version, self.qos);
        let number = self.next.to_string();
        self.publisher.retain(&topic, &number, 1).await;
        let id = format!("{HONEST}/{:?}/{}/late", self.version, self.qos);
        let mut late = connect(self.broker, Connect::new(self.version, &id)).await;
        late.subscribe(&topic, self.qos).await;
        let message = late.take().await;
        assert_eq!((message.retain, message.text()), (true, number.as_str()), "what was retained is lost");
        late.disconnect().await;
    }
}
