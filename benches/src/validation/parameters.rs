//! What the simulated side is told of the machine and of the system, measured on a gateway that does nothing else.

use super::deployment::{Deployment, Kind};
use super::programs::sleeps;
use crate::load::{self, Connection, LOOPBACK, Load, Request};
use crate::request;
use anyhow::{Result, anyhow};
use offload_rt::scheduling;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// Requests that are measured of a program that does nothing, and messages to oneself.
const MANY: usize = 300;

/// What one program is measured for.
const TIME: Duration = Duration::from_secs(2);

/// Clients that are measured at once with a program that sleeps: it takes nothing of the others, and their 99th
/// percentile wants hundreds of runs.
const SLEEPERS: usize = 4;

/// Requests that are measured of a program at the least.
const FEW: usize = 8;

/// Requests before those that are measured: they have modules loaded, and the history of a program filled.
const WARM_UP: usize = 20;

/// The gateway's `workers.slice`, by default.
const SLICE: Duration = Duration::from_micros(500);

/// Bytes of a message to oneself.
const MESSAGE: usize = 64;

/// See the module's documentation.
pub struct Parameters {
    /// What a packet takes one way at the least, and in the mean beyond that.
    pub link: (Duration, Duration),
    /// What the gateway takes for each request before it may run.
    pub ingress: Duration,
    /// What the worker takes for each beside its guest, where it does not sleep meanwhile.
    pub overhead: Duration,
    /// From one tick of the gateway's clock, which ends slices, to the next.
    pub tick: Duration,
    /// The run of a program that does nothing.
    pub nothing: Duration,
    /// How long each program ran, each time.
    pub runs: BTreeMap<&'static str, Vec<Duration>>,
}

/// One request: until its answer, in its guest, and before that in the queue.
#[derive(Clone, Copy)]
struct Asked {
    whole: Duration,
    run: Duration,
    queued: Duration,
}

impl Parameters {
    /// Of these programs.
    pub fn measure(deployment: &Deployment, programs: &[&'static str]) -> Result<Parameters> {
        let address = deployment.address()?;
        let mut connection = Connection::open(address, "probe")?;
        let nothing =
            ask(&mut connection, &deployment.request_in_envelope("empty"), |count, _| count < MANY)?;
        let run = median(nothing.iter().map(|asked| asked.run));
        let (ways, ingress, overhead) = match deployment.kind() {
            Kind::One | Kind::FewSlots => {
                let echoes = echoes(address)?;
                let echo = median(echoes.iter().copied());
                let ingress = median(nothing.iter().map(|asked| asked.queued));
                let whole = median(nothing.iter().map(|asked| asked.whole));
                let overhead = between_answers(address, &deployment.request("empty"))?;
                // The rest is how long a thread takes to wake, which holds up nobody else.
                let wake = whole.saturating_sub(echo + ingress + run + overhead);
                (echoes.into_iter().map(|echo| echo + wake).collect(), ingress, overhead)
            }
            // What is on the way there and back cannot be told apart, and nothing of it is scarce.
            Kind::Nats | Kind::Sites => {
                let ways = nothing.iter().map(|asked| asked.whole.saturating_sub(asked.run));
                (ways.collect(), Duration::ZERO, Duration::ZERO)
            }
        };
        let mut runs = BTreeMap::new();
        for name in programs.iter().copied() {
            let request = deployment.request_in_envelope(name);
            let at_once = if sleeps(name) { SLEEPERS } else { 1 };
            runs.insert(name, runs_of(address, &request, at_once)?);
        }
        connection.close()?;
        Ok(Parameters { link: one_way(ways), ingress, overhead, tick: tick(), nothing: run, runs })
    }

    /// The mean run of a program.
    pub fn mean(&self, program: &str) -> Duration {
        mean(&self.runs[program])
    }
}

/// What was measured in all runs, for people: means over these.
pub fn describe(kind: Kind, all: &[Parameters]) -> String {
    let mean_of = |of: &dyn Fn(&Parameters) -> Duration| {
        format!("{} µs", mean(&all.iter().map(of).collect::<Vec<_>>()).as_micros())
    };
    let names = all.first().into_iter().flat_map(|of| of.runs.keys());
    let runs = names.map(|name| format!("`{name}` {}", mean_of(&|of| of.mean(name))));
    let link = match kind {
        Kind::One | Kind::FewSlots => "a message to oneself and of waking a worker",
        Kind::Nats | Kind::Sites => "an empty program, without its run",
    };
    format!(
        "{}: one way {} and {} more in the mean, half of {link}; `ingress` {} by an empty program, which ran {}, \
         `overhead` {} by many of them at once; `slice`, by a thread that sleeps as the ticker does, {}; runs on an idle \
         gateway in the mean: {}.",
        kind.describe(),
        mean_of(&|of| of.link.0),
        mean_of(&|of| of.link.1),
        mean_of(&|of| of.ingress),
        mean_of(&|of| of.nothing),
        mean_of(&|of| of.overhead),
        mean_of(&|of| of.tick),
        runs.collect::<Vec<_>>().join(", "),
    )
}

/// How long a program ran, each time that one of these clients asked for it: all at once, one request after the other.
fn runs_of(address: SocketAddr, request: &Request, clients: usize) -> Result<Vec<Duration>> {
    let of_client = |client: usize| {
        let mut connection = Connection::open(address, &format!("probe-{client}"))?;
        let asked = ask(&mut connection, request, |count, since| count < FEW || since < TIME)?;
        connection.close()?;
        Ok(asked.into_iter().map(|asked| asked.run).collect::<Vec<_>>())
    };
    let of_clients: Vec<Result<_>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|client| scope.spawn(move || of_client(client))).collect();
        let joined = clients.into_iter().map(|client| client.join());
        joined.map(|runs| runs.unwrap_or_else(|_| Err(anyhow!("a client has panicked")))).collect()
    });
    of_clients.into_iter().collect::<Result<Vec<_>>>().map(|runs| runs.concat())
}

/// Asks one request after the other, as long as it is told to go on.
fn ask(
    connection: &mut Connection,
    request: &Request,
    goes_on: impl Fn(usize, Duration) -> bool,
) -> Result<Vec<Asked>> {
    let mut all = Vec::new();
    for _ in 0..FEW {
        request::times(&connection.ask(request)?)?;
    }
    let begin = Instant::now();
    while goes_on(all.len(), begin.elapsed()) {
        let sent = Instant::now();
        let answer = connection.ask(request)?;
        let whole = sent.elapsed();
        let (run, queued) = request::times(&answer)?;
        all.push(Asked { whole, run, queued });
    }
    Ok(all)
}

/// How long messages to oneself take through the gateway's broker.
fn echoes(address: SocketAddr) -> Result<Vec<Duration>> {
    let mut connection = Connection::open_from(LOOPBACK, address, "probe-echo", "echo")?;
    let message = Request { topic: "echo", payload: vec![b'.'; MESSAGE], answer: Vec::new() };
    let mut all = Vec::new();
    for number in 0..WARM_UP + MANY {
        let sent = Instant::now();
        connection.ask(&message)?;
        if number >= WARM_UP {
            all.push(sent.elapsed());
        }
    }
    connection.close()?;
    Ok(all)
}

/// From one answer to the next, where enough ask for a program at once that no thread sleeps.
fn between_answers(address: SocketAddr, program: &Request) -> Result<Duration> {
    let measured = load::run(address, &Load::closed(program, load::MAX_IN_FLIGHT, TIME))?;
    Ok(Duration::from_secs_f64(1.0 / measured.requests_per_second()))
}

/// How long a thread sleeps that asks for a slice, as the gateway's ticker does.
fn tick() -> Duration {
    let ticker = thread::spawn(|| {
        scheduling::short_slices();
        let sleeps = (0..MANY).map(|_| {
            let begin = Instant::now();
            thread::sleep(SLICE);
            begin.elapsed()
        });
        median(sleeps)
    });
    ticker.join().unwrap_or(SLICE)
}

/// Half of a way there and back: the least, and what is more in the mean. The few that another process has held up are
/// left out.
fn one_way(mut ways: Vec<Duration>) -> (Duration, Duration) {
    ways.sort_unstable();
    ways.truncate(ways.len() * 99 / 100);
    let least = ways.first().copied().unwrap_or_default();
    (least / 2, (mean(&ways) - least) / 2)
}

fn mean(times: &[Duration]) -> Duration {
    times.iter().sum::<Duration>() / times.len().max(1) as u32
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
