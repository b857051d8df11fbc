//! The workers as a whole: what hands them work, and their threads.

use super::artifact::Artifact;
use super::executor::Executor;
use super::linking::Linkers;
use super::memory::GuestMemory;
use super::occupancy::Occupancy;
use super::scheduler::Scheduler;
use super::ticker::Ticker;
use super::worker_factory::WorkerFactory;
use crate::cancellation::Cancellation;
use crate::config::Config;
use crate::config::capacity::PoolCapacity;
use crate::suspects::Suspects;
use offload_policy::{Busy, DispatcherLimits, Load};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;

pub use super::job::{Job, Key, RunOutcome};

/// How long a thread that brings requests runs them before it goes back to its connections.
const INLINE_BUDGET: Duration = Duration::from_micros(500);

/// Requests at once that are run by the thread that brings them alone; for more, others are woken.
const MAX_INLINE_BATCH: usize = 8;

/// The pool of workers.
pub struct Workers {
    scheduler: Arc<Scheduler>,
    executors: Vec<Arc<Executor>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Stops after the workers: fields are dropped in this order.
    _ticker: Ticker,
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
        let dispatcher_limits = DispatcherLimits {
            workers: count,
            slots: capacity.slots,
            shares: workers.shares(),
            admission: queue.admission_limits(),
        };
        let scheduler =
            Arc::new(Scheduler::new(dispatcher_limits, GuestMemory::new(capacity.memory), suspects));
        let shared_engine = baseline.as_ref().map(|linkers| linkers.engine().clone());
        let ticker = Ticker::start(count, shared_engine, workers.slice.duration());
        let factory = Arc::new(WorkerFactory {
            slots: capacity.slots,
            limits: limits.clone(),
            compiler: compiler.clone(),
            loaded: capacity.loaded,
            baseline,
            warm: warm.to_vec(),
            scheduler: scheduler.clone(),
        });
        let (mut executors, mut threads) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for index in 0..count {
            let executor = Executor::new(index, factory.clone(), ticker.for_worker(index), runtime.clone())?;
            let executor = Arc::new(executor);
            executors.push(executor.clone());
            let niceness = i32::from(workers.niceness);
            let thread = thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    // On Linux this is the thread's own.
                    if let Err(error) = rustix::process::nice(niceness) {
                        tracing::info!(%error, "a worker's thread keeps its priority");
                    }
                    executor.run();
                })
                .map_err(|error| wasmtime::format_err!("cannot start a worker thread: {error}"))?;
            threads.push(thread);
        }
        let timer = scheduler.clone();
        runtime.spawn(async move { timer.expire().await });
        Ok(Workers { scheduler, executors, threads: Mutex::new(threads), _ticker: ticker })
    }

    /// Counts a request as waiting, from here until it is submitted and started, or what is returned is dropped.
    ///
    /// # Errors
    ///
    /// [`Busy`] when this client, its account, or all of them have too much waiting.
    pub fn admit(self: &Arc<Self>, key: &Key, load: Load) -> Result<Waiting, Busy> {
        self.scheduler.admit(key, load)?;
        Ok(Waiting { workers: self.clone(), key: key.clone(), load, submitted: false, _permit: None })
    }

    /// Counts a request as waiting that an earlier process has admitted, whatever else waits by now.
    pub fn readmit(self: &Arc<Self>, key: &Key, load: Load) -> Waiting {
        self.scheduler.readmit(key, load);
        Waiting { workers: self.clone(), key: key.clone(), load, submitted: false, _permit: None }
    }

    /// What a request may hold in memory to be ever admitted, in bytes.
    pub fn largest_request(&self) -> usize {
        self.scheduler.largest_request()
    }

    /// Puts an admitted request into the queue, where it waits for somebody to [`dispatch`](Self::dispatch) to it.
    pub fn submit(&self, job: Job) {
        if let Err(job) = self.scheduler.submit(job) {
            self.turn_away(*job);
        }
    }

    /// Ends the request that this belongs to: where it waits, at its next slice where it runs, or soon where a task has
    /// it.
    pub fn cancel(&self, cancellation: &Arc<Cancellation>) {
        cancellation.cancel();
        if let Some(job) = self.scheduler.take_cancelled(cancellation) {
            self.turn_away(job);
        }
    }

    /// Sees to it that what waits is run: in here where it is short and a worker is free, by the workers' own threads
    /// otherwise. Takes [`INLINE_BUDGET`] and a slice at the most.
    pub fn dispatch(&self) {
        if self.scheduler.queued() == 0 {
            return;
        }
        let until = Instant::now() + INLINE_BUDGET;
        for (own, executor) in self.executors.iter().enumerate() {
            // One of them is taken already.
            let begin = || {
                if self.scheduler.queued() >= MAX_INLINE_BATCH {
                    self.scheduler.wake_for_queued(Some(own));
                }
            };
            if executor.try_run_inline(until, begin) {
                break;
            }
        }
        self.scheduler.wake_for_queued(None);
    }

    /// Requests that wait or run.
    pub fn in_flight(&self) -> usize {
        self.scheduler.in_flight()
    }

    /// How busy they are.
    pub fn load(&self) -> Occupancy {
        let (waiting, running) = self.scheduler.load();
        let restarted = self.scheduler.restarted();
        let runnable = self.scheduler.runnable();
        Occupancy { workers: self.executors.len(), running, waiting, runnable, restarted }
    }

    /// Returns when nothing waits and nothing runs.
    pub async fn idle(&self) {
        self.scheduler.idle().await;
    }

    /// Ends the workers: what still runs or waits is told so.
    pub fn stop(&self) {
        self.scheduler.stop();
        let threads = std::mem::take(&mut *self.threads.lock().expect("no panic while the lock is held"));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        self.scheduler.drain().into_iter().for_each(|job| self.turn_away(job));
    }

    fn turn_away(&self, job: Job) {
        let (key, load) = (job.key, job.load);
        (job.done)(RunOutcome::NotStarted);
        self.scheduler.withdraw(&key, load);
    }
}

/// A request that counts as waiting. Dropped when it has been answered in another way than by a worker, so that whoever
/// waits for the gateway to be idle waits for the answer too.
pub struct Waiting {
    workers: Arc<Workers>,
    key: Key,
    load: Load,
    submitted: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Waiting {
    /// With a permit that it gives back with its room.
    pub fn with(self, permit: OwnedSemaphorePermit) -> Waiting {
        let mut waiting = self;
        waiting._permit = Some(permit);
        waiting
    }

    /// The request becomes a job, which counts from here on: whose it is, and what it was admitted with.
    pub fn into_job(mut self) -> (Key, Load) {
        self.submitted = true;
        (self.key.clone(), self.load)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.submitted {
            self.workers.scheduler.withdraw(&self.key, self.load);
        }
    }
}
