//! Devices of one kind, as a world has them: what is the same for all their requests is at hand.

use super::failures::GroupCondition;
use super::shard::Shard;
use crate::clock::Nanos;
use crate::model::Request;
use crate::model::order::{Job, ModuleNeed, Order};
use crate::random::Distribution;
use crate::scenario::program::Modules;
use crate::scenario::{DeviceGroup, GatewayGroup, Program, Scenario};

/// Devices of one kind; see the [module](self). What it tells of one of them, it tells by its number in the scenario.
pub(super) struct Group<'s> {
    pub(super) devices: &'s DeviceGroup,
    /// What they ask for.
    pub(super) program: &'s Program,
    /// Whom they ask.
    pub(super) gateways: &'s GatewayGroup,
    /// What has become of them.
    pub(super) condition: GroupCondition,
    /// The number in the scenario of the first of them.
    pub(super) first: u32,
    /// The number of their first account.
    first_account: u32,
    /// How many of them are one account.
    per_account: u32,
    /// The gateway of the first of them: of a shard that does not have it, the number that it would have.
    first_home: u32,
    /// The number of their program's first module, of all in the world.
    first_module: u32,
}

/// The groups of a scenario in a shard whose gateways have these first numbers.
pub(super) fn groups<'s>(scenario: &'s Scenario, shard: &Shard, first_gateways: &[u32]) -> Vec<Group<'s>> {
    let first_numbers = firsts(scenario.devices.iter().map(|group| group.count));
    let modules = |program: &Program| program.modules.as_ref().map_or(1, |modules| modules.count);
    let first_modules = firsts(scenario.programs.iter().map(modules));
    let groups = scenario.devices.iter().zip(&first_numbers);
    let group = |(devices, first): (&'s DeviceGroup, &u32)| {
        let (first_account, per_account) = match devices.account {
            // All of them are one.
            Some(other) => (first_numbers[other], u32::MAX),
            None => (*first, devices.per_account as u32),
        };
        let before_shard = shard.gateways(devices.gateway).start as u32;
        Group {
            devices,
            program: &scenario.programs[devices.program],
            gateways: &scenario.gateways[devices.gateway],
            condition: GroupCondition::default(),
            first: *first,
            first_account,
            per_account,
            first_home: first_gateways[devices.gateway].wrapping_sub(before_shard),
            first_module: first_modules[devices.program],
        }
    };
    groups.map(group).collect()
}

impl Group<'_> {
    /// What is asked of a gateway for a request of theirs.
    #[inline(always)]
    pub(super) fn order(&self, number: u32, request: &mut Request, now: Nanos) -> Order {
        let Self { devices, program, .. } = self;
        let Request { key, demand, sleep, .. } = *request;
        Order {
            key,
            bytes: program.request as usize,
            program: devices.program as u32,
            deadline: devices.deadline.map(|deadline| now + deadline),
            need: program.modules.as_ref().map(|modules| self.need(modules, request)),
            job: Job { request: number, demand, sleep, yields: program.yields },
        }
    }

    /// Which of their program's modules a request needs, and what that takes.
    #[cold]
    fn need(&self, modules: &Modules, request: &mut Request) -> ModuleNeed {
        let Request { key: (_, device), random, .. } = request;
        let mut draw = |time: &Option<Distribution>| time.as_ref().map_or(0, |time| time.draw(random));
        ModuleNeed {
            module: self.first_module + (*device - self.first) % modules.count as u32,
            size: modules.size as usize,
            compile: draw(&modules.compile),
            load: draw(&modules.load),
            native: modules.native.as_ref().map(|start| start.draw(random)),
        }
    }

    /// The gateway that a device asks, where each has its own.
    pub(super) fn home(&self, device: u32) -> u32 {
        let (number, count) = (device - self.first, self.gateways.count as u32);
        self.first_home.wrapping_add(if count == 1 { 0 } else { number % count })
    }

    /// The account for which a device is counted.
    pub(super) fn account(&self, device: u32) -> u32 {
        let number = device - self.first;
        // A division takes as long as ten other steps.
        self.first_account + if self.per_account == 1 { number } else { number / self.per_account }
    }
}

/// The number of the first of each kind, of which there are this many.
fn firsts(counts: impl Iterator<Item = usize>) -> Vec<u32> {
    counts.scan(0, |next, count| Some(std::mem::replace(next, *next + count as u32))).collect()
}
