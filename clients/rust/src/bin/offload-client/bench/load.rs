//! The load itself: connections, and those who send on them.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use offload_client::{Client, Error, Options, Request};
use tokio::task::JoinSet;

use super::live;
use super::schedule::{Extent, Schedule};
use super::tally::{Tally, Verdict};
use crate::failure::Failure;
use crate::interrupt::interrupted;
use crate::progress::shown;

/// What ctrl-c has left to sum up.
const NOTHING_MEASURED: &str = "nothing was measured";

/// What is asked for.
pub struct Plan {
    /// Requests a second; without it the loop is closed.
    pub rate: Option<u32>,
    /// Requests in flight: in a closed loop always this number, in an open one at most. At least `connections`.
    pub concurrency: u16,
    pub connections: u16,
    pub warm_up: Duration,
    pub extent: Extent,
    /// A request without an answer after this time is lost.
    pub timeout: Duration,
}

/// What came of it.
pub struct Measurement {
    pub tally: Tally,
    /// What was measured, in time: as long as planned, or to the last answer if that came later.
    pub elapsed: Duration,
    /// Requests that were due and could not be sent.
    pub unsent: u64,
    pub interrupted: bool,
    /// Why it ended before its time, other than by ctrl-c.
    pub over: Option<Error>,
}

/// What the senders share.
struct Load {
    request: Request,
    schedule: Schedule,
    tally: Mutex<Tally>,
}

impl Load {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // No code that holds it can panic half-way through a change.
        self.tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Sends what the plan says. Fails when there is nothing to measure: a connection cannot be made, its first request
/// goes wrong, or ctrl-c comes before any request that counts has ended.
pub async fn run(plan: &Plan, options: Options, request: Request) -> Result<Measurement, Failure> {
    let mut interrupted = pin!(interrupted());
    let mut clients = Vec::new();
    let waiting_for = format!("connecting to {}:{}", options.host, options.port);
    let connected = tokio::select! {
        connected = shown(waiting_for, |_| connect(plan, &options, &request, &mut clients)) => connected,
        () = &mut interrupted => Err(Failure::interrupted(NOTHING_MEASURED)),
    };
    let measurement = match connected {
        Ok(()) => measure(plan, request, &clients, interrupted).await,
        Err(failure) => Err(failure),
    };
    let mut farewells = JoinSet::new();
    for client in clients.into_iter().filter_map(Arc::into_inner) {
        farewells.spawn(client.disconnect());
    }
    farewells.join_all().await;
    measurement
}

/// Makes the connections. The first request of each goes alone: what is wrong with it is said once instead of counted
/// many times, and a gateway that does not have the module yet gets it once.
async fn connect(
    plan: &Plan,
    options: &Options,
    request: &Request,
    clients: &mut Vec<Arc<Client>>,
) -> Result<(), Failure> {
    for number in 1..=plan.connections {
        let mut options = Options {
            answer_timeout: plan.timeout,
            max_in_flight: plan.concurrency.div_ceil(plan.connections),
            ..options.clone()
        };
        if number > 1 {
            options.client_id = format!("{}-{number}", options.client_id);
        }
        let client = Client::connect(options).await?;
        let answer = client.send(request.clone()).await;
        clients.push(Arc::new(client));
        match Verdict::from(answer) {
            Verdict::Right(_) => {}
            Verdict::Wrong { kind, message } => return Err(Failure::new(kind, message)),
            Verdict::Lost(message) => return Err(Failure::new("timeout", message)),
            Verdict::Over(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn measure(
    plan: &Plan,
    request: Request,
    clients: &[Arc<Client>],
    interrupted: impl Future<Output = ()>,
) -> Result<Measurement, Failure> {
    let schedule = match plan.rate {
        Some(rate) => Schedule::open(rate, plan.warm_up, plan.extent, plan.timeout),
        None => Schedule::closed(plan.warm_up, plan.extent),
    };
    let load = Arc::new(Load { request, schedule, tally: Mutex::new(Tally::new()) });
    let mut senders = JoinSet::new();
    for client in clients.iter().cycle().take(plan.concurrency.into()) {
        senders.spawn(send(load.clone(), client.clone()));
    }
    let mut over = None;
    let was_interrupted = tokio::select! {
        () = async {
            while let Some(ended) = senders.join_next().await {
                if let Err(error) = ended.expect("a sender does not panic") {
                    load.schedule.stop();
                    over.get_or_insert(error);
                }
            }
        } => false,
        never = live::show(&load.schedule, || load.tally()) => match never {},
        () = interrupted => true,
    };
    let now = Instant::now();
    // What is in flight after ctrl-c is no longer waited for.
    senders.shutdown().await;
    let load = Arc::into_inner(load).expect("the senders have ended");
    let tally = load.tally.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let begin = load.schedule.begin();
    if was_interrupted && !tally.has_ended() {
        return Err(Failure::interrupted(NOTHING_MEASURED));
    }
    let to_last_answer = tally.last_answer.map_or(Duration::ZERO, |last| last - begin);
    let planned = load.schedule.planned().unwrap_or_default();
    let ended_early = was_interrupted || over.is_some();
    let window = if ended_early { planned.min(now.saturating_duration_since(begin)) } else { planned };
    let elapsed = window.max(to_last_answer);
    let unsent = load.schedule.untaken(now);
    Ok(Measurement { tally, elapsed, unsent, interrupted: was_interrupted, over })
}

/// Sends one request after the other.
async fn send(load: Arc<Load>, client: Arc<Client>) -> Result<(), Error> {
    while let Some(request) = load.schedule.next().await {
        if request.measured {
            load.tally().sent(request.due, Instant::now());
        }
        let verdict = Verdict::from(client.send(load.request.clone()).await);
        let now = Instant::now();
        match verdict {
            verdict if request.measured => load.tally().ended(request.due, now, verdict)?,
            Verdict::Over(error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
