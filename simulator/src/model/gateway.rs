//! A gateway: the runtime's own [`Dispatcher`], driven as its workers drive it, in virtual time.
//!
//! What the runtime adds to the dispatcher is here in its simplest form: who is asked again when something may have
//! changed, which slices are charged, and which are told to end and go on. `runtime/src/wasm/worker.rs` and
//! `runtime/src/wasm/scheduler.rs` are the originals.

use offload_policy::{Busy, Dispatcher, DispatcherLimits, GuestId, Load, Next, SliceTime, Submission, Time};

use super::idle::Idle;
use super::modules::{ModuleCounters, Modules, Turn};
use super::order::{Job, Key, Order};
use super::outcome::Outcome;
use super::scheduler::Scheduler;
use crate::clock::{Nanos, from_policy, policy_time};
use crate::scenario::ModuleLimits;

/// A slice that goes on for this many slices was told to end, as in the runtime.
const OVERRUN_SLICES: Nanos = 10;

/// What a gateway does to the world around it.
pub trait Effects {
    /// [`Gateway::slice_ends`] is to be called then.
    fn slice_ends(&mut self, worker: usize, at: Nanos);

    /// [`Gateway::wakes`] is to be called then.
    fn wakes(&mut self, worker: usize, guest: GuestId, at: Nanos);

    /// [`Gateway::looks`] is to be called then: something may be overdue.
    fn looks(&mut self, at: Nanos);

    /// A request is answered.
    fn answers(&mut self, answer: Answer);
}

/// An answer of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's number in the world.
    pub request: u32,
    /// What became of it.
    pub outcome: Outcome,
}

/// How a gateway is made.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What its dispatcher shares out.
    pub limits: DispatcherLimits,
    /// The longest slice.
    pub slice: Nanos,
    /// Whether slices end when a clock ticks, once in each longest slice, as in the runtime: a slice that begins
    /// between two ticks is a short one.
    pub ticks: bool,
    /// CPU time of a guest.
    pub cpu: Nanos,
    /// Wall-clock time of a guest.
    pub wall: Nanos,
    /// What modules may take, where they are simulated.
    pub modules: Option<ModuleLimits>,
}

/// What a gateway has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    /// Time in which its workers have run guests, of all together.
    pub busy: Nanos,
    /// Slices.
    pub slices: u64,
    /// Guests that were started.
    pub started: u64,
}

/// One gateway; see the [module](self).
#[derive(Debug)]
pub struct Gateway<S = Dispatcher<Key, u32, Job>> {
    settings: Settings,
    /// CPU and wall-clock time of a guest.
    budget: (Time, Time),
    dispatcher: S,
    workers: Vec<Worker>,
    /// Workers that run no slice.
    idle: Idle,
    /// When it is to look for what is overdue, if that is scheduled.
    looks: Option<Nanos>,
    /// When its clock ticks, after the last slice began.
    next_tick: Nanos,
    /// How many times as long everything takes.
    slowness: f64,
    counters: Counters,
    modules: Option<Box<Modules>>,
}

#[derive(Debug, Default)]
struct Worker {
    slice: Option<Slice>,
    guests: Vec<Option<Guest>>,
    /// How many guests it has.
    running: usize,
}

/// What a worker runs now.
#[derive(Clone, Copy, Debug)]
struct Slice {
    guest: GuestId,
    /// CPU time that it takes.
    length: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Guest {
    request: u32,
    /// Whether its slices can be ended.
    yields: bool,
    /// Whether it has had no slice.
    is_new: bool,
    /// How long it sleeps after its first slice, which is empty then.
    sleep: Nanos,
    /// The CPU time that it still takes.
    remaining: Nanos,
}

impl<S: Scheduler> Gateway<S> {
    /// Nothing waits and nothing runs, of its scheduler neither.
    pub fn new(settings: Settings, dispatcher: S) -> Self {
        let workers = settings.limits.workers;
        Self {
            dispatcher,
            workers: std::iter::repeat_with(Worker::default).take(workers).collect(),
            idle: Idle::all(workers),
            looks: None,
            next_tick: 0,
            slowness: 1.0,
            counters: Counters::default(),
            modules: settings.modules.map(|limits| Box::new(Modules::new(limits, workers))),
            budget: (policy_time(settings.cpu), policy_time(settings.wall)),
            settings,
        }
    }

    /// What it has done.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Who says what is next.
    pub fn scheduler(&mut self) -> &mut S {
        &mut self.dispatcher
    }

    /// Requests that wait, and guests that hold a slot.
    pub fn load(&self) -> (usize, usize) {
        (self.dispatcher.waiting().requests, self.dispatcher.running())
    }

    /// Guests that hold a slot and wait for their next slice.
    pub fn runnable(&self) -> usize {
        self.dispatcher.runnable()
    }

    /// From now on everything takes this many times as long.
    pub fn set_slowness(&mut self, factor: f64) {
        self.slowness = factor;
    }

    /// What has become of its modules, where they are simulated.
    pub fn module_counters(&self) -> Option<ModuleCounters> {
        self.modules.as_ref().map(|modules| modules.counters)
    }

    /// A request comes. It counts as waiting until it starts, expires, or is [withdrawn](Self::withdraw).
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn admit(&mut self, order: &Order, now: Nanos) -> Result<(), Busy> {
        self.dispatcher.admit(&order.key, load(order.bytes), policy_time(now))
    }

    /// A request comes again that was taken before a crash: it is not refused.
    pub fn readmit(&mut self, order: &Order, now: Nanos) {
        self.dispatcher.readmit(&order.key, load(order.bytes), policy_time(now));
    }

    /// A request that was admitted leaves without having been queued here.
    pub fn withdraw(&mut self, order: &Order, now: Nanos) {
        self.dispatcher.withdraw(&order.key, load(order.bytes), policy_time(now));
    }

    /// A request that was admitted is to be run here: at once, or when its module is there.
    #[inline(always)]
    pub fn proceed(&mut self, order: &Order, now: Nanos, effects: &mut impl Effects) {
        let is_at_hand = match (&mut self.modules, order.need) {
            (Some(modules), Some(mut need)) => {
                need.compile = slower(need.compile, self.slowness);
                modules.want(Order { need: Some(need), ..*order }, need, now)
            }
            _ => true,
        };
        if is_at_hand {
            self.submit(order, now, effects);
        } else {
            self.turn(now, effects);
        }
    }

    /// A worker's slice has ended, and so may have its guest, which is answered so. Then the worker
    /// [goes on](Self::goes_on).
    #[inline(always)]
    pub fn slice_ends(&mut self, worker: usize, now: Nanos, effects: &mut impl Effects) -> Option<Answer> {
        let Worker { slice, guests, .. } = &mut self.workers[worker];
        let Slice { guest, length } = slice.take()?;
        self.idle.insert(worker);
        let of = guests[guest].as_mut()?;
        of.remaining -= length;
        let took = self.settings.took(std::mem::take(&mut of.is_new), length);
        let sleep = std::mem::take(&mut of.sleep);
        if of.remaining == 0 && sleep == 0 {
            self.dispatcher.finished(worker, guest, took);
            return self.end(worker, guest, Outcome::Ok);
        }
        if !self.dispatcher.slice_ended(worker, guest, took) {
            self.dispatcher.release(worker, guest);
            return self.end(worker, guest, Outcome::CpuLimit);
        }
        if sleep > 0 {
            effects.wakes(worker, guest, now + sleep);
        } else {
            self.dispatcher.ready(worker, guest, policy_time(now));
        }
        None
    }

    /// A worker without a slice does what is next, and the others look at the queue where slots are free again. As in
    /// the runtime it asks nobody where it has no guests and nothing is queued.
    pub fn goes_on(&mut self, worker: usize, is_released: bool, now: Nanos, effects: &mut impl Effects) {
        if self.workers[worker].running == 0 && self.dispatcher.queued() == 0 {
            return;
        }
        if self.work(worker, now, effects) || is_released {
            self.wake_others(now, effects);
        }
    }

    /// A guest that slept goes on.
    pub fn wakes(&mut self, worker: usize, guest: GuestId, now: Nanos, effects: &mut impl Effects) {
        let of = &self.workers[worker];
        if of.guests.get(guest).is_none_or(Option::is_none) {
            return;
        }
        self.dispatcher.ready(worker, guest, policy_time(now));
        if of.slice.is_none() {
            self.goes_on(worker, false, now, effects);
        }
    }

    /// Looks for what is overdue: requests whose deadline has come, guests whose time is up.
    pub fn looks(&mut self, now: Nanos, effects: &mut impl Effects) {
        if self.looks.is_some_and(|at| at <= now) {
            self.looks = None;
        }
        for job in self.dispatcher.expire(policy_time(now)) {
            self.expired(job, effects);
        }
        for worker in 0..self.workers.len() {
            if self.workers[worker].slice.is_none() {
                self.goes_on(worker, false, now, effects);
            }
        }
        self.look_at(self.dispatcher.next_deadline().map(from_policy), effects);
        self.turn(now, effects);
    }

    /// What compilers and sandboxes have done by now.
    #[cold]
    fn turn(&mut self, now: Nanos, effects: &mut impl Effects) {
        let Some(modules) = &mut self.modules else { return };
        let Turn { ready, begun, ended } = modules.turn(now);
        let due = modules.due(now);
        for order in begun {
            self.withdraw(&order, now);
        }
        for Order { job, .. } in ended {
            let outcome = if job.demand > self.settings.cpu { Outcome::CpuLimit } else { Outcome::Ok };
            effects.answers(Answer { request: job.request, outcome });
        }
        for order in ready {
            self.submit(&order, now, effects);
        }
        self.look_at(due, effects);
    }

    /// A request's deadline came before it could start.
    fn expired(&mut self, Job { request, .. }: Job, effects: &mut impl Effects) {
        if let Some(modules) = &mut self.modules {
            modules.expired(request);
        }
        effects.answers(Answer { request, outcome: Outcome::Expired });
    }

    /// The process ends. All that it had, waiting and running.
    pub fn crash(&mut self) -> Vec<u32> {
        let waiting = self.dispatcher.drain();
        let running = self.workers.iter().flat_map(|worker| worker.guests.iter().flatten());
        let mut lost: Vec<u32> =
            waiting.iter().map(|job| job.request).chain(running.map(|guest| guest.request)).collect();
        lost.extend(self.modules.iter_mut().flat_map(|modules| modules.crash()));
        self.dispatcher.restart(self.settings.limits);
        self.workers.fill_with(Worker::default);
        // Its machine is as slow as before.
        (self.idle, self.looks) = (Idle::all(self.workers.len()), None);
        lost
    }

    #[inline(always)]
    fn submit(&mut self, order: &Order, now: Nanos, effects: &mut impl Effects) {
        if let Some(modules) = &mut self.modules {
            modules.submitted(order);
        }
        let Order { key, bytes, program, deadline, job, .. } = *order;
        let (load, deadline_time) = (load(bytes), deadline.map(policy_time));
        let (cpu, wall) = self.budget;
        let submission = Submission { key, load, program, deadline: deadline_time, cpu, wall, job };
        self.dispatcher.submit(submission);
        self.wake_others(now, effects);
        if deadline.is_some() && self.dispatcher.queued() > 0 {
            self.look_at(deadline, effects);
        }
    }

    /// Of the workers that run nothing and have a slot, the first ones look at the queue, as many as it has requests.
    #[inline(always)]
    fn wake_others(&mut self, now: Nanos, effects: &mut impl Effects) {
        let (mut left, mut worker) = (self.dispatcher.queued(), 0);
        while left > 0
            && let Some(idle) = self.idle.next(worker)
        {
            worker = idle + 1;
            if self.dispatcher.may_have_work(idle) {
                left -= 1;
                if self.work(idle, now, effects) {
                    // What waited for that slot may be for a worker that was passed over.
                    (left, worker) = (self.dispatcher.queued(), 0);
                }
            }
        }
    }

    /// What a worker does until its next slice has begun, or until there is nothing to do; whether a slot became free.
    #[inline(always)]
    fn work(&mut self, worker: usize, now: Nanos, effects: &mut impl Effects) -> bool {
        let mut is_released = false;
        loop {
            match self.dispatcher.next(worker, policy_time(now)) {
                Next::Start { guest, job, unblocks, .. } => {
                    self.start(worker, guest, job, now);
                    self.begin_slice(worker, guest, now, effects);
                    return is_released || unblocks;
                }
                Next::Resume(guest) => {
                    self.begin_slice(worker, guest, now, effects);
                    return is_released;
                }
                Next::End(guest) => {
                    self.dispatcher.release(worker, guest);
                    if let Some(answer) = self.end(worker, guest, Outcome::WallLimit) {
                        effects.answers(answer);
                    }
                    is_released = true;
                }
                Next::Expired(job) => self.expired(job, effects),
                Next::Idle(until) => {
                    self.look_at(until.map(from_policy), effects);
                    return is_released;
                }
            }
        }
    }

    #[inline(always)]
    fn start(&mut self, worker: usize, guest: GuestId, job: Job, now: Nanos) {
        let Job { request, demand, sleep, yields } = job;
        self.counters.started += 1;
        let load = self.modules.as_mut().map_or(0, |modules| modules.start(worker, request, now));
        let Worker { guests, running, .. } = &mut self.workers[worker];
        *running += 1;
        if guest >= guests.len() {
            guests.resize(guest + 1, None);
        }
        guests[guest] = Some(Guest { request, yields, is_new: true, sleep, remaining: demand + load });
    }

    #[inline(always)]
    fn begin_slice(&mut self, worker: usize, guest: GuestId, now: Nanos, effects: &mut impl Effects) {
        let Worker { slice, guests, .. } = &mut self.workers[worker];
        let Some(of) = &guests[guest] else { return };
        let length = if of.sleep > 0 {
            0
        } else if of.yields {
            of.remaining.min(self.settings.slice_at(now, &mut self.next_tick))
        } else {
            of.remaining
        };
        let takes = if self.slowness == 1.0 { length } else { slower(length, self.slowness) };
        *slice = Some(Slice { guest, length });
        self.idle.remove(worker);
        self.counters.busy += takes;
        self.counters.slices += 1;
        effects.slice_ends(worker, now + takes);
    }

    /// A guest has left its slot.
    #[inline(always)]
    fn end(&mut self, worker: usize, guest: GuestId, outcome: Outcome) -> Option<Answer> {
        let Worker { guests, running, .. } = &mut self.workers[worker];
        let Guest { request, .. } = guests[guest].take()?;
        *running -= 1;
        if let Some(modules) = &mut self.modules {
            modules.end(worker, request);
        }
        Some(Answer { request, outcome })
    }

    /// Schedules a look, unless there is an earlier one.
    fn look_at(&mut self, at: Option<Nanos>, effects: &mut impl Effects) {
        if let Some(at) = at.filter(|at| self.looks.is_none_or(|earlier| *at < earlier)) {
            self.looks = Some(at);
            effects.looks(at);
        }
    }
}

impl Settings {
    /// How long a slice that begins now can be. The next tick is remembered, since a division takes as long as ten
    /// other steps.
    fn slice_at(&self, now: Nanos, next_tick: &mut Nanos) -> Nanos {
        if !self.ticks {
            return self.slice;
        }
        if now >= *next_tick {
            *next_tick = (now - now % self.slice).saturating_add(self.slice);
        }
        *next_tick - now
    }

    /// How the runtime would measure a slice.
    fn took(&self, is_first: bool, length: Nanos) -> SliceTime {
        let time = policy_time(length);
        if is_first && time <= SliceTime::FREE {
            SliceTime::Free(time)
        } else if length >= OVERRUN_SLICES.saturating_mul(self.slice) {
            SliceTime::Overrun(time)
        } else {
            SliceTime::Charged(time)
        }
    }
}

/// Kept apart, so that what is as fast as ever calculates nothing.
#[cold]
fn slower(time: Nanos, factor: f64) -> Nanos {
    (time as f64 * factor) as Nanos
}

fn load(bytes: usize) -> Load {
    Load { requests: 1, bytes }
}
