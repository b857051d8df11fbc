//! The bystander: small requests at a steady rate, sent whether the earlier ones are answered or not, and how long
//! each answer takes from the moment at which its request was due.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::Client;
use crate::module::Printer;
use crate::packet::{self, Answer, Publish};
use crate::priority;

/// Between two requests: 50 a second.
const PACE: Duration = Duration::from_millis(20);

/// Requests that may be unacknowledged at once: fewer than the broker's Receive Maximum, as a client has to.
const MAX_UNACKNOWLEDGED: usize = 1_000;

/// Packet identifiers in turn.
const IDENTIFIERS: u32 = 60_000;

/// How often it is looked whether something has come, or is over.
const POLL: Duration = Duration::from_millis(1);

/// What either of its programs prints for the arguments that it is given.
const EXPECTED: &[u8] = b"12\n";

/// A module that prints what is expected, whatever its arguments.
const MODULE: Printer<&str> = Printer("12\\n");

/// Asks until it is stopped.
pub struct Bystander {
    shared: Arc<Shared>,
    asks: JoinHandle<()>,
    listens: JoinHandle<()>,
}

struct Shared {
    requests: Mutex<Vec<Request>>,
    unacknowledged: AtomicUsize,
    /// No further requests.
    enough: AtomicBool,
    /// No further answers.
    over: AtomicBool,
    writer: Mutex<TcpStream>,
}

/// One request, and what became of it.
#[derive(Clone)]
pub struct Request {
    pub due: Instant,
    pub outcome: Outcome,
}

#[derive(Clone, PartialEq)]
pub enum Outcome {
    Unanswered,
    Ok(Duration),
    Wrong(String),
}

impl Bystander {
    /// Connects, sends the module once that it names by digest from then on, and begins.
    pub fn start(gateway: SocketAddr, user: Option<&str>) -> Result<Bystander> {
        let name = user.unwrap_or("bystander");
        let mut client = Client::connect(gateway, name, user)?;
        let answer = client.ask(&Publish::new(&format!("inputCode/{name}"), MODULE.wasm()?))?;
        ensure!(answer == EXPECTED, "the bystander's module answers {}", answer.escape_ascii());
        let by_digest = format!("{{\"digest\":\"{}\",\"reply\":\"stdout\"}}", MODULE.digest()?);
        let requests = [b"5 7".to_vec(), by_digest.into_bytes()];
        let topic = format!("localCode/{name}");

        let (stream, received) = client.into_parts();
        stream.set_read_timeout(Some(POLL))?;
        let shared = Arc::new(Shared {
            requests: Mutex::default(),
            unacknowledged: AtomicUsize::new(0),
            enough: AtomicBool::new(false),
            over: AtomicBool::new(false),
            writer: Mutex::new(stream.try_clone()?),
        });
        let asking = shared.clone();
        let asks = thread::Builder::new().name("bystander asks".into()).spawn(move || {
            priority::raise();
            asking.ask(&topic, &requests);
        })?;
        let listening = shared.clone();
        let listens = thread::Builder::new().name("bystander hears".into()).spawn(move || {
            priority::raise();
            listening.listen(stream, received);
        })?;
        Ok(Bystander { shared, asks, listens })
    }

    /// Whether all requests that are due have an answer.
    pub fn is_answered(&self) -> bool {
        self.shared.is_answered()
    }

    /// Sends nothing more, waits as long as this for answers, and returns all requests in order.
    pub fn stop(self, patience: Duration) -> Result<Vec<Request>> {
        self.shared.enough.store(true, Relaxed);
        // Before it is looked whether all are answered, so that none is sent after that.
        self.asks.join().ok().context("the bystander panicked")?;
        let deadline = Instant::now() + patience;
        while !self.shared.is_answered() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        self.shared.over.store(true, Relaxed);
        self.listens.join().ok().context("the bystander panicked")?;
        Ok(std::mem::take(&mut *self.shared.requests()))
    }
}

impl Shared {
    fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_answered(&self) -> bool {
        self.requests().iter().all(|request| request.outcome != Outcome::Unanswered)
    }

    fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes)
    }

    fn ask(&self, topic: &str, payloads: &[Vec<u8>]) {
        let mut due = Instant::now();
        for number in 0_u32.. {
            while Instant::now() < due {
                if self.enough.load(Relaxed) {
                    return;
                }
                thread::sleep(due.saturating_duration_since(Instant::now()).clamp(POLL / 10, POLL));
            }
            let put_down = |due| self.requests().push(Request { due, outcome: Outcome::Unanswered });
            put_down(due);
            due += PACE;
            while self.unacknowledged.load(Relaxed) >= MAX_UNACKNOWLEDGED {
                if self.enough.load(Relaxed) {
                    // What could not even be sent was not answered.
                    while due < Instant::now() {
                        put_down(due);
                        due += PACE;
                    }
                    return;
                }
                thread::sleep(POLL);
            }
            let payload = payloads[number as usize % payloads.len()].as_slice();
            let request = Publish::new(topic, payload).correlation(&number.to_be_bytes());
            self.unacknowledged.fetch_add(1, Relaxed);
            if let Err(error) = self.send(&request.qos(1, (number % IDENTIFIERS) as u16 + 1).bytes()) {
                return self.lose(number as usize, &format!("its connection is lost: {error}"));
            }
        }
    }

    fn lose(&self, number: usize, why: &str) {
        if let Some(request) = self.requests().get_mut(number) {
            request.outcome = Outcome::Wrong(why.to_owned());
        }
    }

    fn listen(&self, mut stream: TcpStream, mut received: Vec<u8>) {
        let mut space = vec![0; 64 * 1024];
        while !self.over.load(Relaxed) {
            match stream.read(&mut space) {
                Ok(0) => return,
                Ok(count) => received.extend(&space[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => return,
            }
            let now = Instant::now();
            let mut consumed = 0;
            while let Some((first, body, length)) = packet::first(&received[consumed..]) {
                self.hear(first, body, now);
                consumed += length;
            }
            received.drain(..consumed);
        }
    }

    fn hear(&self, first: u8, body: &[u8], now: Instant) {
        if first == packet::PUBACK {
            self.unacknowledged.fetch_sub(1, Relaxed);
            let refused = body.get(2).is_some_and(|reason| *reason >= packet::REFUSED);
            if let (true, [high, low, reason, ..]) = (refused, body) {
                let identifier = usize::from(u16::from_be_bytes([*high, *low])) - 1;
                // The latest request that had it.
                let last = self.requests().len() - 1;
                let number = last - (last - identifier) % IDENTIFIERS as usize;
                self.lose(number, &format!("refused with {reason:#x}"));
            }
        }
        let Some(answer) = Answer::read(first, body) else { return };
        if let Some(id) = answer.packet_id {
            // An end of the connection is seen by whoever reads.
            let _ = self.send(&packet::puback(id));
        }
        let number = answer.correlation.and_then(|data| Some(u32::from_be_bytes(data.try_into().ok()?)));
        let Some(number) = number else { return };
        if let Some(request) = self.requests().get_mut(number as usize) {
            let ok = answer.status == Some(b"ok") && answer.payload == EXPECTED;
            let shown = || answer.payload[..answer.payload.len().min(120)].escape_ascii().to_string();
            let took = now.saturating_duration_since(request.due);
            request.outcome = if ok { Outcome::Ok(took) } else { Outcome::Wrong(shown()) };
        }
    }
}
