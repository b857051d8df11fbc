//! What is told of a scenario's replicas.

pub mod html;
pub mod json;
pub mod map;
pub mod notes;
pub mod sites;
pub mod svg;
pub mod table;

use crate::clock::{Nanos, seconds};
use crate::model::Outcome;
use crate::scenario::Scenario;
use crate::statistics::recorder::INTERVALS;
use crate::statistics::warm_up::{Cut, mser};
use crate::statistics::{Estimate, GatewaySample, GroupSample, Histogram};
use crate::world::Observation;

/// The quantiles that are told, by their names.
pub const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// What replicas of a scenario have shown, without their warm-up.
#[derive(Clone, Debug)]
pub struct Report {
    /// The scenario's name.
    pub name: String,
    /// The seed that those of the replicas come from.
    pub seed: u64,
    /// Replicas.
    pub replicas: usize,
    /// Virtual time of each.
    pub duration: Nanos,
    /// What was cut off.
    pub warm_up: Nanos,
    /// How that was found.
    pub cut: CutBy,
    /// All devices together, then each group.
    pub groups: Vec<GroupReport>,
    /// Gateways of each kind.
    pub gateways: Vec<GatewayReport>,
    /// Links of each kind.
    pub links: Vec<LinkReport>,
    /// Routers of sites.
    pub sites: Vec<sites::SiteReport>,
    /// Modules of gateways, where they are simulated.
    pub modules: Vec<sites::ModuleReport>,
    /// Where gateways, devices, sites and masters are drawn.
    pub map: map::Map,
    /// Requests that were neither answered nor given up at the end, of a replica.
    pub unfinished: Estimate,
    /// Deliveries that joined a request in flight or got an outcome again, and late answers, of a replica.
    pub repeated: (Estimate, Estimate),
    /// Events of all replicas.
    pub events: u64,
    /// Slices of all replicas.
    pub slices: u64,
    /// What plots show.
    pub series: Series,
    /// How right it is, and what is not in it.
    pub notes: notes::Notes,
}

/// How the warm-up was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutBy {
    /// The scenario says it.
    Scenario,
    /// By MSER.
    Mser,
    /// By MSER, in a run that is too short to tell.
    MserInShortRun,
}

/// Devices of one kind.
#[derive(Clone, Debug)]
pub struct GroupReport {
    /// What they are called.
    pub name: String,
    /// Requests a second that are made.
    pub made: Estimate,
    /// Requests a second that are answered `ok`.
    pub throughput: Estimate,
    /// Requests a second that are sent again.
    pub again: Estimate,
    /// The mean time from a request to its answer, in seconds.
    pub mean: Estimate,
    /// Quantiles of that time, as [`QUANTILES`] names them, in seconds.
    pub quantiles: Vec<Estimate>,
    /// What became of requests, in parts of all that have ended or are left open; without what never happened.
    pub outcomes: Vec<(Outcome, Estimate)>,
    /// The part that is left open: open at the end, and for longer than each that was answered.
    pub left_open: Estimate,
    /// Of the first replica: times, and how many requests took no longer.
    pub cumulative: Vec<(Nanos, u64)>,
}

/// Gateways of one kind.
#[derive(Clone, Debug)]
pub struct GatewayReport {
    /// What they are called.
    pub name: String,
    /// How many there are.
    pub count: usize,
    /// The part of the time in which a worker runs a guest, of all.
    pub utilisation: Estimate,
    /// The same of the one that has most.
    pub most_utilised: Estimate,
    /// Requests that wait at one of them.
    pub waiting: Estimate,
    /// Guests that hold a slot of one of them.
    pub running: Estimate,
    /// The part of the time in which one cannot be reached.
    pub unreachable: Estimate,
    /// Joules for a request that is answered, where the scenario gives watts.
    pub energy: Option<Estimate>,
    /// By gateway: the part of the time in which a worker runs a guest, in the mean of all replicas.
    pub each: Vec<f64>,
}

/// Links of one kind.
#[derive(Clone, Debug)]
pub struct LinkReport {
    /// What they are called.
    pub name: String,
    /// Bytes a second, of all of its devices.
    pub bytes: Estimate,
    /// Packets a second that are lost and sent again.
    pub lost: Estimate,
}

/// The first replica by intervals, warm-up included.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// How long an interval is, in seconds.
    pub interval: f64,
    /// Requests a second that are made.
    pub made: Vec<f64>,
    /// Requests a second that are answered `ok`.
    pub answered: Vec<f64>,
    /// Requests a second that end otherwise.
    pub refused: Vec<f64>,
    /// The median of latencies, in seconds.
    pub median: Vec<f64>,
    /// The 99th percentile.
    pub p99: Vec<f64>,
    /// Requests that wait, at all gateways.
    pub waiting: Vec<f64>,
}

impl Report {
    /// Of replicas of one scenario.
    pub fn new(scenario: &Scenario, seed: u64, observations: &[Observation]) -> Self {
        let interval = observations.first().map_or(1, |of| of.recorder.interval());
        let (cut, by) = cut(scenario, observations, interval);
        let warm_up = cut as Nanos * interval;
        let measured = seconds(scenario.duration.saturating_sub(warm_up)).max(f64::MIN_POSITIVE);
        let over =
            |of: &dyn Fn(&Observation) -> f64| Estimate::of(&observations.iter().map(of).collect::<Vec<_>>());
        let whole = seconds(scenario.duration);
        let all: Vec<usize> = (0..scenario.devices.len()).collect();
        let one_by_one = scenario.devices.iter().enumerate();
        let mut groups: Vec<_> = one_by_one
            .map(|(at, group)| GroupReport::new(&group.name, &[at], observations, cut, measured))
            .collect();
        if groups.len() > 1 {
            groups.insert(0, GroupReport::new("all devices", &all, observations, cut, measured));
        }
        Self {
            name: scenario.name.clone(),
            seed,
            replicas: observations.len(),
            duration: scenario.duration,
            warm_up,
            cut: by,
            groups,
            gateways: GatewayReport::all(scenario, observations, cut),
            links: (scenario.links.iter().enumerate())
                .map(|(at, link)| LinkReport {
                    name: link.name.clone(),
                    bytes: over(&|of| of.links[at].0 as f64 / whole),
                    lost: over(&|of| of.links[at].1 as f64 / whole),
                })
                .collect(),
            sites: sites::SiteReport::all(scenario, observations),
            modules: sites::ModuleReport::all(scenario, observations),
            map: map::Map::new(scenario, observations),
            unfinished: over(&|of| of.unfinished as f64),
            repeated: (over(&|of| of.joined as f64), over(&|of| of.surplus_answers as f64)),
            events: observations.iter().map(|of| of.events).sum(),
            slices: observations.iter().map(|of| of.slices).sum(),
            series: observations.first().map(|of| Series::new(scenario, of)).unwrap_or_default(),
            notes: notes::Notes::on(&[scenario]),
        }
    }

    /// All devices together.
    pub fn all(&self) -> &GroupReport {
        &self.groups[0]
    }
}

/// How many intervals are cut off, and how that was found.
fn cut(scenario: &Scenario, observations: &[Observation], interval: Nanos) -> (usize, CutBy) {
    if let Some(warm_up) = scenario.warm_up {
        return ((warm_up.div_ceil(interval) as usize).min(INTERVALS - 1), CutBy::Scenario);
    }
    let of_each: Vec<_> = observations.iter().map(|of| of.recorder.mean_latencies()).collect();
    let mean = |at: usize| {
        let known: Vec<f64> = of_each.iter().filter_map(|series| series[at]).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    let Cut { intervals, is_too_short } = mser(&(0..INTERVALS).map(mean).collect::<Vec<_>>());
    (intervals, if is_too_short { CutBy::MserInShortRun } else { CutBy::Mser })
}

impl GroupReport {
    fn new(name: &str, groups: &[usize], observations: &[Observation], cut: usize, measured: f64) -> Self {
        let samples: Vec<GroupSample> = observations.iter().map(|of| merged(of, groups, cut)).collect();
        let over =
            |of: &dyn Fn(&GroupSample) -> f64| Estimate::of(&samples.iter().map(of).collect::<Vec<_>>());
        let of_answered = |of: &dyn Fn(&Histogram) -> f64| {
            let answered = samples.iter().map(|of| &of.latency).filter(|latency| latency.count() > 0);
            Estimate::of(&answered.map(of).collect::<Vec<_>>())
        };
        let left_open: Vec<u64> = observations.iter().map(|of| left_open(of, groups, cut)).collect();
        let part_of_all = |of: &dyn Fn(&GroupSample, u64) -> u64| {
            let parts = samples.iter().zip(&left_open).map(|(sample, left_open)| {
                let all = sample.outcomes.iter().sum::<u64>() + left_open;
                of(sample, *left_open) as f64 / all.max(1) as f64
            });
            Estimate::of(&parts.collect::<Vec<_>>())
        };
        let part = |outcome: Outcome| part_of_all(&|of, _| of.outcomes[outcome as usize]);
        let outcomes = Outcome::ALL.into_iter().map(|outcome| (outcome, part(outcome)));
        Self {
            name: name.to_owned(),
            made: over(&|of| of.made as f64 / measured),
            throughput: over(&|of| of.latency.count() as f64 / measured),
            again: over(&|of| of.again as f64 / measured),
            mean: of_answered(&|latency| latency.mean() / 1e9),
            quantiles: QUANTILES
                .iter()
                .map(|(_, quantile)| {
                    of_answered(&|latency| match quantile {
                        1.0 => seconds(latency.max()),
                        quantile => seconds(latency.quantile(*quantile)),
                    })
                })
                .collect(),
            outcomes: outcomes.filter(|(_, part)| part.mean > 0.0).collect(),
            left_open: part_of_all(&|_, left_open| left_open),
            cumulative: samples.first().map(|of| of.latency.cumulative()).unwrap_or_default(),
        }
    }

    /// The estimate of a quantile, by its name.
    pub fn quantile(&self, name: &str) -> Option<Estimate> {
        let at = QUANTILES.iter().position(|(known, _)| *known == name)?;
        self.quantiles.get(at).copied()
    }

    /// The part of requests that were answered `ok`, of those that have ended or are left open.
    pub fn ok(&self) -> f64 {
        self.outcomes.iter().find(|(outcome, _)| *outcome == Outcome::Ok).map_or(0.0, |(_, part)| part.mean)
    }
}

/// Requests of some groups that are open at the end, and for longer than each of their group that was answered. Those
/// that are younger are on their way, and nobody knows what becomes of them.
fn left_open(of: &Observation, groups: &[usize], cut: usize) -> u64 {
    let of_group = |group: &usize| {
        let samples = &of.recorder.groups()[*group][cut..];
        let longest = samples.iter().map(|sample| sample.latency.max()).max().unwrap_or(0);
        of.open[*group].longer_than(longest)
    };
    groups.iter().map(of_group).sum()
}

/// What some groups have done after the cut.
fn merged(of: &Observation, groups: &[usize], cut: usize) -> GroupSample {
    let mut sum = GroupSample::default();
    for sample in groups.iter().flat_map(|group| &of.recorder.groups()[*group][cut..]) {
        sum.merge(sample);
    }
    sum
}

impl GatewayReport {
    fn all(scenario: &Scenario, observations: &[Observation], cut: usize) -> Vec<Self> {
        let mut first = 0;
        let groups = scenario.gateways.iter().enumerate();
        groups
            .map(|(number, group)| {
                let range = first..first + group.count;
                first = range.end;
                Self::new(scenario, number, range, observations, cut)
            })
            .collect()
    }

    fn new(
        scenario: &Scenario,
        number: usize,
        range: std::ops::Range<usize>,
        observations: &[Observation],
        cut: usize,
    ) -> Self {
        let group = &scenario.gateways[number];
        let interval = observations.first().map_or(1, |of| of.recorder.interval()) as f64;
        let capacity = group.config.workers as f64 * interval;

        let busy_of = |of: &Observation, at: usize| {
            let samples = after(of, cut);
            let busy: f64 = samples.iter().map(|gateways| gateways[at].busy as f64).sum();
            busy / (samples.len().max(1) as f64 * capacity)
        };
        let by_gateway: Vec<Vec<f64>> =
            observations.iter().map(|of| range.clone().map(|at| busy_of(of, at)).collect()).collect();
        let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / numbers.len().max(1) as f64;
        let over =
            |of: &dyn Fn(&Observation) -> f64| Estimate::of(&observations.iter().map(of).collect::<Vec<_>>());
        let mean_of = |value: &dyn Fn(&GatewaySample) -> f64| {
            over(&|of| {
                let values = after(of, cut);
                mean(&values.iter().flat_map(|all| &all[range.clone()]).map(value).collect::<Vec<_>>())
            })
        };
        let utilisation = Estimate::of(&by_gateway.iter().map(|of| mean(of)).collect::<Vec<_>>());
        let most = by_gateway.iter().map(|of| of.iter().copied().fold(0.0, f64::max));
        let energy = group.watts.map(|(idle, busy)| {
            let devices: Vec<usize> =
                (0..scenario.devices.len()).filter(|at| scenario.devices[*at].gateway == number).collect();
            let joules: Vec<f64> = observations
                .iter()
                .zip(&by_gateway)
                .filter_map(|(of, utilisations)| {
                    let answered = merged(of, &devices, cut).latency.count();
                    let time = seconds(after(of, cut).len() as Nanos * interval as Nanos);
                    let watts: f64 = utilisations.iter().map(|part| idle + busy * part).sum();
                    (answered > 0).then(|| watts * time / answered as f64)
                })
                .collect();
            Estimate::of(&joules)
        });
        let each = (0..group.count).map(|at| mean(&by_gateway.iter().map(|of| of[at]).collect::<Vec<_>>()));
        Self {
            name: group.name.clone(),
            count: group.count,
            utilisation,
            most_utilised: Estimate::of(&most.collect::<Vec<_>>()),
            waiting: mean_of(&|sample| f64::from(sample.waiting)),
            running: mean_of(&|sample| f64::from(sample.running)),
            unreachable: mean_of(&|sample| f64::from(u8::from(!sample.is_reachable))),
            energy,
            each: each.collect(),
        }
    }
}

/// The gateways of a replica by intervals, after the cut.
fn after(of: &Observation, cut: usize) -> &[Vec<GatewaySample>] {
    of.recorder.gateways().get(cut..).unwrap_or_default()
}

impl Series {
    fn new(scenario: &Scenario, of: &Observation) -> Self {
        let groups: Vec<usize> = (0..scenario.devices.len()).collect();
        let interval = seconds(of.recorder.interval());
        let quantiles = |at: usize| {
            let mut merged = Histogram::default();
            groups.iter().for_each(|group| merged.merge(&of.recorder.groups()[*group][at].latency));
            (seconds(merged.quantile(0.5)), seconds(merged.quantile(0.99)))
        };
        let sum = |at: usize, value: &dyn Fn(&GroupSample) -> u64| {
            groups.iter().map(|group| value(&of.recorder.groups()[*group][at])).sum::<u64>() as f64 / interval
        };
        let rate = |value: &dyn Fn(&GroupSample) -> u64| (0..INTERVALS).map(|at| sum(at, value)).collect();
        let (median, p99) = (0..INTERVALS).map(quantiles).unzip();
        let gateways = of.recorder.gateways().iter();
        Self {
            interval,
            made: rate(&|sample| sample.made),
            answered: rate(&|sample| sample.latency.count()),
            refused: rate(&|sample| sample.outcomes[1..].iter().sum()),
            median,
            p99,
            waiting: gateways.map(|all| all.iter().map(|of| f64::from(of.waiting)).sum()).collect(),
        }
    }
}
