//! The suites, one file each.

mod durability;
mod execution;
mod first_contact;
mod gateways;
mod networks;
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
    /// Requests to another site beside those answered here, sealed ones beside those in clear.
    Networks,
    /// Gateways of one service on NATS: one, two and three.
    Gateways,
}

/// All of them, in their order.
const ALL: [Suite; 8] = [
    Suite::Throughput,
    Suite::Durability,
    Suite::Execution,
    Suite::Peers,
    Suite::Preemption,
    Suite::FirstContact,
    Suite::Networks,
    Suite::Gateways,
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
            Suite::Networks => networks::run(plan),
            Suite::Gateways => gateways::run(plan, guests),
        }
    }
}
