//! One attack on one gateway: a time without it, the attack, and a time after it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::runtime::Builder;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::arena::Arena;
use crate::attacks::Attack;
use crate::bystander::{Bystander, Outcome, Request};
use crate::memory::{MemoryWatch, resident};
use crate::priority;
use crate::stage::{Door, PasswordHash, Stage};
use crate::visitor::{Visit, Visitors};

/// Threads of the abusers: they are to keep the gateway busy, not the machine.
const ABUSER_THREADS: usize = 2;

/// Between two looks at what goes on.
const POLL: Duration = Duration::from_millis(20);

/// The gateway has so long to give memory back.
pub const GIVES_BACK_IN: Duration = Duration::from_secs(10);

/// Longest wait for answers once the attack is over.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long each part takes, and whether the attack is as large as it can be.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Without the attack, first.
    pub alone: Duration,
    pub attack: Duration,
    /// Without the attack, afterwards.
    pub after: Duration,
    pub full: bool,
}

/// What was seen.
pub struct Trial {
    pub alone: Latencies,
    pub during: Latencies,
    pub after: Latencies,
    pub visits_alone: Visits,
    pub visits: Visits,
    pub memory: Memory,
    /// Bytes that the gateway logged from the attack's begin on.
    pub log_bytes: u64,
    /// How the gateway ended, if it did.
    pub ended: Option<String>,
    pub strikes: u64,
    pub refusals: u64,
    /// What must not happen, as the abusers themselves or the watchers saw it.
    pub findings: Vec<String>,
    pub took: Duration,
}

/// The bystander's requests of one part.
pub struct Latencies {
    /// From due time to answer, the shortest first. What was never answered stands with the time that was waited.
    sorted: Vec<Duration>,
    pub unanswered: usize,
    pub wrong: usize,
    pub first_wrong: Option<String>,
}

/// The visitors of one part.
pub struct Visits {
    pub longest: Duration,
    pub count: usize,
    pub failed: usize,
    pub first_failure: Option<String>,
}

/// The gateway's resident memory, in bytes.
pub struct Memory {
    pub before: u64,
    pub peak: u64,
    /// Least within the time to give it back.
    pub given_back_to: u64,
    pub children_peak: u64,
    pub halted: bool,
}

/// Attacks, watches, and tells what was seen.
pub async fn run(attack: &Attack, stage: &mut Stage, hash: &PasswordHash, plan: Plan) -> Result<Trial> {
    let process = stage.gateway.id()?;
    let named = stage.door == Door::Passwords;
    let bystander = block_in_place(|| Bystander::start(stage.address, stage.bystander()))?;
    // How long they wait is judged in full only.
    let visitors = plan.full.then(|| Visitors::start(stage.address, named, attack.errand)).transpose()?;
    sleep(plan.alone).await;

    let (before, log_before) =
        (resident(process).context("the gateway is gone")?, stage.gateway.log_bytes()?);
    let latecomer = ("latecomer".to_owned(), hash.line("latecomer"));
    let arena = Arc::new(Arena::new(stage, latecomer, plan.full, plan.attack));
    let memory = MemoryWatch::start(process, before, arena.clone())?;
    let began = Instant::now();
    let abusers = Builder::new_multi_thread()
        .worker_threads(ABUSER_THREADS)
        .enable_all()
        .thread_name("abuser")
        .on_thread_start(priority::lower)
        .build()?;
    let abuse = abusers.spawn((attack.run)(arena.clone()));
    // One that has done all that it can leaves the rest of the time to what it did.
    arena.hold().await;
    let gave_up = if abuse.is_finished() { abuse.await?.err() } else { None };
    let over = Instant::now();
    // Every connection of theirs ends with this, whatever it waits for.
    abusers.shutdown_background();

    let visits = visitors.map_or(Ok(Vec::new()), |visitors| block_in_place(|| visitors.stop()))?;
    let after = over + plan.after;
    while Instant::now() < after || !(bystander.is_answered() || over.elapsed() > PATIENCE) {
        if stage.gateway.ended()?.is_some() {
            break;
        }
        sleep(POLL).await;
    }
    let alive = stage.gateway.ended()?.is_none();
    let patience = if alive { PATIENCE.saturating_sub(over.elapsed()) } else { Duration::ZERO };
    let requests = block_in_place(|| bystander.stop(patience))?;
    let end = Instant::now();
    let seen = block_in_place(|| memory.stop())?;
    let (strikes, refusals) = arena.counts();
    let mut findings = arena.findings();
    if let Some(error) = gave_up.filter(|_| strikes + refusals == 0) {
        findings.push(format!("the attack itself failed: {error}"));
    }
    Ok(Trial {
        alone: Latencies::of(&requests, began - plan.alone, began, end),
        during: Latencies::of(&requests, began, over, end),
        after: Latencies::of(&requests, over, end, end),
        visits_alone: Visits::of(visits.iter().filter(|visit| visit.began < began)),
        visits: Visits::of(visits.iter().filter(|visit| visit.began >= began)),
        memory: Memory {
            before,
            peak: seen.peak(),
            given_back_to: seen.least_between(over, over + GIVES_BACK_IN).unwrap_or(0),
            children_peak: seen.children_peak,
            halted: seen.halted,
        },
        log_bytes: stage.gateway.log_bytes()? - log_before,
        ended: stage.gateway.ended()?.map(|status| status.to_string()),
        strikes,
        refusals,
        findings,
        took: began.elapsed() + plan.alone,
    })
}

impl Latencies {
    fn of(requests: &[Request], from: Instant, to: Instant, end: Instant) -> Latencies {
        let mut part = Latencies { sorted: Vec::new(), unanswered: 0, wrong: 0, first_wrong: None };
        for request in requests.iter().filter(|request| request.due >= from && request.due < to) {
            match &request.outcome {
                Outcome::Ok(took) => part.sorted.push(*took),
                Outcome::Unanswered => {
                    part.unanswered += 1;
                    part.sorted.push(end.saturating_duration_since(request.due));
                }
                Outcome::Wrong(why) => {
                    part.wrong += 1;
                    part.first_wrong.get_or_insert_with(|| why.clone());
                }
            }
        }
        part.sorted.sort_unstable();
        part
    }

    pub fn count(&self) -> usize {
        self.sorted.len() + self.wrong
    }

    pub fn percentile(&self, percent: usize) -> Duration {
        self.sorted.get(self.sorted.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
    }
}

impl Visits {
    fn of<'a>(all: impl Iterator<Item = &'a Visit>) -> Visits {
        let mut part = Visits { longest: Duration::ZERO, count: 0, failed: 0, first_failure: None };
        for visit in all {
            part.count += 1;
            part.longest = part.longest.max(visit.took);
            if let Some(why) = &visit.failure {
                part.failed += 1;
                part.first_failure.get_or_insert_with(|| why.clone());
            }
        }
        part
    }
}
