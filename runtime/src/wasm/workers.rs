//! The workers as a whole: what waits for them, and the state that they share.

use super::artifact::Artifact;
use super::capacity::PoolCapacity;
use super::engine;
use super::guest::{Budget, Ended, Input};
use super::linking::Linkers;
use super::memory::GuestMemory;
use super::occupancy::Occupancy;
use super::ready_list::ReadyList;
use super::ticker::Ticker;
use super::worker::{AbortOnPanic, Executor, Worker, WorkerContext};
use crate::config::Config;
use crate::flow::{Flow, Name};
use crate::suspects::{Suspects, Watched};
use offload_policy::{Admission, Busy, FairQueue, Load, QueueLimits, Slots, Time};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// How long a thread that brings requests runs them before it goes back to its connections.
const INLINE_BUDGET: Duration = Duration::from_micros(500);

/// So many requests at once are run by the thread that brings them; for more, others are woken.
const MAX_INLINE_BATCH: usize = 8;

/// What fairness and quotas are kept by.
pub type Key = Flow;

/// The account of what is loaded at start.
const GATEWAY: &str = "";

/// One guest to run.
pub struct Job {
    /// Whose it is.
    pub key: Key,
    /// What it was admitted with.
    pub load: Load,
    /// The compiled module.
    pub artifact: Arc<Artifact>,
    /// What the guest is given.
    pub input: Input,
    /// What it may use.
    pub budget: Budget,
    /// When the request arrived.
    pub arrived: Instant,
    /// When its answer is no longer of use; also bounds its run.
    pub deadline: Option<Instant>,
    /// What knows it again if it crashes the gateway.
    pub watched: Option<Watched>,
    /// Takes the outcome, on the worker's thread. Called exactly once.
    pub done: Box<dyn FnOnce(RunOutcome) + Send>,
}

/// What became of a job.
pub enum RunOutcome {
    /// It ran.
    Ran {
        /// How it ended.
        ended: Ended,
        /// Wall-clock time from its first slice to its end.
        run: Duration,
        /// Time from arrival to its first slice.
        queued: Duration,
    },
    /// Its deadline came before a slot did.
    Expired,
    /// The gateway stopped before it could start.
    NotStarted,
    /// The gateway stopped while it ran.
    Stopped,
}

/// The pool of workers.
pub struct Workers {
    shared: Arc<Shared>,
    executors: Vec<Arc<Executor>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Stops after the workers: fields are dropped in this order.
    _ticker: Ticker,
}

/// What the workers and those who hand them work have in common.
pub(super) struct Shared {
    state: Mutex<SchedulerState>,
    /// How many jobs are in the queue: a worker looks here before it takes the lock.
    pub(super) queued: AtomicUsize,
    /// How many jobs have ever been queued, or were let through: tells a worker that found nothing to take whether to
    /// look again.
    pub(super) submitted: AtomicU64,
    pub(super) stop: AtomicBool,
    ready_lists: Vec<Arc<ReadyList>>,
    /// What keeps guests apart, where it is known what crashes the gateway.
    suspects: Option<Arc<Suspects>>,
    /// What all guests have together.
    pub(super) memory: Arc<GuestMemory>,
    epoch: Instant,
    /// Told when the earliest deadline in the queue may have changed.
    deadline_changed: Notify,
    /// Told when nothing waits and nothing runs any more.
    idle: Notify,
}

/// The policy's state machines, behind one lock.
pub(super) struct SchedulerState {
    admission: Admission<Key>,
    pub(super) queue: FairQueue<Key, Job>,
    /// One that is to run alone: nothing runs, and it is the next to start.
    alone: Option<Job>,
    slots: Slots<Key>,
    running: usize,
}

impl Workers {
    /// Starts the workers, with what is `warm` loaded. They run baseline code with `baseline`; with `suspects` each job
    /// is watched; `runtime` drives the timers of sleeping guests.
    ///
    /// # Errors
    ///
    /// When the pools' address space cannot be reserved.
    pub fn start(
        config: &Config,
        baseline: Option<Arc<Linkers>>,
        warm: &[Arc<Artifact>],
        suspects: Option<Arc<Suspects>>,
        runtime: &Handle,
    ) -> wasmtime::Result<Workers> {
        let Config { workers, limits, queue, compiler, .. } = config;
        let count = workers.count;
        let capacity = PoolCapacity::new(workers, compiler);
        if let Some(shortage) = capacity.shortage {
            tracing::warn!(slots = capacity.slots, "room for fewer guests at once than wanted: {shortage}");
        }
        let engines = (0..count)
            .map(|_| engine::worker(capacity.slots, limits, compiler))
            .collect::<wasmtime::Result<Vec<_>>>()?;
        let ready_lists: Vec<Arc<ReadyList>> = engines.iter().map(|_| Arc::default()).collect();
        let shared = Arc::new(Shared {
            state: Mutex::new(SchedulerState {
                admission: Admission::new(queue.admission_limits()),
                queue: FairQueue::new(QueueLimits { per_flow: queue.per_principal, total: queue.total }),
                alone: None,
                slots: Slots::new(count, capacity.slots, workers.shares()),
                running: 0,
            }),
            queued: AtomicUsize::new(0),
            submitted: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            ready_lists: ready_lists.clone(),
            suspects,
            memory: Arc::new(GuestMemory::new(capacity.memory)),
            epoch: Instant::now(),
            deadline_changed: Notify::new(),
            idle: Notify::new(),
        });
        let shared_engine = baseline.as_ref().map(|linkers| linkers.engine().clone());
        let ticker = Ticker::start(engines.clone(), shared_engine, workers.slice.duration());
        let gateway = Name::from(GATEWAY);
        let (mut executors, mut threads) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (index, (engine, ready_list)) in engines.into_iter().zip(ready_lists).enumerate() {
            let context = WorkerContext {
                index,
                // One half of them, so that the other is free of such programs; one alone has no choice.
                may_be_held_up: index < count.div_ceil(2),
                ready_list,
                shared: shared.clone(),
                ticks: ticker.for_worker(index),
                runtime: runtime.clone(),
            };
            let linkers = Linkers::new(engine)?;
            let mut worker = Worker::new(context, linkers, baseline.clone(), capacity.loaded);
            for artifact in warm {
                worker.warm(artifact, &gateway);
            }
            let executor = Arc::new(Executor::new(worker));
            executors.push(executor.clone());
            let niceness = i32::from(workers.niceness);
            let thread = thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    let guard = AbortOnPanic;
                    // On Linux this is the thread's own.
                    if let Err(error) = rustix::process::nice(niceness) {
                        tracing::info!(%error, "a worker's thread keeps its priority");
                    }
                    executor.run();
                    std::mem::forget(guard);
                })
                .map_err(|error| wasmtime::format_err!("cannot start a worker thread: {error}"))?;
            threads.push(thread);
        }
        runtime.spawn(expire(shared.clone()));
        Ok(Workers { shared, executors, threads: Mutex::new(threads), _ticker: ticker })
    }

    /// Counts a request as waiting, from here until it is submitted and started, or what is returned is dropped.
    ///
    /// # Errors
    ///
    /// [`Busy`] when this client, its account, or all of them have too much waiting.
    pub fn admit(self: &Arc<Self>, key: &Key, load: Load) -> Result<Waiting, Busy> {
        let now = self.shared.now();
        self.shared.lock().admission.admit(key, load, now)?;
        Ok(Waiting { workers: self.clone(), key: key.clone(), load, submitted: false })
    }

    /// What a request may hold in memory to be ever admitted, in bytes.
    pub fn largest_request(&self) -> usize {
        self.shared.lock().admission.limits().largest().bytes
    }

    /// An admitted request ends without having been started.
    fn withdraw(&self, key: &Key, load: Load) {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        state.admission.withdrawn(key, load, now);
        self.shared.tell_if_idle(&state);
    }

    /// Puts an admitted request into the queue, where it waits for somebody to [`dispatch`](Self::dispatch) to it.
    pub fn submit(&self, job: Job) {
        let deadline = job.deadline.map(|deadline| self.shared.since_start(deadline));
        {
            let mut state = self.shared.lock();
            // Looked at under the lock: what is pushed before the stop is found by it.
            if self.shared.stop.load(Ordering::SeqCst) {
                drop(state);
                return self.turn_away(job);
            }
            if job.watched.as_ref().is_some_and(Watched::is_alone) {
                let other = state.alone.replace(job);
                assert!(other.is_none(), "only one is alone");
            } else {
                let pushed = state.queue.push(job.key.clone(), job, deadline);
                assert!(pushed.is_ok(), "admission lets no more in than the queue holds");
            }
            self.shared.queued.fetch_add(1, Ordering::SeqCst);
            self.shared.submitted.fetch_add(1, Ordering::SeqCst);
        }
        if deadline.is_some() {
            self.shared.deadline_changed.notify_one();
        }
    }

    /// Sees to it that what waits is run: in here where it is short and a worker is free, by the workers' own threads
    /// otherwise. Takes [`INLINE_BUDGET`] and a slice at the most.
    pub fn dispatch(&self) {
        if self.shared.queued.load(Ordering::SeqCst) == 0 {
            return;
        }
        let until = Instant::now() + INLINE_BUDGET;
        for (own, executor) in self.executors.iter().enumerate() {
            let begin = || {
                if self.shared.queued.load(Ordering::SeqCst) > MAX_INLINE_BATCH {
                    self.wake_for_queued(Some(own));
                }
            };
            if executor.try_run_inline(until, begin) {
                break;
            }
        }
        self.wake_for_queued(None);
    }

    /// Wakes a thread that waits for each job in the queue, but not that of `except`. If none waits, each looks at the
    /// queue at the end of its slice.
    fn wake_for_queued(&self, except: Option<usize>) {
        let queued = self.shared.queued.load(Ordering::SeqCst);
        let others = self.shared.ready_lists.iter().enumerate().filter(|(index, _)| Some(*index) != except);
        others.filter(|(_, ready_list)| queued > 0 && ready_list.notify()).take(queued).for_each(drop);
    }

    /// Requests that wait or run.
    pub fn in_flight(&self) -> usize {
        self.shared.lock().in_flight()
    }

    /// How busy they are.
    pub fn load(&self) -> Occupancy {
        let state = self.shared.lock();
        let waiting = state.admission.waiting().requests;
        Occupancy { workers: self.shared.ready_lists.len(), running: state.running, waiting }
    }

    /// Returns when nothing waits and nothing runs.
    pub async fn idle(&self) {
        loop {
            let idle = self.shared.idle.notified();
            if self.in_flight() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Ends the workers: what still runs or waits is told so.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.deadline_changed.notify_one();
        for ready_list in &self.shared.ready_lists {
            ready_list.notify();
        }
        let threads = std::mem::take(&mut *self.threads.lock().expect("no panic while the lock is held"));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        let left: Vec<Job> = {
            let mut state = self.shared.lock();
            let alone = state.alone.take();
            let queued = std::iter::from_fn(|| state.queue.pop()).map(|(_, job)| job);
            alone.into_iter().chain(queued).collect()
        };
        left.into_iter().for_each(|job| self.turn_away(job));
    }

    fn turn_away(&self, job: Job) {
        let (key, load) = (job.key, job.load);
        (job.done)(RunOutcome::NotStarted);
        self.withdraw(&key, load);
    }
}

/// A request that counts as waiting. Dropped when it has been answered in another way than by a worker, so that whoever
/// waits for the gateway to be idle waits for the answer too.
pub struct Waiting {
    workers: Arc<Workers>,
    key: Key,
    load: Load,
    submitted: bool,
}

impl Waiting {
    /// The request becomes a job, which counts from here on: whose it is, and what it was admitted with.
    pub fn into_job(mut self) -> (Key, Load) {
        self.submitted = true;
        (self.key.clone(), self.load)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.submitted {
            self.workers.withdraw(&self.key, self.load);
        }
    }
}

impl SchedulerState {
    fn in_flight(&self) -> usize {
        self.admission.waiting().requests + self.running
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, SchedulerState> {
        self.state.lock().expect("no panic while the lock is held")
    }

    /// The policy's time.
    pub(super) fn now(&self) -> Time {
        self.epoch.elapsed()
    }

    pub(super) fn since_start(&self, instant: Instant) -> Time {
        instant.saturating_duration_since(self.epoch)
    }

    /// The next job for this worker that is `eligible`; it now holds a slot for it.
    pub(super) fn take(&self, worker: usize, eligible: impl Fn(&Job) -> bool) -> Option<Job> {
        if self.queued.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let now = self.now();
        let mut state = self.lock();
        let SchedulerState { admission, queue, alone, slots, running } = &mut *state;
        if slots.free(worker) == 0 {
            return None;
        }
        let (key, job) = match alone.take_if(|job| eligible(job)) {
            Some(job) => (job.key.clone(), job),
            None => {
                let permit = match &self.suspects {
                    Some(suspects) => Some(suspects.isolation().try_share()?),
                    None => None,
                };
                let (key, mut job) = queue.pop_where(
                    |account| slots.account_may_start(account),
                    |key, job| slots.flow_may_start(key) && eligible(job),
                )?;
                if let (Some(watched), Some(permit)) = (&mut job.watched, permit) {
                    watched.admit(permit);
                }
                (key, job)
            }
        };
        self.queued.fetch_sub(1, Ordering::SeqCst);
        slots.try_acquire(worker, &key).expect("a slot is free and within the quota");
        admission.started(&key, job.load, now);
        *running += 1;
        Some(job)
    }

    /// A job that [`Shared::take`] gave out has ended. Others may have waited for its slot or its quota.
    pub(super) fn release(&self, worker: usize, key: &Key) {
        let mut state = self.lock();
        state.slots.release(worker, key);
        state.running -= 1;
        self.tell_if_idle(&state);
    }

    /// Others may start again: a worker that has found nothing to start looks once more.
    fn reopen(&self) {
        self.submitted.fetch_add(1, Ordering::SeqCst);
        for ready_list in &self.ready_lists {
            ready_list.notify();
        }
    }

    fn tell_if_idle(&self, state: &SchedulerState) {
        if state.in_flight() == 0 {
            self.idle.notify_waiters();
        }
    }
}

/// Answers requests whose deadline comes while they wait, and tells workers when others may start that were held back.
async fn expire(shared: Arc<Shared>) {
    while !shared.stop.load(Ordering::SeqCst) {
        let next = shared.lock().queue.next_deadline();
        let sleep = async {
            match next {
                Some(at) => tokio::time::sleep_until((shared.epoch + at).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = shared.deadline_changed.notified() => continue,
            () = reopened(&shared) => {
                shared.reopen();
                continue;
            }
        }
        let now = shared.now();
        let expired: Vec<Job> = {
            let mut state = shared.lock();
            let expired: Vec<(Key, Job)> = state.queue.expire(now).collect();
            shared.queued.fetch_sub(expired.len(), Ordering::SeqCst);
            for (key, job) in &expired {
                state.admission.withdrawn(key, job.load, now);
            }
            shared.tell_if_idle(&state);
            expired.into_iter().map(|(_, job)| job).collect()
        };
        for job in expired {
            (job.done)(RunOutcome::Expired);
        }
    }
}

/// Returns when a job that ran alone has ended.
async fn reopened(shared: &Shared) {
    match &shared.suspects {
        Some(suspects) => suspects.isolation().reopened().await,
        None => std::future::pending().await,
    }
}
