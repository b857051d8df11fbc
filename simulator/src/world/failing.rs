//! What a failure does to the world, and what comes after it.

use offload_policy::Backoff;

use super::event::Event;
use super::failures::Trouble;
use super::group::Group;
use super::observer::Observer;
use super::trace::Happening;
use super::{Parked, Site, World};
use crate::clock::{MILLISECOND, Nanos, SECOND, from_policy, policy_time};
use crate::model::{Progress, Request};
use crate::random::Stream;
use crate::scenario::{FailureKind, GatewayGroup, Spread, Target};

/// The longest wait before a device that lost its gateway tries to connect again; the shortest is a second.
const MAX_RECONNECT: Nanos = 60_000 * MILLISECOND;

/// How often a gateway of a work queue says that it still runs what it has, within the acknowledgement wait.
const REPORTS: Nanos = 3;

/// How far ahead of a gateway's clock a sealed request may be made, as in the contract.
const MAX_AHEAD: i64 = 60 * SECOND as i64;

impl<O: Observer> World<'_, O> {
    pub(super) fn fails(&mut self, trouble: Trouble, now: Nanos) {
        let (kind, target) = (trouble.kind(self.scenario), trouble.target as usize);
        self.shared_events += u64::from(trouble.is_shared(self.scenario));
        let until = now + trouble.lasts(self.scenario);
        match trouble.target(self.scenario) {
            Target::Gateways { .. } => self.gateway_fails(trouble.target, kind, until, now),
            Target::Devices(_) => self.groups[target].condition.begin(kind),
            Target::Site(_) => {
                self.network.routers[target].cuts += 1;
                self.site_is_cut(target, now);
            }
            Target::Master(_) => self.master_crashes(target, now),
        }
        self.calendar.schedule(until, Event::Recovers(trouble));
    }

    pub(super) fn recovers(&mut self, mut trouble: Trouble, now: Nanos) {
        let (kind, target) = (trouble.kind(self.scenario), trouble.target as usize);
        self.shared_events += u64::from(trouble.is_shared(self.scenario));
        match trouble.target(self.scenario) {
            Target::Gateways { .. } => self.gateway_recovers(trouble.target, kind, now),
            Target::Devices(_) => {
                let condition = &mut self.groups[target].condition;
                condition.end(kind);
                if !condition.is_cut() {
                    let parked = std::mem::take(&mut condition.parked);
                    self.unpark(parked, now);
                }
            }
            Target::Site(_) => {
                self.network.routers[target].cuts -= 1;
                self.reconnects(target, now);
            }
            Target::Master(_) => self.master_recovers(target, now),
        }
        if let Some(next) = trouble.next(self.scenario, now) {
            self.calendar.schedule(next, Event::Fails(trouble));
        }
    }

    pub(super) fn gateway_fails(&mut self, gateway: u32, kind: FailureKind, until: Nanos, now: Nanos) {
        let of = &mut self.gateways[gateway as usize];
        of.condition.begin(kind, until);
        match kind {
            FailureKind::Crash => self.crashes(gateway, now),
            FailureKind::Slow(factor) => {
                of.slow.begin(factor);
                of.gateway.set_slowness(of.slow.factor());
            }
            FailureKind::Disk(factor) => {
                of.slow_disk.begin(factor);
                of.disk.slowness = of.slow_disk.factor();
            }
            FailureKind::Pause | FailureKind::Partition => {
                let (gateways, incarnation) = (of.kind, of.condition.incarnation);
                if let Some(site) = self.network.site_of(gateway) {
                    self.site_is_cut(site, now);
                }
                if gateways.spread == Spread::Queue {
                    let at = now + acknowledgement_wait(gateways, now);
                    self.calendar.schedule(at, Event::Overdue { gateway, incarnation });
                }
            }
            FailureKind::Link | FailureKind::Clock(_) => {}
        }
    }

    pub(super) fn gateway_recovers(&mut self, gateway: u32, kind: FailureKind, now: Nanos) {
        let of = &mut self.gateways[gateway as usize];
        of.condition.end(kind, now);
        match kind {
            FailureKind::Slow(factor) => {
                of.slow.end(factor);
                of.gateway.set_slowness(of.slow.factor());
            }
            FailureKind::Disk(factor) => {
                of.slow_disk.end(factor);
                of.disk.slowness = of.slow_disk.factor();
            }
            FailureKind::Crash => of.restarted = Some(now),
            _ => {}
        }
        if of.condition.is_reachable() {
            for request in std::mem::take(&mut of.kept) {
                let order = self.order(request, now);
                self.gateways[gateway as usize].gateway.readmit(&order, now);
                self.starts(gateway, &order, now);
            }
            let parked = std::mem::take(&mut self.gateways[gateway as usize].parked);
            self.unpark(parked, now);
            self.site_recovers(gateway, now);
            self.hand_out(self.gateways[gateway as usize].group as usize, now);
        }
    }

    /// A gateway's process ends.
    fn crashes(&mut self, gateway: u32, now: Nanos) {
        let of = &mut self.gateways[gateway as usize];
        of.ingress_free = now;
        let mut lost = of.gateway.crash();
        lost.append(&mut of.at_store);
        of.overtaken.clear();
        let (group, kind) = (of.group as usize, of.kind);
        self.site_crashes(gateway, &mut lost, now);
        // Whoever was taken for lost before has its requests back already.
        let (own, others): (Vec<u32>, Vec<u32>) =
            lost.into_iter().partition(|request| self.requests[*request].gateway == gateway);
        others.into_iter().for_each(|request| self.release(request, now));
        let first = self.first_gateways[group];
        if kind.config.durable {
            self.keeps_after_crash(gateway, own, now);
            let left = self.gateways[gateway as usize].kept.len();
            if let Some(broker) = &mut self.brokers[group] {
                broker.crashed((gateway - first) as usize, left);
            }
            return;
        }
        if let Some(broker) = &mut self.brokers[group] {
            broker.crashed((gateway - first) as usize, 0);
        }
        // Its sessions are gone as well, with the answers in them.
        let of = &mut self.gateways[gateway as usize];
        let (kept, mut gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut of.parked).into_iter().partition(|(parked, _)| parked.is_request());
        of.parked = kept;
        for group in &mut self.groups {
            let requests = &self.requests;
            gone.extend(group.condition.parked.extract_if(.., |(parked, _)| {
                !parked.is_request() && requests[parked.request()].gateway == gateway
            }));
        }
        for (parked, _) in gone {
            self.observer.is_lost(now, &self.requests[parked.request()]);
            self.release(parked.request(), now);
        }
        for request in own {
            self.requests[request].progress = Progress::Unknown;
            if self.brokers[group].is_some() {
                let at = now + handed_out_again(kind, now);
                self.calendar.schedule(at, Event::Arrives { request, gateway });
            } else {
                self.observer.is_lost(now, &self.requests[request]);
                self.release(request, now);
            }
        }
    }

    /// What a durable gateway has after a crash: what its disk has. The rest was not acknowledged.
    fn keeps_after_crash(&mut self, gateway: u32, lost: Vec<u32>, now: Nanos) {
        for request in lost {
            let Request { group, safe, .. } = self.requests[request];
            if safe <= now {
                self.gateways[gateway as usize].kept.push(request);
                continue;
            }
            self.requests[request].progress = Progress::Unknown;
            if self.groups[group as usize].devices.qos == 0 {
                self.observer.is_lost(now, &self.requests[request]);
                self.release(request, now);
            } else {
                self.gateways[gateway as usize].parked.push((Parked::Request(request), now));
            }
        }
    }

    /// A work queue has not heard of a gateway: what that has goes to others.
    pub(super) fn overdue(&mut self, gateway: u32, incarnation: u16, now: Nanos) {
        let condition = self.gateways[gateway as usize].condition;
        if condition.is_down || condition.takes() || condition.incarnation != incarnation {
            return;
        }
        let kind = self.gateways[gateway as usize].kind;
        let held = self.requests.iter().filter(|(_, request)| {
            request.gateway == gateway && request.progress == Progress::InFlight && !request.is_done
        });
        let held: Vec<u32> = held.map(|(request, _)| request).collect();
        // Whoever has the claim is asked again for as long before another one takes it over.
        let lease = kind.outcomes.as_ref().map_or(0, |_| kind.config.redelivery);
        for request in held {
            let of = &mut self.requests[request];
            of.progress = Progress::Unknown;
            of.gateway = u32::MAX;
            let site = &mut self.gateways[gateway as usize];
            match site.kept.iter().position(|kept| *kept == request) {
                // It has not begun with that again, and does not.
                Some(at) => drop(site.kept.swap_remove(at)),
                None => {
                    of.references += 1;
                    site.overtaken.push(request);
                }
            }
            self.has_answered(gateway);
            self.calendar.schedule(now + lease, Event::Arrives { request, gateway });
        }
    }

    /// What the devices of a group send while their link is cut is lost, or waits.
    #[cold]
    pub(super) fn parks(&mut self, group: u32, parked: Parked, now: Nanos) {
        let Group { devices, condition, .. } = &mut self.groups[group as usize];
        if parked.is_request() && devices.qos == 0 {
            self.tell(Happening::Dropped, parked.request(), now);
            return self.release(parked.request(), now);
        }
        condition.parked.push((parked, now));
    }

    /// Devices come back, each after a wait of its own, with what they had for a gateway and it had for them.
    fn unpark(&mut self, parked: Vec<(Parked, Nanos)>, now: Nanos) {
        for (parked, since) in parked {
            let of = &mut self.requests[parked.request()];
            let at = reconnected(&mut of.random, since, now);
            let gateway = of.gateway;
            match parked {
                Parked::Request(request) => self.calendar.schedule(at, Event::Arrives { request, gateway }),
                Parked::Answer { request, outcome, retry_after } => {
                    self.calendar.schedule(at, Event::Answered { request, outcome, retry_after });
                }
            }
        }
    }
}

/// Whether a sealed request is too old, or not made yet, as its gateway's clock and that of its device say; or too old
/// for a gateway that has started again without a journal.
#[cold]
pub(super) fn is_out_of_time<S>(
    request: &Request,
    group: &Group<'_>,
    site: &Site<'_, S>,
    now: Nanos,
) -> bool {
    let of = site.kind;
    let sealed_at = request.created as i64 + group.condition.skew;
    let read_at = now as i64 + site.condition.skew;
    let is_forgotten = |started: Nanos| sealed_at < started as i64 + site.condition.skew + MAX_AHEAD;
    read_at - sealed_at > of.config.retention as i64
        || sealed_at - read_at > MAX_AHEAD
        || (!of.config.durable && site.restarted.is_some_and(is_forgotten))
}

/// From when a gateway of a work queue is not heard of any more until that is noticed.
fn acknowledgement_wait(kind: &GatewayGroup, now: Nanos) -> Nanos {
    let wait = kind.config.redelivery;
    // It has said something at its last report.
    wait - now % (wait / REPORTS).max(1)
}

/// After how long a broker hands out again what a gateway that has crashed had.
fn handed_out_again(kind: &GatewayGroup, now: Nanos) -> Nanos {
    let redelivery = kind.config.redelivery;
    match kind.spread {
        Spread::Queue if kind.outcomes.is_some() => acknowledgement_wait(kind, now) + redelivery,
        Spread::Queue => acknowledgement_wait(kind, now),
        _ => redelivery,
    }
}

/// When a device that lost its connection at `since` has it again, where that is possible from `now` on: it tries after
/// waits that double.
fn reconnected(random: &mut Stream, since: Nanos, now: Nanos) -> Nanos {
    let mut backoff =
        Backoff::new(policy_time(1_000 * MILLISECOND).into(), policy_time(MAX_RECONNECT).into());
    let mut at = since;
    while at < now {
        at += from_policy(backoff.wait(random.bits()).into());
    }
    at
}
