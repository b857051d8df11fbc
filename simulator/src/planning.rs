//! How few gateways, workers or slots are enough.
//!
//! Latency is taken to fall with what there is more of: the count is doubled until it is enough, and then the least is
//! found by halving the gap (bisection). Each count is simulated with the same seeds.

use crate::clock::Nanos;
use crate::replicas::{self, Watcher};
use crate::report::Report;
use crate::scenario::configuration::{MAX_SLOTS, MAX_WORKERS};
use crate::scenario::gateway::MAX_GATEWAYS;
use crate::scenario::{Failure, FailureKind, Scenario, Schedule, Spread, Target};
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
    /// The 99th percentile of latency, in seconds; no number where nothing was answered.
    pub p99: Estimate,
    /// The part of requests that are answered `ok`, of those that ended or are left open.
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
    /// The same with one lost, in ascending order of the counts that there are before.
    pub tried_with_one_lost: Vec<Tried>,
    /// The fewest that are enough when one of them is lost.
    pub with_one_lost: Option<usize>,
}

/// What is simulated next: this many, of which one is lost or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// How many.
    pub count: usize,
    /// Whether one of them is lost.
    pub is_one_lost: bool,
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

    /// The most that a scenario may have.
    pub fn most(self) -> usize {
        match self {
            Self::Gateways => MAX_GATEWAYS,
            Self::Workers => MAX_WORKERS,
            Self::Slots => MAX_SLOTS,
        }
    }

    fn set(self, scenario: &mut Scenario, group: usize, count: usize) {
        let gateway = &mut scenario.gateways[group];
        match self {
            Self::Gateways => gateway.count = count,
            Self::Workers => gateway.config.workers = count,
            Self::Slots => gateway.config.slots = count,
        }
    }
}

impl Plan {
    /// The fewest that are enough, as they were simulated.
    pub fn enough(&self) -> Option<&Tried> {
        self.tried.iter().find(|tried| Some(tried.count) == self.enough)
    }
}

/// Finds the fewest of one kind of gateways, `most` at the most.
///
/// One is lost as this happens to it. Where devices have homes, those of a lost gateway have got another one, so that
/// there is one gateway less, or worker or slot; a gateway behind a broker crashes after a third of the run and does
/// not come back.
pub fn plan(
    scenario: &Scenario,
    group: usize,
    resource: Resource,
    goal: Goal,
    most: usize,
    watch: &dyn Fn(Trial) -> Box<dyn Watcher>,
) -> Plan {
    let simulate = |scenario: &Scenario, trial: Trial| simulate(scenario, goal, trial, &*watch(trial));
    let with = |count: usize| {
        let mut scenario = scenario.clone();
        resource.set(&mut scenario, group, count);
        scenario
    };
    let mut tried = Trials::default();
    let enough = least(1, most, |count| {
        let trial = Trial { count, is_one_lost: false };
        tried.keeps(count, || simulate(&with(count), trial))
    });
    let crashes = resource == Resource::Gateways && scenario.gateways[group].spread != Spread::Home;
    let mut tried_with_one_lost = Trials::default();
    let with_one_lost = enough.and_then(|enough| {
        least(enough.max(2), most, |count| {
            let trial = Trial { count, is_one_lost: true };
            let known = tried.0.iter().find(|of| !crashes && of.count == count - 1);
            tried_with_one_lost.keeps(count, || match known {
                Some(known) => Tried { count, ..*known },
                None if crashes => simulate(&crashing(with(count), group), trial),
                None => simulate(&with(count - 1), trial),
            })
        })
    });
    Plan { tried: tried.sorted(), enough, tried_with_one_lost: tried_with_one_lost.sorted(), with_one_lost }
}

/// The least count from `least` to `most` that keeps the goal, which all greater ones are taken to keep, too.
fn least(least: usize, most: usize, mut keeps: impl FnMut(usize) -> bool) -> Option<usize> {
    if least > most {
        return None;
    }
    let (mut too_few, mut count) = (least - 1, least);
    while !keeps(count) {
        if count >= most {
            return None;
        }
        too_few = count;
        count = (2 * count).min(most);
    }
    while count - too_few > 1 {
        let middle = too_few + (count - too_few) / 2;
        if keeps(middle) {
            count = middle;
        } else {
            too_few = middle;
        }
    }
    Some(count)
}

/// What was simulated.
#[derive(Default)]
struct Trials(Vec<Tried>);

impl Trials {
    fn keeps(&mut self, count: usize, simulate: impl FnOnce() -> Tried) -> bool {
        if let Some(known) = self.0.iter().find(|tried| tried.count == count) {
            return known.keeps;
        }
        let tried = simulate();
        self.0.push(tried);
        tried.keeps
    }

    fn sorted(mut self) -> Vec<Tried> {
        self.0.sort_by_key(|tried| tried.count);
        self.0
    }
}

/// The scenario in which the first gateway of a group crashes after a third of the run, and does not come back.
fn crashing(mut scenario: Scenario, group: usize) -> Scenario {
    let (at, lasts) = (scenario.duration / 3, scenario.duration);
    let schedule = Schedule::At(at);
    scenario.failures.push(Failure {
        kind: FailureKind::Crash,
        target: Target::Gateways { group, number: Some(0) },
        schedule,
        lasts,
    });
    scenario
}

fn simulate(scenario: &Scenario, goal: Goal, trial: Trial, watcher: &dyn Watcher) -> Tried {
    let observations = replicas::run(scenario, scenario.seed, scenario.replicas, None, watcher);
    let of_each: Vec<Report> = (observations.iter())
        .map(|of| Report::new(scenario, scenario.seed, std::slice::from_ref(of)))
        .collect();
    let p99 = of_each.iter().filter_map(|report| report.all().quantile("p99")).map(|p99| p99.mean);
    let (p99, ok) = (
        Estimate::of(&p99.collect::<Vec<_>>()),
        Estimate::of(&of_each.iter().map(|report| report.all().ok()).collect::<Vec<_>>()),
    );
    let most = goal.p99 as f64 / 1e9;
    // Where nothing was answered there is no latency, which keeps nothing.
    let keeps = p99.mean <= most && ok.mean >= goal.ok;
    let is_told =
        |of: &Estimate, limit: f64| of.half_width.is_some_and(|half| (of.mean - limit).abs() > half);
    // All of several replicas may be answered: then nothing spreads.
    let is_sure = is_told(&p99, most) && (is_told(&ok, goal.ok) || ok.mean >= 1.0);
    Tried { count: trial.count, p99, ok, keeps, is_sure }
}
