//! What a gateway waits for beside its workers: the disk that makes requests and outcomes outlive it, and the bucket in
//! which gateways of a work queue have the claims and outcomes of each `id`.

use super::World;
use super::event::Event;
use super::observer::Observer;
use crate::clock::Nanos;
use crate::model::{Outcome, Progress};

impl<O: Observer> World<'_, O> {
    /// A gateway of a work queue claims a request that it has admitted, which takes a call of the bucket.
    pub(super) fn claims(&mut self, request: u32, gateway: u32, now: Nanos) {
        let of = &mut self.gateways[gateway as usize];
        let Some(outcomes) = &of.kind.outcomes else { return };
        of.at_store.push(request);
        let incarnation = of.condition.incarnation;
        let at = now + outcomes.draw(&mut self.requests[request].random);
        self.calendar.schedule(at, Event::Claimed { request, gateway, incarnation });
    }

    /// A durable gateway writes down a request, which runs meanwhile.
    #[inline(always)]
    pub(super) fn keeps(&mut self, gateway: u32, request: u32, now: Nanos) {
        let of = &mut self.gateways[gateway as usize];
        if let Some(disk) = &of.kind.disk {
            let of_request = &mut self.requests[request];
            of_request.safe = of.disk.write(disk.draw(&mut of_request.random), now);
        }
    }

    /// A gateway has an outcome, of a request of its own devices or of another site's. True where it is answered at
    /// once.
    #[inline(always)]
    pub(super) fn concludes(&mut self, gateway: u32, request: u32, outcome: Outcome, now: Nanos) -> bool {
        let Self { requests, gateways, .. } = self;
        let (of, site) = (&mut requests[request], &mut gateways[gateway as usize]);
        if of.gateway != gateway {
            site.reclaims(request);
            self.concludes_visit(gateway, request, outcome, now);
            return false;
        }
        let at = match (&site.kind.disk, &site.kind.outcomes) {
            (Some(disk), _) => site.disk.write(disk.draw(&mut of.random), now),
            (None, Some(outcomes)) => now + outcomes.draw(&mut of.random),
            (None, None) => now,
        };
        if at == now || outcome.is_refusal() {
            self.finishes(gateway, request, outcome, now);
            return true;
        }
        site.at_store.push(request);
        let incarnation = site.condition.incarnation;
        self.calendar.schedule(at, Event::Recorded { request, gateway, incarnation, outcome });
        false
    }

    /// A request is answered, and its outcome known from now on.
    #[inline(always)]
    pub(super) fn finishes(&mut self, gateway: u32, request: u32, outcome: Outcome, now: Nanos) {
        debug_assert_eq!(self.requests[request].gateway, gateway, "a gateway answers what it has");
        let is_known = !outcome.is_refusal();
        self.requests[request].progress = if is_known { Progress::Ended(outcome) } else { Progress::Unknown };
        let retry_after = if outcome.is_busy() { RETRY_AFTER } else { 0 };
        self.answer(request, outcome, retry_after, now);
    }

    /// Whether a request that has waited for the disk or the bucket is still its gateway's, which goes on with it.
    pub(super) fn leaves_store(&mut self, request: u32, gateway: u32, incarnation: u16, now: Nanos) -> bool {
        let of = &mut self.gateways[gateway as usize];
        if !of.condition.runs(incarnation) {
            return false;
        }
        let Some(at) = of.at_store.iter().position(|waits| *waits == request) else { return false };
        of.at_store.swap_remove(at);
        if self.requests[request].gateway == gateway {
            return true;
        }
        // Another gateway has taken it over.
        of.reclaims(request);
        self.release(request, now);
        false
    }

    /// A gateway of a work queue has an answer to its claim: it goes on with the request, unless that is another
    /// gateway's by now.
    pub(super) fn claimed(&mut self, request: u32, gateway: u32, incarnation: u16, now: Nanos) {
        if !self.gateways[gateway as usize].condition.runs(incarnation) {
            return;
        }
        let order = self.order(request, now);
        if self.leaves_store(request, gateway, incarnation, now) {
            self.starts(gateway, &order, now);
        } else {
            self.gateways[gateway as usize].gateway.withdraw(&order, now);
            self.watches(gateway, now);
        }
        self.hand_out(self.gateways[gateway as usize].group as usize, now);
    }
}

/// Milliseconds after which a site that is busy asks to come back, as in the runtime.
const RETRY_AFTER: u32 = 1_000;
