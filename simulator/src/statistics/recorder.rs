//! What happens in a run, by intervals of equal length: what is warm-up is known only afterwards.

use super::histogram::Histogram;
use crate::clock::Nanos;
use crate::model::Outcome;

/// Intervals of a run.
pub const INTERVALS: usize = 200;

/// Devices of one kind in one interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupSample {
    /// Requests that were made.
    pub made: u64,
    /// Requests that were sent again.
    pub again: u64,
    /// What became of requests, by the number of the outcome.
    pub outcomes: [u64; Outcome::ALL.len()],
    /// From a request's making to its answer, where it was run.
    pub latency: Histogram,
}

/// One gateway in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GatewaySample {
    /// The time that its workers have run guests, of all together.
    pub busy: Nanos,
    /// Requests that wait at the interval's end.
    pub waiting: u32,
    /// Guests that hold a slot then.
    pub running: u32,
    /// Whether devices can reach it then.
    pub is_reachable: bool,
}

/// Records a run.
#[derive(Clone, Debug)]
pub struct Recorder {
    /// How long an interval is.
    interval: Nanos,
    /// By group, then interval.
    groups: Vec<Vec<GroupSample>>,
    /// By interval, then gateway.
    gateways: Vec<Vec<GatewaySample>>,
}

impl Recorder {
    /// For a run of this length.
    pub fn new(duration: Nanos, groups: usize) -> Self {
        let interval = duration.div_ceil(INTERVALS as Nanos).max(1);
        Self { interval, groups: vec![vec![GroupSample::default(); INTERVALS]; groups], gateways: Vec::new() }
    }

    /// How long an interval is.
    pub fn interval(&self) -> Nanos {
        self.interval
    }

    /// What devices of a kind do in the interval of `now`.
    pub fn group(&mut self, group: u32, now: Nanos) -> &mut GroupSample {
        let at = ((now / self.interval) as usize).min(INTERVALS - 1);
        &mut self.groups[group as usize][at]
    }

    /// An interval has ended.
    pub fn push_gateways(&mut self, samples: Vec<GatewaySample>) {
        self.gateways.push(samples);
    }

    /// By group, then interval.
    pub fn groups(&self) -> &[Vec<GroupSample>] {
        &self.groups
    }

    /// By interval, then gateway.
    pub fn gateways(&self) -> &[Vec<GatewaySample>] {
        &self.gateways
    }

    /// The mean latency of each interval, over all groups; none where nothing was answered.
    pub fn mean_latencies(&self) -> Vec<Option<f64>> {
        let mean = |at: usize| {
            let of: Vec<&Histogram> = self.groups.iter().map(|group| &group[at].latency).collect();
            let count: u64 = of.iter().map(|latency| latency.count()).sum();
            let sum: f64 = of.iter().map(|latency| latency.mean() * latency.count() as f64).sum();
            (count > 0).then(|| sum / count as f64)
        };
        (0..INTERVALS).map(mean).collect()
    }
}
