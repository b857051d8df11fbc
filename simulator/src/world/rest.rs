//! A world that is watched to its end, and from then on until it is at rest: no new requests, no new failures, and time
//! for all that was begun.

use super::World;
use super::event::Event;
use super::observer::Observer;
use crate::clock::Nanos;

/// How a world that was to come to rest has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing is left to do.
    AtRest,
    /// Requests are left that nothing ever happens to, or not in time.
    Stuck,
    /// The observer has seen enough.
    Seen,
    /// More events than were to be looked at.
    TooLong,
}

impl<O: Observer> World<'_, O> {
    /// Who watches, and what gateways ask what is next.
    pub fn parts(&mut self) -> (&mut O, impl Iterator<Item = &mut O::Scheduler>) {
        (&mut self.observer, self.gateways.iter_mut().map(|site| site.gateway.scheduler()))
    }

    /// Goes on to the scenario's end, and then for `grace` at the most until no request is left.
    pub fn run_to_rest(&mut self, grace: Nanos, most_events: u64) -> Rest {
        let end = self.scenario.duration;
        for _ in 0..most_events {
            if self.observer.has_seen_enough() {
                return Rest::Seen;
            }
            let Some((now, event)) = self.calendar.pop() else { break };
            if now > end {
                let is_new = matches!(
                    event,
                    Event::Due { .. } | Event::Sends { .. } | Event::Fails(_) | Event::IntervalEnds
                );
                if self.requests.is_empty() || now - end > grace {
                    break;
                }
                if is_new {
                    continue;
                }
            }
            self.happens(event, now);
        }
        if self.observer.has_seen_enough() {
            Rest::Seen
        } else if self.requests.is_empty() {
            Rest::AtRest
        } else if self.calendar.is_empty() || self.calendar.now() > end.saturating_add(grace) {
            Rest::Stuck
        } else {
            Rest::TooLong
        }
    }
}
