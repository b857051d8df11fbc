//! What a replica has shown.

use super::shard::Shard;
use crate::model::{ModuleCounters, RouterCounters};
use crate::scenario::Scenario;
use crate::statistics::{Conditions, Histogram, Recorder};

/// What a replica has shown.
#[derive(Clone, Debug)]
pub struct Observation {
    /// By intervals.
    pub recorder: Recorder,
    /// Events that came.
    pub events: u64,
    /// Requests that were neither answered nor given up at the end.
    pub unfinished: u64,
    /// How long these had been open then, by group of devices.
    pub open: Vec<Histogram>,
    /// Late answers, and answers that came twice.
    pub surplus_answers: u64,
    /// Deliveries that joined a request in flight, or got an outcome again.
    pub joined: u64,
    /// By link: bytes carried, and packets sent again.
    pub links: Vec<(u64, u64)>,
    /// Slices, of all gateways.
    pub slices: u64,
    /// By site: what its router has done.
    pub sites: Vec<RouterCounters>,
    /// By interval: what is up beside gateways.
    pub conditions: Vec<Conditions>,
    /// By kind of gateways: what has become of modules, where they are simulated.
    pub modules: Vec<Option<ModuleCounters>>,
}

impl Observation {
    /// Nothing has happened yet in any shard.
    pub fn empty(scenario: &Scenario) -> Self {
        Self {
            recorder: Recorder::new(scenario.duration, scenario.devices.len()),
            events: 0,
            unfinished: 0,
            open: vec![Histogram::default(); scenario.devices.len()],
            surplus_answers: 0,
            joined: 0,
            links: vec![(0, 0); scenario.links.len()],
            slices: 0,
            sites: vec![RouterCounters::default(); scenario.sites.len()],
            conditions: Vec::new(),
            modules: vec![None; scenario.gateways.len()],
        }
    }

    /// Adds what a shard has shown.
    pub fn add(&mut self, scenario: &Scenario, shard: &Shard, of: Self) {
        let count = scenario.gateways.iter().map(|group| group.count).sum();
        self.recorder.merge(of.recorder, shard.all_gateways(scenario), count);
        self.events += of.events;
        self.unfinished += of.unfinished;
        self.open.iter_mut().zip(&of.open).for_each(|(open, more)| open.merge(more));
        self.surplus_answers += of.surplus_answers;
        self.joined += of.joined;
        self.slices += of.slices;
        for ((bytes, lost), (more_bytes, more_lost)) in self.links.iter_mut().zip(of.links) {
            *bytes += more_bytes;
            *lost += more_lost;
        }
        if !of.sites.is_empty() {
            // Sites are all in one shard.
            self.sites = of.sites;
        }
        if self.conditions.is_empty() {
            self.conditions = of.conditions;
        } else {
            self.conditions.iter_mut().zip(&of.conditions).for_each(|(all, more)| all.merge(more));
        }
        for (all, more) in self.modules.iter_mut().zip(of.modules) {
            *all = all.iter().copied().chain(more).reduce(ModuleCounters::plus);
        }
    }
}
