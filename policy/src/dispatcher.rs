//! The scheduler as a whole: what waits, what runs where, and what is next.
//!
//! It composes the parts, each of which has its own documentation and sources: [`Admission`] lets requests in,
//! [`FairQueue`] orders those that wait, [`Slots`] bounds what runs, a [`RunQueue`] for each worker orders the slices
//! of its guests, [`AccountUse`] knows which accounts have used least, [`RunHistory`] which programs are short, and
//! [`Placement`] which worker may run what. In here is what none of them can say alone: the life of a request, and who
//! goes first where parts compete. Compilers and sandboxes are shared by [`Permits`](crate::Permits) of their own,
//! since nothing is decided for them and workers together.
//!
//! ```text
//!          admit            submit          next: Start       slice_ended ⇄ ready, next: Resume
//! (none) ────────▶ waiting ────────▶ queued ────────────▶ running ─────────────┐
//!                     │                │ expire, next: Expired                 │ finished, release
//!                     ▼ withdraw       ▼                                       ▼
//! ```
//!
//! A worker can be lost with all its guests ([`Dispatcher::worker_lost`]): what was running is then queued again, or
//! has left.
//!
//! # What is promised
//!
//! - **Conservation.** A request that was admitted is in exactly one of the states above until it has left; it leaves
//!   once.
//! - **Quotas.** No flow and no account has more waiting than [`AdmissionLimits`] say, beside what was lost with a
//!   worker, or more running than [`Shares`].
//! - **Fairness.** Where accounts ask for more CPU time than there is, each gets what it asks for or an equal part, and
//!   one that asks for less does not wait for those that ask for more (see [`account_use`](crate::account_use)). Of the
//!   accounts that have used as little and whose request may start on a worker, none starts a second one before each
//!   of the others has started one; the same holds for the flows of an account. (Round robin: J. Nagle, "On Packet
//!   Switches with Infinite Storage", IEEE Transactions on Communications 35(4), 1987.)
//! - **No starvation.** With slices of at most s, a guest that can go on gets its next slice within
//!   `RunQueue::DEFAULT_MAX_WAIT + (slots + 1) × (REST + 2) × s` where its worker has that many slots. (Foreground-
//!   background scheduling with a bound: see [`slices`](crate::slices).)
//! - **One alone.** What was submitted to run alone starts when nothing else runs; until it has ended nothing else
//!   starts, while what has started may go on before it.
//!
//! # Drivers
//!
//! Calls come from one driver in the order of their times. Whoever shares a dispatcher between threads puts a lock
//! around it: each call is short, and one request costs four of them (`admit`, `submit`, `next`, `finished`). A guest
//! is named by its worker and a number that the dispatcher gives it; what else there is of it stays with the driver.
//!
//! A gateway in virtual time, two workers and a thousand requests of ten devices:
//!
//! ```
//! use offload_policy::{Dispatcher, DispatcherLimits, Load, Next, SliceTime, Submission, Time};
//!
//! let mut dispatcher = Dispatcher::new(DispatcherLimits { workers: 2, ..Default::default() });
//! let (load, minute) = (Load { requests: 1, bytes: 64 }, Time::from_secs(60));
//! for number in 0..1000 {
//!     let key = ("site", number % 10);
//!     dispatcher.admit(&key, load, Time::ZERO).expect("a thousand may wait");
//!     let (deadline, cpu, wall, program) = (None, minute, minute, "add");
//!     dispatcher.submit(Submission { key, load, program, deadline, cpu, wall, job: number });
//! }
//! let (mut clocks, mut ended) = ([Time::ZERO; 2], Vec::new());
//! while dispatcher.in_flight() > 0 {
//!     let worker = if clocks[0] <= clocks[1] { 0 } else { 1 };
//!     let Next::Start { guest, job, .. } = dispatcher.next(worker, clocks[worker]) else { break };
//!     let run = Time::from_micros(20);
//!     clocks[worker] += run;
//!     dispatcher.finished(worker, guest, SliceTime::Free(run));
//!     ended.push(job);
//! }
//! assert_eq!((ended.len(), clocks), (1000, [Time::from_millis(10); 2]));
//! ```

use std::collections::BTreeSet;
use std::hash::Hash;

use slab::Slab;

use crate::account_use::AccountUse;
use crate::admission::{Admission, AdmissionLimits, Busy, Load};
use crate::fair_queue::{FairQueue, QueueLimits};
use crate::flow_key::FlowKey;
use crate::names::{AccountNumber, FlowNumber, Names};
use crate::placement::Placement;
use crate::recent_runs::{RunHistory, SliceTime};
use crate::slices::{AccountId, Choice, GuestId, RunQueue};
use crate::slots::{Shares, Slots};
use crate::table::{Counted, Dense, Number};
use crate::{DEFAULT_SLOTS, Time};

/// How much a [`Dispatcher`] shares out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DispatcherLimits {
    /// Workers, each of which runs one slice at a time. Default: 1.
    pub workers: usize,
    /// Guests that one worker holds at once, those that sleep too. Default: 1 024.
    pub slots: usize,
    /// The parts of all slots that one flow and one account may hold.
    pub shares: Shares,
    /// What may wait.
    pub admission: AdmissionLimits,
}

impl Default for DispatcherLimits {
    fn default() -> Self {
        Self { workers: 1, slots: DEFAULT_SLOTS, shares: Shares::default(), admission: Default::default() }
    }
}

/// A request that was admitted and can be run.
#[derive(Debug)]
pub struct Submission<K, P, J> {
    /// Whose it is.
    pub key: K,
    /// What it was admitted with.
    pub load: Load,
    /// The program that it runs: what is known of it by its last runs is known by this.
    pub program: P,
    /// When its answer is no longer of use, if ever.
    pub deadline: Option<Time>,
    /// CPU time that its guest may use.
    pub cpu: Time,
    /// Wall-clock time from its start in which its guest must have ended. The deadline bounds it too.
    pub wall: Time,
    /// Whatever the driver needs to run it and to answer.
    pub job: J,
}

/// What a worker is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<J> {
    /// Give a new guest its first slice. It holds a slot from now on.
    Start {
        /// Its number on this worker, until it is released.
        guest: GuestId,
        /// The driver's part of the submission.
        job: J,
        /// When it must have ended.
        ends: Time,
        /// Whether it was not for all workers, so that what waited behind it may be for those that are idle: these are
        /// to be asked, as when a slot becomes free.
        unblocks: bool,
    },
    /// Give this guest a slice.
    Resume(GuestId),
    /// End this guest, whose wall-clock time is up, and [`release`](Dispatcher::release) it.
    End(GuestId),
    /// Answer a request whose deadline came before it could start. It is neither waiting nor running any more.
    Expired(J),
    /// Nothing, before something is submitted, a guest is ready, or this time has come, when a guest is to end.
    Idle(Option<Time>),
}

/// The scheduler as a whole; see the [module](self).
#[derive(Debug)]
pub struct Dispatcher<K: FlowKey, P, J> {
    /// By which flows are known to all parts.
    names: Names<K>,
    admission: Admission<FlowNumber>,
    requests: Slab<Request<P, J>>,
    queue: FairQueue<FlowNumber, RequestId>,
    alone: Alone,
    is_open: bool,
    slots: Slots<FlowNumber>,
    accounts: Accounts,
    placement: Placement,
    history: RunHistory<P>,
    workers: Vec<Worker>,
    running: usize,
}

/// What accounts have used.
type Accounts = AccountUse<AccountNumber, Dense<Time>>;

/// Where a request is, from its submission until it has left.
type RequestId = usize;

/// A request that is queued or runs.
#[derive(Debug)]
struct Request<P, J> {
    flow: FlowNumber,
    load: Load,
    program: P,
    deadline: Option<Time>,
    cpu: Time,
    wall: Time,
    /// While it is queued.
    job: Option<J>,
    /// While it runs.
    guest: Guest,
}

/// What runs for a request. It holds a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Guest {
    /// CPU time that it was charged with.
    used: Time,
    ends: Time,
}

/// Whether a request is to run alone.
#[derive(Clone, Copy, Debug)]
enum Alone {
    None,
    /// It is the next to start.
    Waits(RequestId),
    Runs,
}

#[derive(Debug)]
struct Worker {
    run_queue: RunQueue,
    /// Whose guests are here.
    guests: Slab<RequestId>,
    /// When guests must have ended, earliest first; of those that did not end in their first slice.
    ends: BTreeSet<(Time, GuestId)>,
}

/// Once nothing is queued or runs, room is kept for this many requests, and the rest given back.
const KEPT_REQUESTS: usize = 64;

impl<K: FlowKey, P: Clone + Eq + Hash, J> Dispatcher<K, P, J> {
    /// Nothing waits and nothing runs.
    pub fn new(limits: DispatcherLimits) -> Self {
        let DispatcherLimits { workers, slots, shares, admission } = limits;
        Self {
            names: Names::new(),
            admission: Admission::new(admission),
            requests: Slab::new(),
            // Admission counts what is in it.
            queue: FairQueue::new(QueueLimits::NONE),
            alone: Alone::None,
            is_open: true,
            slots: Slots::new(workers, slots, shares),
            accounts: AccountUse::default(),
            placement: Placement::new(workers),
            history: RunHistory::new(),
            workers: std::iter::repeat_with(Worker::new).take(workers).collect(),
            running: 0,
        }
    }

    /// Counts a request as waiting, until it starts, expires, or is [withdrawn](Self::withdraw).
    ///
    /// # Errors
    /// [`Busy`] when its flow, its account, or all together have too much waiting.
    pub fn admit(&mut self, key: &K, load: Load, now: Time) -> Result<(), Busy> {
        let flow = self.names.enter(key);
        self.admission.admit(&flow, load, now).inspect_err(|_| self.names.leave(flow))
    }

    /// Counts a request as waiting that was admitted before, by a process that has ended: whatever else waits by now,
    /// it is not refused.
    pub fn readmit(&mut self, key: &K, load: Load, now: Time) {
        let flow = self.names.enter(key);
        self.admission.readmit(&flow, load, now);
    }

    /// A request that was admitted, and is not queued, leaves without having run.
    ///
    /// # Panics
    /// If the flow does not have that much waiting: the driver's books are wrong.
    pub fn withdraw(&mut self, key: &K, load: Load, now: Time) {
        let flow = self.known(key);
        self.has_left(flow, load, now);
    }

    /// Puts a request that was admitted into the queue.
    ///
    /// # Panics
    /// If more is queued than was admitted: the driver's books are wrong.
    pub fn submit(&mut self, submission: Submission<K, P, J>) {
        let (flow, deadline) = (self.known(&submission.key), submission.deadline);
        let request = self.enter(flow, submission);
        self.enqueue(flow, request, deadline);
    }

    /// Puts a request that was admitted in front of the queue, to run when nothing else does.
    ///
    /// # Panics
    /// If another one waits to run alone: the driver lets one at a time be that.
    pub fn submit_alone(&mut self, submission: Submission<K, P, J>) {
        assert!(!matches!(self.alone, Alone::Waits(..)), "only one waits to run alone");
        let flow = self.known(&submission.key);
        self.alone = Alone::Waits(self.enter(flow, submission));
    }

    /// From now on requests may start, or only one that runs alone may. At first they may.
    pub fn set_open(&mut self, is_open: bool) {
        self.is_open = is_open;
    }

    /// What this worker does next, where it does nothing else: to be asked when a slice has ended, and when something
    /// may have changed for it. While it has no guests and nothing is queued it is idle, and need not be asked.
    pub fn next(&mut self, worker: usize, now: Time) -> Next<J> {
        self.decay(now);
        if let Some(job) = self.expire_one(now) {
            return Next::Expired(job);
        }
        if let Some(guest) = self.overdue(worker, now) {
            return Next::End(guest);
        }
        let can_start = self.may_have_work(worker);
        let Self { workers, accounts, .. } = self;
        match workers[worker].run_queue.choose(now, can_start, steps(accounts)) {
            Choice::Resume(guest) => return Next::Resume(guest),
            Choice::StartNew { up_to } => {
                if let Some(request) = self.take(worker, up_to, |_, _, _| true) {
                    return self.start(worker, request, now);
                }
                // What waits is not for this worker, or its flows hold all that they may, or its accounts have used
                // more: what has started goes on.
                let Self { workers, accounts, .. } = self;
                if let Some(guest) = workers[worker].run_queue.next(now, steps(accounts)) {
                    return Next::Resume(guest);
                }
            }
            Choice::Idle => {}
        }
        Next::Idle(self.workers[worker].ends.first().map(|(at, _)| *at))
    }

    /// Whether a worker that is idle may have something to start, and is to be asked for it: something may start, and
    /// it has a free slot. Of the workers that may, the first ones are to be asked, one for each request in the queue:
    /// what any of them may start, these may.
    pub fn may_have_work(&self, worker: usize) -> bool {
        self.can_start() && self.slots.free(worker) > 0
    }

    /// Whether another thread than the worker's own, which waits, may run what is short on this worker: only while no
    /// guest of it wants a slice, since that thread has other things to do than to finish them.
    pub fn may_run_inline(&self, worker: usize) -> bool {
        self.workers[worker].run_queue.is_empty()
    }

    /// What another thread than the worker's own does next on it: it starts only what is known to be short, of that
    /// what `is_at_hand`, and resumes nothing.
    pub fn next_inline(&mut self, worker: usize, now: Time, is_at_hand: impl Fn(&J) -> bool) -> Next<J> {
        self.decay(now);
        if let Some(job) = self.expire_one(now) {
            return Next::Expired(job);
        }
        if !self.may_have_work(worker) {
            return Next::Idle(None);
        }
        let short = |history: &RunHistory<P>, requests: &Slab<Request<P, J>>, request: RequestId| {
            let Request { program, job, .. } = &requests[request];
            history.of(program).are_short() && job.as_ref().is_some_and(&is_at_hand)
        };
        match self.take(worker, u32::MAX, short) {
            Some(request) => self.start(worker, request, now),
            None => Next::Idle(None),
        }
    }

    /// A guest can go on. One that has ended is passed over, so that a late wake does no harm.
    pub fn ready(&mut self, worker: usize, guest: GuestId, now: Time) {
        let Worker { guests, run_queue, .. } = &mut self.workers[worker];
        if let Some(request) = guests.get(guest) {
            let Request { flow, guest: Guest { used, .. }, .. } = self.requests[*request];
            run_queue.insert(guest, flow.paid_by().index(), used, now);
        }
    }

    /// A guest's slice has ended and the guest has not. Returns whether it may go on, when it is
    /// [ready](Self::ready); one that may not has used its CPU time, is to end, and to be [released](Self::release).
    ///
    /// # Panics
    /// If there is no such guest.
    #[must_use = "a guest that may not go on is to be released"]
    pub fn slice_ended(&mut self, worker: usize, guest: GuestId, took: SliceTime) -> bool {
        let Worker { guests, ends, run_queue } = &mut self.workers[worker];
        run_queue.slice_took(took.used());
        let request = &mut self.requests[guests[guest]];
        let of = &mut request.guest;
        if of.used.is_zero() {
            // Its first slice, or one that was free: then it is there already.
            ends.insert((of.ends, guest));
        }
        of.used += took.charged();
        let may_go_on = of.used <= request.cpu;
        self.history.update(&request.program, |runs| {
            runs.slice_took(took);
            if !may_go_on {
                runs.ended(SliceTime::Charged(of.used));
            }
        });
        let account = *request.flow.paid_by();
        self.charge(account, took);
        may_go_on
    }

    /// A guest has ended in its slice, and its slot is free. What waited for that, or for its quota, may be for another
    /// worker: those that are idle are to be asked again.
    ///
    /// # Panics
    /// If there is no such guest.
    pub fn finished(&mut self, worker: usize, guest: GuestId, took: SliceTime) {
        self.workers[worker].run_queue.slice_took(took.used());
        let Request { flow, program, guest, .. } = self.end(worker, guest);
        self.charge(*flow.paid_by(), took);
        self.names.leave(flow);
        let run = match took {
            SliceTime::Charged(time) | SliceTime::Overrun(time) => SliceTime::Charged(guest.used + time),
            free => free,
        };
        self.history.update(&program, |runs| {
            runs.slice_took(took);
            runs.ended(run);
        });
    }

    /// A guest was ended, or could not be started, and its slot is free; as after [`finished`](Self::finished).
    ///
    /// # Panics
    /// If there is no such guest.
    pub fn release(&mut self, worker: usize, guest: GuestId) {
        let Request { flow, .. } = self.end(worker, guest);
        self.names.leave(flow);
    }

    /// A worker was lost, and all its guests with it; another one takes its place. The guests whose jobs are given back
    /// are queued again, behind those of their flows, even where that is more than may wait: they were let in before.
    /// They have their whole CPU and wall-clock time again, and the deadline that they had. The others have left.
    ///
    /// # Panics
    /// If a job is given back for a guest that is not there.
    pub fn worker_lost(&mut self, worker: usize, again: impl IntoIterator<Item = (GuestId, J)>, now: Time) {
        for (guest, job) in again {
            let request = self.end(worker, guest);
            let Request { flow, load, deadline, .. } = request;
            self.admission.readmit(&flow, load, now);
            let request = self.requests.insert(Request { job: Some(job), ..request });
            self.enqueue(flow, request, deadline);
        }
        let left: Vec<GuestId> = self.workers[worker].guests.iter().map(|(guest, _)| guest).collect();
        left.into_iter().for_each(|guest| self.release(worker, guest));
    }

    /// Takes the requests whose deadline has come while they were queued. They are neither waiting nor running any
    /// more.
    pub fn expire(&mut self, now: Time) -> Vec<J> {
        std::iter::from_fn(|| self.expire_one(now)).collect()
    }

    /// When [`expire`](Self::expire) next has something to do.
    #[inline]
    pub fn next_deadline(&self) -> Option<Time> {
        let alone = match self.alone {
            Alone::Waits(request) => self.requests[request].deadline,
            Alone::None | Alone::Runs => None,
        };
        self.queue.next_deadline().into_iter().chain(alone).min()
    }

    /// Takes a request of this flow that is queued and that nobody wants any more, if it is there; it counts as waiting
    /// until it is [withdrawn](Self::withdraw).
    pub fn take_queued(&mut self, key: &K, mut is_it: impl FnMut(&J) -> bool) -> Option<J> {
        let flow = self.names.of(key)?;
        let Self { requests, queue, .. } = self;
        let mut is_it = |request: RequestId| requests[request].job.as_ref().is_some_and(&mut is_it);
        let taken = match self.alone {
            Alone::Waits(alone) if requests[alone].flow == flow && is_it(alone) => {
                self.alone = Alone::None;
                Some(alone)
            }
            _ => queue.take_where(&flow, |request| is_it(*request)),
        };
        self.forget(taken?).job
    }

    /// Takes all that is queued, which counts as waiting until it is [withdrawn](Self::withdraw).
    pub fn drain(&mut self) -> Vec<J> {
        let mut jobs = Vec::new();
        while let Some(request) = self.take_alone().or_else(|| Some(self.queue.pop()?.1)) {
            jobs.extend(self.forget(request).job);
        }
        jobs
    }

    /// What may wait.
    pub fn admission_limits(&self) -> &AdmissionLimits {
        self.admission.limits()
    }

    /// What waits, queued or not.
    pub fn waiting(&self) -> Load {
        self.admission.waiting()
    }

    /// Requests that are queued.
    pub fn queued(&self) -> usize {
        self.queue.len() + usize::from(matches!(self.alone, Alone::Waits(..)))
    }

    /// Guests that hold a slot.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Guests that hold a slot and wait for their next slice.
    pub fn runnable(&self) -> usize {
        self.workers.iter().map(|worker| worker.run_queue.len()).sum()
    }

    /// Requests that wait or run.
    pub fn in_flight(&self) -> usize {
        self.waiting().requests + self.running
    }

    /// The number of a flow that has requests.
    // Inlining is forced, here and elsewhere, where that is measured to help: the compiler goes by size, and not by how
    // often a request passes.
    #[inline(always)]
    fn known(&self, key: &K) -> FlowNumber {
        self.names.of(key).expect("a flow has what was let in, and nothing else")
    }

    /// A request that waited has left without having run.
    fn has_left(&mut self, flow: FlowNumber, load: Load, now: Time) {
        self.admission.withdrawn(&flow, load, now);
        self.names.leave(flow);
    }

    /// A guest of the account has had a slice. While its use is remembered the account keeps its number.
    #[inline(always)]
    fn charge(&mut self, account: AccountNumber, took: SliceTime) {
        if self.accounts.charge(&account, took.used()) {
            self.names.hold(account);
        }
    }

    /// What accounts have used decays until `now`.
    #[inline]
    fn decay(&mut self, now: Time) {
        let Self { accounts, names, slots, .. } = self;
        let has_guests = |account: &AccountNumber| slots.held_by_account(account) > 0;
        accounts.decay_telling(now, has_guests, |account| names.let_go(*account));
    }

    /// Keeps a request until it is [forgotten](Self::forget).
    fn enter(&mut self, flow: FlowNumber, submission: Submission<K, P, J>) -> RequestId {
        let Submission { load, program, deadline, cpu, wall, job, .. } = submission;
        let (job, guest) = (Some(job), Guest::default());
        self.requests.insert(Request { flow, load, program, deadline, cpu, wall, job, guest })
    }

    #[inline]
    fn enqueue(&mut self, flow: FlowNumber, request: RequestId, deadline: Option<Time>) {
        let pushed = self.queue.push(flow, request, deadline);
        assert!(pushed.is_ok(), "an unbounded queue has room");
        assert!(self.queued() <= self.waiting().requests, "only what was admitted is queued");
    }

    /// Takes a request that is not queued and has no guest any more.
    #[inline]
    fn forget(&mut self, request: RequestId) -> Request<P, J> {
        let forgotten = self.requests.remove(request);
        if self.requests.is_empty() {
            self.give_back_room();
        }
        forgotten
    }

    #[cold]
    fn give_back_room(&mut self) {
        if self.requests.capacity() > KEPT_REQUESTS {
            self.requests = Slab::new();
        }
    }

    fn can_start(&self) -> bool {
        match self.alone {
            Alone::None => self.is_open && !self.queue.is_empty(),
            Alone::Waits(..) => self.running == 0,
            Alone::Runs => false,
        }
    }

    /// Takes the next request for this worker, which [may have work](Self::may_have_work), out of the queue: of those
    /// that it may run and that `may_start`, and of accounts whose use is at this step at the most.
    #[inline]
    fn take(
        &mut self,
        worker: usize,
        up_to: u32,
        may_start: impl Fn(&RunHistory<P>, &Slab<Request<P, J>>, RequestId) -> bool,
    ) -> Option<RequestId> {
        let Self { requests, queue, slots, accounts, history, placement, .. } = self;
        let has_used_little =
            |account: &AccountNumber| up_to == u32::MAX || accounts.step_of(account) <= up_to;
        let eligible = |request: RequestId| {
            let holds_up = history.some_hold_up() && history.holds_up(&requests[request].program);
            placement.allows(worker, holds_up) && may_start(history, requests, request)
        };
        match self.alone {
            Alone::None => {
                let account_eligible =
                    |account: &_| has_used_little(account) && slots.account_may_start(account);
                let flow_eligible = |flow: &_, request: &_| slots.flow_may_start(flow) && eligible(*request);
                queue.pop_where(account_eligible, flow_eligible).map(|(_, request)| request)
            }
            Alone::Waits(request) if eligible(request) => {
                self.alone = Alone::Runs;
                Some(request)
            }
            Alone::Waits(_) | Alone::Runs => None,
        }
    }

    /// Starts a request on a worker that has a free slot.
    #[inline]
    fn start(&mut self, worker: usize, id: RequestId, now: Time) -> Next<J> {
        let request = &mut self.requests[id];
        let job = request.job.take().expect("a request has its job until it starts");
        let flow = request.flow;
        let unblocks = !self.queue.is_empty() && self.history.holds_up(&request.program);
        self.slots.acquire(worker, &flow);
        self.admission.started(&flow, request.load, now);
        self.running += 1;
        let latest = now.saturating_add(request.wall);
        let ends = request.deadline.map_or(latest, |deadline| deadline.min(latest));
        request.guest = Guest { used: Time::ZERO, ends };
        let guest = self.workers[worker].guests.insert(id);
        Next::Start { guest, job, ends, unblocks }
    }

    /// A guest has ended, and its slot is free. Returns its request.
    #[inline(always)]
    fn end(&mut self, worker: usize, id: GuestId) -> Request<P, J> {
        let request = self.workers[worker].guests.remove(id);
        let request = self.forget(request);
        let Worker { run_queue, ends, .. } = &mut self.workers[worker];
        run_queue.remove(id);
        if !ends.is_empty() {
            ends.remove(&(request.guest.ends, id));
        }
        self.slots.release(worker, &request.flow);
        self.running -= 1;
        if matches!(self.alone, Alone::Runs) {
            self.alone = Alone::None;
        }
        request
    }

    /// Takes a request whose deadline has come while it was queued.
    #[inline(always)]
    fn expire_one(&mut self, now: Time) -> Option<J> {
        let is_due = self.next_deadline().is_some_and(|deadline| deadline <= now);
        if is_due { self.take_due(now) } else { None }
    }

    fn take_due(&mut self, now: Time) -> Option<J> {
        let is_due = |request: &Request<P, J>| request.deadline.is_some_and(|deadline| deadline <= now);
        let due = match self.alone {
            Alone::Waits(alone) if is_due(&self.requests[alone]) => self.take_alone()?,
            _ => self.queue.expire(now).next()?.1,
        };
        let Request { flow, load, job, .. } = self.forget(due);
        self.has_left(flow, load, now);
        job
    }

    /// The request that waits to run alone, which does not any more.
    fn take_alone(&mut self) -> Option<RequestId> {
        let Alone::Waits(request) = self.alone else { return None };
        self.alone = Alone::None;
        Some(request)
    }

    /// A guest of this worker whose time is up, asleep or not.
    #[inline]
    fn overdue(&mut self, worker: usize, now: Time) -> Option<GuestId> {
        let Worker { guests, ends, .. } = &mut self.workers[worker];
        let &(_, id) = ends.first().filter(|(ends, _)| *ends <= now)?;
        ends.pop_first();
        let Request { program, guest, .. } = &self.requests[guests[id]];
        self.history.update(program, |runs| runs.ended(SliceTime::Charged(guest.used)));
        Some(id)
    }
}

/// At which step of use an account is, for a run queue.
fn steps(accounts: &Accounts) -> impl Fn(AccountId) -> u32 {
    |account| accounts.step_of(&AccountNumber::new(account))
}

impl Worker {
    fn new() -> Self {
        let run_queue = RunQueue::new(RunQueue::DEFAULT_MAX_WAIT);
        Self { run_queue, guests: Slab::new(), ends: BTreeSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_requests_held_is_given_back_when_all_have_left() {
        const COUNT: usize = 10_000;
        let mut dispatcher = Dispatcher::new(DispatcherLimits { slots: COUNT, ..Default::default() });
        let (load, now) = (Load { requests: 1, bytes: 1 }, Time::ZERO);
        for number in 0..COUNT {
            let (key, program) = (("account", number), number % 3);
            dispatcher.admit(&key, load, now).unwrap();
            let (deadline, cpu, wall, job) = (None, Time::MAX, Time::MAX, number);
            dispatcher.submit(Submission { key, load, program, deadline, cpu, wall, job });
        }
        let (mut guests, mut jobs) = (Vec::new(), Vec::new());
        while let Next::Start { guest, job, .. } = dispatcher.next(0, now) {
            guests.push(guest);
            jobs.push(job);
        }
        assert_eq!((dispatcher.running(), dispatcher.requests.len()), (guests.len(), COUNT));
        jobs.extend(dispatcher.drain());
        guests.into_iter().for_each(|guest| dispatcher.release(0, guest));
        assert!(dispatcher.requests.is_empty() && dispatcher.requests.capacity() <= KEPT_REQUESTS);
        jobs.sort_unstable();
        assert_eq!(jobs, (0..COUNT).collect::<Vec<_>>(), "each job is given out once");
    }
}
