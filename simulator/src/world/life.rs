//! The life of a request: its device makes it, a gateway gets it, runs it and answers, and its device is done with it.
//!
//! Where neither links nor disks take time all of it happens in two events: its device is due, and its guest's slice
//! ends. Steps that nearly always follow one another are inlined, since a call takes as long as a step.

use super::captured::Captured;
use super::event::Event;
use super::failing::is_out_of_time;
use super::observer::Observer;
use super::trace::Happening;
use super::{Parked, World};
use crate::clock::{MILLISECOND, Nanos, from_policy, policy_time};
use crate::model::gateway::Answer;
use crate::model::link::Direction;
use crate::model::order::Order;
use crate::model::{Outcome, Progress, Request};
use crate::scenario::{Arrival, Spread};

impl<O: Observer> World<'_, O> {
    /// A device's arrival process is due.
    pub(super) fn due(&mut self, device: u32, now: Nanos) {
        let of = &mut self.devices[device as usize];
        let group = self.groups[of.group as usize].devices;
        let sends = match group.arrival {
            Arrival::Burst { size, within, .. } => {
                for _ in 0..size {
                    let at = now + of.random.below(within + 1);
                    self.calendar.schedule(at, Event::Sends { device });
                }
                None
            }
            Arrival::Trace(_) => Some(device + (of.trace_line() % group.count as u64) as u32),
            _ => Some(device),
        };
        if let Some(at) = of.following(group, now) {
            self.calendar.schedule(at, Event::Due { device });
        }
        if let Some(device) = sends {
            self.makes(device, now);
        }
    }

    /// A device makes a request and sends it.
    #[inline(always)]
    pub(super) fn makes(&mut self, device: u32, now: Nanos) {
        let of = &mut self.devices[device as usize];
        let group = &self.groups[of.group as usize];
        let demand = group.program.time.draw(&mut of.random);
        let sleep = group.program.sleep.as_ref().map_or(0, |sleep| sleep.draw(&mut of.random));
        let request = self.requests.insert(Request {
            number: self.made,
            device,
            key: (group.account(of.number), of.number),
            group: of.group,
            gateway: group.home(of.number),
            created: now,
            random: of.random.branch(),
            demand: demand.saturating_add(group.gateways.overhead),
            sleep,
            attempt: 0,
            references: 0,
            safe: 0,
            progress: Progress::Unknown,
            is_done: false,
        });
        self.made += 1;
        self.recorder.group(of.group, now).made += 1;
        self.transmit(request, now);
    }

    /// A device sends a request, again or for the first time.
    #[inline(always)]
    pub(super) fn transmit(&mut self, request: u32, now: Nanos) {
        let of = &mut self.requests[request];
        let group = &self.groups[of.group as usize];
        let (gateway, attempt) = (of.gateway, of.attempt);
        let at = match group.devices.link {
            Some(link) => {
                let bytes = group.program.request;
                self.links[link].arrival(gateway, Direction::Up, bytes, now, &mut of.random)
            }
            None => now,
        };
        of.references += 1;
        if let Some(timeout) = group.devices.timeout {
            of.references += 1;
            self.calendar.schedule(now + timeout, Event::TimesOut { request, attempt });
        }
        self.tell(Happening::Sent, request, now);
        if at > now {
            self.calendar.schedule(at, Event::Arrives { request, gateway });
        } else {
            self.events += 1;
            self.arrives(request, now);
        }
    }

    /// A request is at its gateway, if there is a connection, or at the broker that chooses one.
    #[inline(always)]
    pub(super) fn arrives(&mut self, request: u32, now: Nanos) {
        let Request { group, progress, gateway, .. } = self.requests[request];
        let of = &self.groups[group as usize];
        if of.condition.is_cut() {
            self.parks(group, Parked::Request(request), now);
        } else if of.gateways.spread == Spread::Home || progress != Progress::Unknown {
            self.reaches(request, gateway, false, now);
        } else {
            self.is_offered(request, of.devices.gateway, now);
        }
    }

    /// A request is at the broker of a group of gateways, which hands it out or keeps it until one has room.
    fn is_offered(&mut self, request: u32, group: usize, now: Nanos) {
        let Some(broker) = &mut self.brokers[group] else { return };
        let (first, gateways) = (self.first_gateways[group], &self.gateways);
        let chosen = broker.offer(request, |at| gateways[first as usize + at].condition.takes());
        if let Some(gateway) = chosen {
            self.reaches(request, first + gateway as u32, true, now);
            self.hand_out(group, now);
        }
    }

    /// What waits at a broker goes to gateways that have room now.
    pub(super) fn hand_out(&mut self, group: usize, now: Nanos) {
        while let Some(broker) = &mut self.brokers[group] {
            let (first, gateways) = (self.first_gateways[group], &self.gateways);
            let next = broker.hand_out(|at| gateways[first as usize + at].condition.takes());
            let Some((request, gateway)) = next else { return };
            self.reaches(request, first + gateway as u32, true, now);
        }
    }

    /// A request is at a gateway, if there is a connection: its own one, or the one to which a broker has handed it
    /// out.
    #[inline(always)]
    fn reaches(&mut self, request: u32, gateway: u32, is_handed_out: bool, now: Nanos) {
        let site = &mut self.gateways[gateway as usize];
        if !site.condition.is_reachable() {
            return self.finds_nobody(request, gateway, now);
        }
        let (read, incarnation) = (site.reads(now), site.condition.incarnation);
        self.tell(Happening::Arrived, request, now);
        if read > now {
            let received = Event::Received { request, gateway, incarnation, is_handed_out };
            self.calendar.schedule(read, received);
        } else {
            self.received(request, gateway, is_handed_out, now);
        }
    }

    /// There is no connection to the gateway of a request, which is lost or waits.
    #[cold]
    fn finds_nobody(&mut self, request: u32, gateway: u32, now: Nanos) {
        let group = self.requests[request].group;
        if self.groups[group as usize].devices.qos == 0 {
            self.tell(Happening::Dropped, request, now);
            self.release(request, now);
        } else {
            self.gateways[gateway as usize].parked.push((Parked::Request(request), now));
        }
    }

    /// The gateway has read a request: it comes again, or is new to it and admitted, where there is room.
    #[inline(always)]
    pub(super) fn received(&mut self, request: u32, gateway: u32, is_handed_out: bool, now: Nanos) {
        let Self { requests, groups, gateways, .. } = self;
        let (of, site) = (&mut requests[request], &mut gateways[gateway as usize]);
        if of.progress != Progress::Unknown || site.reclaims(request) {
            return self.repeats(request, gateway, is_handed_out, now);
        }
        let group = &groups[of.group as usize];
        of.gateway = gateway;
        if group.devices.sealed && is_out_of_time(of, group, site, now) {
            return self.refuses(request, gateway, Outcome::Expired, 0, now);
        }
        let order = group.order(request, of, now);
        if let Err(busy) = site.gateway.admit(&order, now) {
            let retry_after = (from_policy(busy.retry_after) / MILLISECOND) as u32;
            return self.refuses(request, gateway, busy.reason.into(), retry_after, now);
        }
        // What referred to it as a packet does so as what the gateway has.
        of.progress = Progress::InFlight;
        if site.kind.outcomes.is_some() {
            self.claims(request, gateway, now);
        } else {
            self.starts(gateway, &order, now);
        }
    }

    /// A request comes again: it joins what runs, or gets its outcome.
    #[cold]
    fn repeats(&mut self, request: u32, gateway: u32, is_handed_out: bool, now: Nanos) {
        let of = &mut self.requests[request];
        let progress = of.progress;
        if progress == Progress::Unknown {
            (of.progress, of.gateway) = (Progress::InFlight, gateway);
        } else if is_handed_out {
            // The broker has handed out a repetition, which needs nothing more of this gateway.
            self.has_answered(gateway);
        }
        self.joined += 1;
        match progress {
            Progress::Ended(outcome) => self.answer(request, outcome, 0, now),
            Progress::InFlight | Progress::Unknown => self.release(request, now),
        }
    }

    /// A gateway answers at once, and runs nothing.
    #[cold]
    fn refuses(&mut self, request: u32, gateway: u32, outcome: Outcome, retry_after: u32, now: Nanos) {
        self.answer(request, outcome, retry_after, now);
        self.watches(gateway, now);
        self.has_answered(gateway);
    }

    /// What is asked of a gateway for a request.
    pub(super) fn order(&mut self, request: u32, now: Nanos) -> Order {
        let of = &mut self.requests[request];
        self.groups[of.group as usize].order(request, of, now)
    }

    /// A gateway begins with a request that it has admitted: it leaves for another site, or runs.
    #[inline(always)]
    pub(super) fn starts(&mut self, gateway: u32, order: &Order, now: Nanos) {
        self.keeps(gateway, order.job.request, now);
        if !self.departs(gateway, order, now) {
            self.drive(gateway, now, |of, effects| of.proceed(order, now, effects));
        }
    }

    /// A worker's slice has ended. If its guest has, that is answered before the worker goes on.
    pub(super) fn slice_ends(&mut self, gateway: u32, worker: usize, now: Nanos) {
        let (of, mut effects) = self.agenda(gateway);
        let ended = of.slice_ends(worker, now, &mut effects);
        let is_answered =
            ended.is_some_and(|Answer { request, outcome }| self.concludes(gateway, request, outcome, now));
        let (of, mut effects) = self.agenda(gateway);
        of.goes_on(worker, ended.is_some(), now, &mut effects);
        self.settles(gateway, is_answered.into(), now);
    }

    /// A gateway publishes its answer to a request, of which it has nothing more.
    #[inline(always)]
    pub(super) fn answer(&mut self, request: u32, outcome: Outcome, retry_after: u32, now: Nanos) {
        let Self { requests, groups, gateways, links, observer, .. } = self;
        let of = &mut requests[request];
        let (group, site) = (&groups[of.group as usize], &mut gateways[of.gateway as usize]);
        observer.gives(now, outcome, of);
        if !site.condition.is_reachable() {
            // The session keeps it.
            site.parked.push((Parked::Answer { request, outcome, retry_after }, now));
            return;
        }
        let mut at = now;
        if let Some(wakes) = group.devices.wakes {
            // It is on the air each time that it wakes, each device at its own moment.
            let phase = u64::from(of.key.1).wrapping_mul(0x9e37_79b9_7f4a_7c15) % wakes;
            at = phase + now.saturating_sub(phase).div_ceil(wakes) * wakes;
        }
        if let Some(link) = group.devices.link {
            let bytes = group.program.answer;
            at = links[link].arrival(of.gateway, Direction::Down, bytes, at, &mut of.random);
        }
        self.tell(Happening::Answered(outcome), request, now);
        if at > now {
            self.calendar.schedule(at, Event::Answered { request, outcome, retry_after });
        } else {
            self.events += 1;
            self.answered(request, outcome, retry_after, now);
        }
    }

    /// A device has its answer.
    #[inline(always)]
    pub(super) fn answered(&mut self, request: u32, outcome: Outcome, retry_after: u32, now: Nanos) {
        let Request { group, is_done, .. } = self.requests[request];
        if self.groups[group as usize].condition.is_cut() {
            return self.parks(group, Parked::Answer { request, outcome, retry_after }, now);
        }
        self.captures(Captured::Answered(outcome), request, now);
        if is_done {
            self.surplus_answers += 1;
        } else if !(outcome.is_busy() && self.try_again(request, Nanos::from(retry_after) * MILLISECOND, now))
        {
            self.is_done(request, outcome, now);
        }
        self.release(request, now);
    }

    /// A device has waited for an answer for too long.
    pub(super) fn times_out(&mut self, request: u32, attempt: u16, now: Nanos) {
        let Request { attempt: current, is_done, .. } = self.requests[request];
        if !is_done && current == attempt && !self.try_again(request, 0, now) {
            self.is_done(request, Outcome::Unanswered, now);
        }
        self.release(request, now);
    }

    /// Has a device send a request again later, after `least` at the earliest. False where it has done so often enough.
    fn try_again(&mut self, request: u32, least: Nanos, now: Nanos) -> bool {
        let of = &mut self.requests[request];
        let group = self.groups[of.group as usize].devices;
        if of.attempt >= group.retries {
            return false;
        }
        let (shortest, longest) = group.backoff;
        let shortest = shortest.saturating_mul(1 << of.attempt.min(32)).min(longest);
        let mut backoff =
            offload_policy::Backoff::new(policy_time(shortest).into(), policy_time(longest).into());
        let wait = from_policy(backoff.wait(of.random.bits()).into());
        of.attempt += 1;
        of.references += 1;
        self.recorder.group(of.group, now).again += 1;
        self.calendar.schedule(now + wait.max(least), Event::SendsAgain { request });
        true
    }

    #[inline(always)]
    fn is_done(&mut self, request: u32, outcome: Outcome, now: Nanos) {
        self.tell(Happening::Done(outcome), request, now);
        let of = &mut self.requests[request];
        of.is_done = true;
        let sample = self.recorder.group(of.group, now);
        sample.outcomes[outcome as usize] += 1;
        if outcome == Outcome::Ok {
            sample.latency.record(now - of.created);
        }
        let group = self.groups[of.group as usize].devices;
        if let Arrival::Think { mean } = group.arrival {
            let device = of.device;
            let at = self.devices[device as usize].memoryless(mean, group.surge, now);
            self.calendar.schedule(at, Event::Due { device });
        }
    }

    /// Something refers to a request no more. What nothing refers to is gone, and its device will hear nothing of it.
    #[inline(always)]
    pub(super) fn release(&mut self, request: u32, now: Nanos) {
        let of = &mut self.requests[request];
        of.references = of.references.checked_sub(1).expect("who refers to a request is counted");
        if of.references == 0 {
            if !of.is_done {
                self.is_done(request, Outcome::Unanswered, now);
            }
            self.network.forget(self.requests[request].number);
            self.requests.remove(request);
        }
    }
}
