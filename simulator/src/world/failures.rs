//! What goes wrong with gateways, and what has become of them.

use super::shard::Shard;
use crate::clock::Nanos;
use crate::random::Stream;
use crate::scenario::{Failure, FailureKind, Scenario, Schedule};

/// One of a scenario's failures at one gateway.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// The failure's number in the scenario.
    failure: u32,
    /// The gateway.
    pub gateway: u32,
    /// Seeds its moments: a stream would be larger than all other events.
    seed: u32,
}

/// The failures of a scenario, at each gateway of a shard that they are for.
pub fn troubles(scenario: &Scenario, seed: u64, shard: &Shard, first_gateways: &[u32]) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    for (number, failure) in scenario.failures.iter().enumerate() {
        let before: usize = scenario.gateways[..failure.gateway].iter().map(|group| group.count).sum();
        let range = shard.gateways(failure.gateway);
        let first = range.start;
        let of = range.filter(|at| failure.number.is_none_or(|number| number == *at));
        troubles.extend(of.map(|at| {
            let gateway = first_gateways[failure.gateway] + (at - first) as u32;
            let entity = (number as u64) << 32 | (before + at) as u64;
            let seed = Stream::new(seed, "failure", entity).bits() as u32;
            Trouble { failure: number as u32, gateway, seed }
        }));
    }
    troubles
}

impl Trouble {
    /// When it comes first.
    pub fn first(&mut self, scenario: &Scenario) -> Nanos {
        match self.of(scenario).schedule {
            Schedule::At(at) => at,
            Schedule::Random(_) => self.next(scenario, 0).unwrap_or(Nanos::MAX),
        }
    }

    /// When it comes again after `now`, if it does.
    pub fn next(&mut self, scenario: &Scenario, now: Nanos) -> Option<Nanos> {
        match self.of(scenario).schedule {
            Schedule::At(_) => None,
            Schedule::Random(mean) => {
                let mut random = Stream::new(u64::from(self.seed), "trouble", now);
                self.seed = random.bits() as u32;
                Some(now.saturating_add(random.exponential_time(mean)))
            }
        }
    }

    /// What goes wrong.
    pub fn kind(self, scenario: &Scenario) -> FailureKind {
        self.of(scenario).kind
    }

    /// How long it lasts.
    pub fn lasts(self, scenario: &Scenario) -> Nanos {
        self.of(scenario).lasts
    }

    /// Whether the process ends.
    pub fn is_crash(self, scenario: &Scenario) -> bool {
        self.kind(scenario) == FailureKind::Crash
    }

    /// How many times as long everything takes.
    pub fn slowness(self, scenario: &Scenario) -> f64 {
        match self.kind(scenario) {
            FailureKind::Slow(factor) => factor,
            _ => 1.0,
        }
    }

    fn of(self, scenario: &Scenario) -> &Failure {
        &scenario.failures[self.failure as usize]
    }
}

/// What has become of a gateway.
#[derive(Clone, Copy, Debug, Default)]
pub struct Condition {
    /// Counts its processes, so that what was scheduled for one does not come to the next.
    pub incarnation: u16,
    /// Whether there is no process: crashes that last, of which several may at once.
    pub is_down: bool,
    crashes: u16,
    partitions: u16,
    /// Until when it is stopped.
    pub pause: Option<Nanos>,
}

impl Condition {
    /// Whether devices can reach it.
    pub fn is_reachable(self) -> bool {
        !self.is_down && self.partitions == 0
    }

    /// Something goes wrong, until then.
    pub fn begin(&mut self, kind: FailureKind, until: Nanos) {
        match kind {
            FailureKind::Crash => {
                self.incarnation = self.incarnation.wrapping_add(1);
                self.crashes += 1;
            }
            FailureKind::Partition => self.partitions += 1,
            FailureKind::Pause => self.pause = self.pause.max(Some(until)),
            FailureKind::Slow(_) => {}
        }
        self.is_down = self.crashes > 0;
    }

    /// It is over.
    pub fn end(&mut self, kind: FailureKind, now: Nanos) {
        match kind {
            FailureKind::Crash => self.crashes -= 1,
            FailureKind::Partition => self.partitions -= 1,
            // Another pause may last longer.
            FailureKind::Pause => self.pause = self.pause.filter(|until| *until > now),
            FailureKind::Slow(_) => {}
        }
        self.is_down = self.crashes > 0;
    }
}
