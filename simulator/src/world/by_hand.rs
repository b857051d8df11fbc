//! A world that somebody plays with: it goes on step by step, and cables are pulled while it does.

use super::World;
use crate::clock::Nanos;
use crate::scenario::FailureKind;

/// A world, and how far it has gone on.
pub struct Played<'s> {
    world: World<'s>,
    now: Nanos,
}

/// What a gateway does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayState {
    /// Requests that wait.
    pub waiting: usize,
    /// Guests that hold a slot.
    pub running: usize,
    /// Whether devices can reach it.
    pub is_reachable: bool,
}

impl<'s> Played<'s> {
    /// From here on it is played with.
    pub fn new(world: World<'s>) -> Self {
        Self { world, now: 0 }
    }

    /// Goes on until `end`.
    pub fn advance(&mut self, end: Nanos) {
        self.world.run(end, u64::MAX, |_| true);
        self.now = self.now.max(end);
    }

    /// Pulls the cable of a gateway, so that no device reaches it; or puts it back. Whether there is such a gateway.
    pub fn pull(&mut self, gateway: u32, is_pulled: bool) -> bool {
        let now = self.now;
        let Some(site) = self.world.gateways.get_mut(gateway as usize) else { return false };
        if is_pulled == site.is_pulled {
            return true;
        }
        site.is_pulled = is_pulled;
        if is_pulled {
            self.world.gateway_fails(gateway, FailureKind::Partition, Nanos::MAX, now);
        } else {
            self.world.gateway_recovers(gateway, FailureKind::Partition, now);
        }
        true
    }

    /// What its gateways do.
    pub fn gateways(&self) -> impl Iterator<Item = GatewayState> {
        self.world.gateways.iter().map(|site| {
            let (waiting, running) = site.gateway.load();
            GatewayState { waiting, running, is_reachable: site.condition.is_reachable() }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock::SECOND;
    use crate::scenario::Scenario;

    /// A device that asks ten times a second.
    const SCENARIO: &str = "duration = \"1min\"\n[program.p]\ntime = \"1ms\"\n[gateway.g]\n[device.d]\narrival = { \
                            every = \"100ms\" }\n";

    fn answered(played: Played<'_>) -> u64 {
        let groups = played.world.observe().recorder.groups()[0].clone();
        groups.iter().map(|sample| sample.latency.count()).sum()
    }

    #[test]
    fn in_steps_as_at_once() {
        let scenario = Scenario::parse(SCENARIO, Path::new("scenario.toml")).unwrap();
        let mut stepwise = Played::new(World::new(&scenario, 7));
        (1..=5_000).for_each(|step| stepwise.advance(step * SECOND / 500));
        let mut at_once = Played::new(World::new(&scenario, 7));
        at_once.advance(10 * SECOND);
        assert_eq!((answered(stepwise), answered(at_once)), (100, 100));
    }

    #[test]
    fn nobody_is_answered_while_the_cable_is_pulled_and_everybody_afterwards() {
        let scenario = Scenario::parse(SCENARIO, Path::new("scenario.toml")).unwrap();
        let count = |pull: &dyn Fn(&mut Played<'_>)| {
            let mut played = Played::new(World::new(&scenario, 7));
            played.advance(2 * SECOND);
            assert!(played.pull(0, true) && !played.pull(1, true));
            assert!(!played.gateways().next().unwrap().is_reachable);
            played.advance(4 * SECOND);
            pull(&mut played);
            played.advance(20 * SECOND);
            answered(played)
        };
        assert_eq!(count(&|_| {}), 20);
        assert_eq!(count(&|played| assert!(played.pull(0, false))), 200);
    }
}
