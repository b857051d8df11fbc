//! A closed loop on one connection: so many requests in flight, each followed by the next one when it is done.
//!
//! One thread without a runtime, which reads and writes all that is due at once, so that the load takes as little of
//! the machine as it can. The reply id names the request, so that each latency is that of one request.

use crate::mqtt::{self, Packet};
use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Most requests in flight: fewer than any server's window for one client, and so few bytes that the sockets' buffers
/// hold them, which is why neither end can wait for the other to read.
pub const MAX_IN_FLIGHT: u16 = 1_000;

/// Time without any answer after which requests count as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest latency that is told from longer ones, in nanoseconds: nothing waits longer than [`PATIENCE`].
const MAX_LATENCY_NS: u64 = 10_000_000_000;

/// Significant decimal digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// Bytes read at once; room for many whole packets.
const READ_BUFFER: usize = 16 * mqtt::MAX_PACKET;

/// Bytes of an unexpected answer that an error repeats.
const ANSWER_SHOWN: usize = 200;

const CLIENT_ID: &str = "bench";
const REQUEST_PREFIX: &str = "localCode/bench/";
const ANSWER_PREFIX: &str = "result/bench/";
const ANSWER_FILTER: &str = "result/bench/#";

/// What is asked, how many times at once, and for how long.
pub struct Load<'a> {
    pub request: &'a [u8],
    pub answer: &'a [u8],
    /// At least 1, at most [`MAX_IN_FLIGHT`].
    pub in_flight: u16,
    /// Goes before what is measured, on the same connection.
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What was answered in the measured time.
pub struct Measured {
    pub requests: u64,
    pub elapsed: Duration,
    /// From just before the request is written to just after its answer is read, in nanoseconds.
    pub latency_ns: Histogram<u64>,
}

/// One place for a request in flight. Its number is the reply id, and one less than the packet identifier.
struct Slot {
    request: Vec<u8>,
    sent: Instant,
    /// PUBACK has come.
    acknowledged: bool,
    answered: bool,
}

/// Puts the server at `address` under load.
///
/// # Errors
///
/// When an answer is wrong, is lost or comes twice, or the server breaks the protocol or the connection.
pub fn run(address: SocketAddr, load: &Load<'_>) -> Result<Measured> {
    let mut connection = Connection::open(address)?;
    let begin = Instant::now() + load.warm_up;
    let end = begin + load.measured;
    let mut measured = Measured {
        requests: 0,
        elapsed: load.measured,
        latency_ns: Histogram::new_with_bounds(1, MAX_LATENCY_NS, LATENCY_DIGITS)?,
    };
    let slot = |number: u16| Slot {
        request: mqtt::publish(&format!("{REQUEST_PREFIX}{number}"), number + 1, load.request),
        sent: begin,
        acknowledged: true,
        answered: true,
    };
    let mut slots: Vec<Slot> = (0..load.in_flight).map(slot).collect();
    let mut due: Vec<usize> = (0..slots.len()).collect();
    let mut in_flight = due.len();
    while in_flight > 0 {
        let now = Instant::now();
        for number in due.drain(..) {
            let slot = &mut slots[number];
            connection.unsent.extend(&slot.request);
            (slot.sent, slot.acknowledged, slot.answered) = (now, false, false);
        }
        connection.exchange()?;
        let now = Instant::now();
        while let Some((packet, length)) = mqtt::decode(connection.received())? {
            let number = match packet {
                Packet::PubAck(packet_id) => {
                    let number = usize::from(packet_id).wrapping_sub(1);
                    let slot = slots.get_mut(number).context("an acknowledgement of no request")?;
                    ensure!(!slot.acknowledged, "a second acknowledgement of one request");
                    slot.acknowledged = true;
                    number
                }
                Packet::Publish { topic, packet_id, payload } => {
                    let number = slot_of(topic).context("an answer to no request")?;
                    let slot = slots.get_mut(number).context("an answer to no request")?;
                    ensure!(!slot.answered, "a second answer to one request");
                    ensure!(payload == load.answer, "an unexpected answer: {}", shown(payload));
                    slot.answered = true;
                    if (begin..end).contains(&now) {
                        measured.requests += 1;
                        let latency = now.duration_since(slot.sent).as_nanos();
                        measured.latency_ns.saturating_record(latency.try_into().unwrap_or(u64::MAX));
                    }
                    connection.unsent.extend(mqtt::puback(packet_id));
                    number
                }
                packet => bail!("unexpected: {packet:?}"),
            };
            connection.consume(length);
            // A packet identifier is free again only when its PUBACK has come (section 2.3.1).
            if slots[number].acknowledged && slots[number].answered {
                if now < end {
                    due.push(number);
                } else {
                    in_flight -= 1;
                }
            }
        }
    }
    connection.close()?;
    Ok(measured)
}

fn slot_of(topic: &[u8]) -> Option<usize> {
    str::from_utf8(topic).ok()?.strip_prefix(ANSWER_PREFIX)?.parse().ok()
}

fn shown(payload: &[u8]) -> impl std::fmt::Display {
    payload[..payload.len().min(ANSWER_SHOWN)].escape_ascii()
}

/// A connected client that waits for answers.
struct Connection {
    stream: TcpStream,
    unsent: Vec<u8>,
    buffer: Vec<u8>,
    /// The part of `buffer` that was received and not yet consumed.
    start: usize,
    end: usize,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut connection =
            Connection { stream, unsent: Vec::new(), buffer: vec![0; READ_BUFFER], start: 0, end: 0 };
        connection.unsent.extend(mqtt::connect(CLIENT_ID));
        connection.expect(&Packet::ConnAck(0))?;
        connection.unsent.extend(mqtt::subscribe(1, ANSWER_FILTER));
        connection.expect(&Packet::SubAck(1))?;
        Ok(connection)
    }

    fn expect(&mut self, expected: &Packet<'_>) -> Result<()> {
        loop {
            self.exchange()?;
            if let Some((packet, length)) = mqtt::decode(self.received())? {
                ensure!(packet == *expected, "{packet:?} instead of {expected:?}");
                self.consume(length);
                return Ok(());
            }
        }
    }

    /// Sends what is unsent, then waits for something to read.
    fn exchange(&mut self) -> Result<()> {
        self.stream.write_all(&self.unsent).context("cannot send")?;
        self.unsent.clear();
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let count = self.stream.read(&mut self.buffer[self.end..]).context("no answer")?;
        ensure!(count > 0, "the server closed the connection");
        self.end += count;
        Ok(())
    }

    fn received(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn consume(&mut self, length: usize) {
        self.start += length;
    }

    fn close(mut self) -> Result<()> {
        self.unsent.extend(mqtt::disconnect());
        self.stream.write_all(&self.unsent).context("cannot send")
    }
}
