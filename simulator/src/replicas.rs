//! Replicas of a scenario, each with a seed of its own and in shards that share nothing, on as many threads as there
//! are cores. What comes out does not depend on how many these are.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use crate::clock::Nanos;
use crate::random::Stream;
use crate::scenario::Scenario;
use crate::world::shard::Shard;
use crate::world::trace::Trace;
use crate::world::{Observation, World};

/// Events after which a replica tells how far it is.
const PACE: u64 = 1 << 17;

/// Steps in which a shard's progress is counted.
const STEPS: u64 = 1 << 20;

/// What is told of replicas while they run.
pub trait Watcher: Sync {
    /// A replica has come to this time. Where it returns false, all end.
    fn at(&self, replica: usize, now: Nanos) -> bool;
}

/// Whoever does not watch.
pub struct Unwatched;

impl Watcher for Unwatched {
    fn at(&self, _: usize, _: Nanos) -> bool {
        true
    }
}

/// Runs replicas; the steps of the first one's requests go into `trace`.
pub fn run<'s>(
    scenario: &'s Scenario,
    seed: u64,
    count: usize,
    trace: Option<Trace<'s>>,
    watcher: &dyn Watcher,
) -> Vec<Observation> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    run_on(threads, scenario, seed, count, trace, watcher)
}

/// The same on this many threads, which it does not depend on.
pub fn run_on<'s>(
    threads: usize,
    scenario: &'s Scenario,
    seed: u64,
    count: usize,
    trace: Option<Trace<'s>>,
    watcher: &dyn Watcher,
) -> Vec<Observation> {
    // The steps of a trace are in the order of their times only where the world is one.
    let shards = |replica| {
        let is_traced = replica == 0 && trace.is_some();
        if is_traced { vec![Shard::whole(scenario)] } else { Shard::all(scenario) }
    };
    let replicas: Vec<Replica> = (0..count).map(|at| Replica::new(scenario, shards(at))).collect();
    let pieces =
        replicas.iter().enumerate().flat_map(|(at, of)| of.shards.iter().map(move |shard| (at, shard)));
    let pieces: Vec<(usize, &Shard)> = pieces.collect();
    let (next, trace) = (AtomicUsize::new(0), Mutex::new(trace));
    let work = || {
        while let Some((at, shard)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut world = World::of(scenario, seed_of(seed, *at), (*shard).clone());
            if *at == 0
                && let Some(trace) = trace.lock().ok().and_then(|mut trace| trace.take())
            {
                world.set_trace(trace);
            }
            let replica = &replicas[*at];
            let mut before = 0;
            world.run(scenario.duration, PACE, |now| {
                watcher.at(*at, replica.advance(shard, std::mem::replace(&mut before, now), now))
            });
            watcher.at(*at, replica.advance(shard, before, scenario.duration));
            let of = world.observe();
            replica.observation.lock().expect("nobody panics with it").add(scenario, shard, of);
        }
    };
    thread::scope(|scope| {
        (1..threads.min(pieces.len())).for_each(|_| {
            scope.spawn(work);
        });
        work();
    });
    let observation = |of: Replica| of.observation.into_inner().expect("nobody panics with it");
    replicas.into_iter().map(observation).collect()
}

/// A replica that runs, in shards.
struct Replica {
    shards: Vec<Shard>,
    duration: Nanos,
    /// What its shards have done of the duration, in [`STEPS`], each as often as it has devices.
    advanced: AtomicU64,
    weight: u64,
    observation: Mutex<Observation>,
}

impl Replica {
    fn new(scenario: &Scenario, shards: Vec<Shard>) -> Self {
        let weight = shards.iter().map(weight).sum();
        let observation = Mutex::new(Observation::empty(scenario));
        Self { shards, duration: scenario.duration, advanced: AtomicU64::new(0), weight, observation }
    }

    /// A shard has gone on from one time to another; how far all shards are in the mean.
    fn advance(&self, shard: &Shard, from: Nanos, to: Nanos) -> Nanos {
        let duration = u128::from(self.duration.max(1));
        let steps = |time: Nanos| (u128::from(time) * u128::from(STEPS) / duration) as u64;
        let more = (steps(to) - steps(from)) * weight(shard);
        let advanced = self.advanced.fetch_add(more, Ordering::Relaxed) + more;
        (u128::from(advanced) * duration / u128::from(self.weight * STEPS)) as Nanos
    }
}

/// Who has no devices has something to do, too.
fn weight(shard: &Shard) -> u64 {
    shard.devices() as u64 + 1
}

/// The seed of a replica: two scenarios have the same ones, so that their replicas can be compared in pairs.
pub fn seed_of(seed: u64, replica: usize) -> u64 {
    Stream::new(seed, "replica", replica as u64).bits()
}
