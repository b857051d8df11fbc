//! Who watches a world from inside: what it checks costs nothing where nobody does.

use offload_policy::{Dispatcher, DispatcherLimits};

use super::trace::Happening;
use crate::clock::Nanos;
use crate::model::order::{Job, Key};
use crate::model::scheduler::Scheduler;
use crate::model::{Outcome, Request};

/// Sees what happens in a world, and chooses the schedulers of its gateways.
pub trait Observer {
    /// What gateways ask what is next.
    type Scheduler: Scheduler;

    /// The scheduler of a gateway that is being made.
    fn scheduler(&mut self, gateway: u32, limits: DispatcherLimits) -> Self::Scheduler;

    /// A request takes a step.
    fn step(&mut self, _now: Nanos, _what: Happening, _request: &Request) {}

    /// A gateway gives an answer, which its session keeps where the device cannot be reached.
    fn gives(&mut self, _now: Nanos, _outcome: Outcome, _request: &Request) {}

    /// A site's router has taken a request for another one, and has these many on their way.
    fn departs(&mut self, _now: Nanos, _site: usize, _requests: usize, _bytes: usize) {}

    /// A request has come to a site's gateway from another one; its packet says that it was at these sites.
    fn visits(&mut self, _now: Nanos, _site: usize, _from: usize, _path: &[u16], _request: &Request) {}

    /// Whether a site that hands a request on passes over those that have had it.
    fn regards_way(&self) -> bool {
        true
    }

    /// A crash destroys what a gateway had of a request.
    fn is_lost(&mut self, _now: Nanos, _request: &Request) {}

    /// A gateway has done all that follows from an event, and its broker counts this many requests as its own.
    fn driven(&mut self, _now: Nanos, _gateway: u32, _scheduler: &mut Self::Scheduler, _held: Option<u32>) {}

    /// Whether the world need not go on.
    fn has_seen_enough(&self) -> bool {
        false
    }
}

/// Nobody watches: gateways have the runtime's own dispatcher.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    type Scheduler = Dispatcher<Key, u32, Job>;

    fn scheduler(&mut self, _gateway: u32, limits: DispatcherLimits) -> Self::Scheduler {
        Dispatcher::new(limits)
    }
}
