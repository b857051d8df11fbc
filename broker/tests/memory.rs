//! What clients cost in memory, and that it comes back when they are gone. The broker is measured in a process of its
//! own, which has nothing else in it; the clients are in the test's.

#[path = "broker/certificates.rs"]
mod certificates;

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    ptr::null_mut,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use offload_broker::{Broker, ClientCertificates, Config, NoApplication, Transport};
use rustix::{
    param::page_size,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use rustls::{ClientConnection, StreamOwned};
use tikv_jemallocator::Jemalloc;
use tokio::{net::TcpListener, runtime::Runtime, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::certificates::{Authority, Certified};

/// glibc's allocator would keep what a crowd has needed.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Set in the process of the broker, to the name of the test that started it.
const ROLE: &str = "OFFLOAD_TEST_BROKER";
/// The PEM of a certificate and its key, if the broker is to speak TLS.
const CHAIN: &str = "OFFLOAD_TEST_CHAIN";
const KEY: &str = "OFFLOAD_TEST_KEY";

/// Bytes that a client reads at a time.
const READ_SIZE: usize = 2 * 1024;
/// No socket waits longer than this.
const DEADLINE: Duration = Duration::from_secs(60);

// ---- The broker's process ----

/// A broker in another process. It ends when this is dropped.
struct BrokerProcess {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl BrokerProcess {
    /// Runs this same program again with this test alone, which is then the broker.
    fn start(test: &str, certified: Option<&Certified>) -> Self {
        allow_files();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture"]).env(ROLE, test);
        if let Some(Certified { chain, key }) = certified {
            command.env(CHAIN, chain).env(KEY, key);
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let questions = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut broker = Self { process, questions, answers, address: ([127, 0, 0, 1], 0).into() };
        let port = broker.answer() as u16;
        broker.address.set_port(port);
        broker
    }

    /// The broker's resident bytes, once it has `clients` sessions and connections.
    fn resident_with(&mut self, clients: usize) -> usize {
        writeln!(self.questions, "{clients}").unwrap();
        self.answer()
    }

    /// The number after the mark, which sets it apart from what the test harness prints.
    fn answer(&mut self) -> usize {
        let mut line = String::new();
        while self.answers.read_line(&mut line).unwrap() > 0 {
            if let Some(answer) = line.split("broker says ").nth(1) {
                return answer.trim().parse().unwrap();
            }
            line.clear();
        }
        panic!("the broker's process has ended");
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// True in a broker's process, when its parent has gone.
fn was_the_broker(config: Config) -> bool {
    if env::var_os(ROLE).is_none() {
        return false;
    }
    let transport = match (env::var(CHAIN), env::var(KEY)) {
        (Ok(chain), Ok(key)) => Transport::Tls(Certified { chain, key }.tls(ClientCertificates::NotAsked)),
        _ => Transport::Tcp,
    };
    let runtime = Runtime::new().unwrap();
    let broker = Broker::new(config, Arc::new(NoApplication));
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    println!("broker says {}", listener.local_addr().unwrap().port());
    runtime.spawn({
        let broker = broker.clone();
        async move { broker.serve(listener, transport, CancellationToken::new()).await }
    });
    for question in io::stdin().lines() {
        let clients: usize = question.unwrap().parse().unwrap();
        runtime.block_on(async {
            loop {
                let stats = broker.stats();
                if (stats.sessions, stats.connections) == (clients, clients) {
                    break;
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        give_back_what_is_free();
        println!("broker says {}", resident_bytes());
    }
    true
}

fn give_back_what_is_free() {
    // SAFETY: the name ends with a null byte, 4096 stands for all arenas, and the command takes and gives no value.
    unsafe {
        tikv_jemalloc_sys::mallctl(c"arena.4096.decay".as_ptr(), null_mut(), null_mut(), null_mut(), 0)
    };
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * page_size()
}

/// As many open files as this process may have, which the broker's process inherits.
fn allow_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

// ---- Clients ----

/// A client of MQTT 3.1.1.
struct Client<S> {
    socket: BufReader<S>,
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// The length is written as the standard asks: in its shortest form.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    assert!(length < 1 << 14, "a length of two bytes at most");
    let header = if length < 128 {
        vec![first, length as u8]
    } else {
        vec![first, length as u8 | 0x80, (length >> 7) as u8]
    };
    [&header[..], body].concat()
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

impl<S: Read + Write> Client<S> {
    /// Connects and subscribes.
    fn new(mut socket: S, id: &str, filters: &[String]) -> Self {
        let connect = [&string("MQTT")[..], &[4, 2, 0, 0], &string(id)].concat();
        let filters: Vec<u8> = filters.iter().flat_map(|filter| [string(filter), vec![1]].concat()).collect();
        let subscribe = [&[0, 1][..], &filters].concat();
        socket.write_all(&[packet(0x10, &connect), packet(0x82, &subscribe)].concat()).unwrap();
        let mut client = Self { socket: BufReader::with_capacity(READ_SIZE, socket) };
        assert_eq!(client.receive(), (0x20, vec![0, 0]));
        assert_eq!(client.receive().0, 0x90);
        client
    }

    fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut byte = || {
            let mut byte = [0];
            self.socket.read_exact(&mut byte).unwrap();
            byte[0]
        };
        let first = byte();
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = byte();
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body).unwrap();
        (first, body)
    }

    /// Retains a message on each topic at QoS 1, and takes what comes of it.
    fn retain(&mut self, topics: &[String], payload: &[u8]) {
        let publish = |(id, topic): (u16, &String)| {
            packet(0x33, &[&string(topic)[..], &id.to_be_bytes(), payload].concat())
        };
        let publishes: Vec<u8> = (1..).zip(topics).flat_map(publish).collect();
        self.socket.get_mut().write_all(&publishes).unwrap();
        let (mut acknowledged, mut received, mut acknowledgements) = (0, 0, Vec::new());
        while (acknowledged, received) != (topics.len(), topics.len()) {
            let (first, body) = self.receive();
            match first & 0xF0 {
                0x40 => acknowledged += 1,
                0x30 => {
                    received += 1;
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let id = &body[2 + topic..][..2];
                    acknowledgements.extend(packet(0x40, id));
                }
                _ => panic!("unexpected packet {first:#x}"),
            }
        }
        self.socket.get_mut().write_all(&acknowledgements).unwrap();
    }

    fn disconnect(mut self) {
        self.socket.get_mut().write_all(&packet(0xE0, &[])).unwrap();
    }
}

// ---- The tests ----

const CLIENTS: usize = 5_000;
const TOPICS_EACH: usize = 10;

/// Clients that show once what a broker without any needs.
const FEW: usize = 500;
/// The allocator gives back what nobody has needed for ten seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[test]
fn clients_and_topics_that_came_and_went_leave_nothing_behind() {
    // All of them are at one address, and so one identity, which has half of the room for what is retained.
    let config = Config {
        max_retained_messages: 2 * CLIENTS * TOPICS_EACH,
        max_subscriptions_per_address: CLIENTS * TOPICS_EACH,
        ..Config::default()
    };
    if was_the_broker(config) {
        return;
    }
    let mut broker = BrokerProcess::start("clients_and_topics_that_came_and_went_leave_nothing_behind", None);
    come_and_go(&mut broker, FEW);
    let before = broker.resident_with(0);
    for round in 1..=3 {
        let busy = come_and_go(&mut broker, CLIENTS);
        println!("round {round}: from {before} to {busy} bytes");
    }
    let start = Instant::now();
    let mut after = broker.resident_with(0);
    while after > before + before / 10 {
        assert!(start.elapsed() < PATIENCE, "{after} bytes are left, more than {before} by over a tenth");
        thread::sleep(LOOK_AGAIN);
        after = broker.resident_with(0);
    }
    println!("{after} bytes after {:.0?}", start.elapsed());
}

/// This many clients come, subscribe to topics, retain a message on each, take all of it away and go. Returns the
/// broker's resident bytes when all were there.
fn come_and_go(broker: &mut BrokerProcess, count: usize) -> usize {
    let topics = |client: usize| -> Vec<String> {
        (0..TOPICS_EACH).map(|topic| format!("client {client}/topic {topic}")).collect()
    };
    let clients: Vec<_> = (0..count)
        .map(|client| {
            let topics = topics(client);
            let mut client = Client::new(connect(broker.address), &format!("client {client}"), &topics);
            client.retain(&topics, &[b'x'; 100]);
            client
        })
        .collect();
    let busy = broker.resident_with(count);
    for (at, mut client) in clients.into_iter().enumerate() {
        client.retain(&topics(at), b"");
        client.disconnect();
    }
    busy
}

/// Clients that share what the first of them cost.
const FIRST: usize = 100;

/// What each of `clients` idle clients with one subscription costs the broker, in bytes.
fn cost_of_idle<S: Read + Write>(
    broker: &mut BrokerProcess,
    clients: usize,
    open: impl Fn(SocketAddr) -> S,
) -> usize {
    let address = broker.address;
    let client = |at| Client::new(open(address), &format!("client {at}"), &[format!("idle/{at}")]);
    let mut connected: Vec<_> = (0..FIRST).map(client).collect();
    let before = broker.resident_with(FIRST);
    connected.extend((FIRST..clients).map(client));
    let each = (broker.resident_with(clients) - before) / (clients - FIRST);
    println!("{each} bytes for each of {clients} idle clients");
    each
}

#[test]
fn an_idle_client_costs_less_than_12_kilobytes() {
    if was_the_broker(Config::default()) {
        return;
    }
    let mut broker = BrokerProcess::start("an_idle_client_costs_less_than_12_kilobytes", None);
    let each = cost_of_idle(&mut broker, 10_000, connect);
    assert!(each < 12_000);
}

#[test]
fn an_idle_client_on_tls_costs_less_than_48_kilobytes() {
    if was_the_broker(Config::default()) {
        return;
    }
    let authority = Authority::new();
    let config = authority.client(None);
    let mut broker =
        BrokerProcess::start("an_idle_client_on_tls_costs_less_than_48_kilobytes", Some(&authority.server()));
    let each = cost_of_idle(&mut broker, 2_000, |address| {
        let session = ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap();
        StreamOwned::new(session, connect(address))
    });
    assert!(each < 48_000);
}
