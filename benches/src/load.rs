//! A load: requests on one or many connections, in a closed or an open loop, from one thread without a runtime, which
//! reads and writes all that is due at once, so that it takes as little of the machine as it can.
//!
//! The reply id names the request, so that each latency is that of one request. The thread's own share of a core is
//! measured too: near 1 the load is what is measured, and no longer the server.

mod connection;
mod crowd;
mod mqtt;
mod ping;

pub use connection::Connection;
pub use crowd::Crowd;
pub use ping::ping;

use anyhow::{Context, Result, bail, ensure};
use connection::{ANSWERS, shown};
use hdrhistogram::Histogram;
use mqtt::Packet;
use offload_rt::scheduling;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Most requests in flight on one connection: fewer than any server's window for one client, and so few bytes that the
/// sockets' buffers hold them, which is why neither end can wait for the other to read.
pub const MAX_IN_FLIGHT: u16 = 1_000;

/// Time without any answer after which requests count as lost: longer than a compile may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest latency that is told from longer ones, in nanoseconds: nothing waits longer than [`PATIENCE`].
const MAX_LATENCY_NS: u64 = 60_000_000_000;

/// Significant decimal digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// Where connections come from, unless it is said otherwise.
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Stands for the `id` of a request, which is another one each time it is sent: as many digits.
pub const ID_PLACE: &[u8] = b"################";

/// No two requests of this process have one `id`.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// What is sent, and what must come back.
#[derive(Clone, Debug)]
pub struct Request {
    /// `localCode` or `inputCode`.
    pub topic: &'static str,
    pub payload: Vec<u8>,
    pub answer: Vec<u8>,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub enum Pace<'a> {
    /// Each is followed by the next when it is both answered and acknowledged.
    Closed,
    /// One is due every so often, whatever became of those before; its latency counts from when it was due.
    Every(Duration),
    /// The same, but these are the times when each is due, in ascending order, counted from the warm-up's start.
    At(&'a [Duration]),
}

impl Pace<'_> {
    /// When a request is due, from the warm-up's start; `None` where that is not for the load to say, or for none.
    fn due(&self, number: u32) -> Option<Duration> {
        match self {
            Pace::Closed => None,
            Pace::Every(interval) => Some(*interval * number),
            Pace::At(times) => times.get(number as usize).copied(),
        }
    }
}

/// What is asked, how many times at once, and for how long.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    /// Client ids and reply ids begin with it: loads at the same time have different ones.
    pub client: &'a str,
    pub request: &'a Request,
    /// At least 1.
    pub connections: usize,
    /// On each connection: at least 1, at most [`MAX_IN_FLIGHT`].
    pub in_flight: u16,
    pub pace: Pace<'a>,
    /// The address that its connections come from; the gateway counts anonymous clients by it.
    pub source: IpAddr,
    /// Whether an answer may come again, as where a gateway is killed that has answered and not acknowledged.
    pub repeats: bool,
    /// Goes before what is measured, on the same connections.
    pub warm_up: Duration,
    /// A closed loop goes on until something was answered.
    pub measured: Duration,
}

impl<'a> Load<'a> {
    /// A closed loop on one connection, with a quarter of its time before it to warm up.
    pub fn closed(request: &'a Request, in_flight: u16, measured: Duration) -> Load<'a> {
        Load {
            client: "bench",
            request,
            connections: 1,
            in_flight,
            pace: Pace::Closed,
            source: LOOPBACK,
            repeats: false,
            warm_up: measured / 4,
            measured,
        }
    }

    /// An open loop on one connection, with a quarter of its time before it to warm up.
    pub fn paced(request: &'a Request, every: Duration, measured: Duration) -> Load<'a> {
        Load { pace: Pace::Every(every), ..Load::closed(request, MAX_IN_FLIGHT, measured) }
    }

    /// From its first request to the end of what is measured.
    pub fn length(&self) -> Duration {
        self.warm_up + self.measured
    }
}

/// What was answered in the measured time.
pub struct Measured {
    /// That were answered; that were due, where they are due every so often.
    requests: u64,
    elapsed: Duration,
    /// From just before the request is written, or from when it was due, to just after its answer is read, in
    /// nanoseconds.
    latency_ns: Histogram<u64>,
    /// CPU time of the load's thread.
    cpu: Duration,
}

impl Measured {
    pub fn requests_per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// In microseconds.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.latency_ns.value_at_quantile(quantile) as f64 / 1e3
    }

    /// In microseconds.
    pub fn mean_us(&self) -> f64 {
        self.latency_ns.mean() / 1e3
    }

    /// The load's share of a core, in percent.
    pub fn load_percent(&self) -> f64 {
        100.0 * self.cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

/// One place for a request in flight. Its number ends the reply id, and is one less than the packet identifier.
struct Slot {
    request: Vec<u8>,
    /// Where the `id` is in it, if it has one.
    id_at: Option<usize>,
    sent: Instant,
    /// PUBACK has come.
    acknowledged: bool,
    answered: bool,
}

/// One connection with its requests.
struct Lane {
    connection: Connection,
    slots: Vec<Slot>,
    /// Slots with nothing in flight.
    free: Vec<usize>,
}

/// A load while it runs.
struct Running<'a> {
    load: &'a Load<'a>,
    lanes: Vec<Lane>,
    begin: Instant,
    end: Instant,
    ended: bool,
    /// Requests that were sent, in an open loop.
    sent: u32,
    measured: Measured,
}

/// Puts the server at `address` under load.
///
/// # Errors
///
/// When an answer is wrong, is lost or comes twice, or the server breaks the protocol or the connection.
pub fn run(address: SocketAddr, load: &Load<'_>) -> Result<Measured> {
    if !matches!(load.pace, Pace::Closed) {
        // A device has a core of its own. What is late is to be the server, and not this thread when it wakes.
        scheduling::short_slices();
    }
    let lanes = (0..load.connections)
        .map(|index| Lane::open(address, load, &format!("{}-{index}", load.client)))
        .collect::<Result<Vec<_>>>()?;
    let begin = Instant::now() + load.warm_up;
    let measured = Measured {
        requests: 0,
        elapsed: load.measured,
        latency_ns: Histogram::new_with_bounds(1, MAX_LATENCY_NS, LATENCY_DIGITS)?,
        cpu: Duration::ZERO,
    };
    Running { load, lanes, begin, end: begin + load.measured, ended: false, sent: 0, measured }.run()
}

impl Running<'_> {
    fn run(mut self) -> Result<Measured> {
        let mut cpu_at_begin = None;
        let mut ready = Vec::new();
        loop {
            let now = Instant::now();
            if cpu_at_begin.is_none() && now >= self.begin {
                cpu_at_begin = Some(thread_cpu_time());
            }
            let is_open = !matches!(self.load.pace, Pace::Closed);
            if !self.ended && now >= self.end && (is_open || self.measured.requests > 0) {
                self.ended = true;
                self.measured.elapsed = now - self.begin;
                self.measured.cpu = thread_cpu_time() - cpu_at_begin.unwrap_or_default();
            }
            if !self.ended {
                self.send_what_is_due(now);
            } else if self.lanes.iter().all(Lane::is_idle) {
                break;
            }
            for lane in &mut self.lanes {
                lane.connection.flush()?;
            }
            self.wait(&mut ready)?;
            for &index in &ready {
                self.receive(index)?;
            }
        }
        for lane in self.lanes {
            lane.connection.close()?;
        }
        Ok(self.measured)
    }

    fn send_what_is_due(&mut self, now: Instant) {
        if matches!(self.load.pace, Pace::Closed) {
            for lane in &mut self.lanes {
                while lane.send(now) {}
            }
        }
        while let Some(due) = self.due()
            && due <= now
        {
            let lane = self.sent as usize % self.lanes.len();
            if !self.lanes[lane].send(due) {
                break;
            }
            self.sent += 1;
        }
    }

    /// When the next request of an open loop is due.
    fn due(&self) -> Option<Instant> {
        self.load.pace.due(self.sent).map(|due| self.begin - self.load.warm_up + due)
    }

    /// Waits until something can be read, or sent; `ready` are the lanes with something to read.
    fn wait(&self, ready: &mut Vec<usize>) -> Result<()> {
        ready.clear();
        let now = Instant::now();
        if matches!(self.load.pace, Pace::Closed) && self.lanes.len() == 1 {
            // Its one socket is read at once, which waits too, and costs one call fewer.
            ready.push(0);
            return Ok(());
        }
        let is_open = !matches!(self.load.pace, Pace::Closed);
        let timeout = match self.due() {
            Some(due) if !self.ended => due.saturating_duration_since(now),
            // Its last request is sent: what is measured goes on to its end.
            None if is_open && !self.ended => self.end.saturating_duration_since(now),
            _ => PATIENCE,
        };
        let sockets = self.lanes.iter().map(|lane| PollFd::new(lane.connection.stream(), PollFlags::IN));
        let mut sockets: Vec<PollFd<'_>> = sockets.collect();
        let count = poll(&mut sockets, Some(&Timespec::try_from(timeout)?))?;
        ensure!(count > 0 || timeout < PATIENCE, "no answer for {PATIENCE:?}");
        ready.extend((0..sockets.len()).filter(|&index| !sockets[index].revents().is_empty()));
        Ok(())
    }

    fn receive(&mut self, index: usize) -> Result<()> {
        let Running { load, lanes, begin, end, ended, measured, .. } = self;
        let Lane { connection, slots, free } = &mut lanes[index];
        connection.read()?;
        let now = Instant::now();
        let is_measured = |sent: Instant| match load.pace {
            Pace::Closed => now >= *begin && !*ended,
            Pace::Every(_) => (*begin..*end).contains(&sent),
            // As the simulator counts.
            Pace::At(_) => (*begin..*end).contains(&now),
        };
        while let Some((packet, length)) = mqtt::decode(connection.received())? {
            let (number, packet_id) = match packet {
                Packet::PubAck(packet_id) => {
                    let number = usize::from(packet_id).wrapping_sub(1);
                    let slot = slots.get_mut(number).context("an acknowledgement of no request")?;
                    ensure!(!slot.acknowledged, "a second acknowledgement of one request");
                    slot.acknowledged = true;
                    (number, None)
                }
                Packet::Publish { topic, packet_id, payload } => {
                    let number = connection.number_in(topic).context("an answer to no request")?;
                    let slot = slots.get_mut(number).context("an answer to no request")?;
                    let is_repeated = std::mem::replace(&mut slot.answered, true);
                    ensure!(!is_repeated || load.repeats, "a second answer to one request");
                    ensure!(payload == load.request.answer, "an unexpected answer: {}", shown(payload));
                    if is_repeated {
                        connection.consume(length);
                        connection.acknowledge(packet_id);
                        continue;
                    }
                    if is_measured(slot.sent) {
                        measured.requests += 1;
                        let latency = now.saturating_duration_since(slot.sent).as_nanos();
                        measured.latency_ns.saturating_record(latency.try_into().unwrap_or(u64::MAX));
                    }
                    (number, Some(packet_id))
                }
                packet => bail!("unexpected: {packet:?}"),
            };
            connection.consume(length);
            if let Some(packet_id) = packet_id {
                connection.acknowledge(packet_id);
            }
            // A packet identifier is free again only when its PUBACK has come (section 2.2.1).
            if slots[number].acknowledged && slots[number].answered {
                free.push(number);
            }
        }
        Ok(())
    }
}

impl Lane {
    fn open(address: SocketAddr, load: &Load<'_>, client: &str) -> Result<Lane> {
        let connection = Connection::open_from(load.source, address, client, ANSWERS)?;
        let slot = |number: u16| Slot {
            id_at: None,
            request: connection.request(load.request, number),
            sent: Instant::now(),
            acknowledged: true,
            answered: true,
        };
        let mut slots: Vec<Slot> = (0..load.in_flight).map(slot).collect();
        for slot in &mut slots {
            slot.id_at = slot.request.windows(ID_PLACE.len()).position(|window| window == ID_PLACE);
        }
        let free = (0..slots.len()).rev().collect();
        Ok(Lane { connection, slots, free })
    }

    /// `false` if as many as may be are in flight.
    fn send(&mut self, at: Instant) -> bool {
        let Some(number) = self.free.pop() else { return false };
        let slot = &mut self.slots[number];
        (slot.sent, slot.acknowledged, slot.answered) = (at, false, false);
        if let Some(at) = slot.id_at {
            let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
            let digits = format!("{id:0width$}", width = ID_PLACE.len());
            slot.request[at..at + ID_PLACE.len()].copy_from_slice(digits.as_bytes());
        }
        self.connection.queue(&slot.request);
        true
    }

    fn is_idle(&self) -> bool {
        self.free.len() == self.slots.len()
    }
}

fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
