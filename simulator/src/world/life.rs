//! The life of a request: its device makes it, a gateway gets it, runs it and answers, and its device is done with it.

use super::captured::Captured;
use super::event::Event;
use super::observer::Observer;
use super::trace::Happening;
use super::{Parked, World};
use crate::clock::{MILLISECOND, Nanos, from_policy, policy_time};
use crate::model::link::Direction;
use crate::model::order::{Job, Order};
use crate::model::{Device, ModuleNeed, Outcome, Progress, Request};
use crate::random::Distribution;
use crate::scenario::Arrival;

impl<O: Observer> World<'_, O> {
    /// A device's arrival process is due.
    pub(super) fn due(&mut self, device: u32, now: Nanos) {
        let of = &mut self.devices[device as usize];
        let group = &self.scenario.devices[of.group as usize];
        let mut sends = device;
        match group.arrival {
            Arrival::Burst { size, within, .. } => {
                for _ in 0..size {
                    let at = now + of.random.below(within + 1);
                    self.calendar.schedule(at, Event::Sends { device });
                }
            }
            Arrival::Trace(_) => sends += (of.trace_line() % group.count as u64) as u32,
            _ => {}
        }
        let thinks = matches!(group.arrival, Arrival::Think { .. });
        if !thinks && let Some(at) = of.following(group, now) {
            self.calendar.schedule(at, Event::Due { device });
        }
        if !matches!(group.arrival, Arrival::Burst { .. }) {
            self.makes(sends, now);
        }
    }

    /// A device makes a request and sends it.
    pub(super) fn makes(&mut self, device: u32, now: Nanos) {
        let Device { random, group, number, .. } = &mut self.devices[device as usize];
        let (group, number, of) = (*group, *number, &self.scenario.devices[*group as usize]);
        let program = &self.scenario.programs[of.program];
        let demand = program.time.draw(random);
        let sleep = program.sleep.as_ref().map_or(0, |sleep| sleep.draw(random));
        let random = random.branch();
        let gateways = &self.scenario.gateways[of.gateway];
        let home = (number - self.first_numbers[group as usize]) % gateways.count as u32;
        let gateway = self.first_gateways[of.gateway] + home - self.shard.gateways(of.gateway).start as u32;
        let request = self.requests.insert(Request {
            number: self.made,
            device,
            gateway,
            created: now,
            random,
            demand: demand.saturating_add(gateways.overhead),
            sleep,
            attempt: 0,
            references: 0,
            safe: 0,
            progress: Progress::Unknown,
            is_done: false,
        });
        self.made += 1;
        self.recorder.group(group, now).made += 1;
        self.transmit(request as u32, now);
    }

    /// A device sends a request, again or for the first time.
    pub(super) fn transmit(&mut self, request: u32, now: Nanos) {
        let of_request = &mut self.requests[request as usize];
        let (gateway, attempt) = (of_request.gateway, of_request.attempt);
        let of = &self.scenario.devices[self.devices[of_request.device as usize].group as usize];
        let bytes = self.scenario.programs[of.program].request;
        let at = match of.link {
            Some(link) => {
                self.links[link].arrival(gateway, Direction::Up, bytes, now, &mut of_request.random)
            }
            None => now,
        };
        of_request.references += 1;
        if let Some(timeout) = of.timeout {
            of_request.references += 1;
            self.calendar.schedule(now + timeout, Event::TimesOut { request, attempt });
        }
        self.tell(Happening::Sent, request, now);
        self.captures(Captured::Sent, request, now);
        if at > now {
            self.calendar.schedule(at, Event::Arrives { request, gateway });
        } else {
            self.events += 1;
            self.arrives(request, now);
        }
    }

    /// A request is at its gateway, if there is a connection, or at the broker that chooses one.
    pub(super) fn arrives(&mut self, request: u32, now: Nanos) {
        let Request { device, progress, gateway, .. } = self.requests[request as usize];
        let of = self.devices[device as usize].group as usize;
        if self.groups[of].is_cut() {
            return self.parks(of, Parked::Request(request), now);
        }
        let group = self.scenario.devices[of].gateway;
        let Some(broker) = self.brokers[group].as_mut().filter(|_| progress == Progress::Unknown) else {
            return self.reaches(request, gateway, false, now);
        };
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
    fn reaches(&mut self, request: u32, gateway: u32, is_handed_out: bool, now: Nanos) {
        let Request { device, .. } = self.requests[request as usize];
        let site = &mut self.gateways[gateway as usize];
        if !site.condition.is_reachable() {
            let group = self.devices[device as usize].group;
            if self.scenario.devices[group as usize].qos == 0 {
                self.tell(Happening::Dropped, request, now);
                return self.release(request, now);
            }
            site.parked.push((Parked::Request(request), now));
            return;
        }
        let ingress = self.scenario.gateways[site.group as usize].ingress;
        self.tell(Happening::Arrived, request, now);
        self.captures(Captured::Arrived, request, now);
        let site = &mut self.gateways[gateway as usize];
        let pause = site.condition.pause.unwrap_or(now);
        if ingress == 0 && pause <= now {
            return self.received(request, gateway, is_handed_out, now);
        }
        site.ingress_free = pause.max(now).max(site.ingress_free) + ingress;
        let incarnation = site.condition.incarnation;
        let received = Event::Received { request, gateway, incarnation, is_handed_out };
        self.calendar.schedule(site.ingress_free, received);
    }

    /// The gateway has read a request: it joins what runs, gets its outcome again, or is new.
    pub(super) fn received(&mut self, request: u32, gateway: u32, is_handed_out: bool, now: Nanos) {
        let progress = self.requests[request as usize].progress;
        if is_handed_out && progress != Progress::Unknown {
            // The broker has handed out a repetition, which needs nothing more of this gateway.
            self.has_answered(gateway);
        }
        match progress {
            Progress::InFlight => {
                self.joined += 1;
                self.release(request, now);
            }
            Progress::Ended(outcome) => {
                self.joined += 1;
                self.answer(request, outcome, 0, now);
                self.release(request, now);
            }
            Progress::Unknown if self.reclaims(request, gateway) => {
                let of = &mut self.requests[request as usize];
                (of.progress, of.gateway) = (Progress::InFlight, gateway);
                self.joined += 1;
                self.release(request, now);
            }
            Progress::Unknown => {
                self.requests[request as usize].gateway = gateway;
                if self.is_out_of_time(request, now) {
                    self.answer(request, Outcome::Expired, 0, now);
                    self.release(request, now);
                    return self.has_answered(gateway);
                }
                self.requests[request as usize].progress = Progress::InFlight;
                let order = self.order(request, now);
                if let Err(busy) = self.gateways[gateway as usize].gateway.admit(&order, now) {
                    self.requests[request as usize].progress = Progress::Unknown;
                    let retry_after = from_policy(busy.retry_after) / MILLISECOND;
                    self.answer(request, busy.reason.into(), retry_after as u32, now);
                    self.release(request, now);
                    self.watches(gateway, now);
                    return self.has_answered(gateway);
                }
                // What referred to it as a packet does so as what the gateway has.
                if !self.claims(request, gateway, now) {
                    self.starts(gateway, order, now);
                }
            }
        }
    }

    /// Whether a request was taken from this gateway that it goes on with. From now on it counts as taken no more.
    pub(super) fn reclaims(&mut self, request: u32, gateway: u32) -> bool {
        let overtaken = &mut self.gateways[gateway as usize].overtaken;
        let at = overtaken.iter().position(|of| *of == request);
        at.map(|at| overtaken.swap_remove(at)).is_some()
    }

    /// A gateway begins with a request that it has admitted: it leaves for another site, or runs.
    pub(super) fn starts(&mut self, gateway: u32, order: Order, now: Nanos) {
        self.keeps(gateway, order.job.request, now);
        if !self.departs(gateway, &order, now) {
            self.drive(gateway, None, now, |of, effects| of.proceed(order, now, effects));
        }
    }

    pub(super) fn order(&mut self, request: u32, now: Nanos) -> Order {
        let Request { device, demand, sleep, .. } = self.requests[request as usize];
        let Device { group, number, .. } = self.devices[device as usize];
        let of = &self.scenario.devices[group as usize];
        let program = &self.scenario.programs[of.program];
        let first = self.first_numbers[group as usize];
        let account = match of.account {
            Some(other) => self.first_numbers[other],
            None => first + (number - first) / of.per_account as u32,
        };
        let need = program.modules.is_some().then(|| self.need(request)).flatten();
        Order {
            key: (account, number),
            bytes: program.request as usize,
            program: of.program as u32,
            deadline: of.deadline.map(|deadline| now + deadline),
            need,
            job: Job { request, demand, sleep, yields: program.yields },
        }
    }

    /// What a request needs besides a worker: which of its program's modules, and what that takes.
    fn need(&mut self, request: u32) -> Option<ModuleNeed> {
        let Request { device, random, .. } = &mut self.requests[request as usize];
        let Device { group, number, .. } = self.devices[*device as usize];
        let program = self.scenario.devices[group as usize].program;
        let of = self.scenario.programs[program].modules.as_ref()?;
        let mut draw = |time: &Option<Distribution>| time.as_ref().map_or(0, |time| time.draw(random));
        let number = (number - self.first_numbers[group as usize]) as usize % of.count;
        Some(ModuleNeed {
            module: self.first_modules[program] + number as u32,
            size: of.size as usize,
            compile: draw(&of.compile),
            load: draw(&of.load),
            native: of.native.as_ref().map(|start| start.draw(random)),
        })
    }

    /// A gateway publishes an answer.
    pub(super) fn answer(&mut self, request: u32, outcome: Outcome, retry_after: u32, now: Nanos) {
        self.requests[request as usize].references += 1;
        self.observer.gives(now, outcome, &self.requests[request as usize]);
        let gateway = self.requests[request as usize].gateway;
        let site = &mut self.gateways[gateway as usize];
        if !site.condition.is_reachable() {
            // The session keeps it.
            site.parked.push((Parked::Answer { request, outcome, retry_after }, now));
            return;
        }
        self.tell(Happening::Answered(outcome), request, now);
        let of_request = &mut self.requests[request as usize];
        let Device { group, number, .. } = self.devices[of_request.device as usize];
        let of = &self.scenario.devices[group as usize];
        let bytes = self.scenario.programs[of.program].answer;
        let mut sent = now;
        if let Some(wakes) = of.wakes {
            // It is on the air each time that it wakes, each device at its own moment.
            let phase = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) % wakes;
            sent = phase + now.saturating_sub(phase).div_ceil(wakes) * wakes;
        }
        let at = match of.link {
            Some(link) => {
                self.links[link].arrival(gateway, Direction::Down, bytes, sent, &mut of_request.random)
            }
            None => sent,
        };
        if at > now {
            self.calendar.schedule(at, Event::Answered { request, outcome, retry_after });
        } else {
            self.events += 1;
            self.answered(request, outcome, retry_after, now);
        }
    }

    /// A device has its answer.
    pub(super) fn answered(&mut self, request: u32, outcome: Outcome, retry_after: u32, now: Nanos) {
        let group = self.devices[self.requests[request as usize].device as usize].group as usize;
        if self.groups[group].is_cut() {
            return self.parks(group, Parked::Answer { request, outcome, retry_after }, now);
        }
        self.captures(Captured::Answered(outcome), request, now);
        if self.requests[request as usize].is_done {
            self.surplus_answers += 1;
        } else if !(outcome.is_busy() && self.try_again(request, Nanos::from(retry_after) * MILLISECOND, now))
        {
            self.is_done(request, outcome, now);
        }
        self.release(request, now);
    }

    /// A device has waited for an answer for too long.
    pub(super) fn times_out(&mut self, request: u32, attempt: u16, now: Nanos) {
        let Request { attempt: current, is_done, .. } = self.requests[request as usize];
        if !is_done && current == attempt && !self.try_again(request, 0, now) {
            self.is_done(request, Outcome::Unanswered, now);
        }
        self.release(request, now);
    }

    /// Has a device send a request again later, after `least` at the earliest. False where it has done so often enough.
    fn try_again(&mut self, request: u32, least: Nanos, now: Nanos) -> bool {
        let of = &mut self.requests[request as usize];
        let group = self.devices[of.device as usize].group;
        let group_of = &self.scenario.devices[group as usize];
        if of.attempt >= group_of.retries {
            return false;
        }
        let (shortest, longest) = group_of.backoff;
        let shortest = shortest.saturating_mul(1 << of.attempt.min(32)).min(longest);
        let mut backoff = offload_policy::Backoff::new(policy_time(shortest), policy_time(longest));
        let wait = from_policy(backoff.wait(of.random.bits()));
        of.attempt += 1;
        of.references += 1;
        self.recorder.group(group, now).again += 1;
        self.calendar.schedule(now + wait.max(least), Event::SendsAgain { request });
        true
    }

    fn is_done(&mut self, request: u32, outcome: Outcome, now: Nanos) {
        self.tell(Happening::Done(outcome), request, now);
        let of = &mut self.requests[request as usize];
        of.is_done = true;
        let (device, created) = (of.device, of.created);
        let Device { group, .. } = self.devices[device as usize];
        let sample = self.recorder.group(group, now);
        sample.outcomes[outcome as usize] += 1;
        if outcome == Outcome::Ok {
            sample.latency.record(now - created);
        }
        let of = &self.scenario.devices[group as usize];
        if matches!(of.arrival, Arrival::Think { .. })
            && let Some(at) = self.devices[device as usize].following(of, now)
        {
            self.calendar.schedule(at, Event::Due { device });
        }
    }

    /// Something refers to a request no more. What nothing refers to is gone, and its device will hear nothing of it.
    pub(super) fn release(&mut self, request: u32, now: Nanos) {
        let of = &mut self.requests[request as usize];
        of.references -= 1;
        if of.references == 0 {
            if !of.is_done {
                self.is_done(request, Outcome::Unanswered, now);
            }
            let request = self.requests.remove(request as usize);
            self.network.forget(request.number);
        }
    }
}
