//! A scheduler that is watched call by call: whether it keeps what the [dispatcher](offload_policy::dispatcher)
//! promises, and whether its gateway asks it when it should.
//!
//! Beside it runs a model of the slowest kind, maps of what waits and runs. The model has the dispatcher's own
//! [`Slots`], [`AccountUse`], [`RunHistory`] and [`Placement`] to know what may start; their quotas are checked by
//! plain sums as well.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use offload_policy::{
    AccountUse, Busy, DispatcherLimits, GuestId, Load, Next, Placement, RunHistory, RunQueue, SliceTime,
    Slots, Submission, Time,
};

use super::violation::{Invariant, Seen, ensure};
use crate::model::order::{Job, Key};
use crate::model::scheduler::Scheduler;

/// A scheduler, and a model of what it promises.
#[derive(Debug)]
pub struct Checked<S> {
    inner: S,
    model: Model,
    seen: Option<Seen>,
}

/// What is there, by the calls that were made.
#[derive(Debug)]
struct Model {
    limits: DispatcherLimits,
    /// All that was submitted and has not left.
    jobs: BTreeMap<u32, Entry>,
    /// By flow, what waits in the order in which it came.
    queues: BTreeMap<Key, VecDeque<u32>>,
    deadlines: BTreeSet<(Time, u32)>,
    waiting_of_flow: BTreeMap<Key, Load>,
    waiting_of_account: BTreeMap<u32, Load>,
    waiting: Load,
    running_of_flow: BTreeMap<Key, usize>,
    running_of_account: BTreeMap<u32, usize>,
    workers: Vec<Worker>,
    slots: Slots<Key>,
    accounts: AccountUse<u32>,
    history: RunHistory<u32>,
    placement: Placement,
    /// Of each account that waits, those that have started a request since while it could have.
    accounts_passed: BTreeMap<u32, BTreeSet<u32>>,
    /// The same of the flows of one account.
    flows_passed: BTreeMap<Key, BTreeSet<u32>>,
    /// Since when something is late that is to be done at once, which takes several events of one time.
    late: Option<Time>,
}

/// A request that was submitted.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    load: Load,
    program: u32,
    deadline: Option<Time>,
    cpu: Time,
    wall: Time,
}

#[derive(Debug, Default)]
struct Worker {
    guests: BTreeMap<GuestId, Guest>,
    ends: BTreeSet<(Time, GuestId)>,
    /// Guests that can go on.
    ready: usize,
    /// Whom it gives a slice.
    runs: Option<GuestId>,
    /// When its last slice began, until the worker asks what is next.
    began: Option<Time>,
    /// The longest slice that it has given.
    longest: Time,
}

#[derive(Clone, Copy, Debug)]
struct Guest {
    request: u32,
    account: u32,
    used: Time,
    ends: Time,
    /// Since when it can go on; none while it sleeps or has its slice.
    ready: Option<Time>,
}

impl<S: Scheduler> Checked<S> {
    /// A scheduler with nothing in it.
    pub fn new(inner: S, limits: DispatcherLimits) -> Self {
        Self { inner, model: Model::new(limits), seen: None }
    }

    /// The first promise that was not kept.
    pub fn seen(&self) -> Option<&Seen> {
        self.seen.as_ref()
    }

    /// The gateway has done all that follows from an event: the books agree, and nothing is left of what was to be done
    /// before.
    pub fn settle(&mut self, now: Time) {
        let Self { inner, model, .. } = self;
        let queued = model.queues.values().map(VecDeque::len).sum::<usize>();
        let running = model.workers.iter().map(|worker| worker.guests.len()).sum::<usize>();
        let (theirs, ours) =
            ((inner.waiting(), inner.queued(), inner.running()), (model.waiting, queued, running));
        let agree = ensure(theirs == ours, Invariant::Books, || {
            format!("waiting, queued and running are {ours:?} by the calls, and {theirs:?} by its books")
        });
        let is_late = model.is_late(now);
        let since = is_late.is_err().then(|| model.late.unwrap_or(now));
        model.late = since;
        self.note(agree);
        if since.is_some_and(|since| since < now) {
            self.note(is_late);
        }
    }

    fn note(&mut self, result: Result<(), Seen>) {
        if let Err(seen) = result {
            self.seen.get_or_insert(seen);
        }
    }
}

impl<S: Scheduler> Scheduler for Checked<S> {
    fn restart(&mut self, limits: DispatcherLimits) {
        self.inner.restart(limits);
        self.model = Model::new(limits);
    }

    fn admit(&mut self, key: &Key, load: Load, now: Time) -> Result<(), Busy> {
        let answer = self.inner.admit(key, load, now);
        let checked = self.model.admitted(*key, load, answer.as_ref().err());
        self.note(checked);
        answer
    }

    fn readmit(&mut self, key: &Key, load: Load, now: Time) {
        self.inner.readmit(key, load, now);
        self.model.count(*key, load);
    }

    fn withdraw(&mut self, key: &Key, load: Load, now: Time) {
        self.inner.withdraw(key, load, now);
        self.model.uncount(*key, load);
    }

    fn submit(&mut self, submission: Submission<Key, u32, Job>) {
        let Submission { key, load, program, deadline, cpu, wall, job } = submission;
        let checked = self.model.submitted(job.request, Entry { key, load, program, deadline, cpu, wall });
        self.note(checked);
        self.inner.submit(submission);
    }

    fn next(&mut self, worker: usize, now: Time) -> Next<Job> {
        let next = self.inner.next(worker, now);
        self.model.asks(worker, now);
        let checked = match &next {
            Next::Start { guest, job, ends, .. } => {
                self.model.started(worker, *guest, job.request, *ends, now)
            }
            Next::Resume(guest) => self.model.resumed(worker, *guest, now),
            Next::End(guest) => self.model.overdue(worker, *guest, now),
            Next::Expired(job) => self.model.expired(job.request, now),
            Next::Idle(_) => self.model.idle(worker),
        };
        self.note(checked);
        next
    }

    fn may_have_work(&self, worker: usize) -> bool {
        self.inner.may_have_work(worker)
    }

    fn ready(&mut self, worker: usize, guest: GuestId, now: Time) {
        self.inner.ready(worker, guest, now);
        let worker = &mut self.model.workers[worker];
        if let Some(of) = worker.guests.get_mut(&guest)
            && of.ready.is_none()
        {
            of.ready = Some(now);
            worker.ready += 1;
        }
    }

    fn slice_ended(&mut self, worker: usize, guest: GuestId, took: SliceTime) -> bool {
        let goes_on = self.inner.slice_ended(worker, guest, took);
        let checked = self.model.slice_ended(worker, guest, took, goes_on);
        self.note(checked);
        goes_on
    }

    fn finished(&mut self, worker: usize, guest: GuestId, took: SliceTime) {
        self.inner.finished(worker, guest, took);
        let checked = self.model.finished(worker, guest, took);
        self.note(checked);
    }

    fn release(&mut self, worker: usize, guest: GuestId) {
        self.inner.release(worker, guest);
        let checked = self.model.left(worker, guest);
        self.note(checked);
    }

    fn expire(&mut self, now: Time) -> Vec<Job> {
        let expired = self.inner.expire(now);
        let checked = expired.iter().try_for_each(|job| self.model.expired(job.request, now));
        self.note(checked);
        expired
    }

    fn drain(&mut self) -> Vec<Job> {
        let drained = self.inner.drain();
        let waited = self.model.queues.values().flatten().copied().collect::<BTreeSet<_>>();
        let is_all = drained.iter().map(|job| job.request).collect::<BTreeSet<_>>() == waited;
        self.note(ensure(is_all && drained.len() == waited.len(), Invariant::Books, || {
            format!("of {} requests that waited {} are given back", waited.len(), drained.len())
        }));
        drained
    }

    fn next_deadline(&self) -> Option<Time> {
        self.inner.next_deadline()
    }

    fn waiting(&self) -> Load {
        self.inner.waiting()
    }

    fn queued(&self) -> usize {
        self.inner.queued()
    }

    fn running(&self) -> usize {
        self.inner.running()
    }

    fn runnable(&self) -> usize {
        self.inner.runnable()
    }
}

impl Model {
    fn new(limits: DispatcherLimits) -> Self {
        let DispatcherLimits { workers, slots, shares, .. } = limits;
        Self {
            limits,
            jobs: BTreeMap::new(),
            queues: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            waiting_of_flow: BTreeMap::new(),
            waiting_of_account: BTreeMap::new(),
            waiting: Load::default(),
            running_of_flow: BTreeMap::new(),
            running_of_account: BTreeMap::new(),
            workers: std::iter::repeat_with(Worker::default).take(workers).collect(),
            slots: Slots::new(workers, slots, shares),
            accounts: AccountUse::new(),
            history: RunHistory::new(),
            placement: Placement::new(workers),
            accounts_passed: BTreeMap::new(),
            flows_passed: BTreeMap::new(),
            late: None,
        }
    }

    /// Whether a request is let in that may be, and refused otherwise.
    fn admitted(&mut self, key: Key, load: Load, refused: Option<&Busy>) -> Result<(), Seen> {
        let has_room = self.has_room(key, load);
        if refused.is_none() {
            self.count(key, load);
        }
        let flow = self.waiting_of_flow.get(&key).copied().unwrap_or_default();
        match refused {
            None => ensure(has_room, Invariant::OverQuota, || {
                format!("device {} of account {} is let in with {flow:?} waiting", key.1, key.0)
            }),
            Some(busy) => ensure(!has_room, Invariant::Refused, || {
                format!("device {} of account {} with {flow:?} waiting is told {busy}", key.1, key.0)
            }),
        }
    }

    /// By [`offload_policy::admission`]'s first lines.
    fn has_room(&self, key: Key, load: Load) -> bool {
        let limits = self.limits.admission;
        let (share, rest) = (limits.account_share.min(100), 100 - limits.account_share.min(100));
        let flow = self.waiting_of_flow.get(&key).copied().unwrap_or_default();
        let account = self.waiting_of_account.get(&key.0).copied().unwrap_or_default();
        [|load: Load| load.requests as u128, |load: Load| load.bytes as u128].iter().all(|of| {
            let (flow, account, more) = (of(flow), of(account), of(load));
            let free = of(limits.total).saturating_sub(of(self.waiting));
            let threshold = (free * share as u128).checked_div(rest as u128).unwrap_or(u128::MAX);
            flow + more <= of(limits.per_flow)
                && flow + more <= free
                && account + more <= threshold
                && flow + more <= threshold.saturating_sub(account)
        })
    }

    fn count(&mut self, key: Key, load: Load) {
        add(self.waiting_of_flow.entry(key).or_default(), load);
        add(self.waiting_of_account.entry(key.0).or_default(), load);
        add(&mut self.waiting, load);
    }

    fn submitted(&mut self, request: u32, entry: Entry) -> Result<(), Seen> {
        let known = self.jobs.insert(request, entry);
        self.queues.entry(entry.key).or_default().push_back(request);
        self.deadlines.extend(entry.deadline.map(|deadline| (deadline, request)));
        self.accounts_passed.entry(entry.key.0).or_default();
        self.flows_passed.entry(entry.key).or_default();
        ensure(known.is_none(), Invariant::Books, || {
            format!("request {request} is submitted while it waits or runs")
        })
    }

    /// A worker has ended its slice, if it had one.
    fn asks(&mut self, worker: usize, now: Time) {
        let Self { accounts, slots, .. } = self;
        accounts.decay(now, |account| slots.held_by_account(account) > 0);
        let worker = &mut self.workers[worker];
        if let Some(began) = worker.began.take() {
            worker.longest = worker.longest.max(now.saturating_sub(began));
        }
    }

    /// Whether a request may start here, and that others do not wait for it.
    fn started(
        &mut self,
        worker: usize,
        guest: GuestId,
        request: u32,
        ends: Time,
        now: Time,
    ) -> Result<(), Seen> {
        let entry = self.waits(request)?;
        let Entry { key, deadline, wall, program, .. } = entry;
        let is_in_time = deadline.is_none_or(|deadline| deadline > now);
        let must_end = deadline.unwrap_or(Time::MAX).min(now.saturating_add(wall));
        ensure(is_in_time && ends <= must_end, Invariant::OverQuota, || {
            format!(
                "request {request} starts at {now:?} and ends by {ends:?}, after {deadline:?} or {wall:?}"
            )
        })?;
        ensure(
            self.placement.allows(worker, self.history.of(&program).hold_up()),
            Invariant::Starved,
            || format!("program {program}, which holds up a worker, starts on worker {worker}"),
        )?;
        self.check_use(worker, self.accounts.step_of(&key.0), request)?;
        self.check_order(worker, key, request)?;
        self.leaves_queue(request, entry);
        self.slots.try_acquire(worker, &key).map_err(|no_slot| {
            (Invariant::OverQuota, format!("device {} of account {} starts: {no_slot}", key.1, key.0))
        })?;
        let running = |of: &mut usize| {
            *of += 1;
            *of
        };
        let of_flow = running(self.running_of_flow.entry(key).or_default());
        let of_account = running(self.running_of_account.entry(key.0).or_default());
        let DispatcherLimits { workers, slots, shares, .. } = self.limits;
        let total = workers * slots;
        let most = (total * shares.flow / 100).max(1);
        ensure(of_flow <= most, Invariant::OverQuota, || {
            format!("device {} holds {of_flow} slots of {total}, and may hold {most}", key.1)
        })?;
        let most = total - total * (100 - shares.account.min(100)) / 100;
        ensure(of_account <= most, Invariant::OverQuota, || {
            format!("account {} holds {of_account} slots of {total}, and may hold {most}", key.0)
        })?;
        let on = &mut self.workers[worker];
        ensure(on.guests.len() < slots && on.runs.is_none(), Invariant::Books, || {
            format!("worker {worker} starts request {request} beside {} of {slots} guests", on.guests.len())
        })?;
        let of = Guest { request, account: key.0, used: Time::ZERO, ends, ready: None };
        let known = on.guests.insert(guest, of);
        on.ends.insert((ends, guest));
        (on.runs, on.began) = (Some(guest), Some(now));
        ensure(known.is_none(), Invariant::Books, || {
            format!("guest {guest} of worker {worker} is two guests at once")
        })
    }

    /// No guest that can go on waits whose account has used less than that of this request.
    fn check_use(&self, worker: usize, step: u32, request: u32) -> Result<(), Seen> {
        let ready = self.workers[worker].guests.values().filter(|of| of.ready.is_some());
        let least = ready.min_by_key(|of| self.accounts.step_of(&of.account));
        let is_first = least.is_none_or(|least| step <= self.accounts.step_of(&least.account));
        ensure(is_first, Invariant::Starved, || {
            format!("request {request} goes before {least:?} of worker {worker}, whose account has used less")
        })
    }

    /// Round robin between accounts that have used as little and between the flows of each; first in, first out within
    /// a flow.
    fn check_order(&mut self, worker: usize, key: Key, request: u32) -> Result<(), Seen> {
        let step = self.accounts.step_of(&key.0);
        let equals = self.accounts_passed.keys().copied().filter(|of| self.accounts.step_of(of) <= step);
        let accounts: Vec<u32> = equals.filter(|of| *of != key.0).collect();
        for other in accounts {
            if self.may_start(worker, |key| key.0 == other) {
                let is_first = self.accounts_passed.entry(other).or_default().insert(key.0);
                ensure(is_first, Invariant::Starved, || {
                    format!("account {} starts a second request while account {other} could start one", key.0)
                })?;
            }
        }
        let flows = self.flows_passed.range((key.0, 0)..=(key.0, u32::MAX)).map(|(other, _)| *other);
        let flows: Vec<Key> = flows.filter(|other| *other != key).collect();
        for other in flows {
            if self.may_start(worker, |key| *key == other) {
                let is_first = self.flows_passed.entry(other).or_default().insert(key.1);
                ensure(is_first, Invariant::Starved, || {
                    format!(
                        "device {} starts a second request while device {} could start one",
                        key.1, other.1
                    )
                })?;
            }
        }
        let first = self.queues.get(&key).and_then(|queue| queue.front().copied());
        self.accounts_passed.insert(key.0, BTreeSet::new());
        self.flows_passed.insert(key, BTreeSet::new());
        ensure(first == Some(request), Invariant::Starved, || {
            format!("request {request} of device {} starts before {first:?}", key.1)
        })
    }

    /// Whether any of the flows that `of` names has a request in the queue that may start on this worker.
    fn may_start(&self, worker: usize, of: impl Fn(&Key) -> bool) -> bool {
        self.slots.free(worker) > 0
            && self.queues.iter().any(|(key, queue)| {
                of(key)
                    && self.slots.may_start(key)
                    && queue.front().is_some_and(|request| {
                        let program = self.jobs.get(request).map_or(0, |entry| entry.program);
                        self.placement.allows(worker, self.history.of(&program).hold_up())
                    })
            })
    }

    fn resumed(&mut self, worker: usize, guest: GuestId, now: Time) -> Result<(), Seen> {
        if let Ok(Guest { request, account, ready: Some(ready), .. }) = self.guest(worker, guest)
            && now.saturating_sub(ready) < RunQueue::DEFAULT_MAX_WAIT
        {
            self.check_use(worker, self.accounts.step_of(&account), request)?;
        }
        let slots = self.limits.slots;
        let on = &mut self.workers[worker];
        let is_free = on.runs.is_none();
        (on.runs, on.began) = (Some(guest), Some(now));
        let ready = on.guests.get_mut(&guest).and_then(|of| of.ready.take());
        let Some(ready) = ready.filter(|_| is_free) else {
            return Err((Invariant::Books, format!("guest {guest} of worker {worker} goes on, and cannot")));
        };
        on.ready -= 1;
        // By `offload_policy::dispatcher`.
        let slices = u32::try_from(slots + 1).unwrap_or(u32::MAX).saturating_mul(RunQueue::REST + 2);
        let bound = RunQueue::DEFAULT_MAX_WAIT.saturating_add(on.longest.saturating_mul(slices));
        let waited = now.saturating_sub(ready);
        ensure(waited <= bound, Invariant::Starved, || {
            format!(
                "guest {guest} of worker {worker} has waited {waited:?} for a slice, {bound:?} at the most"
            )
        })
    }

    /// A guest's wall-clock time is up.
    fn overdue(&mut self, worker: usize, guest: GuestId, now: Time) -> Result<(), Seen> {
        let of = self.guest(worker, guest)?;
        let program = self.jobs.get(&of.request).map_or(0, |entry| entry.program);
        self.history.update(&program, |runs| runs.ended(SliceTime::Charged(of.used)));
        ensure(of.ends <= now, Invariant::Refused, || {
            format!("request {} is ended at {now:?}, and has time until {:?}", of.request, of.ends)
        })
    }

    fn expired(&mut self, request: u32, now: Time) -> Result<(), Seen> {
        let entry = self.waits(request)?;
        self.leaves_queue(request, entry);
        self.jobs.remove(&request);
        ensure(entry.deadline.is_some_and(|deadline| deadline <= now), Invariant::Refused, || {
            format!("request {request} expires at {now:?}, and has time until {:?}", entry.deadline)
        })
    }

    /// No worker is idle while there is something for it.
    fn idle(&self, worker: usize) -> Result<(), Seen> {
        ensure(self.workers[worker].ready == 0, Invariant::Starved, || {
            format!("worker {worker} is idle, and a guest of it can go on")
        })?;
        ensure(!self.may_start(worker, |_| true), Invariant::Starved, || {
            format!("worker {worker} is idle, and a request may start on it")
        })
    }

    /// Whether there is something that is to be done at once.
    fn is_late(&self, now: Time) -> Result<(), Seen> {
        if let Some((deadline, request)) = self.deadlines.first() {
            ensure(*deadline > now, Invariant::Lost, || {
                format!("request {request}, whose deadline was at {deadline:?}, has no answer at {now:?}")
            })?;
        }
        for (worker, of) in self.workers.iter().enumerate().filter(|(_, of)| of.runs.is_none()) {
            if let Some((ends, guest)) = of.ends.first() {
                ensure(*ends > now, Invariant::OverQuota, || {
                    format!(
                        "guest {guest} of worker {worker} is there at {now:?}, and was to end by {ends:?}"
                    )
                })?;
            }
            self.idle(worker)?;
        }
        Ok(())
    }

    fn slice_ended(
        &mut self,
        worker: usize,
        guest: GuestId,
        took: SliceTime,
        goes_on: bool,
    ) -> Result<(), Seen> {
        let of = self.slice_of(worker, guest)?;
        let used = of.used + took.charged();
        self.accounts.charge(&of.account, took.used());
        let Some(&Entry { program, cpu, .. }) = self.jobs.get(&of.request) else { return Ok(()) };
        self.history.update(&program, |runs| {
            runs.slice_took(took);
            if !goes_on {
                runs.ended(SliceTime::Charged(used));
            }
        });
        self.workers[worker].guests.insert(guest, Guest { used, ..of });
        let (invariant, what) =
            if goes_on { (Invariant::OverQuota, "goes on") } else { (Invariant::Refused, "is ended") };
        ensure(goes_on == (used <= cpu), invariant, || {
            format!("request {} {what} after {used:?} of {cpu:?}", of.request)
        })
    }

    fn finished(&mut self, worker: usize, guest: GuestId, took: SliceTime) -> Result<(), Seen> {
        let of = self.slice_of(worker, guest)?;
        let program = self.jobs.get(&of.request).map_or(0, |entry| entry.program);
        self.accounts.charge(&of.account, took.used());
        let run = match took {
            SliceTime::Charged(time) | SliceTime::Overrun(time) => SliceTime::Charged(of.used + time),
            free => free,
        };
        self.history.update(&program, |runs| {
            runs.slice_took(took);
            runs.ended(run);
        });
        self.left(worker, guest)
    }

    /// A guest is gone.
    fn left(&mut self, worker: usize, guest: GuestId) -> Result<(), Seen> {
        let of = self.guest(worker, guest)?;
        let on = &mut self.workers[worker];
        on.guests.remove(&guest);
        on.ends.remove(&(of.ends, guest));
        on.ready -= usize::from(of.ready.is_some());
        on.runs.take_if(|runs| *runs == guest);
        let Some(Entry { key, .. }) = self.jobs.remove(&of.request) else { return Ok(()) };
        self.slots.release(worker, &key);
        decrease(&mut self.running_of_flow, key);
        decrease(&mut self.running_of_account, key.0);
        Ok(())
    }

    fn guest(&self, worker: usize, guest: GuestId) -> Result<Guest, Seen> {
        let none = || (Invariant::Books, format!("worker {worker} has no guest {guest}"));
        self.workers[worker].guests.get(&guest).copied().ok_or_else(none)
    }

    /// The guest that a worker gives its slice, which ends.
    fn slice_of(&mut self, worker: usize, guest: GuestId) -> Result<Guest, Seen> {
        let runs = self.workers[worker].runs.take();
        ensure(runs == Some(guest), Invariant::Books, || {
            format!("a slice of guest {guest} ends on worker {worker}, which runs {runs:?}")
        })?;
        self.guest(worker, guest)
    }

    /// A request that is in the queue.
    fn waits(&self, request: u32) -> Result<Entry, Seen> {
        let is_queued =
            |entry: &&Entry| self.queues.get(&entry.key).is_some_and(|queue| queue.contains(&request));
        let not = || (Invariant::Books, format!("request {request} starts or expires, and does not wait"));
        self.jobs.get(&request).filter(is_queued).copied().ok_or_else(not)
    }

    /// It waits no more. Who has nothing waiting any more has lost its round.
    fn leaves_queue(&mut self, request: u32, entry: Entry) {
        let Entry { key, load, deadline, .. } = entry;
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.retain(|other| *other != request);
            if queue.is_empty() {
                self.queues.remove(&key);
                self.flows_passed.remove(&key);
                if self.queues.range((key.0, 0)..=(key.0, u32::MAX)).next().is_none() {
                    self.accounts_passed.remove(&key.0);
                }
            }
        }
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, request));
        }
        self.uncount(key, load);
    }

    fn uncount(&mut self, key: Key, load: Load) {
        subtract(&mut self.waiting_of_flow, key, load);
        subtract(&mut self.waiting_of_account, key.0, load);
        self.waiting.requests -= load.requests;
        self.waiting.bytes -= load.bytes;
    }
}

fn add(to: &mut Load, load: Load) {
    to.requests += load.requests;
    to.bytes += load.bytes;
}

fn subtract<K: Ord>(from: &mut BTreeMap<K, Load>, key: K, load: Load) {
    if let Some(of) = from.get_mut(&key) {
        of.requests -= load.requests;
        of.bytes -= load.bytes;
        if of.requests == 0 {
            from.remove(&key);
        }
    }
}

fn decrease<K: Ord>(from: &mut BTreeMap<K, usize>, key: K) {
    if let Some(of) = from.get_mut(&key) {
        *of -= 1;
        if *of == 0 {
            from.remove(&key);
        }
    }
}
