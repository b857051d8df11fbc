//! The dispatcher as threads share it: the lock around it, and who is woken when.
//!
//! [`Dispatcher`] decides; in here are the clock, what workers look at before they take the lock, and the timer of
//! requests that expire.

use super::engine::Tier;
use super::job::{Job, Key, RunOutcome};
use super::memory::GuestMemory;
use super::ready_list::ReadyList;
use super::rehearsal::{Point, rehearse};
use crate::cancellation::Cancellation;
use crate::deadline::reached;
use crate::modules::Digest;
use crate::suspects::{Permit, Suspects, Watched};
use offload_policy::{
    Busy, Dispatcher, DispatcherLimits, GuestId, Load, Next, Restarts, SliceTime, Submission, Time,
};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Workers that are restarted within [`RESTART_SPAN`], at the most: one more panic ends the process. A worker's panic
/// is a fault of ours, and one that keeps coming is not mended by fresh engines.
const MAX_RESTARTS: usize = 3;
/// See [`MAX_RESTARTS`].
const RESTART_SPAN: Time = Time::from_secs(60);

/// What names a program among those whose runs are remembered.
type Program = (Digest, Tier);

/// What the workers and those who hand them work have in common.
pub struct Scheduler {
    dispatcher: Mutex<Dispatcher<Key, Program, Job>>,
    /// How many jobs are queued: a worker looks here before it takes the lock.
    queued: AtomicUsize,
    /// Counts what may have let a job start: tells a worker that found nothing to take whether to look again.
    changes: AtomicU64,
    stopped: AtomicBool,
    /// One a worker.
    ready_lists: Vec<Arc<ReadyList>>,
    /// What keeps guests apart, where it is known what crashes the gateway.
    suspects: Option<Arc<Suspects>>,
    /// What all guests have together.
    pub memory: Arc<GuestMemory>,
    restarts: Mutex<Restarts>,
    /// Workers that were restarted since the start.
    restarted: AtomicU64,
    epoch: Instant,
    /// Told when the earliest deadline in the queue may have changed.
    deadline_changed: Notify,
    /// Told when nothing waits and nothing runs any more.
    idle: Notify,
}

impl Scheduler {
    /// Nothing waits and nothing runs. With `suspects` it keeps guests apart.
    pub fn new(limits: DispatcherLimits, memory: GuestMemory, suspects: Option<Arc<Suspects>>) -> Scheduler {
        Scheduler {
            dispatcher: Mutex::new(Dispatcher::new(limits)),
            queued: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            ready_lists: (0..limits.workers).map(|_| Arc::default()).collect(),
            suspects,
            memory: Arc::new(memory),
            restarts: Mutex::new(Restarts::new(MAX_RESTARTS, RESTART_SPAN)),
            restarted: AtomicU64::new(0),
            epoch: Instant::now(),
            deadline_changed: Notify::new(),
            idle: Notify::new(),
        }
    }

    /// Where this worker finds its guests that can go on, and waits.
    pub fn ready_list(&self, worker: usize) -> &Arc<ReadyList> {
        &self.ready_lists[worker]
    }

    /// Counts a request as waiting.
    ///
    /// # Errors
    ///
    /// [`Busy`] when this client, its account, or all of them have too much waiting.
    pub fn admit(&self, key: &Key, load: Load) -> Result<(), Busy> {
        let mut dispatcher = self.lock();
        dispatcher.admit(key, load, self.now())
    }

    /// Counts a request as waiting that was admitted before.
    pub fn readmit(&self, key: &Key, load: Load) {
        let mut dispatcher = self.lock();
        dispatcher.readmit(key, load, self.now());
    }

    /// An admitted request ends without having been started.
    pub fn withdraw(&self, key: &Key, load: Load) {
        let mut dispatcher = self.lock();
        dispatcher.withdraw(key, load, self.now());
        self.tell_if_idle(&dispatcher);
    }

    /// Puts an admitted request into the queue; wakes nobody.
    ///
    /// # Errors
    ///
    /// The job, when the workers have stopped, or it is cancelled.
    pub fn submit(&self, job: Job) -> Result<(), Box<Job>> {
        let deadline = job.deadline.map(|deadline| deadline.saturating_duration_since(self.epoch).into());
        let submission = Submission {
            key: job.key.clone(),
            load: job.load,
            program: job.artifact.key(),
            deadline,
            cpu: job.budget.cpu.into(),
            wall: job.budget.wall.into(),
            job,
        };
        if let Some(cancellation) = &submission.job.cancellation {
            cancellation.queued(&submission.key);
        }
        {
            let mut dispatcher = self.lock();
            // Looked at under the lock: what is pushed before the stop, or before it is cancelled, is found then.
            if self.is_stopped() || submission.job.is_cancelled() {
                return Err(Box::new(submission.job));
            }
            if submission.job.watched.as_ref().is_some_and(Watched::is_alone) {
                dispatcher.submit_alone(submission);
            } else {
                dispatcher.submit(submission);
            }
            self.count_queued(&dispatcher);
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
        if deadline.is_some() {
            self.deadline_changed.notify_one();
        }
        Ok(())
    }

    /// Takes a job that is cancelled out of the queue, if it is there; it counts as waiting until it is withdrawn.
    pub fn take_cancelled(&self, cancellation: &Arc<Cancellation>) -> Option<Job> {
        let key = cancellation.queued_as()?;
        let is_it = |job: &Job| job.cancellation.as_ref().is_some_and(|its| Arc::ptr_eq(its, cancellation));
        let mut dispatcher = self.lock();
        let job = dispatcher.take_queued(key, is_it)?;
        self.count_queued(&dispatcher);
        Some(job)
    }

    /// What this worker does next; those of its guests that were `woken` can go on.
    pub fn next(&self, worker: usize, woken: &mut Vec<GuestId>) -> Next<Job> {
        let mut dispatcher = self.lock();
        let now = self.now();
        woken.drain(..).for_each(|guest| dispatcher.ready(worker, guest, now));
        let permit = self.hold_open(&mut dispatcher);
        let next = dispatcher.next(worker, now);
        self.taken(&dispatcher, next, permit)
    }

    /// What another thread than the worker's own does next on it, of the jobs that are `at_hand`. `None` where the
    /// worker's guests want its own thread.
    pub fn next_inline(
        &self,
        worker: usize,
        woken: &mut Vec<GuestId>,
        at_hand: impl Fn(&Job) -> bool,
    ) -> Option<Next<Job>> {
        let mut dispatcher = self.lock();
        let now = self.now();
        woken.drain(..).for_each(|guest| dispatcher.ready(worker, guest, now));
        if !dispatcher.may_run_inline(worker) {
            return None;
        }
        let permit = self.hold_open(&mut dispatcher);
        let next = dispatcher.next_inline(worker, now, at_hand);
        Some(self.taken(&dispatcher, next, permit))
    }

    /// A guest's slice has ended and the guest has not. False if it is to be ended, because its CPU time is used up.
    pub fn slice_ended(&self, worker: usize, guest: GuestId, took: SliceTime) -> bool {
        self.lock().slice_ended(worker, guest, took)
    }

    /// A guest has ended in its slice, and its slot is free.
    pub fn finished(&self, worker: usize, guest: GuestId, took: SliceTime) {
        let mut dispatcher = self.lock();
        rehearse(Point::Scheduler);
        dispatcher.finished(worker, guest, took);
        self.released(&dispatcher);
    }

    /// A guest was ended, or could not be started, and its slot is free.
    pub fn release(&self, worker: usize, guest: GuestId) {
        let mut dispatcher = self.lock();
        dispatcher.release(worker, guest);
        self.released(&dispatcher);
    }

    /// A worker has panicked. What it was busy with, and whatever else it had, is gone but for the jobs that are given
    /// back, which are queued again.
    pub fn worker_lost(&self, worker: usize, again: Vec<(GuestId, Job)>) {
        {
            let mut dispatcher = self.lock();
            dispatcher.worker_lost(worker, again, self.now());
            self.count_queued(&dispatcher);
            self.released(&dispatcher);
        }
        self.deadline_changed.notify_one();
        self.wake_for_queued(None);
    }

    /// Counts the restart of a worker that has panicked.
    ///
    /// # Errors
    ///
    /// Why the gateway cannot go on with another one.
    pub fn allow_restart(&self) -> Result<(), &'static str> {
        let suspects_are_torn = self.suspects.as_ref().is_some_and(|suspects| suspects.is_torn());
        if self.dispatcher.is_poisoned() || self.memory.is_torn() || suspects_are_torn {
            return Err("it has left what all workers share in disorder");
        }
        let mut restarts = self.restarts.lock().map_err(|_| "its restarts are in disorder")?;
        if !restarts.allow(self.now()) {
            return Err("it is the fourth within a minute");
        }
        self.restarted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Workers that were restarted since the start.
    pub fn restarted(&self) -> u64 {
        self.restarted.load(Ordering::Relaxed)
    }

    /// Jobs that are queued.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::SeqCst)
    }

    /// Another number when there may be something new to take.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Wakes a thread that waits for each job in the queue, but not that of `except`, nor one whose worker has no slot
    /// for it: that would go back to sleep, and nobody would start the job. If none waits, each looks at the queue at
    /// the end of its slice.
    pub fn wake_for_queued(&self, except: Option<usize>) {
        let queued = self.queued();
        let others = self.ready_lists.iter().enumerate().filter(|(index, _)| Some(*index) != except);
        let woken = others.filter(|(index, list)| {
            queued > 0 && list.parker.is_parked() && self.may_have_work(*index) && list.parker.notify()
        });
        woken.take(queued).for_each(drop);
    }

    /// Whether this worker may have something to start.
    fn may_have_work(&self, worker: usize) -> bool {
        self.lock().may_have_work(worker)
    }

    /// Requests that wait, and guests that run.
    pub fn load(&self) -> (usize, usize) {
        let dispatcher = self.lock();
        (dispatcher.waiting().requests, dispatcher.running())
    }

    /// Guests that wait for their next slice.
    pub fn runnable(&self) -> usize {
        self.lock().runnable()
    }

    /// What a request may hold in memory to be ever admitted, in bytes.
    pub fn largest_request(&self) -> usize {
        self.lock().admission_limits().largest().bytes
    }

    /// Requests that wait or run.
    pub fn in_flight(&self) -> usize {
        self.lock().in_flight()
    }

    /// Returns when nothing waits and nothing runs.
    pub async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.in_flight() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// From now on nothing is queued any more, and the workers end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.deadline_changed.notify_one();
        self.wake_all();
    }

    /// Whether [`stop`](Self::stop) was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Takes what is queued; each job counts as waiting until it is withdrawn.
    pub fn drain(&self) -> Vec<Job> {
        let mut dispatcher = self.lock();
        let jobs = dispatcher.drain();
        self.count_queued(&dispatcher);
        jobs
    }

    /// Answers requests whose deadline comes while they wait, and tells workers when others may start that were held
    /// back; until the workers stop.
    pub async fn expire(&self) {
        while !self.is_stopped() {
            let next = self.lock().next_deadline();
            tokio::select! {
                () = reached(next.map(|at| self.instant(at).into())) => {}
                () = self.deadline_changed.notified() => continue,
                () = self.reopened() => {
                    self.changes.fetch_add(1, Ordering::SeqCst);
                    self.wake_all();
                    continue;
                }
            }
            let expired = {
                let mut dispatcher = self.lock();
                let expired = dispatcher.expire(self.now());
                self.count_queued(&dispatcher);
                expired
            };
            for job in expired {
                self.answer_expired(job);
            }
        }
    }

    /// Answers a job whose deadline came before it could start. Whoever waits until nothing waits any more waits for
    /// the answer too.
    pub fn answer_expired(&self, job: Job) {
        (job.done)(RunOutcome::Expired);
        self.tell_if_idle(&self.lock());
    }

    /// The policy's time. Read under the lock for what the dispatcher is told, so that its times never go backwards.
    pub fn now(&self) -> Time {
        self.epoch.elapsed().into()
    }

    /// A point in the policy's time by the clock.
    pub fn instant(&self, time: Time) -> Instant {
        self.epoch + Duration::from(time)
    }

    fn lock(&self) -> MutexGuard<'_, Dispatcher<Key, Program, Job>> {
        self.dispatcher.lock().expect("no panic while the lock is held")
    }

    /// A permit for whatever starts next to run beside others, and the dispatcher's leave to start anything.
    fn hold_open(&self, dispatcher: &mut Dispatcher<Key, Program, Job>) -> Option<Permit> {
        let suspects = self.suspects.as_ref().filter(|_| dispatcher.queued() > 0)?;
        let permit = suspects.isolation().try_share();
        dispatcher.set_open(permit.is_some());
        permit
    }

    /// Does what follows from what a worker was given.
    fn taken(
        &self,
        dispatcher: &Dispatcher<Key, Program, Job>,
        mut next: Next<Job>,
        permit: Option<Permit>,
    ) -> Next<Job> {
        match &mut next {
            Next::Start { job, .. } => {
                self.count_queued(dispatcher);
                if let (Some(watched), Some(permit)) = (&mut job.watched, permit) {
                    watched.admit(permit);
                }
            }
            Next::Expired(_) => self.count_queued(dispatcher),
            Next::Resume(_) | Next::End(_) | Next::Idle(_) => {}
        }
        next
    }

    /// What is queued may have waited for the slot, or for the quota, that is free now.
    fn released(&self, dispatcher: &Dispatcher<Key, Program, Job>) {
        if dispatcher.queued() > 0 {
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
        self.tell_if_idle(dispatcher);
    }

    fn count_queued(&self, dispatcher: &Dispatcher<Key, Program, Job>) {
        self.queued.store(dispatcher.queued(), Ordering::SeqCst);
    }

    fn tell_if_idle(&self, dispatcher: &Dispatcher<Key, Program, Job>) {
        if dispatcher.in_flight() == 0 {
            self.idle.notify_waiters();
        }
    }

    fn wake_all(&self) {
        for list in &self.ready_lists {
            list.parker.notify();
        }
    }

    /// Returns when a job that ran alone has ended.
    async fn reopened(&self) {
        match &self.suspects {
            Some(suspects) => suspects.isolation().reopened().await,
            None => std::future::pending().await,
        }
    }
}
