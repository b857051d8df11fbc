//! The suites, one file each.

mod durability;
mod execution;
mod first_contact;
mod peers;
mod preemption;
mod throughput;

use crate::guests::Guests;
use crate::rounds::Plan;
use crate::table::Table;
use anyhow::Result;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// Requests beside echoes, by number in flight and of clients.
    Throughput,
    /// Each value of `durability`, beside fdatasync.
    Durability,
    /// Guests alone beside bare wasmtime.
    Execution,
    /// Requests beside services that start a process for each.
    Peers,
    /// Short requests beside endless guests and floods.
    Preemption,
    /// Modules that were never seen, and those that are known.
    FirstContact,
}

/// All of them, in their order.
const ALL: [Suite; 6] = [
    Suite::Throughput,
    Suite::Durability,
    Suite::Execution,
    Suite::Peers,
    Suite::Preemption,
    Suite::FirstContact,
];

/// Those that are asked for; all if none is.
pub fn chosen(only: &[Suite]) -> impl Iterator<Item = Suite> {
    ALL.into_iter().filter(move |suite| only.is_empty() || only.contains(suite))
}

impl Suite {
    pub fn run(self, plan: &Plan, guests: &Guests) -> Result<Vec<Table>> {
        match self {
            Suite::Throughput => throughput::run(plan, guests),
            Suite::Durability => durability::run(plan),
            Suite::Execution => execution::run(plan, guests),
            Suite::Peers => peers::run(plan),
            Suite::Preemption => preemption::run(plan),
            Suite::FirstContact => first_contact::run(plan, guests),
        }
    }
}
