//! Faults that are put into schedulers and routers on purpose, to show that they are found.

use offload_policy::{Busy, DispatcherLimits, GuestId, Load, Next, SliceTime, Submission, Time};

use crate::model::order::{Job, Key};
use crate::model::scheduler::Scheduler;

/// A fault. Most come rarely, as those do that nobody has found yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// Every third request that expires is dropped without an answer.
    DropsExpiry,
    /// Every fifth guest that ends keeps its slot.
    ForgetsRelease,
    /// Every second request is counted for another account, so that its own one passes its share.
    PassesShare,
    /// Every seventh guest that can go on is forgotten.
    LosesWake,
    /// Workers that have no slot are asked as others are, in place of those that have one.
    AsksFullWorkers,
    /// Saturated sites hand on to any site of theirs, also to those that have had the request, however many these are.
    HandsBack,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::DropsExpiry,
        Self::ForgetsRelease,
        Self::PassesShare,
        Self::LosesWake,
        Self::AsksFullWorkers,
        Self::HandsBack,
    ];

    /// Of this many occasions one is taken.
    fn period(self) -> u32 {
        match self {
            Self::AsksFullWorkers | Self::HandsBack => 1,
            Self::PassesShare => 2,
            Self::DropsExpiry => 3,
            Self::ForgetsRelease => 5,
            Self::LosesWake => 7,
        }
    }
}

/// No account of a world has a number as high.
const STRANGER: u32 = 1 << 31;

/// A scheduler with a fault, or without one.
#[derive(Debug)]
pub struct Faulty<S> {
    inner: S,
    fault: Option<Fault>,
    occasions: u32,
    /// Whether the request that was admitted last is counted for a stranger.
    is_strange: bool,
}

impl<S: Scheduler> Faulty<S> {
    /// This scheduler with this fault.
    pub fn new(inner: S, fault: Option<Fault>) -> Self {
        Self { inner, fault, occasions: 0, is_strange: false }
    }

    /// Whether it goes wrong this time.
    fn strikes(&mut self, fault: Fault) -> bool {
        if self.fault != Some(fault) {
            return false;
        }
        self.occasions += 1;
        self.occasions.is_multiple_of(fault.period())
    }

    fn key(&self, (account, flow): Key) -> Key {
        (if self.is_strange { account | STRANGER } else { account }, flow)
    }
}

impl<S: Scheduler> Scheduler for Faulty<S> {
    fn restart(&mut self, limits: DispatcherLimits) {
        self.inner.restart(limits);
    }

    fn admit(&mut self, key: &Key, load: Load, now: Time) -> Result<(), Busy> {
        self.is_strange = self.strikes(Fault::PassesShare);
        self.inner.admit(&self.key(*key), load, now)
    }

    fn readmit(&mut self, key: &Key, load: Load, now: Time) {
        self.is_strange = self.strikes(Fault::PassesShare);
        self.inner.readmit(&self.key(*key), load, now);
    }

    fn withdraw(&mut self, key: &Key, load: Load, now: Time) {
        self.inner.withdraw(&self.key(*key), load, now);
    }

    fn submit(&mut self, submission: Submission<Key, u32, Job>) {
        self.inner.submit(Submission { key: self.key(submission.key), ..submission });
    }

    fn next(&mut self, worker: usize, now: Time) -> Next<Job> {
        loop {
            let next = self.inner.next(worker, now);
            if !(matches!(next, Next::Expired(_)) && self.strikes(Fault::DropsExpiry)) {
                return next;
            }
        }
    }

    fn may_have_work(&self, worker: usize) -> bool {
        self.inner.may_have_work(worker)
            || self.fault == Some(Fault::AsksFullWorkers) && self.inner.queued() > 0
    }

    fn ready(&mut self, worker: usize, guest: GuestId, now: Time) {
        if !self.strikes(Fault::LosesWake) {
            self.inner.ready(worker, guest, now);
        }
    }

    fn slice_ended(&mut self, worker: usize, guest: GuestId, took: SliceTime) -> bool {
        self.inner.slice_ended(worker, guest, took)
    }

    fn finished(&mut self, worker: usize, guest: GuestId, took: SliceTime) {
        if !self.strikes(Fault::ForgetsRelease) {
            self.inner.finished(worker, guest, took);
        }
    }

    fn release(&mut self, worker: usize, guest: GuestId) {
        if !self.strikes(Fault::ForgetsRelease) {
            self.inner.release(worker, guest);
        }
    }

    fn expire(&mut self, now: Time) -> Vec<Job> {
        let mut expired = self.inner.expire(now);
        expired.retain(|_| !self.strikes(Fault::DropsExpiry));
        expired
    }

    fn drain(&mut self) -> Vec<Job> {
        self.inner.drain()
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
