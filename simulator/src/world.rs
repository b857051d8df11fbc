//! The world: all entities of a scenario and the calendar that drives them. One world is one replica, in one thread.

pub mod by_hand;
pub mod capture;
mod captured;
pub mod event;
mod failing;
pub mod failures;
pub mod observer;
pub mod rest;
pub mod shard;
mod sites;
mod stores;
pub mod trace;

use slab::Slab;

use crate::clock::calendar::Calendar;
use crate::clock::{MILLISECOND, Nanos, from_policy, policy_time};
use crate::model::disk::Disk;
use crate::model::gateway::Settings;
use crate::model::link::Direction;
use crate::model::order::{Job, Order};
use crate::model::scheduler::Scheduler;
use crate::model::{
    Broker, Device, Effect, Gateway, LinkState, ModuleCounters, ModuleNeed, Outcome, Progress, Request,
    RouterCounters,
};
use crate::random::Distribution;
use crate::scenario::{Arrival, DeviceGroup, GatewayGroup, Scenario, Target};
use crate::statistics::{Conditions, GatewaySample, Histogram, Recorder};

use captured::Captured;
use event::Event;
use failures::{Condition, GroupCondition};
use observer::{Observer, Unobserved};
use shard::Shard;
use sites::Network;
use trace::{Happening, Trace};

pub use failures::Trouble;

/// A scenario in virtual time.
pub struct World<'s, O: Observer = Unobserved> {
    scenario: &'s Scenario,
    observer: O,
    /// The gateways that are in it, with their devices.
    shard: Shard,
    calendar: Calendar<Event>,
    devices: Vec<Device>,
    /// The number in the scenario of each group's first device.
    first_numbers: Vec<u32>,
    gateways: Vec<Site<O::Scheduler>>,
    /// Where each group's first gateway is.
    first_gateways: Vec<u32>,
    /// By group of gateways: the broker that these have together, if any.
    brokers: Vec<Option<Broker>>,
    links: Vec<LinkState>,
    network: Network,
    /// The number of each program's first module.
    first_modules: Vec<u32>,
    /// By interval.
    conditions: Vec<Conditions>,
    /// What has become of the devices of each group.
    groups: Vec<GroupCondition>,
    requests: Slab<Request>,
    made: u64,
    /// Events that came, ends of intervals aside.
    events: u64,
    recorder: Recorder,
    /// Late answers, and answers that came twice.
    surplus_answers: u64,
    /// Deliveries that joined a request in flight, or got an outcome again.
    joined: u64,
    /// What a gateway has just done.
    effects: Vec<Effect>,
    trace: Option<Trace<'s>>,
}

/// A gateway, and what has become of it.
struct Site<S> {
    group: u32,
    gateway: Gateway<S>,
    condition: Condition,
    /// When the thread that receives requests is free.
    ingress_free: Nanos,
    /// Whether somebody has pulled its cable ([`by_hand`]).
    is_pulled: bool,
    /// Packets of QoS 1 that wait until it can be reached again, and when the first came.
    parked: Vec<(Parked, Nanos)>,
    /// Requests that a crash has not destroyed.
    kept: Vec<u32>,
    /// Requests that wait for the disk, or for the bucket of outcomes.
    at_store: Vec<u32>,
    /// Requests that a work queue has taken from it for others, and that it goes on with.
    overtaken: Vec<u32>,
    disk: Disk,
    /// When its process has started again last.
    restarted: Option<Nanos>,
    /// Busy time as of the last interval's end.
    busy_before: Nanos,
}

/// What waits for a connection.
#[derive(Clone, Copy, Debug)]
enum Parked {
    Request(u32),
    Answer { request: u32, outcome: Outcome, retry_after: u32 },
}

/// What a replica has shown.
#[derive(Clone, Debug)]
pub struct Observation {
    /// By intervals.
    pub recorder: Recorder,
    /// Events that came.
    pub events: u64,
    /// Requests that were neither answered nor given up at the end.
    pub unfinished: u64,
    /// How long these had been open then, by group of devices.
    pub open: Vec<Histogram>,
    /// Late answers, and answers that came twice.
    pub surplus_answers: u64,
    /// Deliveries that joined a request in flight, or got an outcome again.
    pub joined: u64,
    /// By link: bytes carried, and packets sent again.
    pub links: Vec<(u64, u64)>,
    /// Slices, of all gateways.
    pub slices: u64,
    /// By site: what its router has done.
    pub sites: Vec<RouterCounters>,
    /// By interval: what is up beside gateways.
    pub conditions: Vec<Conditions>,
    /// By kind of gateways: what has become of modules, where they are simulated.
    pub modules: Vec<Option<ModuleCounters>>,
}

impl Observation {
    /// Nothing has happened yet in any shard.
    pub fn empty(scenario: &Scenario) -> Self {
        Self {
            recorder: Recorder::new(scenario.duration, scenario.devices.len()),
            events: 0,
            unfinished: 0,
            open: vec![Histogram::default(); scenario.devices.len()],
            surplus_answers: 0,
            joined: 0,
            links: vec![(0, 0); scenario.links.len()],
            slices: 0,
            sites: vec![RouterCounters::default(); scenario.sites.len()],
            conditions: Vec::new(),
            modules: vec![None; scenario.gateways.len()],
        }
    }

    /// Adds what a shard has shown.
    pub fn add(&mut self, scenario: &Scenario, shard: &Shard, of: &Self) {
        let count = scenario.gateways.iter().map(|group| group.count).sum();
        self.recorder.merge(&of.recorder, shard.all_gateways(scenario), count);
        self.events += of.events;
        self.unfinished += of.unfinished;
        self.open.iter_mut().zip(&of.open).for_each(|(open, more)| open.merge(more));
        self.surplus_answers += of.surplus_answers;
        self.joined += of.joined;
        self.slices += of.slices;
        for ((bytes, lost), (more_bytes, more_lost)) in self.links.iter_mut().zip(&of.links) {
            *bytes += more_bytes;
            *lost += more_lost;
        }
        if !of.sites.is_empty() {
            // Sites are all in one shard.
            self.sites.clone_from(&of.sites);
        }
        if self.conditions.is_empty() {
            self.conditions.clone_from(&of.conditions);
        } else {
            self.conditions.iter_mut().zip(&of.conditions).for_each(|(all, more)| all.merge(more));
        }
        for (all, more) in self.modules.iter_mut().zip(&of.modules) {
            *all = all.iter().chain(more).copied().reduce(ModuleCounters::plus);
        }
    }
}

impl<'s> World<'s> {
    /// The scenario at time zero, with a seed.
    pub fn new(scenario: &'s Scenario, seed: u64) -> Self {
        Self::of(scenario, seed, Shard::whole(scenario))
    }

    /// A shard of the scenario at time zero.
    pub fn of(scenario: &'s Scenario, seed: u64, shard: Shard) -> Self {
        Self::observed(scenario, seed, shard, Unobserved)
    }
}

impl<'s, O: Observer> World<'s, O> {
    /// A shard of the scenario at time zero, with a seed, and somebody who watches it.
    pub fn observed(scenario: &'s Scenario, seed: u64, shard: Shard, observer: O) -> Self {
        let mut world = Self {
            scenario,
            observer,
            calendar: Calendar::new(),
            devices: Vec::new(),
            first_numbers: Vec::new(),
            gateways: Vec::new(),
            first_gateways: Vec::new(),
            brokers: (scenario.gateways.iter())
                .map(|group| Broker::new(group.spread, group.window, group.count))
                .collect(),
            links: Vec::new(),
            network: Network::default(),
            first_modules: first_modules(scenario),
            conditions: Vec::new(),
            groups: vec![GroupCondition::default(); scenario.devices.len()],
            requests: Slab::new(),
            made: 0,
            events: 0,
            recorder: Recorder::new(scenario.duration, scenario.devices.len()),
            surplus_answers: 0,
            joined: 0,
            effects: Vec::new(),
            trace: None,
            shard,
        };
        for (group, of) in scenario.gateways.iter().enumerate() {
            world.first_gateways.push(world.gateways.len() as u32);
            for _ in world.shard.gateways(group) {
                let number = world.gateways.len() as u32;
                let scheduler = world.observer.scheduler(number, of.dispatcher_limits());
                world.gateways.push(Site::new(group as u32, of, scenario, scheduler));
            }
        }
        let count = world.gateways.len();
        world.links = scenario.links.iter().map(|link| LinkState::new(link, count)).collect();
        world.devices.reserve(world.shard.devices());
        let mut first = 0;
        for (group, of) in scenario.devices.iter().enumerate() {
            world.first_numbers.push(first);
            world.add_devices(seed, group as u32, first, of);
            first += of.count as u32;
        }
        world.network = Network::new(scenario, seed, &world.first_gateways, count);
        world.open_sites();
        for mut trouble in failures::troubles(scenario, seed, &world.shard, &world.first_gateways) {
            let first = trouble.first(scenario);
            world.calendar.schedule(first, Event::Fails(trouble));
        }
        world.calendar.schedule(world.recorder.interval(), Event::IntervalEnds);
        world
    }

    /// Writes down each step of each request from now on.
    pub fn set_trace(&mut self, trace: Trace<'s>) {
        self.trace = Some(trace);
    }

    /// The virtual time.
    pub fn now(&self) -> Nanos {
        self.calendar.now()
    }

    /// What its calendar has cost ([`Calendar::work`]).
    pub fn work(&self) -> u64 {
        self.calendar.work()
    }

    /// Goes on until `end`, which it is told about from time to time: after `pace` events each. It stops where it is
    /// answered `false`.
    pub fn run(&mut self, end: Nanos, pace: u64, mut on: impl FnMut(Nanos) -> bool) {
        let mut left = pace;
        while let Some((now, event)) = self.calendar.pop() {
            if now > end {
                // It is not to come: the world ends.
                return;
            }
            self.happens(event, now);
            left -= 1;
            if left == 0 {
                left = pace;
                if !on(now) {
                    return;
                }
            }
        }
    }

    /// What it has shown.
    pub fn observe(self) -> Observation {
        let mut open = vec![Histogram::default(); self.scenario.devices.len()];
        for (_, request) in self.requests.iter().filter(|(_, request)| !request.is_done) {
            let group = self.devices[request.device as usize].group;
            open[group as usize].record(self.scenario.duration.saturating_sub(request.created));
        }
        let slices = self.gateways.iter().map(|site| site.gateway.counters().slices).sum();
        Observation {
            events: self.events,
            unfinished: open.iter().map(Histogram::count).sum(),
            open,
            surplus_answers: self.surplus_answers,
            joined: self.joined,
            links: self.links.iter().map(|link| (link.bytes, link.lost)).collect(),
            slices,
            sites: self.network.routers.iter().map(|router| router.counters).collect(),
            modules: self.module_counters(),
            conditions: self.conditions,
            recorder: self.recorder,
        }
    }

    /// By kind of gateways.
    fn module_counters(&self) -> Vec<Option<ModuleCounters>> {
        let of = |group: usize| {
            let gateways = self.gateways.iter().filter(|site| site.group as usize == group);
            gateways.filter_map(|site| site.gateway.module_counters()).reduce(ModuleCounters::plus)
        };
        (0..self.scenario.gateways.len()).map(of).collect()
    }

    fn add_devices(&mut self, seed: u64, group: u32, first: u32, of: &DeviceGroup) {
        // The devices of a group send the lines of one trace between them.
        let is_trace = matches!(of.arrival, Arrival::Trace(_));
        for number in self.shard.numbers(self.scenario, group as usize) {
            let mut device = Device::new(seed, first + number as u32, group);
            if (!is_trace || number == 0)
                && let Some(at) = device.first(of)
            {
                self.calendar.schedule(at, Event::Due { device: self.devices.len() as u32 });
            }
            self.devices.push(device);
        }
    }

    /// Whether each shard has such an event of its own: ends of intervals, and failures of what devices share.
    fn is_of_each_shard(&self, event: Event) -> bool {
        match event {
            Event::IntervalEnds => true,
            Event::Fails(trouble) | Event::Recovers(trouble) => {
                matches!(trouble.target(self.scenario), Target::Devices(_))
            }
            _ => false,
        }
    }

    fn happens(&mut self, event: Event, now: Nanos) {
        self.events += u64::from(!self.is_of_each_shard(event));
        if let Some(until) =
            event.gateway().and_then(|gateway| self.gateways[gateway as usize].condition.pause)
        {
            // A process that is stopped sees nothing before it goes on.
            return self.calendar.schedule(until, event);
        }
        match event {
            Event::Due { device } => self.due(device, now),
            Event::Sends { device } => self.makes(device, now),
            Event::Arrives { request, .. } => self.arrives(request, now),
            Event::Received { request, gateway, incarnation, is_handed_out } => {
                if self.gateways[gateway as usize].condition.incarnation == incarnation {
                    self.received(request, gateway, is_handed_out, now);
                } else {
                    // It crashed before it came to this one.
                    self.arrives(request, now);
                }
                self.hand_out(self.gateways[gateway as usize].group as usize, now);
            }
            Event::SliceEnds { gateway, worker, incarnation } => {
                self.drive(gateway, Some(incarnation), now, |of, effects| {
                    of.slice_ends(worker.into(), now, effects)
                });
            }
            Event::Wakes { gateway, worker, guest, incarnation } => {
                self.drive(gateway, Some(incarnation), now, |of, effects| {
                    of.wakes(worker.into(), guest, now, effects);
                });
            }
            Event::Looks { gateway } => self.drive(gateway, None, now, |of, effects| of.looks(now, effects)),
            Event::Answered { request, outcome, retry_after } => {
                self.answered(request, outcome, retry_after, now)
            }
            Event::TimesOut { request, attempt } => self.times_out(request, attempt, now),
            Event::SendsAgain { request } => {
                self.transmit(request, now);
                self.release(request, now);
            }
            Event::Claimed { request, gateway, incarnation } => {
                if self.leaves_store(request, gateway, incarnation, now) {
                    let order = self.order(request, now);
                    self.starts(gateway, order, now);
                    self.hand_out(self.gateways[gateway as usize].group as usize, now);
                }
            }
            Event::Recorded { request, gateway, incarnation, outcome } => {
                if self.leaves_store(request, gateway, incarnation, now) {
                    self.finishes(gateway, request, outcome, now);
                    self.has_answered(gateway);
                    self.hand_out(self.gateways[gateway as usize].group as usize, now);
                }
            }
            Event::Overdue { gateway, incarnation } => self.overdue(gateway, incarnation, now),
            Event::AtMaster { packet } => self.at_master(packet, now),
            Event::AtGate { packet, gateway } => {
                self.at_gate(packet, now);
                self.hand_out(self.gateways[gateway as usize].group as usize, now);
            }
            Event::Routes { gateway } => {
                self.routes(gateway, now);
                self.hand_out(self.gateways[gateway as usize].group as usize, now);
            }
            Event::TellsLoad { gateway } => self.tells_load(gateway, now),
            Event::Joins { gateway, connection } => self.joins(gateway, connection.into(), now),
            Event::Silence { gateway, connection, session } => {
                self.silence(gateway, connection.into(), session, now);
            }
            Event::Fails(trouble) => self.fails(trouble, now),
            Event::Recovers(trouble) => self.recovers(trouble, now),
            Event::IntervalEnds => self.interval_ends(now),
        }
    }

    /// A device's arrival process is due.
    fn due(&mut self, device: u32, now: Nanos) {
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
    fn makes(&mut self, device: u32, now: Nanos) {
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
    fn transmit(&mut self, request: u32, now: Nanos) {
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
    fn arrives(&mut self, request: u32, now: Nanos) {
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
    fn hand_out(&mut self, group: usize, now: Nanos) {
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
    fn received(&mut self, request: u32, gateway: u32, is_handed_out: bool, now: Nanos) {
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
    fn reclaims(&mut self, request: u32, gateway: u32) -> bool {
        let overtaken = &mut self.gateways[gateway as usize].overtaken;
        let at = overtaken.iter().position(|of| *of == request);
        at.map(|at| overtaken.swap_remove(at)).is_some()
    }

    /// A gateway begins with a request that it has admitted: it leaves for another site, or runs.
    fn starts(&mut self, gateway: u32, order: Order, now: Nanos) {
        self.keeps(gateway, order.job.request, now);
        if !self.departs(gateway, &order, now) {
            self.drive(gateway, None, now, |of, effects| of.proceed(order, now, effects));
        }
    }

    fn order(&mut self, request: u32, now: Nanos) -> Order {
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

    /// Has a gateway do something, unless it was another one's process that was meant, and does what follows.
    fn drive(
        &mut self,
        gateway: u32,
        incarnation: Option<u16>,
        now: Nanos,
        what: impl FnOnce(&mut Gateway<O::Scheduler>, &mut Vec<Effect>),
    ) {
        let site = &mut self.gateways[gateway as usize];
        let current = site.condition.incarnation;
        if site.condition.is_down || incarnation.is_some_and(|incarnation| incarnation != current) {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        what(&mut site.gateway, &mut effects);
        let mut answered = 0;
        for effect in effects.drain(..) {
            match effect {
                Effect::SliceEnds { worker, at } => {
                    let worker = worker as u16;
                    self.calendar.schedule(at, Event::SliceEnds { gateway, worker, incarnation: current });
                }
                Effect::Wakes { worker, guest, at } => {
                    let worker = worker as u16;
                    self.calendar.schedule(at, Event::Wakes { gateway, worker, guest, incarnation: current });
                }
                Effect::Looks { at } => self.calendar.schedule(at, Event::Looks { gateway }),
                Effect::Answers { request, outcome } => {
                    answered += u32::from(self.concludes(gateway, request, outcome, now));
                }
            }
        }
        self.effects = effects;
        if answered > 0 {
            (0..answered).for_each(|_| self.has_answered(gateway));
            self.hand_out(self.gateways[gateway as usize].group as usize, now);
        }
        self.watches(gateway, now);
    }

    /// A gateway has done all that follows from an event.
    fn watches(&mut self, gateway: u32, now: Nanos) {
        let group = self.gateways[gateway as usize].group as usize;
        let number = (gateway - self.first_gateways[group]) as usize;
        let held = self.brokers[group].as_ref().map(|broker| broker.held(number));
        let scheduler = self.gateways[gateway as usize].gateway.scheduler();
        self.observer.driven(now, gateway, scheduler, held);
    }

    /// A gateway has answered a request, which its broker counts.
    fn has_answered(&mut self, gateway: u32) {
        let group = self.gateways[gateway as usize].group as usize;
        if let Some(broker) = &mut self.brokers[group] {
            broker.answered((gateway - self.first_gateways[group]) as usize);
        }
    }

    /// A gateway publishes an answer.
    fn answer(&mut self, request: u32, outcome: Outcome, retry_after: u32, now: Nanos) {
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
    fn answered(&mut self, request: u32, outcome: Outcome, retry_after: u32, now: Nanos) {
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
    fn times_out(&mut self, request: u32, attempt: u16, now: Nanos) {
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
    fn release(&mut self, request: u32, now: Nanos) {
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

    fn interval_ends(&mut self, now: Nanos) {
        let sample = |site: &mut Site<O::Scheduler>| {
            let busy = site.gateway.counters().busy;
            let (waiting, running) = site.gateway.load();
            GatewaySample {
                busy: busy - std::mem::replace(&mut site.busy_before, busy),
                waiting: waiting as u32,
                running: running as u32,
                is_reachable: site.condition.is_reachable(),
            }
        };
        let samples = self.gateways.iter_mut().map(sample).collect();
        self.recorder.push_gateways(samples);
        self.conditions.push(self.network.conditions(&self.groups));
        let next = now + self.recorder.interval();
        if next <= self.scenario.duration {
            self.calendar.schedule(next, Event::IntervalEnds);
        }
    }

    fn tell(&mut self, what: Happening, request: u32, now: Nanos) {
        self.tell_at(what, request, self.requests[request as usize].gateway, now);
    }

    fn tell_at(&mut self, what: Happening, request: u32, gateway: u32, now: Nanos) {
        self.observer.step(now, what, &self.requests[request as usize]);
        if let Some(trace) = &mut self.trace {
            let Request { number, device, attempt, .. } = self.requests[request as usize];
            let device = self.devices[device as usize].number;
            trace.write(now, what, number, device, gateway, attempt);
        }
    }
}

impl<S: Scheduler> Site<S> {
    fn new(group: u32, of: &GatewayGroup, scenario: &Scenario, scheduler: S) -> Self {
        let has_modules = scenario.programs.iter().any(|program| program.modules.is_some());
        let settings = Settings {
            limits: of.dispatcher_limits(),
            slice: of.slice,
            ticks: of.ticks,
            cpu: of.cpu,
            wall: of.wall,
            modules: has_modules.then_some(of.modules),
        };
        Self {
            group,
            gateway: Gateway::new(settings, scheduler),
            condition: Condition::default(),
            ingress_free: 0,
            is_pulled: false,
            parked: Vec::new(),
            kept: Vec::new(),
            at_store: Vec::new(),
            overtaken: Vec::new(),
            disk: Disk::new(),
            restarted: None,
            busy_before: 0,
        }
    }
}

/// The number of each program's first module, of all in the world.
fn first_modules(scenario: &Scenario) -> Vec<u32> {
    let counts = scenario.programs.iter().map(|program| program.modules.as_ref().map_or(1, |of| of.count));
    counts.scan(0, |next, count| Some(std::mem::replace(next, *next + count as u32))).collect()
}

impl Parked {
    fn request(self) -> u32 {
        match self {
            Self::Request(request) | Self::Answer { request, .. } => request,
        }
    }

    fn is_request(self) -> bool {
        matches!(self, Self::Request(_))
    }
}
