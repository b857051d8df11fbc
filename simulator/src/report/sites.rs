//! What the routers of sites have done, and what has become of modules: over the whole run, warm-up included.

use serde_json::{Value, json};

use crate::clock::seconds;
use crate::model::{ModuleCounters, RouterCounters};
use crate::scenario::Scenario;
use crate::statistics::Estimate;
use crate::world::Observation;

/// The router of one site.
#[derive(Clone, Debug)]
pub struct SiteReport {
    /// What the site is called.
    pub name: String,
    /// Requests a second that it has sent to other sites.
    pub departed: Estimate,
    /// Those of them that were handed on since its gateway was saturated.
    pub handed_on: Estimate,
    /// Those of them that were refused there and ran here.
    pub came_back: Estimate,
    /// Requests a second that have come from other sites.
    pub visited: Estimate,
    /// Requests a second that found no room on the way.
    pub refused: Estimate,
    /// Requests a second that were given up.
    pub given_up: Estimate,
    /// Messages a second that came for nothing, or back.
    pub repeated: Estimate,
    /// The most requests on their way at once.
    pub most: Estimate,
    /// The most gateways that one request has passed.
    pub hops: u64,
}

/// The modules of gateways of one kind.
#[derive(Clone, Debug)]
pub struct ModuleReport {
    /// What the gateways are called.
    pub name: String,
    /// The part of requests whose module was compiled already.
    pub hits: Estimate,
    /// Modules a second that are compiled or built.
    pub made: Estimate,
    /// The part of starts whose worker had the module loaded.
    pub loaded: Estimate,
    /// Modules a second that go since there is no room.
    pub evicted: Estimate,
}

impl SiteReport {
    /// All sites.
    pub fn all(scenario: &Scenario, observations: &[Observation]) -> Vec<Self> {
        let of = |at: usize| {
            let count = |what: &dyn Fn(&RouterCounters) -> u64| {
                let counts = observations.iter().map(|of| what(&of.sites[at]) as f64);
                Estimate::of(&counts.collect::<Vec<_>>())
            };
            let rate =
                |what: &dyn Fn(&RouterCounters) -> u64| count(what).scaled(1.0 / seconds(scenario.duration));
            Self {
                name: scenario.sites[at].name.clone(),
                departed: rate(&|of| of.departed),
                handed_on: rate(&|of| of.handed_on),
                came_back: rate(&|of| of.came_back),
                visited: rate(&|of| of.visited),
                refused: rate(&|of| of.refused),
                given_up: rate(&|of| of.given_up),
                repeated: rate(&|of| of.repeated),
                most: count(&|of| of.most),
                hops: observations.iter().map(|of| of.sites[at].most_hops).max().unwrap_or(0),
            }
        };
        (0..scenario.sites.len()).map(of).collect()
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "name": self.name,
            "departed_per_second": self.departed.json(),
            "handed_on_per_second": self.handed_on.json(),
            "came_back_per_second": self.came_back.json(),
            "visited_per_second": self.visited.json(),
            "refused_per_second": self.refused.json(),
            "given_up_per_second": self.given_up.json(),
            "repeated_per_second": self.repeated.json(),
            "most_on_the_way": self.most.json(),
            "most_hops": self.hops,
        })
    }
}

impl ModuleReport {
    /// Of all kinds of gateways whose modules are simulated.
    pub fn all(scenario: &Scenario, observations: &[Observation]) -> Vec<Self> {
        let of = |at: usize| {
            let counters: Option<Vec<ModuleCounters>> =
                observations.iter().map(|of| of.modules[at]).collect();
            let counters = counters.filter(|counters| !counters.is_empty())?;
            let over = |what: &dyn Fn(&ModuleCounters) -> f64| {
                Estimate::of(&counters.iter().map(what).collect::<Vec<_>>())
            };
            let part = |some: u64, others: u64| some as f64 / (some + others).max(1) as f64;
            let whole = seconds(scenario.duration);
            Some(Self {
                name: scenario.gateways[at].name.clone(),
                hits: over(&|of| part(of.hits, of.misses)),
                made: over(&|of| of.made as f64 / whole),
                loaded: over(&|of| part(of.loaded, of.loads)),
                evicted: over(&|of| of.evicted as f64 / whole),
            })
        };
        (0..scenario.gateways.len()).filter_map(of).collect()
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "gateway": self.name,
            "compiled_already": self.hits.json(),
            "made_per_second": self.made.json(),
            "loaded_already": self.loaded.json(),
            "evicted_per_second": self.evicted.json(),
        })
    }
}
