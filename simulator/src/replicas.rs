//! Replicas of a scenario, each with a seed of its own, on as many threads as there are cores. What comes out does not
//! depend on how many these are.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::clock::Nanos;
use crate::random::Stream;
use crate::scenario::Scenario;
use crate::world::trace::Trace;
use crate::world::{Observation, World};

/// Events after which a replica tells how far it is.
const PACE: u64 = 1 << 17;

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
    let next = AtomicUsize::new(0);
    let trace = Mutex::new(trace);
    let observations = Mutex::new(Vec::new());
    let work = || {
        loop {
            let replica = next.fetch_add(1, Ordering::Relaxed);
            if replica >= count {
                return;
            }
            let mut world = World::new(scenario, seed_of(seed, replica));
            if replica == 0
                && let Some(trace) = trace.lock().ok().and_then(|mut trace| trace.take())
            {
                world.set_trace(trace);
            }
            world.run(scenario.duration, PACE, |now| watcher.at(replica, now));
            let observation = world.observe();
            observations.lock().expect("nobody panics with it").push((replica, observation));
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(count);
    thread::scope(|scope| {
        (1..threads).for_each(|_| {
            scope.spawn(work);
        });
        work();
    });
    let mut observations = observations.into_inner().expect("nobody panics with it");
    observations.sort_by_key(|(replica, _)| *replica);
    observations.into_iter().map(|(_, observation)| observation).collect()
}

/// The seed of a replica: two scenarios have the same ones, so that their replicas can be compared in pairs.
pub fn seed_of(seed: u64, replica: usize) -> u64 {
    Stream::new(seed, "replica", replica as u64).bits()
}
