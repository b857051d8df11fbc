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

impl GroupSample {
    /// Adds what other devices have done, or the same ones in another interval.
    pub fn merge(&mut self, of: &Self) {
        self.made += of.made;
        self.again += of.again;
        self.outcomes.iter_mut().zip(of.outcomes).for_each(|(sum, more)| *sum += more);
        self.latency.merge(&of.latency);
    }
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
    /// The one that is recorded now, and when it ends.
    current: usize,
    ends: Nanos,
    /// By group, then interval.
    groups: Vec<Vec<GroupSample>>,
    /// By interval, then gateway.
    gateways: Vec<Vec<GatewaySample>>,
}

impl Recorder {
    /// For a run of this length.
    pub fn new(duration: Nanos, groups: usize) -> Self {
        let interval = duration.div_ceil(INTERVALS as Nanos).max(1);
        let groups = vec![vec![GroupSample::default(); INTERVALS]; groups];
        Self { interval, current: 0, ends: interval, groups, gateways: Vec::new() }
    }

    /// How long an interval is.
    pub fn interval(&self) -> Nanos {
        self.interval
    }

    /// What devices of a kind do in the interval of `now`, which is not before that of the last call.
    #[inline(always)]
    pub fn group(&mut self, group: u32, now: Nanos) -> &mut GroupSample {
        if now >= self.ends {
            self.goes_on(now);
        }
        &mut self.groups[group as usize][self.current]
    }

    /// The last interval has what is later, too.
    #[cold]
    fn goes_on(&mut self, now: Nanos) {
        while now >= self.ends && self.current < INTERVALS - 1 {
            self.current += 1;
            self.ends += self.interval;
        }
    }

    /// Adds what was recorded of a shard: of all groups of devices, and of the gateways that have these numbers of this
    /// many.
    pub fn merge(&mut self, of: Self, numbers: impl Iterator<Item = usize>, count: usize) {
        for (sample, more) in self.groups.iter_mut().flatten().zip(of.groups.into_iter().flatten()) {
            // What is the first of its interval is not copied.
            if *sample == GroupSample::default() {
                *sample = more;
            } else {
                sample.merge(&more);
            }
        }
        if self.gateways.len() < of.gateways.len() {
            self.gateways.resize_with(of.gateways.len(), || vec![GatewaySample::default(); count]);
        }
        let numbers: Vec<usize> = numbers.collect();
        for (samples, of) in self.gateways.iter_mut().zip(&of.gateways) {
            numbers.iter().zip(of).for_each(|(number, sample)| samples[*number] = *sample);
        }
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
