//! One worker: an engine with its pool, and a loop that gives guests their slices.
//!
//! A guest is a future. Polling it runs the guest until it ends, sleeps, or its slice is over (the engine's epoch moves
//! on and the guest yields at its next loop or call). Which guest is polled next, whether a new one is started, and
//! when one has used up its time, is the policy's choice; the worker has the guests themselves.

use super::artifact::Artifact;
use super::engine::Tier;
use super::guest::{self, Ended};
use super::job::{Job, RunOutcome};
use super::linking::Linkers;
use super::loaded::{Loaded, LoadedModules};
use super::ready_list::{GuestWaker, ReadyList};
use super::rehearsal::{Point, rehearse};
use super::scheduler::Scheduler;
use super::slice_clock::SliceClock;
use super::ticker::Ticks;
use crate::cancellation::cancelled_error;
use crate::config::capacity::LoadedLimits;
use crate::flow::Name;
use crate::suspects::{Execution, Watched};
use crate::telemetry;
use offload_policy::{FlowKey, GuestId, Next, SliceTime, Time};
use offload_protocol::error::{ErrorKind, WireError};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A slice in which this many ticks came was told to end and went on, for [`RecentRuns::HOLD_UP`] with slices of the
/// default length. A slice that is long because ticks came late has seen fewer.
///
/// [`RecentRuns::HOLD_UP`]: offload_policy::RecentRuns::HOLD_UP
const OVERRUN_TICKS: u64 = 10;

/// A worker's state; all of it is that of the thread at its executor but what `scheduler` and `ready_list` say.
pub struct Worker {
    index: usize,
    linkers: Linkers,
    /// Those of all workers for baseline code.
    baseline: Option<Arc<Linkers>>,
    loaded: LoadedModules,
    scheduler: Arc<Scheduler>,
    ready_list: Arc<ReadyList>,
    ticks: Ticks,
    guests: Guests,
    /// Guests that were woken and are not counted as ready yet.
    woken: Vec<GuestId>,
    /// Whether a guest has left since the worker was idle.
    has_released: bool,
}

/// The guests that have been started and have not ended, by the numbers that the dispatcher gives them.
#[derive(Default)]
struct Guests {
    by_id: Vec<Option<Guest>>,
    len: usize,
}

/// A guest that has been started and has not ended.
struct Guest {
    loaded: Arc<Loaded>,
    future: Pin<Box<dyn Future<Output = Ended> + Send>>,
    waker: Arc<GuestWaker>,
    /// Fuel, as of the end of its last slice.
    fuel_used: Arc<AtomicU64>,
    cpu_limit: Duration,
    ends: Instant,
    /// Whether it is the request's deadline that it ends by.
    ends_as_requested: bool,
    started: Instant,
    queued: Duration,
    /// Dropped when its slot is free: others may start then.
    execution: Option<Execution>,
    /// What it runs for; by this it can be run again.
    job: Job,
}

/// What a worker's thread waits for when it leaves the worker.
pub struct Pause {
    /// How long at the most.
    pub timeout: Option<Duration>,
    /// [`Scheduler::changes`] from before the last look at the queue.
    pub seen: u64,
}

impl Worker {
    /// The worker of this number, whose own engine is that of `linkers`, and which keeps this many bytes of modules
    /// loaded: loading one again takes a millisecond or two at the most.
    pub fn new(
        index: usize,
        scheduler: Arc<Scheduler>,
        ticks: Ticks,
        linkers: Linkers,
        baseline: Option<Arc<Linkers>>,
        limits: LoadedLimits,
    ) -> Worker {
        Worker {
            index,
            linkers,
            baseline,
            loaded: LoadedModules::new(limits, scheduler.memory.clone()),
            ready_list: scheduler.ready_list(index).clone(),
            scheduler,
            ticks,
            guests: Guests::default(),
            woken: Vec::new(),
            has_released: false,
        }
    }

    /// Loads a program that is to be at hand before anyone asks for it. One that cannot be loaded is refused when it is
    /// asked for.
    pub fn warm(&mut self, artifact: &Artifact, account: &Name) {
        if self.load(artifact, account, Instant::now()).is_ok() {
            self.loaded.keep_warm(artifact);
        }
    }

    /// Starts and resumes guests until there is nothing to do, or for good: then `None`. For the worker's own thread.
    pub fn work(&mut self) -> Option<Pause> {
        while !self.scheduler.is_stopped() {
            let seen = self.scheduler.changes();
            match self.next() {
                Next::Start { guest, job, ends, unblocks } => {
                    if unblocks {
                        self.scheduler.wake_for_queued(Some(self.index));
                    }
                    self.start(guest, job, ends);
                }
                Next::Resume(guest) => {
                    self.wake_for_released();
                    self.slice(guest, SliceClock::later());
                }
                Next::End(guest) => {
                    let of = self.guests.get(guest);
                    let ended = of.ended_by(of.wall_error());
                    self.end(guest, ended);
                }
                Next::Expired(job) => self.scheduler.answer_expired(job),
                Next::Idle(until) => {
                    self.wake_for_released();
                    return Some(self.pause(until, seen));
                }
            }
        }
        None
    }

    /// Wakes others for what waits and is not for this worker, if it may have waited for a quota that is free now.
    fn wake_for_released(&mut self) {
        if std::mem::take(&mut self.has_released) {
            self.scheduler.wake_for_queued(Some(self.index));
        }
    }

    /// Starts what waits and is short, until there is no more of it, or `until`. `false` where guests of the worker
    /// want its own thread first. For whoever's thread.
    pub fn run_inline(&mut self, until: Instant, begin: impl FnOnce()) -> bool {
        let mut begin = Some(begin);
        while self.scheduler.queued() > 0 && !self.scheduler.is_stopped() {
            self.ready_list.take(&mut self.woken);
            let loaded = &self.loaded;
            let at_hand = |job: &Job| loaded.peek(&job.artifact).is_some_and(Loaded::has_run);
            let Some(next) = self.scheduler.next_inline(self.index, &mut self.woken, at_hand) else {
                if begin.is_some() {
                    return false;
                }
                break;
            };
            if let Some(begin) = begin.take() {
                begin();
            }
            match next {
                Next::Start { guest, job, ends, unblocks } => {
                    self.has_released |= unblocks;
                    self.start(guest, job, ends);
                }
                Next::Expired(job) => self.scheduler.answer_expired(job),
                Next::Resume(_) | Next::End(_) | Next::Idle(_) => break,
            }
            if Instant::now() >= until {
                break;
            }
        }
        self.ticks.done();
        true
    }

    /// Whether any guest has been started and has not ended.
    pub fn has_guests(&self) -> bool {
        self.guests.len > 0
    }

    /// The gateway stops: what still runs is told so.
    pub fn stop(&mut self) {
        for (id, guest) in self.guests.drain() {
            self.scheduler.release(self.index, id);
            drop(guest.future);
            (guest.job.done)(RunOutcome::Stopped);
        }
    }

    /// The worker has panicked, outside of a guest: gives all back that it has, and ends. What it had in hand has been
    /// dropped, and answered by that. Its guests go back into the queue, or are answered where they were lost before,
    /// or ran alone.
    ///
    /// Each guest is suspended where it has yielded, on a stack that the panic has not touched. wasmtime ends it as it
    /// does one whose time is up: it resumes the guest's fiber with an error, by which that is unwound, and takes the
    /// slot back. Where that panics too the pool's books may be wrong, and its memory still in use: that engine is
    /// never freed. Nothing of it is used again in any case.
    pub fn abandon(mut self) {
        let mut is_torn = false;
        let (mut again, mut given_up) = (Vec::new(), Vec::new());
        for (id, guest) in self.guests.drain() {
            let Guest { loaded, future, started, queued, execution, job, .. } = guest;
            is_torn |= catch_unwind(AssertUnwindSafe(|| drop((future, loaded)))).is_err();
            let ran_alone = execution.as_ref().is_some_and(Execution::is_alone);
            if job.was_lost || ran_alone {
                given_up.push((job, started, queued));
            } else {
                let watched = execution.as_ref().map(Execution::again);
                again.push((id, Job { watched, was_lost: true, ..job }));
            }
        }
        self.scheduler.worker_lost(self.index, again);
        for (job, started, queued) in given_up {
            let ended = Ended::failed(telemetry::internal_error("a worker panicked while the request ran"));
            (job.done)(RunOutcome::Ran { ended, run: started.elapsed(), queued });
        }
        let engine = self.linkers.engine().clone();
        is_torn |= catch_unwind(AssertUnwindSafe(|| drop(self))).is_err();
        if is_torn {
            std::mem::forget(engine);
        }
    }

    fn next(&mut self) -> Next<Job> {
        self.ready_list.take(&mut self.woken);
        if self.woken.is_empty() && !self.has_guests() && self.scheduler.queued() == 0 {
            // Without the lock.
            return Next::Idle(None);
        }
        self.scheduler.next(self.index, &mut self.woken)
    }

    /// Nothing to do before a guest is woken, a request comes, a guest's time is up, or a module is idle.
    fn pause(&mut self, until: Option<Time>, seen: u64) -> Pause {
        self.ticks.done();
        let now = Instant::now();
        let overdue = until.map(|until| self.scheduler.instant(until).saturating_duration_since(now));
        let idle = self.loaded.unload_idle(now);
        Pause { timeout: overdue.into_iter().chain(idle).min(), seen }
    }

    /// Starts a guest and runs its first slice, which for most is the only one.
    fn start(&mut self, id: GuestId, mut job: Job, ends: Time) {
        let started = Instant::now();
        let queued = started.saturating_duration_since(job.arrived);
        if job.is_cancelled() {
            self.release(id);
            return (job.done)(RunOutcome::NotStarted);
        }
        let execution = job.watched.take().map(Watched::begin);
        rehearse(Point::Start);
        let loaded = match self.load(&job.artifact, job.key.account(), started) {
            Ok(loaded) => loaded,
            Err(error) => {
                self.release(id);
                drop(execution);
                let ended = Ended::failed(error);
                return (job.done)(RunOutcome::Ran { ended, run: started.elapsed(), queued });
            }
        };
        let ends = self.scheduler.instant(ends);
        let memory = self.scheduler.memory.lease(job.key.account().clone());
        let fuel_used = Arc::new(AtomicU64::new(0));
        let program = loaded.program.clone();
        let waker = Arc::new(GuestWaker::new(id, self.ready_list.clone()));
        if let Some(cancellation) = &job.cancellation {
            cancellation.started(Waker::from(waker.clone()));
        }
        self.guests.insert(
            id,
            Guest {
                future: Box::pin(guest::run(
                    program,
                    job.input.clone(),
                    job.budget,
                    memory,
                    ends,
                    fuel_used.clone(),
                )),
                loaded,
                waker,
                fuel_used,
                cpu_limit: job.budget.cpu,
                ends,
                ends_as_requested: job.deadline.is_some_and(|deadline| deadline <= ends),
                started,
                queued,
                execution,
                job,
            },
        );
        self.slice(id, SliceClock::first(Instant::now()));
    }

    /// Runs a guest until it ends, sleeps, or its slice is over.
    fn slice(&mut self, id: GuestId, clock: SliceClock) {
        let guest = self.guests.get_mut(id);
        if guest.job.is_cancelled() {
            let ended = guest.ended_by(cancelled_error());
            return self.end(id, ended);
        }
        self.ticks.want();
        guest.waker.rearm();
        let waker = Waker::from(guest.waker.clone());
        let future = guest.future.as_mut();
        let ticks = self.ticks.count();
        // A panic in a host call is our fault, and only this guest's end.
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(&mut Context::from_waker(&waker))));
        let took = match clock.used() {
            SliceTime::Charged(time) if self.ticks.count() - ticks >= OVERRUN_TICKS => {
                SliceTime::Overrun(time)
            }
            took => took,
        };
        rehearse(Point::Slice);
        match polled {
            Ok(Poll::Ready(ended)) => self.finish(id, took, ended),
            Err(_) => self.finish(id, took, Ended::failed(telemetry::internal_error("a host call panicked"))),
            Ok(Poll::Pending) => {
                let may_go_on = self.scheduler.slice_ended(self.index, id, took);
                let guest = self.guests.get(id);
                if guest.job.is_cancelled() {
                    let ended = guest.ended_by(cancelled_error());
                    self.end(id, ended);
                } else if !may_go_on {
                    let ended = guest.ended_by(guest.cpu_error());
                    self.end(id, ended);
                }
            }
        }
    }

    /// The guest has ended by itself.
    fn finish(&mut self, id: GuestId, took: SliceTime, ended: Ended) {
        let guest = self.guests.remove(id);
        guest.hand_over(ended, || {
            self.has_released = true;
            self.scheduler.finished(self.index, id, took);
        });
    }

    /// Ends a guest.
    fn end(&mut self, id: GuestId, ended: Ended) {
        let guest = self.guests.remove(id);
        guest.hand_over(ended, || self.release(id));
    }

    fn release(&mut self, id: GuestId) {
        self.has_released = true;
        self.scheduler.release(self.index, id);
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

impl Guests {
    fn insert(&mut self, id: GuestId, guest: Guest) {
        if id >= self.by_id.len() {
            self.by_id.resize_with(id + 1, || None);
        }
        let replaced = self.by_id[id].replace(guest);
        assert!(replaced.is_none(), "a guest's number is its own until it has ended");
        self.len += 1;
    }

    fn get(&self, id: GuestId) -> &Guest {
        self.by_id[id].as_ref().expect("a guest that has not ended")
    }

    fn get_mut(&mut self, id: GuestId) -> &mut Guest {
        self.by_id[id].as_mut().expect("a guest that has not ended")
    }

    fn remove(&mut self, id: GuestId) -> Guest {
        self.len -= 1;
        self.by_id[id].take().expect("a guest that has not ended")
    }

    fn drain(&mut self) -> impl Iterator<Item = (GuestId, Guest)> {
        self.len = 0;
        self.by_id.drain(..).enumerate().filter_map(|(id, guest)| Some((id, guest?)))
    }
}

impl Guest {
    /// Makes its slot free, has `release` count it as that, and hands its outcome over.
    fn hand_over(self, ended: Ended, release: impl FnOnce()) {
        let Guest { loaded, future, started, queued, execution, job, .. } = self;
        loaded.set_has_run();
        drop(future);
        release();
        drop(execution);
        rehearse(Point::Answer);
        (job.done)(RunOutcome::Ran { ended, run: started.elapsed(), queued });
    }

    fn ended_by(&self, error: WireError) -> Ended {
        Ended { fuel: self.fuel_used.load(Ordering::Relaxed), ..Ended::failed(error) }
    }

    fn cpu_error(&self) -> WireError {
        WireError::new(ErrorKind::Timeout, format!("used its {:?} of CPU time", self.cpu_limit))
    }

    fn wall_error(&self) -> WireError {
        let whose = if self.ends_as_requested { "the request's timeout" } else { "the gateway's limit" };
        let after = self.ends.saturating_duration_since(self.started);
        WireError::new(ErrorKind::Timeout, format!("still running after {after:.1?}, {whose}"))
    }
}
