//! Clients that do whatever they like, each kind of them as fast as it can, for ever.

use std::{
    fmt,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use offload_broker::Version;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    broker_process::HONEST,
    client::{BOTH, Connect, Will, packet, string},
    damage::{Random, STATES, damage, packets, prologue, subscribe},
};

/// Connections of a crowd at a time. There are few crowds, so that file descriptors last.
const CROWD: usize = 100;
/// Different client ids of each kind: sessions are bounded for all strangers together.
const IDS: usize = 50;
/// Longest that one waits for the broker: half as long as it waits for those who read nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two rounds of one abuser, so that the clients have a share of the processors, too.
const BREATH: Duration = Duration::from_millis(5);

pub struct Abusers {
    tasks: JoinSet<()>,
    kinds: Vec<(&'static str, Arc<AtomicU64>)>,
}

/// What one round needs.
struct Abuser {
    mqtt: SocketAddr,
    tls: SocketAddr,
    source: Ipv4Addr,
    random: Random,
}

pub fn start(mqtt: SocketAddr, tls: SocketAddr) -> Abusers {
    let mut abusers = Abusers { tasks: JoinSet::new(), kinds: Vec::new() };
    let mut kind = Kinds { abusers: &mut abusers, mqtt, tls };
    kind.add("noise", |abuser| Box::pin(abuser.noise()));
    kind.add("damage", |abuser| Box::pin(abuser.damage()));
    kind.add("lies about lengths", |abuser| Box::pin(abuser.lies()));
    kind.add("packets of a server", |abuser| Box::pin(abuser.packets_of_a_server()));
    kind.add("odd topics", |abuser| Box::pin(abuser.odd_topics()));
    kind.add("half-open crowd", |abuser| Box::pin(abuser.half_open()));
    kind.add("connect storm", |abuser| Box::pin(abuser.connect_storm()));
    kind.add("duplicate ids", |abuser| Box::pin(abuser.duplicate_ids()));
    kind.add("stolen ids", |abuser| Box::pin(abuser.stolen_ids()));
    kind.add("deaf subscriber", |abuser| Box::pin(abuser.deaf()));
    kind.add("dripping subscriber", |abuser| Box::pin(abuser.dripping()));
    kind.add("hoarder", |abuser| Box::pin(abuser.hoard()));
    kind.add("flood", |abuser| Box::pin(abuser.flood()));
    kind.add("retained flood", |abuser| Box::pin(abuser.retained_flood()));
    kind.add("subscription churn", |abuser| Box::pin(abuser.subscription_churn()));
    kind.add("wills", |abuser| Box::pin(abuser.wills()));
    kind.add("unfinished packets", |abuser| Box::pin(abuser.unfinished()));
    kind.add("large wills", |abuser| Box::pin(abuser.large_wills()));
    kind.add("many filters", |abuser| Box::pin(abuser.many_filters()));
    kind.add("slow TLS", |abuser| Box::pin(abuser.slow_tls()));
    abusers
}

impl Abusers {
    /// Returns how often each kind struck; panics if one of them never could.
    pub async fn stop(mut self) -> impl fmt::Display {
        self.tasks.shutdown().await;
        let rounds = |(kind, rounds): &(&str, Arc<AtomicU64>)| {
            let rounds = rounds.load(Relaxed);
            assert!(rounds > 0, "{kind}: not one round was finished");
            format!("{kind} {rounds}")
        };
        self.kinds.iter().map(rounds).collect::<Vec<_>>().join(", ")
    }
}

/// One round.
type Strike = for<'a> fn(&'a mut Abuser) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

struct Kinds<'a> {
    abusers: &'a mut Abusers,
    mqtt: SocketAddr,
    tls: SocketAddr,
}

impl Kinds<'_> {
    fn add(&mut self, name: &'static str, strike: Strike) {
        let number = self.abusers.kinds.len() as u8;
        let rounds = Arc::new(AtomicU64::new(0));
        self.abusers.kinds.push((name, rounds.clone()));
        let mut abuser = Abuser {
            mqtt: self.mqtt,
            tls: self.tls,
            // Each from an address of its own, or there would soon be no port left.
            source: Ipv4Addr::new(127, 0, 1, 1 + number),
            random: Random::new(number.into()),
        };
        self.abusers.tasks.spawn(async move {
            loop {
                // It fails when the broker has had enough of it.
                let _ = strike(&mut abuser).await;
                rounds.fetch_add(1, Relaxed);
                sleep(BREATH).await;
            }
        });
    }
}

/// Reads until the broker closes, or patience ends.
async fn drain(mut stream: TcpStream) {
    let mut space = [0; 4096];
    let reading = async { while matches!(stream.read(&mut space).await, Ok(1..)) {} };
    let _ = timeout(PATIENCE, reading).await;
}

/// What may block for ever is given up after a while.
async fn impatient(doing: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(PATIENCE, doing).await.unwrap_or(Ok(()))
}

impl Abuser {
    async fn open_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((self.source, 0).into())?;
        socket.connect(address).await
    }

    async fn open(&self) -> io::Result<TcpStream> {
        self.open_to(self.mqtt).await
    }

    /// Sends this first, and waits for the CONNACK.
    async fn connect(&self, connect: &Connect) -> io::Result<TcpStream> {
        let mut stream = self.open().await?;
        stream.write_all(&connect.bytes()).await?;
        let mut connack = [0; 4];
        timeout(PATIENCE, stream.read_exact(&mut connack)).await??;
        Ok(stream)
    }

    /// Connected, without anything that stays.
    async fn stranger(&mut self, version: Version) -> io::Result<TcpStream> {
        let connect = Connect::new(version, &self.id());
        self.connect(&connect).await
    }

    fn version(&mut self) -> Version {
        BOTH[self.random.below(2)]
    }

    /// One of a few ids of this kind's own.
    fn id(&mut self) -> String {
        format!("abuser-{}-{}", self.source, self.random.below(IDS))
    }

    async fn noise(&mut self) -> io::Result<()> {
        let version = self.version();
        let mut bytes =
            if self.random.below(2) == 0 { Connect::new(version, &self.id()).bytes() } else { Vec::new() };
        bytes.extend(self.random.bytes(500));
        let mut stream = self.open().await?;
        stream.write_all(&bytes).await?;
        if self.random.below(2) == 0 {
            drain(stream).await;
        }
        Ok(())
    }

    async fn damage(&mut self) -> io::Result<()> {
        let (version, id) = (self.version(), self.id());
        let mut bytes = prologue(STATES[self.random.below(STATES.len())], version, &id);
        let kinds = packets(version, &id);
        for _ in 0..4 {
            let mut packet = kinds[self.random.below(kinds.len())].clone();
            if self.random.below(2) == 0 {
                damage(&mut packet, &mut self.random);
            }
            bytes.extend(packet);
        }
        let mut stream = self.open().await?;
        stream.write_all(&bytes).await?;
        if self.random.below(4) == 0 {
            drain(stream).await;
        }
        Ok(())
    }

    async fn lies(&mut self) -> io::Result<()> {
        let version = self.version();
        for header in [&[0x30, 0xFF, 0xFF, 0xFF, 0x7F][..], &[0x32, 0x80, 0x80, 0x20], &[0x82, 0xFF, 0xFF, 3]]
        {
            let mut stream = self.stranger(version).await?;
            stream.write_all(header).await?;
            stream.write_all(&vec![0; 10_000]).await?;
            drain(stream).await;
            let mut stream = self.open().await?;
            stream.write_all(&[&[0x10], &header[1..], &[0; 1_000]].concat()).await?;
        }
        Ok(())
    }

    /// All but the end of the largest packets, over many connections.
    async fn unfinished(&mut self) -> io::Result<()> {
        let version = self.version();
        let mut crowd = Vec::new();
        for _ in 0..CROWD / 2 {
            let mut stream = self.stranger(version).await?;
            let payload = vec![0; 900_000];
            let sending = async {
                stream.write_all(&[0x30, 0x80, 0x80, 0x3C, 0, 1, b't', 0]).await?;
                stream.write_all(&payload).await
            };
            // The broker may not want all of it.
            let _ = timeout(BREATH, sending).await;
            crowd.push(stream);
        }
        impatient(async move {
            drain(crowd.swap_remove(0)).await;
            Ok(())
        })
        .await
    }

    /// CONNECTs that hold as many properties as fit.
    async fn large_wills(&mut self) -> io::Result<()> {
        let mut will = Will::new("t");
        will.properties = [38, 0, 0, 0, 0].repeat(48_000);
        for _ in 0..10 {
            let connect = Connect::new(Version::V5, &self.id()).will(will.clone());
            let mut stream = self.open().await?;
            impatient(async { stream.write_all(&connect.bytes()).await }).await?;
            drain(stream).await;
        }
        Ok(())
    }

    /// As many filters as packets may have, in many packets, each of them refused.
    async fn many_filters(&mut self) -> io::Result<()> {
        let version = self.version();
        let filters = (0..256).flat_map(|_| [string("not/#/a/filter"), vec![0]].concat());
        let section = (version == Version::V5).then_some(0);
        let body: Vec<u8> = [0, 1].into_iter().chain(section).chain(filters).collect();
        let mut stream = self.stranger(version).await?;
        impatient(async { stream.write_all(&packet(0x82, &body).repeat(128)).await }).await?;
        drain(stream).await;
        Ok(())
    }

    async fn packets_of_a_server(&mut self) -> io::Result<()> {
        for bytes in [&[0x20, 2, 0, 0][..], &[0x90, 3, 0, 1, 0], &[0xB0, 2, 0, 1], &[0xD0, 0], &[0xF0, 0]] {
            let version = self.version();
            let mut stream = self.stranger(version).await?;
            stream.write_all(bytes).await?;
            drain(stream).await;
        }
        Ok(())
    }

    async fn odd_topics(&mut self) -> io::Result<()> {
        let long = "x".repeat(65_535);
        let deep = "/".repeat(65_535);
        for topic in
            ["", "\0", "a\0b", "é", "\u{10FFFF}/☃", "a/#/b", "a+", "$SYS/x", "$share/g/a", &long, &deep]
        {
            for first in [0x31, 0x82] {
                let version = self.version();
                let mut stream = self.stranger(version).await?;
                let mut body = if first == 0x82 { vec![0, 1] } else { Vec::new() };
                body.extend((first == 0x82 && version == Version::V5).then_some(0));
                body.extend(string(topic));
                body.push(0);
                stream.write_all(&packet(first, &body)).await?;
                stream.write_all(&[0xE0, 0]).await?;
                drain(stream).await;
            }
        }
        Ok(())
    }

    async fn half_open(&mut self) -> io::Result<()> {
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            let mut stream = self.open().await?;
            let bytes = Connect::new(Version::V5, "half").bytes();
            stream.write_all(&bytes[..self.random.below(bytes.len())]).await?;
            crowd.push(stream);
        }
        for stream in crowd {
            drain(stream).await;
            if self.random.below(10) == 0 {
                return Ok(()); // the rest is cut off
            }
        }
        Ok(())
    }

    async fn connect_storm(&mut self) -> io::Result<()> {
        let mut crowd = Vec::new();
        for at in 0..CROWD {
            let mut stream = self.open().await?;
            let connect = Connect::new(self.version(), &format!("storm-{at}"));
            stream.write_all(&connect.bytes()).await?;
            crowd.push(stream);
        }
        Ok(())
    }

    async fn duplicate_ids(&mut self) -> io::Result<()> {
        let mut crowd = Vec::new();
        for _ in 0..20 {
            let version = self.version();
            let will = Will { retain: true, ..Will::new("abuse/duplicate") };
            let mut connect = Connect::persistent(version, "duplicate").will(will);
            connect.clean = self.random.below(2) == 0;
            let mut stream = self.open().await?;
            stream.write_all(&[connect.bytes(), subscribe(version, "abuse/#", 2)].concat()).await?;
            crowd.push(stream);
        }
        Ok(())
    }

    /// Those of honest clients, whose password it does not know, and their topics.
    async fn stolen_ids(&mut self) -> io::Result<()> {
        for version in BOTH {
            for qos in 0..=2 {
                let name = format!("{HONEST}/{version:?}/{qos}");
                for role in ["publisher", "subscriber", "late"] {
                    let connect =
                        Connect::new(version, &format!("{name}/{role}")).user(HONEST).password("guess");
                    let mut stream = self.open().await?;
                    stream.write_all(&connect.bytes()).await?;
                    drain(stream).await;
                }
                let mut stream = self.stranger(version).await?;
                let mut body = string(format!("{name}/messages"));
                body.extend((version == Version::V5).then_some(0));
                body.extend(b"999999");
                stream.write_all(&packet(0x31, &body)).await?;
                stream.write_all(&[0xE0, 0]).await?;
                drain(stream).await;
            }
        }
        Ok(())
    }

    /// Subscribes to everything and reads nothing.
    async fn deaf(&mut self) -> io::Result<()> {
        let mut crowd = Vec::new();
        for _ in 0..10 {
            let version = self.version();
            let mut stream = self.stranger(version).await?;
            stream.write_all(&subscribe(version, "#", 1)).await?;
            crowd.push(stream);
        }
        sleep(4 * PATIENCE).await;
        Ok(())
    }

    /// Subscribes to everything and reads a byte now and then.
    async fn dripping(&mut self) -> io::Result<()> {
        let version = self.version();
        let mut stream = self.stranger(version).await?;
        stream.write_all(&subscribe(version, "#", 2)).await?;
        let dripping = async {
            loop {
                stream.read_u8().await?;
                sleep(BREATH).await;
            }
        };
        impatient(dripping).await
    }

    /// Sessions that stay behind and collect all there is.
    async fn hoard(&mut self) -> io::Result<()> {
        let (version, id) = (self.version(), self.id());
        let mut stream = self.connect(&Connect::persistent(version, &id)).await?;
        stream.write_all(&subscribe(version, "#", 1)).await?;
        stream.write_all(&[0xC0, 0]).await?;
        let _ = timeout(PATIENCE, stream.read_u8()).await;
        if self.random.below(20) == 0 {
            // They are given back at times.
            for at in 0..IDS {
                let id = format!("abuser-{}-{at}", self.source);
                drop(self.connect(&Connect::new(version, &id)).await?);
            }
        }
        Ok(())
    }

    /// Publishes as fast as the broker reads, and takes no acknowledgement.
    async fn flood(&mut self) -> io::Result<()> {
        let version = self.version();
        let mut stream = self.stranger(version).await?;
        let qos = self.random.below(3) as u8;
        let size = [10, 1_000, 60_000][self.random.below(3)];
        let flooding = async {
            for id in 1..=1_000u16 {
                let mut body = string("abuse/flood");
                if qos > 0 {
                    body.extend(id.to_be_bytes());
                }
                body.extend((version == Version::V5).then_some(0));
                body.extend(vec![b'x'; size]);
                stream.write_all(&packet(0x30 | qos << 1, &body)).await?;
            }
            Ok(())
        };
        impatient(flooding).await
    }

    async fn retained_flood(&mut self) -> io::Result<()> {
        let version = self.version();
        let mut stream = self.stranger(version).await?;
        for _ in 0..500 {
            let mut body = string(format!("abuse/retained/{}", self.random.below(1_000)));
            body.extend((version == Version::V5).then_some(0));
            let size = [0, 100, 5_000][self.random.below(3)];
            body.extend(vec![b'x'; size]);
            stream.write_all(&packet(0x31, &body)).await?;
        }
        stream.write_all(&[0xE0, 0]).await?;
        drain(stream).await;
        Ok(())
    }

    async fn subscription_churn(&mut self) -> io::Result<()> {
        let version = self.version();
        let connect = Connect::persistent(version, &self.id());
        let mut stream = self.connect(&connect).await?;
        for _ in 0..500 {
            let filter = format!("abuse/{}/+/{}/#", self.random.below(100), self.random.below(100));
            stream.write_all(&subscribe(version, &filter, 1)).await?;
        }
        stream.write_all(&[0xE0, 0]).await?;
        drain(stream).await;
        let stream = self.stranger(version).await?;
        drop(stream);
        Ok(())
    }

    async fn wills(&mut self) -> io::Result<()> {
        let version = self.version();
        let mut will = Will { retain: self.random.below(2) == 0, ..Will::new("abuse/will") };
        if version == Version::V5 {
            will = will.delay(self.random.below(3) as u32);
        }
        will.payload = "x".repeat(60_000);
        let connect = Connect::persistent(version, &self.id()).will(will);
        drop(self.connect(&connect).await?);
        Ok(())
    }

    /// Handshakes that never end, cut off or of nonsense.
    async fn slow_tls(&mut self) -> io::Result<()> {
        let mut crowd = Vec::new();
        for at in 0..CROWD {
            let mut stream = self.open_to(self.tls).await?;
            let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3];
            stream.write_all(&hello[..at % hello.len()]).await?;
            crowd.push(stream);
        }
        for stream in crowd.drain(..CROWD / 10) {
            drain(stream).await;
        }
        Ok(())
    }
}
