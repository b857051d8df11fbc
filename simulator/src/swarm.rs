//! Looks for a world in which an invariant breaks, and then for the smallest one of its kind.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`world`] | random worlds |
//! | [`violation`] | what must hold |
//! | [`checked`] | what a scheduler promises |
//! | [`invariants`] | what becomes of requests |
//! | [`fault`] | faults on purpose, that have to be found |
//! | [`shrink`] | smaller worlds |

pub mod checked;
pub mod fault;
pub mod invariants;
pub mod shrink;
pub mod violation;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use toml::Table;

use crate::clock::{Nanos, SECOND};
use crate::random::Stream;
use crate::scenario::{Scenario, ScenarioError, writer};
use crate::world::World;
use crate::world::rest::Rest;
use crate::world::shard::Shard;
use crate::world::trace::Trace;

pub use fault::Fault;
pub use violation::{Invariant, Violation};
pub use world::Feature;

/// How long a world has after its end to answer what was asked: longer than any limit, wait or failure of a random one,
/// and not so long that routers which look for what is overdue have [`MAX_EVENTS`] before it ends.
const GRACE: Nanos = 7_200 * SECOND;

/// Events of one world at the most: random ones have some tens of thousands.
const MAX_EVENTS: u64 = 5_000_000;

/// Scenarios that are tried while one is made smaller.
const MAX_TRIES: usize = 5_000;

/// Which worlds are looked at.
#[derive(Clone, Debug)]
pub struct Search {
    /// How many at the most.
    pub rounds: u64,
    /// The seed of them all.
    pub seed: u64,
    /// What they do not have.
    pub without: Vec<Feature>,
    /// What is put into their schedulers.
    pub fault: Option<Fault>,
}

/// What a search has come to.
#[derive(Clone, Debug)]
pub struct Found {
    /// Worlds that were looked at.
    pub rounds: u64,
    /// Of these, worlds that had more events than are looked at.
    pub too_long: u64,
    /// The round of the first of them, and its scenario.
    pub first_too_long: Option<(u64, String)>,
    /// By feature, worlds that had it.
    pub features: Vec<(Feature, u64)>,
    /// The first world that broke an invariant.
    pub finding: Option<Finding>,
}

/// A world that breaks an invariant.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which round's it is.
    pub round: u64,
    /// What it has.
    pub features: Vec<Feature>,
    /// Its scenario.
    pub first: String,
    /// The smallest scenario that breaks the same invariant.
    pub smallest: String,
    /// What breaks in that.
    pub violation: Violation,
    /// Scenarios that were tried to find it.
    pub tries: usize,
}

/// How a world has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All invariants hold.
    Holds,
    /// One does not.
    Breaks(Violation),
    /// It has more events than are looked at.
    TooLong,
}

impl Search {
    /// Looks at one world after the other, until an invariant breaks. `on` is told of each round that begins, and of
    /// each scenario that is tried to make the one that was found smaller.
    pub fn run(&self, mut on: impl FnMut(u64, usize)) -> Found {
        let mut found = Found {
            rounds: 0,
            too_long: 0,
            first_too_long: None,
            features: Feature::ALL.iter().map(|of| (*of, 0)).collect(),
            finding: None,
        };
        while found.rounds < self.rounds && found.finding.is_none() {
            let round = found.rounds;
            on(round, 0);
            let world = world::random(Stream::new(self.seed, "round", round).bits(), &self.without);
            found.rounds += 1;
            for (feature, count) in &mut found.features {
                *count += u64::from(world.features.contains(feature));
            }
            match self.verdict(&world.text) {
                Some(Verdict::Breaks(violation)) => {
                    found.finding = Some(self.smallest(round, world, violation, |tries| on(round, tries)));
                }
                Some(Verdict::TooLong) => {
                    found.too_long += 1;
                    found.first_too_long.get_or_insert((round, world.text));
                }
                Some(Verdict::Holds) | None => {}
            }
        }
        found
    }

    /// None where the text is no scenario.
    fn verdict(&self, text: &str) -> Option<Verdict> {
        parse(text).ok().map(|scenario| check(&scenario, scenario.seed, self.fault))
    }

    fn smallest(
        &self,
        round: u64,
        world: world::RandomWorld,
        violation: Violation,
        mut on: impl FnMut(usize),
    ) -> Finding {
        let world::RandomWorld { features, text: first } = world;
        let mut finding = Finding { round, features, smallest: first.clone(), first, violation, tries: 0 };
        let Ok(table) = finding.first.parse::<Table>() else { return finding };
        let invariant = finding.violation.invariant;
        let (smallest, tries) = shrink::shrink(&table, MAX_TRIES, |candidate| {
            finding.tries += 1;
            on(finding.tries);
            let verdict = self.verdict(&writer::write(candidate));
            matches!(verdict, Some(Verdict::Breaks(violation)) if violation.invariant == invariant)
        });
        let smallest = writer::write(&smallest);
        if let Some(Verdict::Breaks(violation)) = self.verdict(&smallest) {
            finding = Finding { smallest, violation, tries, ..finding };
        }
        finding
    }
}

/// Reads the text of a scenario that names no files.
fn parse(text: &str) -> Result<Scenario, ScenarioError> {
    Scenario::parse(text, Path::new("swarm.toml"))
}

/// Runs a world of this scenario to its rest, and says whether all invariants hold.
pub fn check(scenario: &Scenario, seed: u64, fault: Option<Fault>) -> Verdict {
    check_traced(scenario, seed, fault, None)
}

/// The same; each step of each request is written down, to the one with which an invariant breaks.
pub fn check_traced<'s>(
    scenario: &'s Scenario,
    seed: u64,
    fault: Option<Fault>,
    trace: Option<Trace<'s>>,
) -> Verdict {
    let run = || {
        let invariants = invariants::Invariants::new(scenario, fault);
        let mut world = World::observed(scenario, seed, Shard::whole(scenario), invariants);
        trace.into_iter().for_each(|trace| world.set_trace(trace));
        let rest = world.run_to_rest(GRACE, MAX_EVENTS);
        let now = world.now();
        let (invariants, schedulers) = world.parts();
        invariants.ended(rest, now, schedulers);
        (rest, invariants.violation().cloned())
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok((_, Some(violation))) => Verdict::Breaks(violation),
        Ok((Rest::TooLong, None)) => Verdict::TooLong,
        Ok((_, None)) => Verdict::Holds,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let detail =
                text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a word").to_owned();
            // When that was is lost with the world.
            Verdict::Breaks(Violation { invariant: Invariant::Panicked, at: scenario.duration, detail })
        }
    }
}
