//! Clients that do what they should, and check that each message that was acknowledged arrives: once, in order, and
//! whether they are connected at the time or not; that nobody who keeps alive is closed; and how long they wait.

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
use parking_lot::Mutex;
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
/// Batches after which the subscriber is away for one.
const AWAY: u64 = 10;
/// Of those who say nothing else, in seconds; a PINGREQ is sent as often.
const KEEP_ALIVE: u16 = 1;
/// After so long a silence they may be closed: one and a half times the keepalive.
const LONGEST_SILENCE: Duration = Duration::from_millis(KEEP_ALIVE as u64 * 1_500);

/// A batch is slow that took this many times as long as nearly all (99 %) of those at a broker that nobody abused...
const SLOW: u32 = 10;
/// ...and of this many, one may be.
const ONE_SLOW_OF: usize = 10;

/// What they are doing.
#[derive(Default)]
struct Tally {
    messages: AtomicU64,
    absences: AtomicU64,
    pings: AtomicU64,
    late: AtomicU64,
    batches: Mutex<Vec<Duration>>,
}

/// What they have done.
pub struct Served {
    messages: u64,
    absences: u64,
    /// Keepalives that were answered, and those that came so late that the client had been closed before.
    pings: u64,
    late: u64,
    /// How long each batch took, the shortest first.
    batches: Vec<Duration>,
}

impl Served {
    fn quantile(&self, percent: usize) -> Duration {
        self.batches[(self.batches.len() - 1) * percent / 100]
    }

    /// Those that were served beside them had the same machine, however busy it was: what is more is the broker's.
    pub fn assert_not_delayed(&self, beside: &Self) {
        let bound = beside.quantile(99) * SLOW;
        let slow = self.batches.len() - self.batches.partition_point(|took| *took <= bound);
        println!("slower than {bound:.1?}: {slow} of {} batches", self.batches.len());
        assert!(
            slow * ONE_SLOW_OF <= self.batches.len(),
            "honest clients wait: {self}; without abuse: {beside}"
        );
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, absences, pings, late, .. } = self;
        let [median, most, longest] = [50, 99, 100].map(|percent| self.quantile(percent));
        write!(
            f,
            "{messages} messages, {absences} absences, {pings} keepalives and {late} late ones, batches of {BATCH} in \
             {median:.1?} (median), {most:.1?} (99 %), {longest:.1?} (the slowest)"
        )
    }
}

pub struct Honest {
    clients: JoinSet<()>,
    pairs: u64,
    ready: Arc<Barrier>,
    enough: CancellationToken,
    tally: Arc<Tally>,
}

/// A publisher and a subscriber for each version, QoS, and kind of session, and one of each version who only keeps
/// alive.
pub fn start(broker: SocketAddr) -> Honest {
    let kinds: Vec<_> = BOTH.into_iter().flat_map(|version| (0..=2).map(move |qos| (version, qos))).collect();
    let mut honest = Honest {
        clients: JoinSet::new(),
        pairs: kinds.len() as u64,
        ready: Arc::new(Barrier::new(kinds.len() + 1)),
        enough: CancellationToken::new(),
        tally: Arc::default(),
    };
    for version in BOTH {
        let (enough, tally) = (honest.enough.clone(), honest.tally.clone());
        honest.clients.spawn(async move {
            enough.run_until_cancelled(keep_alive(broker, version, &tally)).await;
        });
    }
    for (version, qos) in kinds {
        let (ready, enough, tally) = (honest.ready.clone(), honest.enough.clone(), honest.tally.clone());
        honest.clients.spawn(async move {
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

    /// How long batches took before does not count.
    pub fn measure(&self) {
        self.tally.batches.lock().clear();
    }

    /// Waits until all of them together have sent as much as a batch of each.
    pub async fn go_on(&self) {
        let enough = self.tally.messages.load(Relaxed) + self.pairs * (BATCH + 1);
        let going_on = async {
            while self.tally.messages.load(Relaxed) < enough {
                sleep(PACE).await;
            }
        };
        timeout(DEADLINE, going_on).await.expect("honest clients stand still");
    }

    /// Waits until one of them is disturbed.
    pub async fn failed(&mut self) -> String {
        match self.clients.join_next().await {
            Some(Err(error)) => error.to_string(),
            Some(Ok(())) | None => "one stopped".into(),
        }
    }

    /// Lets them finish what they are at; panics if one of them was disturbed.
    pub async fn stop(mut self) -> Served {
        self.enough.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("an honest client was disturbed");
        }
        let Tally { messages, absences, pings, late, batches } = &*self.tally;
        let mut batches = std::mem::take(&mut *batches.lock());
        assert!(!batches.is_empty(), "not one batch was finished");
        batches.sort_unstable();
        let [messages, absences, pings, late] =
            [messages, absences, pings, late].map(|counter| counter.load(Relaxed));
        Served { messages, absences, pings, late, batches }
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

/// Says nothing but that it is still there, for ever. Whose PINGREQ was sent in time is never closed, however long the
/// broker did not come to read it.
async fn keep_alive(broker: SocketAddr, version: Version, tally: &Tally) {
    let hello = Connect::new(version, &format!("{HONEST}/{version:?}/idle")).keep_alive(KEEP_ALIVE);
    loop {
        let mut last = Instant::now();
        let mut client = connect(broker, hello.clone()).await;
        loop {
            sleep(Duration::from_secs(KEEP_ALIVE.into())).await;
            let now = Instant::now();
            client.send(&[0xC0, 0]).await;
            let silent = last.elapsed(); // the broker has seen no longer silence
            last = now;
            match client.receive_or_end().await {
                Some(Packet { first: 0xD0, .. }) => tally.pings.fetch_add(1, Relaxed),
                _ if silent >= LONGEST_SILENCE => break, // this client had no share of the machine
                end => panic!("closed after {silent:?}: {end:?}"),
            };
        }
        tally.late.fetch_add(1, Relaxed);
    }
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
            tally.batches.lock().push(started.elapsed());
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
