//! Shards of a world, which share nothing. Gateways whose devices have them as their homes never hear of each other, so
//! that they are simulated one after the other, or beside each other by several threads: what a shard needs fits into a
//! processor's cache, where a city of a million devices does not. What has happened is summed up afterwards, and is the
//! same however the world was divided, since all that is random belongs to one device, request or failure.

use std::ops::Range;

use crate::scenario::{Arrival, Scenario, Spread};

/// Devices of a shard, about: with what they do they take half a megabyte.
const DEVICES: usize = 4_096;

/// Shards of one group of gateways at the most: each has a recorder of its own.
const MAX_SHARDS: usize = 1_024;

/// Some gateways of a scenario, with their devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// By group of gateways: those that are in it, by their numbers in the group.
    gateways: Vec<Range<usize>>,
    /// How many devices they have.
    devices: usize,
}

impl Shard {
    /// All of a scenario.
    pub fn whole(scenario: &Scenario) -> Self {
        let gateways = scenario.gateways.iter().map(|group| 0..group.count).collect();
        Self { gateways, devices: scenario.devices.iter().map(|group| group.count).sum() }
    }

    /// A scenario in shards, which have all of its gateways between them, each in one.
    pub fn all(scenario: &Scenario) -> Vec<Self> {
        if !scenario.sites.is_empty() {
            // Routers and masters join gateways of all kinds.
            return vec![Self::whole(scenario)];
        }
        let groups = scenario.gateways.len();
        let mut shards = Vec::new();
        for (number, group) in scenario.gateways.iter().enumerate() {
            let devices: usize = devices_of(scenario, number).map(|at| scenario.devices[at].count).sum();
            let count = if is_joined(scenario, number) {
                1
            } else {
                devices.div_ceil(DEVICES).clamp(1, group.count.min(MAX_SHARDS))
            };
            shards.extend((0..count).map(|at| {
                let mut gateways = vec![0..0; groups];
                gateways[number] = at * group.count / count..(at + 1) * group.count / count;
                let mut shard = Self { gateways, devices: 0 };
                shard.devices =
                    devices_of(scenario, number).map(|of| shard.numbers(scenario, of).count()).sum();
                shard
            }));
        }
        shards
    }

    /// The gateways of a group that are in it, by their numbers in the group.
    pub fn gateways(&self, group: usize) -> Range<usize> {
        self.gateways[group].clone()
    }

    /// The gateways that are in it, by their numbers in the scenario.
    pub fn all_gateways(&self, scenario: &Scenario) -> impl Iterator<Item = usize> {
        let first = move |group: usize| scenario.gateways[..group].iter().map(|of| of.count).sum::<usize>();
        self.gateways
            .iter()
            .enumerate()
            .flat_map(move |(group, range)| range.clone().map(move |at| first(group) + at))
    }

    /// How many devices it has.
    pub fn devices(&self) -> usize {
        self.devices
    }

    /// The devices of a group that are in it, by their numbers in the group: they are dealt to gateways in turn.
    pub fn numbers(&self, scenario: &Scenario, group: usize) -> impl Iterator<Item = usize> + use<> {
        let of = &scenario.devices[group];
        let (count, gateways) = (of.count, scenario.gateways[of.gateway].count);
        let range = self.gateways(of.gateway);
        let rounds = if range.is_empty() { 0 } else { count };
        (0..rounds)
            .step_by(gateways)
            .flat_map(move |first| range.clone().map(move |at| first + at))
            .filter(move |number| *number < count)
    }
}

/// Whether gateways of a group have to do with each other: a broker asks one or the other, or devices share a trace.
fn is_joined(scenario: &Scenario, group: usize) -> bool {
    let has_trace = |at: usize| matches!(scenario.devices[at].arrival, Arrival::Trace(_));
    scenario.gateways[group].spread != Spread::Home || devices_of(scenario, group).any(has_trace)
}

/// The groups of devices whose gateways are of this group.
fn devices_of(scenario: &Scenario, group: usize) -> impl Iterator<Item = usize> {
    (0..scenario.devices.len()).filter(move |at| scenario.devices[*at].gateway == group)
}
