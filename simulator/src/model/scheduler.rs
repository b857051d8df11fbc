//! What a gateway asks of its scheduler: the calls of the runtime's own [`Dispatcher`] that are made here. What stands
//! in its place watches it, or puts faults into it ([`crate::swarm`]).

use std::fmt::Debug;

use offload_policy::{Busy, Dispatcher, DispatcherLimits, GuestId, Load, Next, SliceTime, Submission, Time};

use super::order::{Job, Key};

/// A scheduler. Each call is the dispatcher's of the same name.
#[expect(missing_docs, reason = "the dispatcher's documentation is theirs")]
pub trait Scheduler: Debug {
    /// The process ends, and another one begins with nothing.
    fn restart(&mut self, limits: DispatcherLimits);

    /// # Errors
    /// When there is no room.
    fn admit(&mut self, key: &Key, load: Load, now: Time) -> Result<(), Busy>;
    fn readmit(&mut self, key: &Key, load: Load, now: Time);
    fn withdraw(&mut self, key: &Key, load: Load, now: Time);
    fn submit(&mut self, submission: Submission<Key, u32, Job>);
    fn next(&mut self, worker: usize, now: Time) -> Next<Job>;
    fn may_have_work(&self, worker: usize) -> bool;
    fn ready(&mut self, worker: usize, guest: GuestId, now: Time);
    fn slice_ended(&mut self, worker: usize, guest: GuestId, took: SliceTime) -> bool;
    fn finished(&mut self, worker: usize, guest: GuestId, took: SliceTime);
    fn release(&mut self, worker: usize, guest: GuestId);
    fn expire(&mut self, now: Time) -> Vec<Job>;
    fn drain(&mut self) -> Vec<Job>;
    fn next_deadline(&self) -> Option<Time>;
    fn waiting(&self) -> Load;
    fn queued(&self) -> usize;
    fn running(&self) -> usize;
    fn runnable(&self) -> usize;
}

impl Scheduler for Dispatcher<Key, u32, Job> {
    fn restart(&mut self, limits: DispatcherLimits) {
        *self = Self::new(limits);
    }

    fn admit(&mut self, key: &Key, load: Load, now: Time) -> Result<(), Busy> {
        self.admit(key, load, now)
    }

    fn readmit(&mut self, key: &Key, load: Load, now: Time) {
        self.readmit(key, load, now);
    }

    fn withdraw(&mut self, key: &Key, load: Load, now: Time) {
        self.withdraw(key, load, now);
    }

    fn submit(&mut self, submission: Submission<Key, u32, Job>) {
        self.submit(submission);
    }

    fn next(&mut self, worker: usize, now: Time) -> Next<Job> {
        self.next(worker, now)
    }

    fn may_have_work(&self, worker: usize) -> bool {
        self.may_have_work(worker)
    }

    fn ready(&mut self, worker: usize, guest: GuestId, now: Time) {
        self.ready(worker, guest, now);
    }

    fn slice_ended(&mut self, worker: usize, guest: GuestId, took: SliceTime) -> bool {
        self.slice_ended(worker, guest, took)
    }

    fn finished(&mut self, worker: usize, guest: GuestId, took: SliceTime) {
        self.finished(worker, guest, took);
    }

    fn release(&mut self, worker: usize, guest: GuestId) {
        self.release(worker, guest);
    }

    fn expire(&mut self, now: Time) -> Vec<Job> {
        self.expire(now)
    }

    fn drain(&mut self) -> Vec<Job> {
        self.drain()
    }

    fn next_deadline(&self) -> Option<Time> {
        self.next_deadline()
    }

    fn waiting(&self) -> Load {
        self.waiting()
    }

    fn queued(&self) -> usize {
        self.queued()
    }

    fn running(&self) -> usize {
        self.running()
    }

    fn runnable(&self) -> usize {
        self.runnable()
    }
}
