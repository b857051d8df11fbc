//! How few gateways, workers or slots are enough.
//!
//! Latency is taken to fall with what there is more of: the count is doubled until it is enough, and then the least is
//! found by halving the gap (bisection). Each count is simulated with the same seeds.

use crate::clock::Nanos;
use crate::replicas::{self, Watcher};
use crate::report::Report;
use crate::scenario::Scenario;
use crate::statistics::Estimate;

/// What there is to be enough of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Resource {
    /// Gateways of one kind.
    Gateways,
    /// Workers of each.
    Workers,
    /// Slots of each worker.
    Slots,
}

/// What is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// The 99th percentile of latency, at the most.
    pub p99: Nanos,
    /// The part of requests that are answered `ok`, at the least.
    pub ok: f64,
}

/// A count that was simulated.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// How many.
    pub count: usize,
    /// The 99th percentile of latency, in seconds.
    pub p99: Estimate,
    /// The part of requests that are answered `ok`.
    pub ok: Estimate,
    /// Whether the goal is kept, by the means.
    pub keeps: bool,
    /// Whether the whole interval is on the mean's side of the goal.
    pub is_sure: bool,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In ascending order of their counts.
    pub tried: Vec<Tried>,
    /// The fewest that are enough.
    pub enough: Option<usize>,
    /// The fewest that are enough when one of them is lost.
    pub with_one_lost: Option<usize>,
}

impl Resource {
    /// What reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateways => "gateways",
            Self::Workers => "workers",
            Self::Slots => "slots",
        }
    }

    fn set(self, scenario: &mut Scenario, group: usize, count: usize) {
        let gateway = &mut scenario.gateways[group];
        match self {
            Self::Gateways => gateway.count = count,
            Self::Workers => gateway.workers = count,
            Self::Slots => gateway.slots = count,
        }
    }
}

impl Plan {
    /// The fewest that are enough, as they were simulated.
    pub fn enough(&self) -> Option<&Tried> {
        self.tried.iter().find(|tried| Some(tried.count) == self.enough)
    }
}

/// Finds the fewest of one kind of gateways, `most` at the most. What is lost is one of those: its devices are with the
/// others then, so that one more than enough is enough, where all are alike.
pub fn plan(
    scenario: &Scenario,
    group: usize,
    resource: Resource,
    goal: Goal,
    most: usize,
    watch: &dyn Fn(&Scenario) -> Box<dyn Watcher>,
) -> Plan {
    let mut tried: Vec<Tried> = Vec::new();
    let mut keeps = |count: usize| {
        let known = tried.iter().find(|tried| tried.count == count).copied();
        let of = known.unwrap_or_else(|| simulate(scenario, group, resource, goal, count, watch));
        if known.is_none() {
            tried.push(of);
        }
        of.keeps
    };
    let (mut too_few, mut count) = (0, 1);
    while !keeps(count) && count < most {
        too_few = count;
        count = (2 * count).min(most);
    }
    let mut enough = keeps(count).then_some(count);
    while let Some(few) = enough.filter(|few| few - too_few > 1) {
        let middle = too_few + (few - too_few) / 2;
        if keeps(middle) {
            enough = Some(middle);
        } else {
            too_few = middle;
        }
    }
    tried.sort_by_key(|tried| tried.count);
    // One that is lost leaves what is enough: its devices go to the others.
    let with_one_lost = enough.map(|enough| enough + 1).filter(|count| *count <= most);
    Plan { tried, enough, with_one_lost }
}

fn simulate(
    scenario: &Scenario,
    group: usize,
    resource: Resource,
    goal: Goal,
    count: usize,
    watch: &dyn Fn(&Scenario) -> Box<dyn Watcher>,
) -> Tried {
    let mut scenario = scenario.clone();
    resource.set(&mut scenario, group, count);
    let watcher = watch(&scenario);
    let observations = replicas::run(&scenario, scenario.seed, scenario.replicas, None, &*watcher);
    let of_each: Vec<Report> = (observations.iter())
        .map(|of| Report::new(&scenario, scenario.seed, std::slice::from_ref(of)))
        .collect();
    let p99 = of_each.iter().map(|report| report.all().quantile("p99").map_or(0.0, |p99| p99.mean));
    let (p99, ok) = (
        Estimate::of(&p99.collect::<Vec<_>>()),
        Estimate::of(&of_each.iter().map(|report| report.all().ok()).collect::<Vec<_>>()),
    );
    let most = goal.p99 as f64 / 1e9;
    let keeps = ok.mean > 0.0 && p99.mean <= most && ok.mean >= goal.ok;
    let is_told =
        |of: &Estimate, limit: f64| of.half_width.is_some_and(|half| (of.mean - limit).abs() > half);
    // All of several replicas may be answered: then nothing spreads.
    let is_sure = is_told(&p99, most) && (is_told(&ok, goal.ok) || ok.mean >= 1.0);
    Tried { count, p99, ok, keeps, is_sure }
}
