//! Whose thread does a worker's work: its own while it has anything to do, or that of an ingress which brings requests.
//!
//! While the worker's own thread waits, the worker is free for whoever brings a request: one that is known to be short
//! is run by the ingress's own thread, which has it in its cache and is awake. Two wake-ups of sleeping threads, there
//! and back, would cost ten times as much as the guest.
//!
//! A worker that panics outside of a guest's slice is lost, whoever's thread was in it: its own thread makes another
//! one, with a fresh engine. What it had in hand is answered `internal`, its other guests are run again
//! ([`Worker::abandon`]). The process ends where that does not help: when what all workers share may be torn, when a
//! panic keeps coming back, or when there is no memory for another engine. A gateway that is unresponsive on one core
//! is worse than one that is started again.

use super::ready_list::ReadyList;
use super::scheduler::Scheduler;
use super::ticker::Ticks;
use super::worker::{Pause, Worker};
use super::worker_factory::WorkerFactory;
use crate::telemetry;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Instant;
use tokio::runtime::Handle;

/// A worker, and whoever's thread is in it.
pub struct Executor {
    index: usize,
    /// None from when it is lost until its own thread has made another one.
    worker: Mutex<Option<Worker>>,
    factory: Arc<WorkerFactory>,
    ticks: Ticks,
    ready_list: Arc<ReadyList>,
    scheduler: Arc<Scheduler>,
    /// What drives the timers of sleeping guests.
    runtime: Handle,
}

impl Executor {
    /// The executor of the worker of this number, which is made.
    ///
    /// # Errors
    ///
    /// See [`WorkerFactory::make`].
    pub fn new(
        index: usize,
        factory: Arc<WorkerFactory>,
        ticks: Ticks,
        runtime: Handle,
    ) -> wasmtime::Result<Executor> {
        let worker = Mutex::new(Some(factory.make(index, &ticks)?));
        let scheduler = factory.scheduler.clone();
        let ready_list = scheduler.ready_list(index).clone();
        Ok(Executor { index, worker, factory, ticks, ready_list, scheduler, runtime })
    }

    /// The life of the worker's thread, until the gateway stops.
    pub fn run(&self) {
        let guard = AbortOnPanic;
        let parker = &self.ready_list.parker;
        parker.attach();
        let _context = self.runtime.enter();
        while let Some(Pause { timeout, seen }) = self.work() {
            parker.park(timeout, || {
                self.ready_list.is_empty() && self.scheduler.changes() == seen && !self.scheduler.is_stopped()
            });
        }
        if let Some(worker) = &mut *self.lock() {
            worker.stop();
        }
        std::mem::forget(guard);
    }

    /// Lets the caller's thread do the worker's work if no other is in it and nothing is to be done but what waits in
    /// the queue and is short: until there is no more of it, or `until`. `false` if the executor is taken, or wanted by
    /// guests that can go on.
    ///
    /// `begin` is called once the caller is sure to be of use.
    pub fn try_run_inline(&self, until: Instant, begin: impl FnOnce()) -> bool {
        let mut place = match self.worker.try_lock() {
            Ok(place) => place,
            Err(TryLockError::WouldBlock) => return false,
            Err(TryLockError::Poisoned(_)) => unreachable!("{NOT_POISONED}"),
        };
        let Some(worker) = &mut *place else { return false };
        let was_free = match contain(|| worker.run_inline(until, begin)) {
            Ok(was_free) => was_free,
            Err(panic) => {
                self.lose(&mut place, &*panic);
                true
            }
        };
        if place.as_ref().is_none_or(Worker::has_guests) {
            // They are for its own thread, which may know nothing of them yet; and so is a worker that was lost.
            drop(place);
            self.ready_list.parker.wake();
        }
        was_free
    }

    /// Does the worker's work until there is nothing to do, or for good; with another worker when one is lost.
    fn work(&self) -> Option<Pause> {
        let mut place = self.lock();
        loop {
            let worker = match &mut *place {
                Some(worker) => worker,
                None => place.insert(self.make_another()),
            };
            match contain(|| worker.work()) {
                Ok(pause) => return pause,
                Err(panic) => self.lose(&mut place, &*panic),
            }
        }
    }

    /// A worker has panicked: gives back what it had.
    fn lose(&self, place: &mut Option<Worker>, panic: &(dyn Any + Send)) {
        let guard = AbortOnPanic;
        let (worker, panic) = (self.index, message(panic));
        if let Err(why) = self.scheduler.allow_restart() {
            tracing::error!(worker, panic, "a worker panicked, and is not restarted: {why}");
            std::process::abort();
        }
        tracing::error!(worker, panic, "a worker panicked: it is restarted, and what it ran is run again");
        self.ticks.done();
        // Its pool is freed with the last of them.
        self.ticks.set_engine(None);
        if let Some(worker) = place.take() {
            worker.abandon();
        }
        std::mem::forget(guard);
    }

    fn make_another(&self) -> Worker {
        self.factory.make(self.index, &self.ticks).unwrap_or_else(|error| {
            let worker = self.index;
            tracing::error!(worker, "a worker that panicked cannot be restarted: {error:#}");
            std::process::abort();
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Worker>> {
        self.worker.lock().expect(NOT_POISONED)
    }
}

/// Why the executor's lock is never poisoned.
const NOT_POISONED: &str = "panics are contained, or end the process, while the executor is held";

/// What `work` returns, or the panic that has ended it. Whatever it has touched is not used again, or is looked at
/// first ([`Scheduler::allow_restart`]).
fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(work))
}

/// What a panic says, fit for the log.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    telemetry::bounded(text.unwrap_or("a panic without a message")).to_string()
}

/// Ends the process when a worker's thread panics where it is not in the worker, or while a lost one is cleared away.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        tracing::error!("a worker's thread panicked outside of its work: the gateway cannot go on");
        std::process::abort();
    }
}
