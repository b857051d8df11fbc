//! What goes wrong with gateways, and what has become of them.

use super::shard::Shard;
use crate::clock::Nanos;
use crate::random::Stream;
use crate::scenario::{Failure, FailureKind, Scenario, Schedule, Target};

/// One of a scenario's failures, at one of what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// The failure's number in the scenario.
    failure: u32,
    /// The number of the gateway, kind of devices, site or master.
    pub target: u32,
    /// Seeds its moments: a stream would be larger than all other events.
    seed: u32,
}

/// The failures of a scenario, at each of what they are for in a shard.
pub fn troubles(scenario: &Scenario, seed: u64, shard: &Shard, first_gateways: &[u32]) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    for (number, failure) in scenario.failures.iter().enumerate() {
        // Each has its number in the world, and in the scenario.
        let targets: Vec<(u32, u32)> = match failure.target {
            Target::Gateways { group, number } => {
                let before: usize = scenario.gateways[..group].iter().map(|group| group.count).sum();
                let range = shard.gateways(group);
                let first = range.start;
                let of = range.filter(|at| number.is_none_or(|number| number == *at));
                of.map(|at| (first_gateways[group] + (at - first) as u32, (before + at) as u32)).collect()
            }
            Target::Devices(one) | Target::Site(one) | Target::Master(one) => vec![(one as u32, one as u32)],
        };
        troubles.extend(targets.into_iter().map(|(target, entity)| {
            let entity = (number as u64) << 32 | u64::from(entity);
            let seed = Stream::new(seed, "failure", entity).bits() as u32;
            Trouble { failure: number as u32, target, seed }
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

    /// With what.
    pub fn target(self, scenario: &Scenario) -> Target {
        self.of(scenario).target
    }

    /// Whether each shard has it: it is of what the devices of all of them share.
    pub fn is_shared(self, scenario: &Scenario) -> bool {
        matches!(self.target(scenario), Target::Devices(_))
    }

    /// How long it lasts.
    pub fn lasts(self, scenario: &Scenario) -> Nanos {
        self.of(scenario).lasts
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
    /// How far ahead its clock is, in nanoseconds.
    pub skew: i64,
}

/// How much longer something takes, while any number of failures at once say so: each makes it slower by its factor.
#[derive(Clone, Debug, Default)]
pub struct Slowness {
    factors: Vec<f64>,
}

impl Slowness {
    /// One begins.
    pub fn begin(&mut self, factor: f64) {
        self.factors.push(factor);
    }

    /// One is over; the others go on.
    pub fn end(&mut self, factor: f64) {
        if let Some(at) = self.factors.iter().position(|of| *of == factor) {
            self.factors.remove(at);
        }
    }

    /// How many times as long it takes now.
    pub fn factor(&self) -> f64 {
        self.factors.iter().product()
    }
}

/// What has become of the devices of one kind.
#[derive(Clone, Debug, Default)]
pub struct GroupCondition {
    cuts: u16,
    /// How far ahead their clocks are, in nanoseconds.
    pub skew: i64,
    /// Packets of QoS 1 that wait for their link, and when the first came.
    pub(super) parked: Vec<(super::Parked, Nanos)>,
}

impl GroupCondition {
    /// Whether nothing passes by their link.
    pub fn is_cut(&self) -> bool {
        self.cuts > 0
    }

    /// Something goes wrong.
    pub fn begin(&mut self, kind: FailureKind) {
        match kind {
            FailureKind::Link => self.cuts += 1,
            FailureKind::Clock(skew) => self.skew += skew,
            _ => {}
        }
    }

    /// It is over.
    pub fn end(&mut self, kind: FailureKind) {
        match kind {
            FailureKind::Link => self.cuts -= 1,
            FailureKind::Clock(skew) => self.skew -= skew,
            _ => {}
        }
    }
}

impl Condition {
    /// Whether the process that runs is this one of its.
    pub fn runs(self, incarnation: u16) -> bool {
        !self.is_down && self.incarnation == incarnation
    }

    /// Whether devices can reach it.
    pub fn is_reachable(self) -> bool {
        !self.is_down && self.partitions == 0
    }

    /// Whether nothing passes between it and all others.
    pub fn is_cut_off(self) -> bool {
        self.partitions > 0
    }

    /// Whether a broker hands out requests to it.
    pub fn takes(self) -> bool {
        self.is_reachable() && self.pause.is_none()
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
            FailureKind::Clock(skew) => self.skew += skew,
            _ => {}
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
            FailureKind::Clock(skew) => self.skew -= skew,
            _ => {}
        }
        self.is_down = self.crashes > 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_overlap_end_each_by_itself() {
        let mut slowness = Slowness::default();
        slowness.begin(4.0);
        slowness.begin(3.0);
        assert_eq!(slowness.factor(), 12.0);
        slowness.end(4.0);
        assert_eq!(slowness.factor(), 3.0, "the other one goes on");
        slowness.end(3.0);
        assert_eq!(slowness.factor(), 1.0);

        let mut condition = Condition::default();
        for (kind, until) in [
            (FailureKind::Pause, 9),
            (FailureKind::Pause, 5),
            (FailureKind::Crash, 9),
            (FailureKind::Crash, 5),
            (FailureKind::Partition, 9),
            (FailureKind::Partition, 5),
            (FailureKind::Clock(7), 9),
            (FailureKind::Clock(-2), 5),
        ] {
            condition.begin(kind, until);
        }
        let shorter =
            [FailureKind::Pause, FailureKind::Crash, FailureKind::Partition, FailureKind::Clock(-2)];
        shorter.into_iter().for_each(|kind| condition.end(kind, 5));
        let Condition { pause, is_down, skew, .. } = condition;
        assert_eq!((pause, is_down, condition.is_cut_off(), skew), (Some(9), true, true, 7));
        let longer = [FailureKind::Pause, FailureKind::Crash, FailureKind::Partition, FailureKind::Clock(7)];
        longer.into_iter().for_each(|kind| condition.end(kind, 9));
        assert!(condition.takes());
        assert_eq!(condition.skew, 0);
    }
}
