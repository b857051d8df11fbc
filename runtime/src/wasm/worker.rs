//! One worker: an engine with its pool, a loop that gives guests their slices, and a thread that is in it while there
//! are any.
//!
//! While the thread waits, the worker is free for whoever brings a request: one that is known to be short is run by the
//! ingress's own thread, which has it in its cache and is awake. Two wake-ups of sleeping threads, there and back,
//! would cost ten times as much as the guest.
//!
//! A guest is a future. Polling it runs the guest until it ends, sleeps, or its slice is over (the engine's epoch moves
//! on and the guest yields at its next loop or call). Which guest is polled next, or whether a new one is started, is
//! the policy's choice; the worker keeps the state and the limits that fuel cannot: CPU and wall-clock time.

use super::artifact::Artifact;
use super::engine::Tier;
use super::guest::{self, Ended};
use super::linking::Linkers;
use super::loaded::{Loaded, LoadedLimits, LoadedModules};
use super::ready_list::{GuestWaker, ReadyList};
use super::slice_clock::{SliceClock, SliceTime};
use super::ticker::Ticks;
use super::workers::{Job, Key, RunOutcome, Shared};
use crate::flow::Name;
use crate::suspects::{Execution, Watched};
use crate::telemetry;
use offload_policy::{Choice, FlowKey, GuestId, RunQueue};
use offload_protocol::error::{ErrorKind, WireError};
use slab::Slab;
use std::collections::BTreeSet;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// A worker, and who is in it: its own thread while it has anything to do, or one that lends a hand.
pub struct Executor {
    worker: Mutex<Worker>,
    ready_list: Arc<ReadyList>,
}

/// A worker's state; all of it is that of the thread at its executor but what `shared` and `ready_list` say.
pub struct Worker {
    index: usize,
    /// See [`WorkerContext::may_be_held_up`].
    may_be_held_up: bool,
    linkers: Linkers,
    /// Those of all workers for baseline code.
    baseline: Option<Arc<Linkers>>,
    loaded: LoadedModules,
    shared: Arc<Shared>,
    ready_list: Arc<ReadyList>,
    ticks: Ticks,
    runtime: Handle,
    run_queue: RunQueue,
    guests: Slab<Guest>,
    /// When guests must have ended, earliest first.
    deadlines: BTreeSet<(Instant, GuestId)>,
    /// Reused between calls of `ReadyList::take`.
    woken: Vec<GuestId>,
}

/// A guest that has been started and has not ended.
struct Guest {
    key: Key,
    loaded: Arc<Loaded>,
    future: Pin<Box<dyn Future<Output = Ended> + Send>>,
    waker: Arc<GuestWaker>,
    /// Fuel, as of the end of its last slice.
    fuel_used: Arc<AtomicU64>,
    /// As far as it was charged.
    cpu_used: Duration,
    cpu_limit: Duration,
    deadline: Instant,
    deadline_is_requested: bool,
    started: Instant,
    queued: Duration,
    /// Dropped when its slot is free: others may start then.
    execution: Option<Execution>,
    done: Box<dyn FnOnce(RunOutcome) + Send>,
}

/// What a worker has in common with others, and its number among them.
pub(super) struct WorkerContext {
    /// Its number, from nought.
    pub index: usize,
    /// Whether it runs programs that are known to hold up a worker.
    pub may_be_held_up: bool,
    /// Where it is told that there is something to do.
    pub ready_list: Arc<ReadyList>,
    /// The queue and the state.
    pub(super) shared: Arc<Shared>,
    /// What ends slices.
    pub ticks: Ticks,
    /// What drives the timers of sleeping guests.
    pub runtime: Handle,
}

/// What its thread waits for when it leaves a worker.
struct Pause {
    timeout: Option<Duration>,
    /// The count of submitted jobs from before the last look at the queue.
    seen: u64,
}

impl Executor {
    /// Where this worker sits.
    pub fn new(worker: Worker) -> Executor {
        Executor { ready_list: worker.ready_list.clone(), worker: Mutex::new(worker) }
    }

    /// The life of the worker's thread, until the gateway stops.
    pub fn run(&self) {
        self.ready_list.attach();
        let (shared, runtime) = {
            let worker = self.lock();
            (worker.shared.clone(), worker.runtime.clone())
        };
        // Guests that sleep use the runtime's timers.
        let _context = runtime.enter();
        loop {
            let Some(Pause { timeout, seen }) = self.lock().work() else { break };
            let Shared { submitted, stop, .. } = &*shared;
            let nothing_new = || submitted.load(Ordering::SeqCst) == seen && !stop.load(Ordering::SeqCst);
            self.ready_list.park(timeout, nothing_new);
        }
        self.lock().stop();
    }

    /// Lets the caller's thread do the worker's work if nobody is at the executor and nothing is to be done but what
    /// waits in the queue and is short: until there is no more of it, or `until`. `false` if the executor is taken.
    ///
    /// `begin` is called once the caller is sure to be of use.
    pub fn try_run_inline(&self, until: Instant, begin: impl FnOnce()) -> bool {
        let mut worker = match self.worker.try_lock() {
            Ok(worker) => worker,
            Err(TryLockError::WouldBlock) => return false,
            Err(TryLockError::Poisoned(_)) => unreachable!("the process ends when a worker panics"),
        };
        if !worker.run_queue.is_empty() {
            return false;
        }
        begin();
        let guard = AbortOnPanic;
        worker.run_short(until);
        std::mem::forget(guard);
        if !worker.guests.is_empty() {
            // They are for its own thread, which knows nothing of them yet.
            drop(worker);
            self.ready_list.wake();
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Worker> {
        self.worker.lock().expect("the process ends when a worker panics")
    }
}

/// Ends the process when a worker panics outside a guest's slice: its state is wrong, its guests are gone, and a
/// gateway that is unresponsive on one core is worse than one that is started again.
pub(super) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        tracing::error!("a worker panicked: the gateway cannot go on");
        std::process::abort();
    }
}

impl Worker {
    /// A worker whose own engine is that of `linkers`, and which keeps so many modules loaded: loading one again takes
    /// a millisecond or two at the most.
    pub fn new(
        context: WorkerContext,
        linkers: Linkers,
        baseline: Option<Arc<Linkers>>,
        limits: LoadedLimits,
    ) -> Worker {
        let WorkerContext { index, may_be_held_up, ready_list, shared, ticks, runtime } = context;
        Worker {
            index,
            may_be_held_up,
            linkers,
            baseline,
            loaded: LoadedModules::new(limits, shared.memory.clone()),
            shared,
            ready_list,
            ticks,
            runtime,
            run_queue: RunQueue::new(RunQueue::DEFAULT_MAX_WAIT),
            guests: Slab::new(),
            deadlines: BTreeSet::new(),
            woken: Vec::new(),
        }
    }

    /// Starts and resumes guests until there is nothing to do, or for good: then `None`.
    fn work(&mut self) -> Option<Pause> {
        while !self.shared.stop.load(Ordering::SeqCst) {
            self.collect_woken();
            self.end_overdue();
            let seen = self.shared.submitted.load(Ordering::SeqCst);
            let new = self.shared.queued.load(Ordering::SeqCst) > 0;
            match self.run_queue.choose(self.shared.now(), new) {
                Choice::StartNew => match self.take() {
                    Some(job) => self.start(job),
                    // Its slot or quota is used up, or another worker was faster: go on with what has started.
                    None => match self.run_queue.next(self.shared.now()) {
                        Some(id) => self.slice(id, SliceClock::later()),
                        None => return Some(self.pause(seen)),
                    },
                },
                Choice::Resume(id) => self.slice(id, SliceClock::later()),
                Choice::Idle => return Some(self.pause(seen)),
            }
        }
        None
    }

    /// The next job for this worker's own thread. Programs that hold up a worker are for some of the workers alone, so
    /// that there is always one that others need not wait for.
    fn take(&self) -> Option<Job> {
        let holds_up =
            |job: &Job| self.loaded.peek(&job.artifact).is_some_and(|loaded| loaded.runs.hold_up());
        self.shared.take(self.index, |job| self.may_be_held_up || !holds_up(job))
    }

    /// Runs what waits and is short, here.
    fn run_short(&mut self, until: Instant) {
        while self.run_queue.is_empty() && !self.shared.stop.load(Ordering::SeqCst) {
            let loaded = &self.loaded;
            let short = |job: &Job| loaded.peek(&job.artifact).is_some_and(|loaded| loaded.runs.are_short());
            let Some(job) = self.shared.take(self.index, short) else { break };
            self.start(job);
            if Instant::now() >= until {
                break;
            }
            self.collect_woken();
        }
        self.ticks.done();
    }

    /// The gateway stops: what still runs is told so.
    fn stop(&mut self) {
        for guest in self.guests.drain() {
            self.shared.release(self.index, &guest.key);
            drop(guest.future);
            (guest.done)(RunOutcome::Stopped);
        }
    }

    /// Puts the guests that can go on into the run queue.
    fn collect_woken(&mut self) {
        self.ready_list.take(&mut self.woken);
        if self.woken.is_empty() {
            return;
        }
        let now = self.shared.now();
        for id in self.woken.drain(..) {
            // A wake may come after the guest's end, even when another has its number: it is polled once in vain.
            if let Some(guest) = self.guests.get(id) {
                self.run_queue.insert(id, guest.cpu_used, now);
            }
        }
    }

    /// Ends the guests whose wall-clock time is up, asleep or not.
    fn end_overdue(&mut self) {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > Instant::now() {
                return;
            }
            let guest = &self.guests[id];
            let ended = guest.ended_by(guest.wall_error());
            guest.loaded.runs.ended(SliceTime::Charged(guest.cpu_used));
            self.end(id, ended);
        }
    }

    /// Nothing to do before a guest is woken, a request comes, a guest's time is up, or a module is idle.
    fn pause(&mut self, seen: u64) -> Pause {
        self.ticks.done();
        let now = Instant::now();
        let overdue = self.deadlines.first().map(|(at, _)| at.saturating_duration_since(now));
        let idle = self.loaded.unload_idle(now);
        Pause { timeout: overdue.into_iter().chain(idle).min(), seen }
    }

    /// Starts a guest and runs its first slice, which for most is the only one.
    fn start(&mut self, job: Job) {
        let started = Instant::now();
        let queued = started.saturating_duration_since(job.arrived);
        let Job { key, artifact, input, budget, deadline, watched, done, .. } = job;
        if deadline.is_some_and(|deadline| deadline <= started) {
            self.shared.release(self.index, &key);
            return done(RunOutcome::Expired);
        }
        let execution = watched.map(Watched::begin);
        let loaded = match self.load(&artifact, key.account(), started) {
            Ok(loaded) => loaded,
            Err(error) => {
                self.shared.release(self.index, &key);
                drop(execution);
                let ended = Ended::failed(error);
                return done(RunOutcome::Ran { ended, run: started.elapsed(), queued });
            }
        };
        let wall = started + budget.wall;
        // The request's own limit counts from its arrival, the gateway's from the start.
        let ends = deadline.unwrap_or(wall).min(wall);
        let memory = self.shared.memory.lease(key.account().clone());
        let entry = self.guests.vacant_entry();
        let id = entry.key();
        let fuel_used = Arc::new(AtomicU64::new(0));
        entry.insert(Guest {
            key,
            future: Box::pin(guest::run(
                loaded.program.clone(),
                input,
                budget,
                memory,
                ends,
                fuel_used.clone(),
            )),
            loaded,
            fuel_used,
            waker: Arc::new(GuestWaker::new(id, self.ready_list.clone())),
            cpu_used: Duration::ZERO,
            cpu_limit: budget.cpu,
            deadline: ends,
            deadline_is_requested: deadline.is_some_and(|deadline| deadline < wall),
            started,
            queued,
            execution,
            done,
        });
        self.slice(id, SliceClock::first(Instant::now()));
        if let Some(guest) = self.guests.get(id) {
            self.deadlines.insert((guest.deadline, id));
        }
    }

    /// Runs a guest until it ends, sleeps, or its slice is over.
    fn slice(&mut self, id: GuestId, clock: SliceClock) {
        self.ticks.want();
        let guest = &mut self.guests[id];
        guest.waker.rearm();
        let waker = Waker::from(guest.waker.clone());
        let future = guest.future.as_mut();
        // A panic in a host call is our fault, and only this guest's end.
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(&mut Context::from_waker(&waker))));
        let used = clock.used();
        guest.cpu_used += used.charged();
        guest.loaded.runs.slice_took(used);
        let ended = match polled {
            Ok(Poll::Ready(ended)) => ended,
            Err(_) => Ended::failed(telemetry::internal_error("a host call panicked")),
            Ok(Poll::Pending) if guest.cpu_used > guest.cpu_limit => guest.ended_by(guest.cpu_error()),
            Ok(Poll::Pending) => return,
        };
        guest.loaded.runs.ended(match used {
            SliceTime::Charged(_) => SliceTime::Charged(guest.cpu_used),
            free => free,
        });
        self.end(id, ended);
    }

    /// Gives the guest's slot back, then hands its outcome over.
    fn end(&mut self, id: GuestId, ended: Ended) {
        self.run_queue.remove(id);
        let Guest { key, future, deadline, started, queued, execution, done, .. } = self.guests.remove(id);
        self.deadlines.remove(&(deadline, id));
        // Before the slot is counted as free, it must be.
        drop(future);
        self.shared.release(self.index, &key);
        drop(execution);
        done(RunOutcome::Ran { ended, run: started.elapsed(), queued });
    }

    /// Loads a program that is to be at hand before anyone asks for it. One that cannot be loaded is refused when it is
    /// asked for.
    pub fn warm(&mut self, artifact: &Artifact, account: &Name) {
        if self.load(artifact, account, Instant::now()).is_ok() {
            self.loaded.keep_warm(artifact);
        }
    }

    /// The program, loaded into this worker's engine and linked, on this account if it was not there.
    ///
    /// # Errors
    ///
    /// See [`LoadedModules::load`] and [`Linkers::load`].
    fn load(&mut self, artifact: &Artifact, account: &Name, now: Instant) -> Result<Arc<Loaded>, WireError> {
        if let Some(loaded) = self.loaded.get(artifact, now) {
            return Ok(loaded);
        }
        let linkers = match (artifact.tier, &self.baseline) {
            (Tier::Baseline, Some(baseline)) => baseline,
            _ => &self.linkers,
        };
        self.loaded.load(artifact, account, now, || linkers.load(artifact))
    }
}

impl Guest {
    fn ended_by(&self, error: WireError) -> Ended {
        Ended { fuel: self.fuel_used.load(Ordering::Relaxed), ..Ended::failed(error) }
    }

    fn cpu_error(&self) -> WireError {
        WireError::new(ErrorKind::Timeout, format!("used its {:?} of CPU time", self.cpu_limit))
    }

    fn wall_error(&self) -> WireError {
        let whose = if self.deadline_is_requested { "the request's timeout" } else { "the gateway's limit" };
        let after = self.deadline.saturating_duration_since(self.started);
        WireError::new(ErrorKind::Timeout, format!("still running after {after:.1?}, {whose}"))
    }
}
