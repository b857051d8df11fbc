//! The world: all entities of a scenario and the calendar that drives them. One world is one replica, in one thread.

mod agenda;
pub mod by_hand;
pub mod capture;
mod captured;
pub mod event;
mod failing;
pub mod failures;
mod group;
mod life;
pub mod observation;
pub mod observer;
mod requests;
pub mod rest;
pub mod shard;
mod sites;
mod stores;
pub mod trace;

use crate::clock::Nanos;
use crate::clock::calendar::Calendar;
use crate::model::disk::Disk;
use crate::model::gateway::{Answer, Settings};
use crate::model::scheduler::Scheduler;
use crate::model::{Broker, Device, Gateway, LinkState, ModuleCounters, Outcome, Request};
use crate::scenario::{Arrival, FailureKind, GatewayGroup, Scenario, Spread};
use crate::statistics::{Conditions, GatewaySample, Histogram, Recorder};

use agenda::Agenda;
use captured::Captured;
use event::Event;
use failures::{Condition, Slowness};
use group::{Group, groups};
use observer::{Observer, Unobserved};
use requests::Requests;
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
    groups: Vec<Group<'s>>,
    gateways: Vec<Site<'s, O::Scheduler>>,
    /// Where each group's first gateway is.
    first_gateways: Vec<u32>,
    /// By group of gateways: the broker that these have together, if any.
    brokers: Vec<Option<Broker>>,
    links: Vec<LinkState>,
    network: Network,
    /// By interval.
    conditions: Vec<Conditions>,
    requests: Requests,
    made: u64,
    /// Events that came.
    events: u64,
    /// Those of them that each shard has: ends of intervals, and failures of what devices share.
    shared_events: u64,
    recorder: Recorder,
    /// Late answers, and answers that came twice.
    surplus_answers: u64,
    /// Deliveries that joined a request in flight, or got an outcome again.
    joined: u64,
    /// What a gateway has just answered.
    answers: Vec<Answer>,
    /// Whether processes are ever stopped for a time.
    has_pauses: bool,
    trace: Option<Trace<'s>>,
}

/// A gateway, and what has become of it.
struct Site<'s, S> {
    group: u32,
    kind: &'s GatewayGroup,
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
            groups: Vec::new(),
            gateways: Vec::new(),
            first_gateways: Vec::new(),
            brokers: (scenario.gateways.iter())
                .map(|group| Broker::new(group.spread, group.config.window, group.count))
                .collect(),
            links: Vec::new(),
            network: Network::default(),
            conditions: Vec::new(),
            requests: Requests::default(),
            made: 0,
            events: 0,
            shared_events: 0,
            recorder: Recorder::new(scenario.duration, scenario.devices.len()),
            surplus_answers: 0,
            joined: 0,
            answers: Vec::new(),
            has_pauses: scenario.failures.iter().any(|failure| failure.kind == FailureKind::Pause),
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
        world.groups = groups(scenario, &world.shard, &world.first_gateways);
        (0..scenario.devices.len()).for_each(|group| world.add_devices(seed, group as u32));
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
        while self.goes_on(end, pace) && on(self.now()) {}
    }

    /// Goes on until `end`, or for this many events. False where the next one is not to come: the world ends.
    fn goes_on(&mut self, end: Nanos, events: u64) -> bool {
        for _ in 0..events {
            match self.calendar.next_time() {
                Some(now) if now <= end => {
                    let event = self.calendar.take();
                    self.happens(event, now);
                }
                _ => return false,
            }
        }
        true
    }

    /// What it has shown.
    pub fn observe(self) -> Observation {
        let mut open = vec![Histogram::default(); self.scenario.devices.len()];
        for (_, request) in self.requests.iter().filter(|(_, request)| !request.is_done) {
            open[request.group as usize].record(self.scenario.duration.saturating_sub(request.created));
        }
        let slices = self.gateways.iter().map(|site| site.gateway.counters().slices).sum();
        Observation {
            events: self.events - self.shared_events,
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

    fn add_devices(&mut self, seed: u64, group: u32) {
        let Group { devices: of, first, .. } = self.groups[group as usize];
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

    #[inline(always)]
    fn happens(&mut self, event: Event, now: Nanos) {
        self.events += 1;
        if self.has_pauses
            && let Some(gateway) = event.gateway()
            && let Some(until) = self.gateways[gateway as usize].condition.pause
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
                if self.gateways[gateway as usize].condition.runs(incarnation) {
                    self.slice_ends(gateway, worker.into(), now);
                }
            }
            Event::Wakes { gateway, worker, guest, incarnation } => {
                if self.gateways[gateway as usize].condition.runs(incarnation) {
                    let (worker, guest) = (worker.into(), guest as usize);
                    self.drive(gateway, now, |of, effects| of.wakes(worker, guest, now, effects));
                }
            }
            Event::Looks { gateway } => self.drive(gateway, now, |of, effects| of.looks(now, effects)),
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

    /// A gateway, and what it finds around it.
    #[inline(always)]
    fn agenda(&mut self, gateway: u32) -> (&mut Gateway<O::Scheduler>, Agenda<'_>) {
        let Self { gateways, calendar, answers, .. } = self;
        let Site { gateway: of, condition, .. } = &mut gateways[gateway as usize];
        (of, Agenda { calendar, answers, gateway, incarnation: condition.incarnation })
    }

    /// Has a gateway do something, if it has a process, and does what follows.
    #[inline(always)]
    fn drive(
        &mut self,
        gateway: u32,
        now: Nanos,
        what: impl FnOnce(&mut Gateway<O::Scheduler>, &mut Agenda<'_>),
    ) {
        if self.gateways[gateway as usize].condition.is_down {
            return;
        }
        let (of, mut effects) = self.agenda(gateway);
        what(of, &mut effects);
        self.settles(gateway, 0, now);
    }

    /// A gateway has done all that follows from an event, of which it has answered this many requests already: it
    /// answers the others.
    #[inline(always)]
    fn settles(&mut self, gateway: u32, mut answered: u32, now: Nanos) {
        if !self.answers.is_empty() {
            answered += self.answer_all(gateway, now);
        }
        if answered > 0 {
            let of = &self.gateways[gateway as usize];
            if of.kind.spread != Spread::Home {
                let group = of.group as usize;
                (0..answered).for_each(|_| self.has_answered(gateway));
                self.hand_out(group, now);
            }
        }
        self.watches(gateway, now);
    }

    /// A gateway answers what it has ended beside slices; how many at once.
    #[cold]
    fn answer_all(&mut self, gateway: u32, now: Nanos) -> u32 {
        let mut answers = std::mem::take(&mut self.answers);
        let concludes =
            |Answer { request, outcome }| u32::from(self.concludes(gateway, request, outcome, now));
        let answered = answers.drain(..).map(concludes).sum();
        self.answers = answers;
        answered
    }

    /// Whoever observes looks at a gateway that has done all that follows from an event.
    #[inline(always)]
    fn watches(&mut self, gateway: u32, now: Nanos) {
        let Self { gateways, brokers, first_gateways, observer, .. } = self;
        // Nothing in here can fail, so that all of it is left out where nobody observes.
        let Some(site) = gateways.get_mut(gateway as usize) else { return };
        let group = site.group as usize;
        let number = first_gateways.get(group).map_or(0, |first| (gateway - first) as usize);
        let held = brokers.get(group).and_then(|broker| broker.as_ref()?.held(number));
        observer.driven(now, gateway, site.gateway.scheduler(), held);
    }

    /// A gateway has answered a request, which its broker counts.
    fn has_answered(&mut self, gateway: u32) {
        let group = self.gateways[gateway as usize].group as usize;
        if let Some(broker) = &mut self.brokers[group] {
            broker.answered((gateway - self.first_gateways[group]) as usize);
        }
    }

    fn interval_ends(&mut self, now: Nanos) {
        self.shared_events += 1;
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

    #[inline(always)]
    fn tell(&mut self, what: Happening, request: u32, now: Nanos) {
        if let Some(of) = self.requests.get(request) {
            self.observer.step(now, what, of);
        }
        if self.trace.is_some() {
            let gateway = self.requests[request].gateway;
            self.writes(what, request, gateway, now);
        }
    }

    fn tell_at(&mut self, what: Happening, request: u32, gateway: u32, now: Nanos) {
        self.observer.step(now, what, &self.requests[request]);
        self.writes(what, request, gateway, now);
    }

    /// A step of a request goes into the trace, if there is one.
    #[cold]
    fn writes(&mut self, what: Happening, request: u32, gateway: u32, now: Nanos) {
        let Some(trace) = &mut self.trace else { return };
        let Request { number, key: (_, device), attempt, .. } = self.requests[request];
        trace.write(now, what, number, device, gateway, attempt);
        match what {
            Happening::Sent => self.captures(Captured::Sent, request, now),
            Happening::Arrived => self.captures(Captured::Arrived, request, now),
            _ => {}
        }
    }
}

impl<'s, S: Scheduler> Site<'s, S> {
    fn new(group: u32, of: &'s GatewayGroup, scenario: &Scenario, scheduler: S) -> Self {
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
            kind: of,
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

    /// Whether a request was taken from it that it goes on with. From now on that counts as taken no more.
    fn reclaims(&mut self, request: u32) -> bool {
        let at = self.overtaken.iter().position(|of| *of == request);
        at.map(|at| self.overtaken.swap_remove(at)).is_some()
    }

    /// When the thread that receives requests has read one that comes now.
    fn reads(&mut self, now: Nanos) -> Nanos {
        let from = self.condition.pause.map_or(now, |pause| pause.max(now));
        if self.kind.ingress == 0 && from == now {
            return now;
        }
        self.ingress_free = from.max(self.ingress_free) + self.kind.ingress;
        self.ingress_free
    }
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
