//! Requests between sites: they leave by the router of the gateway that was asked, pass a master, run at another
//! gateway, and their answers come back.

use offload_policy::{Departure, GatewayLoad, overflow};

use super::World;
use super::event::Event;
use super::group::Group;
use super::observer::Observer;
use super::trace::Happening;
use crate::clock::{MILLISECOND, Nanos, from_policy, policy_time};
use crate::model::link::Direction;
use crate::model::order::Order;
use crate::model::router::{
    Departing, GATHERING, LOAD_EVERY, MAX_HOPS, MasterState, Packet, Says, TICK, Tag, Visit,
};
use crate::model::{Outcome, Router};
use crate::scenario::Scenario;
use crate::statistics::Conditions;

/// What a request holds at its router beside its bytes, as in the runtime.
const OVERHEAD: usize = 1_024;

/// Bytes around a request or an answer between routers: who asks, the path, and the tag.
const ENVELOPE: u64 = 96;

/// Flows that ways between sites are told apart by: none of them is a device's.
const MAX_FLOWS: u32 = 1 << 20;

/// Longest wait for a connection to come about, as in the runtime.
const CONNECT_TIMEOUT: Nanos = 5_000 * MILLISECOND;

/// Ways of a packet that it takes to join: TCP's handshake, CONNECT, the subscription.
const ROUND_TRIPS: usize = 3;

/// First time after which TCP sends a packet again; it doubles.
const RETRANSMISSION: Nanos = 200 * MILLISECOND;

/// The routers of a world and what joins them.
#[derive(Default)]
pub(super) struct Network {
    pub(super) routers: Vec<Router>,
    masters: Vec<MasterState>,
    /// By gateway: its site.
    site_of: Vec<Option<usize>>,
    packets: slab::Slab<Packet>,
    /// What has come to an end of a link that is cut.
    held: Vec<Held>,
    /// Whether any site hands on.
    overflows: bool,
}

/// A packet at the end of a link that is cut: TCP sends it again.
#[derive(Clone, Copy)]
struct Held {
    packet: u32,
    /// The site whose link it is.
    site: usize,
    direction: Direction,
    since: Nanos,
}

impl Network {
    pub(super) fn new(scenario: &Scenario, seed: u64, first_gateways: &[u32], gateways: usize) -> Self {
        if scenario.sites.is_empty() {
            return Self::default();
        }
        let mut site_of = vec![None; gateways];
        let sites = scenario.sites.iter().enumerate();
        let routers: Vec<_> = sites
            .map(|(number, site)| {
                let gateway = first_gateways[site.gateway];
                site_of[gateway as usize] = Some(number);
                Router::new(seed, number, site, gateway)
            })
            .collect();
        Self {
            masters: vec![MasterState::new(routers.len()); scenario.masters.len()],
            overflows: scenario.sites.iter().any(|site| !site.overflow.is_empty()),
            routers,
            site_of,
            ..Self::default()
        }
    }

    /// What is up, and what has passed since this was asked last.
    pub(super) fn conditions(&mut self, groups: &[Group<'_>]) -> Conditions {
        let passed = |router: &mut Router| {
            let passed = router.counters.departed + router.counters.visited;
            passed - std::mem::replace(&mut router.passed, passed)
        };
        Conditions {
            sites: self.routers.iter().map(|router| router.cuts == 0).collect(),
            passed: self.routers.iter_mut().map(passed).collect(),
            masters: self.masters.iter().map(|master| master.crashes == 0).collect(),
            devices: groups.iter().map(|group| !group.condition.is_cut()).collect(),
        }
    }

    /// The site whose router this gateway is.
    pub(super) fn site_of(&self, gateway: u32) -> Option<usize> {
        self.site_of.get(gateway as usize).copied().flatten()
    }

    /// Whether a request of another site runs at this gateway, or has run there.
    fn visit(&mut self, gateway: u32, number: u64) -> Option<&mut Visit> {
        let site = self.site_of(gateway)?;
        self.routers[site].visits.get_mut(&number)
    }

    /// A request is gone: nobody asks for it any more.
    #[inline(always)]
    pub(super) fn forget(&mut self, number: u64) {
        for router in &mut self.routers {
            router.visits.remove(&number);
        }
    }

    /// By which connection this site reaches that one: the first whose master has it.
    fn connection_to(&self, site: usize, to: usize) -> Option<usize> {
        let mut connections = self.routers[site].connections.iter();
        connections.position(|connection| {
            connection.is_joined && self.masters[connection.master].gates[to].is_some()
        })
    }

    /// Whether there may be such a site. While a master is away, or has not heard of all, that is not known.
    fn exists(&self, site: usize, to: usize, now: Nanos) -> bool {
        self.routers[site].connections.iter().any(|connection| {
            let master = &self.masters[connection.master];
            !connection.is_joined || master.has_known[to] || now < master.started + GATHERING
        })
    }

    /// The site that a request which has come by this path is handed on to, if this one is saturated.
    fn less_busy(
        &self,
        scenario: &Scenario,
        site: usize,
        path: &[u16],
        (waiting, running, runnable): (usize, usize, usize),
    ) -> Option<usize> {
        let router = &self.routers[site];
        let candidates = &scenario.sites[site].overflow;
        if candidates.is_empty() || path.len() >= MAX_HOPS {
            return None;
        }
        // What is on its way to others does not wait for the workers here.
        let waiting = waiting.saturating_sub(router.departures.len());
        let workers = scenario.gateways[scenario.sites[site].gateway].config.workers;
        let own = GatewayLoad { workers, requests: running + waiting, waiting: waiting + runnable };
        let is_new = |to: &&usize| !path.contains(&(**to as u16)) && **to != site;
        let others = candidates.iter().filter(is_new).filter_map(|to| {
            self.connection_to(site, *to)?;
            let told = self.routers[*to].told;
            // What is on its way there may not be in that yet.
            Some((*to, GatewayLoad { requests: told.requests + router.departures.of(to), ..told }))
        });
        overflow(own, others)
    }
}

impl<O: Observer> World<'_, O> {
    /// All sites join their masters.
    pub(super) fn open_sites(&mut self) {
        for site in 0..self.network.routers.len() {
            (0..self.network.routers[site].connections.len()).for_each(|at| self.has_joined(site, at, 0));
            let gateway = self.network.routers[site].gateway;
            if self.network.overflows {
                self.calendar.schedule(LOAD_EVERY, Event::TellsLoad { gateway });
            }
        }
    }

    /// Whether a request that a gateway has admitted leaves for another site.
    pub(super) fn departs(&mut self, gateway: u32, order: &Order, now: Nanos) -> bool {
        self.network.site_of(gateway).is_some_and(|site| self.departs_from(site, gateway, order, now))
    }

    /// It leaves where its device asks for another site, or where that is less busy.
    fn departs_from(&mut self, site: usize, gateway: u32, order: &Order, now: Nanos) -> bool {
        let request = order.job.request;
        let of = &self.requests[request];
        let is_home = of.gateway == gateway;
        let group = self.groups[of.group as usize].devices;
        let visit = self.network.visit(gateway, of.number).filter(|_| self.observer.regards_way());
        let path = visit.map(|visit| visit.path.clone()).unwrap_or_default();
        let asked = group.to.filter(|to| is_home && *to != site);
        let of = &self.gateways[gateway as usize].gateway;
        let ((waiting, running), runnable) = (of.load(), of.runnable());
        let to = asked
            .or_else(|| self.network.less_busy(self.scenario, site, &path, (waiting, running, runnable)));
        let Some(to) = to else { return false };
        let is_overflow = asked.is_none();
        let departing = Departing { request, is_overflow, deadline: order.deadline };
        let departure = Departure {
            gate: to,
            weight: order.bytes + OVERHEAD,
            deadline: order.deadline.map(policy_time),
            may_wait: !is_overflow,
            content: departing,
        };
        let router = &mut self.network.routers[site];
        if router.departures.insert(departure, policy_time(now)).is_err() {
            router.counters.refused += 1;
            self.comes_back(site, departing, Outcome::BusySites, now);
            return true;
        }
        router.counters.departed += 1;
        router.counters.handed_on += u64::from(is_overflow);
        router.counters.most = router.counters.most.max(router.departures.len() as u64);
        self.observer.departs(now, site, router.departures.len(), router.departures.bytes());
        self.tell_at(Happening::Departed, request, gateway, now);
        self.pump(site, to, now);
        if !self.network.exists(site, to, now) {
            self.gives_up(site, now);
        }
        self.ticks(site, now);
        true
    }

    /// A router looks for what is overdue.
    pub(super) fn routes(&mut self, gateway: u32, now: Nanos) {
        let Some(site) = self.network.site_of(gateway) else { return };
        self.network.routers[site].is_ticking = false;
        for to in self.network.routers[site].departures.wanted() {
            self.pump(site, to, now);
        }
        self.probes(site, now);
        self.gives_up(site, now);
        self.ticks(site, now);
    }

    /// A router says how busy its gateway is.
    pub(super) fn tells_load(&mut self, gateway: u32, now: Nanos) {
        let Some(site) = self.network.site_of(gateway) else { return };
        let of = &self.gateways[gateway as usize];
        let workers = of.kind.config.workers;
        let (waiting, running) = of.gateway.load();
        self.network.routers[site].told = GatewayLoad { workers, requests: running + waiting, waiting };
        self.calendar.schedule(now + LOAD_EVERY, Event::TellsLoad { gateway });
    }

    /// A message is at its master.
    pub(super) fn at_master(&mut self, number: u32, now: Nanos) {
        let Some(packet) = self.network.packets.get(number as usize) else { return };
        let (from, to) = (packet.from, packet.to);
        if !self.is_connected(from) {
            return self.network.held.push(Held {
                packet: number,
                site: from,
                direction: Direction::Up,
                since: now,
            });
        }
        let connection = &self.network.routers[from].connections[packet.connection];
        let master = connection.master;
        if !connection.is_joined || connection.session != packet.session {
            return self.drop_packet(number, now);
        }
        let state = &mut self.network.masters[master];
        state.free = state.free.max(now) + self.scenario.masters[master].forward;
        let (sent, takes) = (state.free, state.takes(to));
        let packet = &mut self.network.packets[number as usize];
        if !takes {
            if !matches!(packet.says, Says::Request { .. }) {
                return self.drop_packet(number, now);
            }
            packet.says = Says::Returned;
            (packet.from, packet.to) = (to, from);
        }
        let to = packet.to;
        let Some(connection) = self.network.masters[master].gates[to] else {
            return self.drop_packet(number, now);
        };
        let session = self.network.routers[to].connections[connection].session;
        let packet = &mut self.network.packets[number as usize];
        (packet.connection, packet.session) = (connection, session);
        self.network.masters[master].queued[to] += 1;
        let at = self.site_link(to, Direction::Down, number, sent);
        let gateway = self.network.routers[to].gateway;
        self.calendar.schedule(at, Event::AtGate { packet: number, gateway });
    }

    /// A message is at the router that it is for.
    pub(super) fn at_gate(&mut self, number: u32, now: Nanos) {
        let Some(packet) = self.network.packets.get(number as usize) else { return };
        let to = packet.to;
        if !packet.is_read {
            if !self.is_connected(to) {
                let (packet, direction) = (number, Direction::Down);
                return self.network.held.push(Held { packet, site: to, direction, since: now });
            }
            let connection = &self.network.routers[to].connections[packet.connection];
            if !connection.is_joined || connection.session != packet.session {
                return self.drop_packet(number, now);
            }
            let queued = &mut self.network.masters[connection.master].queued[to];
            *queued = queued.saturating_sub(1);
            let gateway = self.network.routers[to].gateway;
            let of = &mut self.gateways[gateway as usize];
            let ingress = of.kind.ingress;
            if ingress > 0 {
                of.ingress_free = of.ingress_free.max(now) + ingress;
                self.network.packets[number as usize].is_read = true;
                return self.calendar.schedule(of.ingress_free, Event::AtGate { packet: number, gateway });
            }
        }
        let gateway = self.network.routers[to].gateway;
        if self.gateways[gateway as usize].condition.is_down {
            return self.drop_packet(number, now);
        }
        let Packet { request, from, tag, says, .. } = self.network.packets.remove(number as usize);
        match says {
            Says::Request { path, deadline } => {
                // What referred to the request as a packet does so as what the gateway has.
                self.visits(to, request, from, tag, path, deadline, now);
            }
            Says::Answer(outcome) => {
                let router = &mut self.network.routers[to];
                let is_ours = tag.instance == router.instance;
                match is_ours.then(|| router.departures.answered(tag.number, &from)).flatten() {
                    Some(departing) => self.comes_back(to, departing, outcome, now),
                    None => router.counters.repeated += 1,
                }
                self.pump(to, from, now);
                self.release(request, now);
            }
            Says::Probe => {
                self.probed(to, from, request, tag, now);
                self.release(request, now);
            }
            Says::Running => {
                let router = &mut self.network.routers[to];
                if tag.instance == router.instance {
                    router.departures.confirmed(tag.number, &from, policy_time(now));
                }
                self.release(request, now);
            }
            Says::Returned => {
                let router = &mut self.network.routers[to];
                if tag.instance == router.instance {
                    router.departures.returned(tag.number, &from, policy_time(now));
                    router.counters.repeated += 1;
                }
                self.ticks(to, now);
                self.release(request, now);
            }
        }
    }

    /// A gateway has the outcome of a request of another site, or of one that another gateway has taken over.
    pub(super) fn concludes_visit(&mut self, gateway: u32, request: u32, outcome: Outcome, now: Nanos) {
        let number = self.requests[request].number;
        if let Some(site) = self.network.site_of(gateway)
            && let Some(visit) = self.network.routers[site].visits.get_mut(&number)
        {
            visit.ended = Some(outcome);
            let askers = std::mem::take(&mut visit.askers);
            if outcome.is_refusal() {
                self.network.routers[site].visits.remove(&number);
            }
            for (asker, tag) in askers {
                self.tells(site, asker, request, tag, Says::Answer(outcome), now);
            }
        }
        self.release(request, now);
    }

    /// What a crash of a gateway does to its site. `lost` is what it ran; what is its devices' own remains of that.
    pub(super) fn site_crashes(&mut self, gateway: u32, lost: &mut Vec<u32>, now: Nanos) {
        let Some(site) = self.network.site_of(gateway) else { return };
        let (visiting, own): (Vec<u32>, Vec<u32>) =
            lost.drain(..).partition(|request| self.requests[*request].gateway != gateway);
        *lost = own;
        let router = &mut self.network.routers[site];
        router.instance += 1;
        router.visits.clear();
        let departing = router.departures.take_all();
        for request in visiting {
            self.release(request, now);
        }
        for request in departing.into_iter().map(|departure| departure.content.request) {
            if self.requests[request].gateway == gateway {
                lost.push(request);
            } else {
                self.release(request, now);
            }
        }
        for at in 0..self.network.routers[site].connections.len() {
            self.leaves(site, at, now);
        }
    }

    /// The gateway of a site is back, or its link: its router tries to join again at once.
    pub(super) fn site_recovers(&mut self, gateway: u32, now: Nanos) {
        if let Some(site) = self.network.site_of(gateway) {
            self.reconnects(site, now);
        }
    }

    /// A link of a site is cut, or its gateway from all others: both ends notice when they hear nothing.
    pub(super) fn site_is_cut(&mut self, site: usize, now: Nanos) {
        let silence = self.scenario.sites[site].keep_alive * 3 / 2;
        let gateway = self.network.routers[site].gateway;
        for (at, connection) in self.network.routers[site].connections.iter().enumerate() {
            let (connection_number, session) = (at as u16, connection.session);
            let event = Event::Silence { gateway, connection: connection_number, session };
            self.calendar.schedule(now + silence, event);
        }
    }

    /// Whether a site is still not heard of: then its connection is lost.
    pub(super) fn silence(&mut self, gateway: u32, at: usize, session: u32, now: Nanos) {
        let Some(site) = self.network.site_of(gateway) else { return };
        let connection = &self.network.routers[site].connections[at];
        let is_silent = !self.is_connected(site) || self.gateways[gateway as usize].condition.pause.is_some();
        if is_silent && connection.is_joined && connection.session == session {
            self.leaves(site, at, now);
            self.tries_again(site, at, 0, now);
        }
    }

    /// What waits for a site's link goes on, when TCP sends it again.
    pub(super) fn reconnects(&mut self, site: usize, now: Nanos) {
        if !self.is_connected(site) {
            return;
        }
        let (ours, others): (Vec<Held>, Vec<Held>) =
            std::mem::take(&mut self.network.held).into_iter().partition(|held| held.site == site);
        self.network.held = others;
        let gateway = self.network.routers[site].gateway;
        for Held { packet, direction, since, .. } in ours {
            let (mut at, mut timeout) = (since + RETRANSMISSION, 2 * RETRANSMISSION);
            while at < now {
                at += timeout;
                timeout *= 2;
            }
            let event = match direction {
                Direction::Up => Event::AtMaster { packet },
                Direction::Down => Event::AtGate { packet, gateway },
            };
            self.calendar.schedule(at, event);
        }
        for at in 0..self.network.routers[site].connections.len() {
            if !self.network.routers[site].connections[at].is_joined {
                self.network.routers[site].connections[at].backoff.reset();
                self.tries_again(site, at, 0, now);
            }
        }
    }

    /// A master's process ends.
    pub(super) fn master_crashes(&mut self, master: usize, now: Nanos) {
        let joined: Vec<(usize, usize)> = self.network.masters[master]
            .gates
            .iter()
            .enumerate()
            .filter_map(|(site, connection)| Some((site, (*connection)?)))
            .collect();
        self.network.masters[master].crash();
        for (site, at) in joined {
            self.leaves(site, at, now);
            self.tries_again(site, at, 0, now);
        }
    }

    /// A master is there again, and knows nobody.
    pub(super) fn master_recovers(&mut self, master: usize, now: Nanos) {
        let state = &mut self.network.masters[master];
        state.crashes -= 1;
        if state.crashes == 0 {
            state.started = now;
        }
    }

    /// A router tries to join a master.
    pub(super) fn joins(&mut self, gateway: u32, at: usize, now: Nanos) {
        let Some(site) = self.network.site_of(gateway) else { return };
        let connection = &mut self.network.routers[site].connections[at];
        connection.is_trying = false;
        let condition = &self.gateways[gateway as usize].condition;
        if connection.is_joined || condition.is_down {
            return;
        }
        let master = connection.master;
        if condition.pause.is_some() || !self.is_connected(site) {
            return self.tries_again(site, at, CONNECT_TIMEOUT, now);
        }
        if self.network.masters[master].crashes > 0 {
            return self.tries_again(site, at, 0, now);
        }
        self.has_joined(site, at, now);
    }

    fn has_joined(&mut self, site: usize, at: usize, now: Nanos) {
        let connection = &mut self.network.routers[site].connections[at];
        connection.is_joined = true;
        connection.session += 1;
        connection.backoff.reset();
        let master = &mut self.network.masters[connection.master];
        master.gates[site] = Some(at);
        master.has_known[site] = true;
        for to in self.network.routers[site].departures.wanted() {
            self.pump(site, to, now);
        }
        for other in 0..self.network.routers.len() {
            if self.network.routers[other].departures.of(&site) > 0 {
                self.pump(other, site, now);
            }
        }
    }

    /// A connection to a master is lost.
    fn leaves(&mut self, site: usize, at: usize, now: Nanos) {
        let router = &mut self.network.routers[site];
        let connection = &mut router.connections[at];
        if !std::mem::replace(&mut connection.is_joined, false) {
            return;
        }
        let master = connection.master;
        router.departures.lost_link(at, policy_time(now));
        if self.network.masters[master].gates[site] == Some(at) {
            self.network.masters[master].gates[site] = None;
        }
        self.network.masters[master].queued[site] = 0;
        // What others have sent it by this master may be lost.
        for other in 0..self.network.routers.len() {
            let by = self.network.routers[other].connections.iter().position(|of| of.master == master);
            if let Some(by) = by
                && self.network.routers[other].departures.of(&site) > 0
            {
                self.network.routers[other].departures.lost_gate(&site, by, policy_time(now));
                self.pump(other, site, now);
                self.ticks(other, now);
            }
        }
        for to in self.network.routers[site].departures.wanted() {
            self.pump(site, to, now);
        }
        self.ticks(site, now);
    }

    fn tries_again(&mut self, site: usize, at: usize, least: Nanos, now: Nanos) {
        let router = &mut self.network.routers[site];
        if std::mem::replace(&mut router.connections[at].is_trying, true) {
            return;
        }
        let wait = from_policy(router.connections[at].backoff.wait(router.random.bits()).into());
        let gateway = router.gateway;
        let mut then = now + least + wait;
        if let Some(link) = self.scenario.sites[site].link {
            then += 2 * ROUND_TRIPS as Nanos * self.scenario.links[link].latency;
        }
        self.calendar.schedule(then, Event::Joins { gateway, connection: at as u16 });
    }

    /// Sends what this site takes.
    fn pump(&mut self, site: usize, to: usize, now: Nanos) {
        let Some(at) = self.network.connection_to(site, to) else { return };
        let gateway = self.network.routers[site].gateway;
        let condition = &self.gateways[gateway as usize].condition;
        if condition.is_down || condition.pause.is_some() {
            return;
        }
        loop {
            let router = &mut self.network.routers[site];
            let (instance, session) = (router.instance, router.connections[at].session);
            let Some((number, departing)) = router.departures.send(&to, at, policy_time(now)) else { return };
            let Departing { request, deadline, .. } = *departing;
            let of = &self.requests[request];
            let visit = router.visits.get(&of.number).filter(|_| of.gateway != gateway);
            let mut path = visit.map(|visit| visit.path.clone()).unwrap_or_default();
            path.push(site as u16);
            router.counters.most_hops = router.counters.most_hops.max(path.len() as u64);
            let says = Says::Request { path, deadline };
            let tag = Tag { instance, number };
            self.sends(
                Packet { request, from: site, to, connection: at, session, tag, says, is_read: false },
                now,
            );
        }
    }

    /// Asks the sites that have requests whether they still do.
    fn probes(&mut self, site: usize, now: Nanos) {
        let router = &mut self.network.routers[site];
        let (instance, departures) = (router.instance, &mut router.departures);
        let mut probes = Vec::new();
        for ((to, _), numbers) in departures.probe(policy_time(now)) {
            let of = numbers.into_iter().filter_map(|number| Some((number, departures.get(number)?.request)));
            probes.extend(of.map(|(number, request)| (to, request, Tag { instance, number })));
        }
        for (to, request, tag) in probes {
            self.tells(site, to, request, tag, Says::Probe, now);
        }
    }

    /// Another site asks what has become of a request.
    fn probed(&mut self, site: usize, from: usize, request: u32, tag: Tag, now: Nanos) {
        let number = self.requests[request].number;
        let says = match self.network.routers[site].visits.get(&number) {
            Some(Visit { ended: Some(outcome), .. }) => Says::Answer(*outcome),
            Some(visit) if visit.askers.contains(&(from, tag)) => Says::Running,
            _ => Says::Returned,
        };
        self.tells(site, from, request, tag, says, now);
    }

    /// Says something of a request to another site, if that is there: otherwise it asks when it is back.
    fn tells(&mut self, site: usize, to: usize, request: u32, tag: Tag, says: Says, now: Nanos) {
        let Some(at) = self.network.connection_to(site, to) else { return };
        let session = self.network.routers[site].connections[at].session;
        self.sends(
            Packet { request, from: site, to, connection: at, session, tag, says, is_read: false },
            now,
        );
    }

    fn sends(&mut self, packet: Packet, now: Nanos) {
        let (request, site) = (packet.request, packet.from);
        self.requests[request].references += 1;
        let number = self.network.packets.insert(packet) as u32;
        let at = self.site_link(site, Direction::Up, number, now);
        self.calendar.schedule(at, Event::AtMaster { packet: number });
    }

    /// When a packet is at the other end of a site's link.
    fn site_link(&mut self, site: usize, direction: Direction, number: u32, now: Nanos) -> Nanos {
        let Some(link) = self.scenario.sites[site].link else { return now };
        let packet = &self.network.packets[number as usize];
        let program = self.groups[self.requests[packet.request].group as usize].program;
        let bytes = ENVELOPE
            + match packet.says {
                Says::Request { .. } => program.request,
                Says::Answer(_) => program.answer,
                Says::Probe | Says::Running | Says::Returned => 0,
            };
        let router = &mut self.network.routers[site];
        self.links[link].arrival(router.gateway, direction, bytes, now, &mut router.random)
    }

    /// A request of another site has come.
    #[expect(clippy::too_many_arguments, reason = "they are what a packet says")]
    fn visits(
        &mut self,
        site: usize,
        request: u32,
        from: usize,
        tag: Tag,
        path: Vec<u16>,
        deadline: Option<Nanos>,
        now: Nanos,
    ) {
        self.observer.visits(now, site, from, &path, &self.requests[request]);
        let number = self.requests[request].number;
        let router = &mut self.network.routers[site];
        let gateway = router.gateway;
        router.counters.visited += 1;
        if let Some(visit) = router.visits.get_mut(&number) {
            match visit.ended {
                Some(outcome) => self.tells(site, from, request, tag, Says::Answer(outcome), now),
                // Whoever asks again under another tag has started again.
                None => {
                    visit.askers.retain(|(asker, _)| *asker != from);
                    visit.askers.push((from, tag));
                }
            }
            self.joined += 1;
            return self.release(request, now);
        }
        let visit = Visit { askers: vec![(from, tag)], path, ended: None };
        router.visits.insert(number, visit);
        self.tell_at(Happening::Visited, request, gateway, now);
        // Whoever asks is the other site: an account of its own, with a flow for each way that its requests come.
        let order = self.order_at(gateway, request, deadline, now);
        if let Err(busy) = self.gateways[gateway as usize].gateway.admit(&order, now) {
            self.watches(gateway, now);
            return self.concludes_visit(gateway, request, busy.reason.into(), now);
        }
        if !self.departs(gateway, &order, now) {
            self.drive(gateway, now, |of, effects| of.proceed(&order, now, effects));
        }
    }

    /// What becomes of a request that has departed: what was handed on and is refused runs here.
    fn comes_back(&mut self, site: usize, departing: Departing, outcome: Outcome, now: Nanos) {
        let Departing { request, is_overflow, deadline } = departing;
        let gateway = self.network.routers[site].gateway;
        let order = self.order_at(gateway, request, deadline, now);
        if is_overflow && outcome.is_refusal() {
            self.network.routers[site].counters.came_back += 1;
            return self.drive(gateway, now, |of, effects| of.proceed(&order, now, effects));
        }
        self.gateways[gateway as usize].gateway.withdraw(&order, now);
        if self.concludes(gateway, request, outcome, now) {
            self.has_answered(gateway);
        }
        self.watches(gateway, now);
    }

    /// What is asked of a gateway for a request, of its own devices or of another site. That is an account, with a flow
    /// for each way by which its requests come.
    fn order_at(&mut self, gateway: u32, request: u32, deadline: Option<Nanos>, now: Nanos) -> Order {
        let order = Order { deadline, ..self.order(request, now) };
        let of = &self.requests[request];
        let (home, number) = (of.gateway, of.number);
        match self.network.visit(gateway, number) {
            Some(visit) if home != gateway => {
                let from = visit.path.last().copied().unwrap_or_default();
                let way = visit.path.iter().fold(0_u32, |way, site| way * 31 % MAX_FLOWS + u32::from(*site));
                Order { key: (u32::MAX - u32::from(from), u32::MAX - way), ..order }
            }
            _ => order,
        }
    }

    fn gives_up(&mut self, site: usize, now: Nanos) {
        let network = &mut self.network;
        let mut departures = std::mem::replace(
            &mut network.routers[site].departures,
            offload_policy::Departures::new(self.scenario.sites[site].bounds),
        );
        let given_up = departures.give_up(policy_time(now), |to| network.exists(site, *to, now));
        network.routers[site].departures = departures;
        network.routers[site].counters.given_up += given_up.len() as u64;
        for (departure, why) in given_up {
            self.comes_back(site, departure.content, why.into(), now);
        }
    }

    /// Schedules a look at what is overdue, as long as anything is on its way.
    fn ticks(&mut self, site: usize, now: Nanos) {
        let router = &mut self.network.routers[site];
        if !router.is_ticking && !router.departures.is_empty() {
            router.is_ticking = true;
            let gateway = router.gateway;
            self.calendar.schedule(now + TICK, Event::Routes { gateway });
        }
    }

    fn is_connected(&self, site: usize) -> bool {
        let router = &self.network.routers[site];
        router.cuts == 0 && !self.gateways[router.gateway as usize].condition.is_cut_off()
    }

    fn drop_packet(&mut self, number: u32, now: Nanos) {
        let packet = self.network.packets.remove(number as usize);
        self.release(packet.request, now);
    }
}
