//! What the dispatcher promises, whatever comes: gateways in virtual time under random load.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use offload_policy::{
    AccountUse, AdmissionLimits, Dispatcher, DispatcherLimits, FlowKey, GuestId, Load, Next, Placement,
    RecentRuns, RunHistory, RunQueue, Shares, SliceTime, Slots, Submission, Time,
};
use proptest::prelude::*;

/// No slice takes longer.
const LONGEST_SLICE: Time = Time::from_millis(8);
const SHARES: Shares = Shares { flow: 50, account: 75 };
const ADMISSION: AdmissionLimits = AdmissionLimits {
    per_flow: Load { requests: 6, bytes: 600 },
    total: Load { requests: 30, bytes: 3000 },
    account_share: 75,
};
const LOAD: Load = Load { requests: 1, bytes: 50 };
/// CPU time of a guest: some use more.
const CPU: Time = Time::from_millis(20);
/// Wall-clock time of a guest: some sleep longer.
const WALL: Time = Time::from_millis(200);

type Key = (u8, u8);

/// A request, and what it will do.
#[derive(Clone, Debug)]
struct Request {
    /// Time since the one before.
    after: Time,
    key: Key,
    program: u8,
    /// What it takes before it can be submitted, as a compile would, and whether it can then.
    preparation: Option<(Time, bool)>,
    /// Counted from its arrival.
    deadline: Option<Time>,
    alone: bool,
    /// Its slices, each with how long it sleeps afterwards.
    slices: Vec<(Time, Time)>,
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let us = |range| (range as std::ops::Range<u64>).prop_map(Time::from_micros);
    let longest = LONGEST_SLICE.as_micros();
    let slice = prop_oneof![4 => us(1..150), 2 => us(150..1000), 1 => us(1000..longest)];
    let sleep = prop_oneof![4 => Just(Time::ZERO), 1 => us(1..50_000), 1 => us(200_000..400_000)];
    let request = (
        prop_oneof![2 => Just(Time::ZERO), 1 => us(1..5000)],
        (0..4u8, 0..3u8),
        0..5u8,
        prop::option::weighted(0.2, (us(1..20_000), prop::bool::weighted(0.7))),
        prop::option::weighted(0.3, us(0..30_000)),
        prop::bool::weighted(0.03),
        prop::collection::vec((slice, sleep), 1..8),
    );
    let request = request.prop_map(|(after, key, program, preparation, deadline, alone, slices)| Request {
        after,
        key,
        program,
        preparation,
        deadline,
        alone,
        slices,
    });
    prop::collection::vec(request, 1..120)
}

/// Where a request is. One that has left is nowhere.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Admitted,
    Queued,
    Running,
}

/// A guest as its worker sees it.
struct Guest {
    request: usize,
    /// Of its slices, the next one.
    slice: usize,
    /// Since when it can go on; none while it sleeps or has its slice.
    ready: Option<Time>,
}

/// A gateway in virtual time, and a model of what it promises.
struct Gateway {
    requests: Vec<Request>,
    dispatcher: Dispatcher<Key, u8, usize>,
    now: Time,
    /// What is to happen, in order.
    events: BTreeSet<(Time, Event)>,
    states: BTreeMap<usize, State>,
    counts: Counts,
    guests: BTreeMap<(usize, GuestId), Guest>,
    /// The workers that give no guest a slice.
    free: BTreeSet<usize>,
    queues: BTreeMap<Key, VecDeque<usize>>,
    alone: Option<usize>,
    /// What was lost with a worker may wait beyond what else may.
    lost: usize,
    model: Model,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(usize),
    IsPrepared(usize),
    SliceEnds(usize, GuestId),
    Wakes(usize, GuestId, usize),
    /// The worker panics, busy with the first of its guests where this says so.
    IsLost(usize, bool),
}

#[derive(Debug, Default)]
struct Counts {
    admitted: usize,
    withdrawn: usize,
    expired: usize,
    ended: usize,
}

/// The dispatcher's parts, used beside it to know who may start where; and who was passed over by whom.
struct Model {
    limits: DispatcherLimits,
    slots: Slots<Key>,
    accounts: AccountUse<u8>,
    history: RunHistory<u8>,
    placement: Placement,
    /// Of each account that waits, those that have started a request since while it could have.
    accounts_passed: BTreeMap<u8, BTreeSet<u8>>,
    /// The same of the flows of one account.
    flows_passed: BTreeMap<Key, BTreeSet<u8>>,
}

impl Gateway {
    fn new(workers: usize, slots: usize, requests: Vec<Request>) -> Self {
        let limits = DispatcherLimits { workers, slots, shares: SHARES, admission: ADMISSION };
        let mut at = Time::ZERO;
        let arrivals = requests.iter().enumerate().map(|(number, request)| {
            at += request.after;
            (at, Event::Arrives(number))
        });
        Self {
            events: arrivals.collect(),
            requests,
            dispatcher: Dispatcher::new(limits),
            now: Time::ZERO,
            states: BTreeMap::new(),
            counts: Counts::default(),
            guests: BTreeMap::new(),
            free: (0..workers).collect(),
            queues: BTreeMap::new(),
            alone: None,
            lost: 0,
            model: Model {
                limits,
                slots: Slots::new(workers, slots, SHARES),
                accounts: AccountUse::new(),
                history: RunHistory::new(),
                placement: Placement::new(workers),
                accounts_passed: BTreeMap::new(),
                flows_passed: BTreeMap::new(),
            },
        }
    }

    /// These workers are lost at these times.
    fn losing(mut self, losses: &[(u64, usize, bool)]) -> Self {
        let workers = self.model.limits.workers;
        let losses = losses
            .iter()
            .map(|&(at, worker, busy)| (Time::from_micros(at), Event::IsLost(worker % workers, busy)));
        self.events.extend(losses);
        self
    }

    /// Runs until nothing is left to happen, or `stop`.
    fn run(&mut self, stop: Time) -> Result<(), TestCaseError> {
        loop {
            let mut until = self.dispatcher.next_deadline();
            for worker in self.free.clone() {
                until = until.into_iter().chain(self.serve(worker)?).min();
            }
            self.check()?;
            let event = self.events.first().map(|(at, _)| *at);
            let Some(next) = until.into_iter().chain(event).min().filter(|next| *next <= stop) else {
                return Ok(());
            };
            self.now = self.now.max(next);
            while let Some(&(at, event)) = self.events.first()
                && at <= self.now
            {
                self.events.pop_first();
                self.happen(event)?;
            }
            for request in self.dispatcher.expire(self.now) {
                self.expired(request)?;
            }
        }
    }

    /// What a worker that has time does, until it gives a guest a slice or is idle; when it is to look again.
    fn serve(&mut self, worker: usize) -> Result<Option<Time>, TestCaseError> {
        loop {
            let has_guests = self.guests.keys().any(|(of, _)| *of == worker);
            if !has_guests && self.dispatcher.queued() == 0 {
                // As the runtime's workers, it need not ask.
                self.check_idle(worker)?;
                return Ok(None);
            }
            let Model { slots, accounts, .. } = &mut self.model;
            accounts.decay(self.now, |account| slots.held_by_account(account) > 0);
            match self.dispatcher.next(worker, self.now) {
                Next::Start { guest, job, ends, .. } => {
                    let request = self.requests[job].clone();
                    prop_assert!(ends <= self.now + WALL);
                    self.started(worker, job)?;
                    let of = Guest { request: job, slice: 0, ready: None };
                    prop_assert!(self.guests.insert((worker, guest), of).is_none(), "a number is given once");
                    self.slice(worker, guest, request.slices[0].0);
                    return Ok(None);
                }
                Next::Resume(guest) => {
                    self.check_turn(worker, guest)?;
                    let of = self.guests.get_mut(&(worker, guest)).expect("only guests are resumed");
                    let ready = of.ready.take();
                    prop_assert!(ready.is_some(), "only those that can go on are resumed");
                    let waited = self.now - ready.unwrap_or_default();
                    let guests = self.model.limits.slots as u32;
                    let bound =
                        RunQueue::DEFAULT_MAX_WAIT + LONGEST_SLICE * (guests + 1) * (RunQueue::REST + 2);
                    prop_assert!(waited <= bound, "starved for {:?} of {:?}", waited, bound);
                    let length = self.requests[of.request].slices[of.slice].0;
                    self.slice(worker, guest, length);
                    return Ok(None);
                }
                Next::End(guest) => {
                    let of = &self.guests[&(worker, guest)];
                    let program = self.requests[of.request].program;
                    let used = self.used(of.request, of.slice);
                    self.model.history.update(&program, |runs| runs.ended(SliceTime::Charged(used)));
                    self.dispatcher.release(worker, guest);
                    self.left(worker, guest)?;
                }
                Next::Expired(request) => self.expired(request)?,
                Next::Idle(until) => {
                    prop_assert!(until.is_none_or(|until| until > self.now));
                    self.check_idle(worker)?;
                    return Ok(until);
                }
            }
        }
    }

    fn slice(&mut self, worker: usize, guest: GuestId, length: Time) {
        self.free.remove(&worker);
        self.events.insert((self.now + length, Event::SliceEnds(worker, guest)));
    }

    fn happen(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Arrives(number) => {
                let Request { key, preparation, .. } = self.requests[number];
                if self.dispatcher.admit(&key, LOAD, self.now).is_ok() {
                    self.counts.admitted += 1;
                    self.states.insert(number, State::Admitted);
                    let prepared = self.now + preparation.map_or(Time::ZERO, |(time, _)| time);
                    self.events.insert((prepared, Event::IsPrepared(number)));
                }
            }
            Event::IsPrepared(number) => self.submit(number),
            Event::SliceEnds(worker, guest) => {
                self.free.insert(worker);
                self.slice_ended(worker, guest)?;
            }
            Event::IsLost(worker, busy) => self.lost(worker, busy)?,
            Event::Wakes(worker, guest, request) => match self.guests.get_mut(&(worker, guest)) {
                // It was ended in its sleep, and its number given to another.
                Some(of) if of.request != request => {}
                of => {
                    of.into_iter().for_each(|of| of.ready = Some(self.now));
                    self.dispatcher.ready(worker, guest, self.now);
                }
            },
        }
        Ok(())
    }

    fn submit(&mut self, number: usize) {
        let Request { key, program, preparation, deadline, alone, .. } = self.requests[number];
        if preparation.is_some_and(|(_, succeeds)| !succeeds) {
            self.dispatcher.withdraw(&key, LOAD, self.now);
            self.counts.withdrawn += 1;
            self.states.remove(&number);
            return;
        }
        let deadline = deadline.map(|deadline| self.now + deadline);
        let submission = Submission { key, load: LOAD, program, deadline, cpu: CPU, wall: WALL, job: number };
        // One at a time is alone.
        if alone && self.alone.is_none() {
            self.states.insert(number, State::Queued);
            self.alone = Some(number);
            self.dispatcher.submit_alone(submission);
        } else {
            self.queue(number);
            self.dispatcher.submit(submission);
        }
    }

    fn queue(&mut self, number: usize) {
        let key = self.requests[number].key;
        self.states.insert(number, State::Queued);
        self.queues.entry(key).or_default().push_back(number);
        self.model.accounts_passed.entry(key.0).or_default();
        self.model.flows_passed.entry(key).or_default();
    }

    /// Checks that a request may start here, and that it is its turn.
    fn started(&mut self, worker: usize, number: usize) -> Result<(), TestCaseError> {
        let Request { key, program, .. } = self.requests[number];
        prop_assert_eq!(self.states.insert(number, State::Running), Some(State::Queued));
        prop_assert!(self.model.placement.allows(worker, self.model.history.of(&program).hold_up()));
        if self.alone == Some(number) {
            prop_assert!(self.guests.is_empty(), "it runs alone");
        } else {
            prop_assert!(self.alone.is_none(), "one waits to run alone, or runs");
            let step = self.model.accounts.step_of(&key.0);
            let first = self.first_step(worker);
            prop_assert!(first.is_none_or(|first| step <= first), "{} has used more than others", key.0);
            for (other, passed) in self.model.accounts_passed.clone() {
                let has_used_less = self.model.accounts.step_of(&other) <= step;
                if other != key.0 && has_used_less && self.may_start(worker, |key| key.0 == other) {
                    prop_assert!(!passed.contains(&key.0), "{} twice while {} could start", key.0, other);
                    self.model.accounts_passed.entry(other).or_default().insert(key.0);
                }
            }
            for (other, passed) in self.model.flows_passed.clone() {
                if other != key && other.0 == key.0 && self.may_start(worker, |key| *key == other) {
                    prop_assert!(!passed.contains(&key.1), "{:?} twice while {:?} could start", key, other);
                    self.model.flows_passed.entry(other).or_default().insert(key.1);
                }
            }
            let first = self.queues.get_mut(&key).and_then(VecDeque::pop_front);
            prop_assert_eq!(first, Some(number), "first in, first out within a flow");
            self.model.accounts_passed.insert(key.0, BTreeSet::new());
            self.model.flows_passed.insert(key, BTreeSet::new());
            self.forget_empty();
        }
        let acquired = self.model.slots.try_acquire(worker, &key);
        prop_assert!(acquired.is_ok(), "{:?}", acquired);
        Ok(())
    }

    /// The least that an account has used of those with a guest on this worker that can go on.
    fn first_step(&self, worker: usize) -> Option<u32> {
        let ready = self.guests.iter().filter(|((on, _), of)| *on == worker && of.ready.is_some());
        ready.map(|(_, of)| self.step(of)).min()
    }

    /// What the account of a guest has used.
    fn step(&self, of: &Guest) -> u32 {
        self.model.accounts.step_of(self.requests[of.request].key.account())
    }

    /// A guest is given a slice that is overdue, or whose account has used as little as any.
    fn check_turn(&self, worker: usize, guest: GuestId) -> Result<(), TestCaseError> {
        let of = &self.guests[&(worker, guest)];
        let is_overdue = of.ready.is_some_and(|ready| self.now - ready >= RunQueue::DEFAULT_MAX_WAIT);
        let is_first = Some(self.step(of)) == self.first_step(worker);
        prop_assert!(is_overdue || is_first, "an account goes before one that has used less");
        Ok(())
    }

    /// Whether any of the flows that `of` names has a request in the queue that may start on this worker.
    fn may_start(&self, worker: usize, of: impl Fn(&Key) -> bool) -> bool {
        let Model { slots, history, placement, .. } = &self.model;
        self.queues.iter().any(|(key, queue)| {
            let first = queue.front().map(|&number| self.requests[number].program);
            of(key)
                && slots.free(worker) > 0
                && slots.account_may_start(key.account())
                && slots.flow_may_start(key)
                && first.is_some_and(|program| placement.allows(worker, history.of(&program).hold_up()))
        })
    }

    fn slice_ended(&mut self, worker: usize, guest: GuestId) -> Result<(), TestCaseError> {
        let of = self.guests.get_mut(&(worker, guest)).expect("a guest with a slice");
        let Request { key, program, slices, .. } = &self.requests[of.request];
        let (length, sleeps) = slices[of.slice];
        let is_first = of.slice == 0;
        let took = if is_first && length <= RecentRuns::SHORT {
            SliceTime::Free(length)
        } else if length >= RecentRuns::HOLD_UP {
            SliceTime::Overrun(length)
        } else {
            SliceTime::Charged(length)
        };
        of.slice += 1;
        self.model.accounts.charge(key.account(), took.used());
        let (request, slice, is_last) = (of.request, of.slice, of.slice == slices.len());
        let program = *program;
        let used = self.used(request, slice);
        let goes_on = !is_last && used <= CPU;
        self.model.history.update(&program, |runs| {
            runs.slice_took(took);
            if !goes_on {
                runs.ended(if is_last && is_first { took } else { SliceTime::Charged(used) });
            }
        });
        if is_last {
            self.dispatcher.finished(worker, guest, took);
            return self.left(worker, guest);
        }
        prop_assert_eq!(self.dispatcher.slice_ended(worker, guest, took), goes_on);
        if !goes_on {
            self.dispatcher.release(worker, guest);
            return self.left(worker, guest);
        }
        self.events.insert((self.now + sleeps, Event::Wakes(worker, guest, request)));
        Ok(())
    }

    /// The worker loses its guests. All are queued again, but for the one that it was busy with.
    fn lost(&mut self, worker: usize, busy: bool) -> Result<(), TestCaseError> {
        self.free.insert(worker);
        self.events.retain(|(_, event)| !matches!(event, Event::SliceEnds(of, _) if *of == worker));
        let guests: Vec<_> = self.guests.keys().filter(|key| key.0 == worker).map(|key| key.1).collect();
        let (left, again) = guests.split_at(usize::from(busy).min(guests.len()));
        let again: Vec<_> =
            again.iter().map(|guest| (*guest, self.guests[&(worker, *guest)].request)).collect();
        self.dispatcher.worker_lost(worker, again.clone(), self.now);
        left.iter().try_for_each(|guest| self.left(worker, *guest))?;
        for (guest, number) in again {
            self.left(worker, guest)?;
            self.counts.ended -= 1;
            self.lost += 1;
            self.queue(number);
        }
        Ok(())
    }

    /// What a request's guest has been charged with after this many of its slices.
    fn used(&self, request: usize, slices: usize) -> Time {
        let lengths = self.requests[request].slices[..slices].iter().map(|(length, _)| *length);
        let is_free = |(slice, length): &(usize, Time)| *slice == 0 && *length <= RecentRuns::SHORT;
        lengths.enumerate().filter(|slice| !is_free(slice)).map(|(_, length)| length).sum()
    }

    fn left(&mut self, worker: usize, guest: GuestId) -> Result<(), TestCaseError> {
        let of = self.guests.remove(&(worker, guest)).expect("it was there");
        self.model.slots.release(worker, &self.requests[of.request].key);
        prop_assert_eq!(self.states.remove(&of.request), Some(State::Running));
        self.alone.take_if(|alone| *alone == of.request);
        self.counts.ended += 1;
        Ok(())
    }

    fn expired(&mut self, number: usize) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.states.remove(&number), Some(State::Queued));
        self.queues.values_mut().for_each(|queue| queue.retain(|queued| *queued != number));
        self.forget_empty();
        self.alone.take_if(|alone| *alone == number);
        self.counts.expired += 1;
        Ok(())
    }

    /// Who has nothing waiting any more has lost its turn.
    fn forget_empty(&mut self) {
        let Self { queues, model, .. } = self;
        queues.retain(|_, queue| !queue.is_empty());
        model.flows_passed.retain(|key, _| queues.contains_key(key));
        model.accounts_passed.retain(|account, _| queues.keys().any(|key| key.0 == *account));
    }

    /// Nothing is both queued and forgotten, and no quota is exceeded.
    fn check(&self) -> Result<(), TestCaseError> {
        let in_state = |state| self.states.values().filter(|of| **of == state).count();
        let Counts { admitted, withdrawn, expired, ended } = self.counts;
        prop_assert_eq!(admitted, self.states.len() + withdrawn + expired + ended);
        prop_assert_eq!(self.dispatcher.queued(), in_state(State::Queued));
        prop_assert_eq!(self.dispatcher.running(), in_state(State::Running));
        let waiting = in_state(State::Queued) + in_state(State::Admitted);
        prop_assert_eq!(self.dispatcher.waiting(), Load { requests: waiting, bytes: LOAD.bytes * waiting });
        prop_assert_eq!(self.dispatcher.in_flight(), self.states.len());
        prop_assert!(waiting <= ADMISSION.total.requests + self.lost);

        let DispatcherLimits { workers, slots, .. } = self.model.limits;
        let total = workers * slots;
        let count = |state: fn(&State) -> bool, of: &dyn Fn(&Key) -> bool| {
            let in_state = self.states.iter().filter(|(_, is)| state(is));
            in_state.filter(|(number, _)| of(&self.requests[**number].key)).count()
        };
        let runs: fn(&State) -> bool = |state| *state == State::Running;
        let waits: fn(&State) -> bool = |state| *state != State::Running;
        for worker in 0..workers {
            prop_assert!(self.guests.keys().filter(|key| key.0 == worker).count() <= slots);
        }
        for account in 0..4 {
            let running = count(runs, &|key| key.0 == account);
            prop_assert!(running <= total - total * (100 - SHARES.account) / 100);
            for flow in 0..3 {
                let running = count(runs, &|key| *key == (account, flow));
                prop_assert!(running <= (total * SHARES.flow / 100).max(1));
                let waiting = count(waits, &|key| *key == (account, flow));
                prop_assert!(waiting <= ADMISSION.per_flow.requests + self.lost);
            }
        }
        Ok(())
    }

    /// No worker is idle while there is something for it.
    fn check_idle(&self, worker: usize) -> Result<(), TestCaseError> {
        let mut guests = self.guests.iter().filter(|((of, _), _)| *of == worker);
        prop_assert!(guests.all(|(_, guest)| guest.ready.is_none()), "a guest can go on");
        let may_start = self.alone.is_none() && self.may_start(worker, |_| true);
        prop_assert!(!may_start, "a request may start");
        Ok(())
    }

    /// The gateway stops: what waits and what runs is all that has not left, and nothing is left of it.
    fn stop(mut self) -> Result<(), TestCaseError> {
        for number in self.dispatcher.drain() {
            prop_assert_eq!(self.states.insert(number, State::Admitted), Some(State::Queued));
        }
        for (worker, guest) in self.guests.keys().copied().collect::<Vec<_>>() {
            self.dispatcher.release(worker, guest);
            self.left(worker, guest)?;
        }
        for (number, state) in std::mem::take(&mut self.states) {
            prop_assert_eq!(state, State::Admitted);
            self.dispatcher.withdraw(&self.requests[number].key, LOAD, self.now);
        }
        prop_assert_eq!((self.dispatcher.in_flight(), self.dispatcher.queued()), (0, 0));
        Ok(())
    }
}

/// Of two workers with a slot each the first one's guest sleeps.
#[test]
fn a_worker_without_a_slot_has_no_work_and_the_other_one_has() {
    let limits = DispatcherLimits { workers: 2, slots: 1, ..Default::default() };
    let mut dispatcher = Dispatcher::new(limits);
    let submit = |dispatcher: &mut Dispatcher<Key, u8, usize>, job: usize| {
        let key = (job as u8, 0);
        dispatcher.admit(&key, LOAD, Time::ZERO).unwrap();
        let (deadline, cpu, wall, program) = (None, CPU, WALL, 0);
        dispatcher.submit(Submission { key, load: LOAD, program, deadline, cpu, wall, job });
    };
    let may_have_work =
        |dispatcher: &Dispatcher<Key, u8, usize>| [0, 1].map(|worker| dispatcher.may_have_work(worker));
    assert_eq!(may_have_work(&dispatcher), [false, false], "nothing waits");
    submit(&mut dispatcher, 1);
    assert_eq!(may_have_work(&dispatcher), [true, true]);
    assert!(matches!(dispatcher.next(0, Time::ZERO), Next::Start { job: 1, .. }));
    submit(&mut dispatcher, 2);
    assert_eq!(may_have_work(&dispatcher), [false, true]);
    assert!(matches!(dispatcher.next(1, Time::ZERO), Next::Start { job: 2, .. }));
    submit(&mut dispatcher, 3);
    assert_eq!(may_have_work(&dispatcher), [false, false]);
}

/// Found by the simulator's swarm.
#[test]
fn what_waits_behind_a_program_that_holds_up_workers_is_for_the_others_when_that_has_started() {
    let limits = DispatcherLimits { workers: 2, slots: 4, ..Default::default() };
    let mut dispatcher = Dispatcher::<Key, u8, usize>::new(limits);
    let (holds_up, other) = (0, 1);
    let submit = |dispatcher: &mut Dispatcher<Key, u8, usize>, program: u8, job: usize| {
        dispatcher.admit(&(0, 0), LOAD, Time::ZERO).unwrap();
        let (deadline, cpu, wall) = (None, CPU, WALL);
        dispatcher.submit(Submission { key: (0, 0), load: LOAD, program, deadline, cpu, wall, job });
    };
    submit(&mut dispatcher, holds_up, 1);
    let Next::Start { guest, unblocks: false, .. } = dispatcher.next(1, Time::ZERO) else { panic!() };
    dispatcher.finished(1, guest, SliceTime::Overrun(Time::from_millis(30)));
    // One flow is first in, first out.
    submit(&mut dispatcher, holds_up, 2);
    submit(&mut dispatcher, other, 3);
    assert!(matches!(dispatcher.next(1, Time::ZERO), Next::Idle(_)));
    assert!(matches!(dispatcher.next(0, Time::ZERO), Next::Start { job: 2, unblocks: true, .. }));
    assert!(matches!(dispatcher.next(1, Time::ZERO), Next::Start { job: 3, unblocks: false, .. }));
}

proptest! {
    #[test]
    fn what_is_promised_holds(workers in 1..4usize, slots in 1..6usize, requests in requests()) {
        let mut gateway = Gateway::new(workers, slots, requests);
        gateway.run(Time::MAX)?;
        prop_assert_eq!(gateway.dispatcher.in_flight(), 0, "all have left");
        gateway.stop()?;
    }

    #[test]
    fn a_gateway_can_stop_at_any_time(
        workers in 1..4usize,
        slots in 1..6usize,
        requests in requests(),
        stop in 0..200_000u64,
    ) {
        let mut gateway = Gateway::new(workers, slots, requests);
        gateway.run(Time::from_micros(stop))?;
        gateway.stop()?;
    }

    #[test]
    fn what_is_promised_holds_when_workers_are_lost(
        workers in 1..4usize,
        slots in 1..6usize,
        requests in requests(),
        losses in prop::collection::vec((0..200_000u64, 0..4usize, any::<bool>()), 1..8),
    ) {
        let mut gateway = Gateway::new(workers, slots, requests).losing(&losses);
        gateway.run(Time::MAX)?;
        prop_assert_eq!(gateway.dispatcher.in_flight(), 0, "all have left");
        gateway.stop()?;
    }
}
