//! The world: all entities of a scenario and the calendar that drives them. One world is one replica, in one thread.

pub mod by_hand;
pub mod capture;
mod captured;
pub mod event;
mod failing;
pub mod failures;
mod life;
pub mod observation;
pub mod observer;
pub mod rest;
pub mod shard;
mod sites;
mod stores;
pub mod trace;

use slab::Slab;

use crate::clock::Nanos;
use crate::clock::calendar::Calendar;
use crate::model::disk::Disk;
use crate::model::gateway::Settings;
use crate::model::scheduler::Scheduler;
use crate::model::{Broker, Device, Effect, Gateway, LinkState, ModuleCounters, Outcome, Request};
use crate::scenario::{Arrival, DeviceGroup, GatewayGroup, Scenario, Target};
use crate::statistics::{Conditions, GatewaySample, Histogram, Recorder};

use event::Event;
use failures::{Condition, GroupCondition, Slowness};
use observer::{Observer, Unobserved};
use shard::Shard;
use sites::Network;
use trace::{Happening, Trace};

pub use failures::Trouble;
pub use observation::Observation;

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
    /// How slow it is, and its disk.
    slow: Slowness,
    slow_disk: Slowness,
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
                .map(|group| Broker::new(group.spread, group.config.window, group.count))
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
                let scheduler = world.observer.scheduler(number, of.config.dispatcher_limits());
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
                self.claimed(request, gateway, incarnation, now);
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
            limits: of.config.dispatcher_limits(),
            slice: of.config.slice,
            ticks: of.ticks,
            cpu: of.config.cpu,
            wall: of.config.wall,
            modules: has_modules.then_some(of.config.modules),
        };
        Self {
            group,
            gateway: Gateway::new(settings, scheduler),
            condition: Condition::default(),
            slow: Slowness::default(),
            slow_disk: Slowness::default(),
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
