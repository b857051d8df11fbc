//! Whose thread does a worker's work: its own while it has anything to do, or that of an ingress which brings requests.
//!
//! While the worker's own thread waits, the worker is free for whoever brings a request: one that is known to be short
//! is run by the ingress's own thread, which has it in its cache and is awake. Two wake-ups of sleeping threads, there
//! and back, would cost ten times as much as the guest.

use super::ready_list::ReadyList;
use super::scheduler::Scheduler;
use super::worker::{Pause, Worker};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Instant;
use tokio::runtime::Handle;

/// A worker, and whoever's thread is in it.
pub struct Executor {
    worker: Mutex<Worker>,
    ready_list: Arc<ReadyList>,
    scheduler: Arc<Scheduler>,
    /// What drives the timers of sleeping guests.
    runtime: Handle,
}

impl Executor {
    /// The executor of this worker.
    pub fn new(
        worker: Worker,
        ready_list: Arc<ReadyList>,
        scheduler: Arc<Scheduler>,
        runtime: Handle,
    ) -> Executor {
        Executor { worker: Mutex::new(worker), ready_list, scheduler, runtime }
    }

    /// The life of the worker's thread, until the gateway stops.
    pub fn run(&self) {
        let parker = &self.ready_list.parker;
        parker.attach();
        let _context = self.runtime.enter();
        loop {
            let Some(Pause { timeout, seen }) = self.lock().work() else { break };
            parker.park(timeout, || {
                self.ready_list.is_empty() && self.scheduler.changes() == seen && !self.scheduler.is_stopped()
            });
        }
        self.lock().stop();
    }

    /// Lets the caller's thread do the worker's work if no other is in it and nothing is to be done but what waits in
    /// the queue and is short: until there is no more of it, or `until`. `false` if the executor is taken, or wanted by
    /// guests that can go on.
    ///
    /// `begin` is called once the caller is sure to be of use.
    pub fn try_run_inline(&self, until: Instant, begin: impl FnOnce()) -> bool {
        let mut worker = match self.worker.try_lock() {
            Ok(worker) => worker,
            Err(TryLockError::WouldBlock) => return false,
            Err(TryLockError::Poisoned(_)) => unreachable!("the process ends when a worker panics"),
        };
        let guard = AbortOnPanic;
        let was_free = worker.run_inline(until, begin);
        std::mem::forget(guard);
        if worker.has_guests() {
            // They are for its own thread, which may know nothing of them yet.
            drop(worker);
            self.ready_list.parker.wake();
        }
        was_free
    }

    fn lock(&self) -> MutexGuard<'_, Worker> {
        self.worker.lock().expect("the process ends when a worker panics")
    }
}

/// Ends the process when a worker panics outside a guest's slice: its state is wrong, its guests are gone, and a
/// gateway that is unresponsive on one core is worse than one that is started again.
pub struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        tracing::error!("a worker panicked: the gateway cannot go on");
        std::process::abort();
    }
}
