//! The journal's thread: takes what waits, writes it as one group, makes it durable, tells those who wait.
//!
//! Group commit without a timer: a batch that finds the thread asleep is written and synced at once, and whatever comes
//! during that sync is the next group. Until it is taken for one, a batch can be withdrawn. A batch that nobody waits
//! for wakes nobody, for a while.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::blobs::{Blob, Blobs, Reservation};
use crate::config::{Config, Durability, Layout};
use crate::error::{Failed, Refused};
use crate::ids::{BlobDigest, RecordId};
use crate::log::Log;
use crate::record::{Batch, Payload, Usage};

/// Bytes that are written at once at most, so that the first of many batches does not wait for the last one's write.
const MAX_GROUP_BYTES: usize = 1024 * 1024;

/// How long a batch that nobody waits for waits for others: a few syncs, so that a journal in use makes none for it.
pub(crate) const LAZY_DELAY: Duration = Duration::from_millis(50);

/// Withdrawn batches that may lie between others before the queue is packed.
const MAX_GAPS: usize = 64;

/// Is told, on the journal's thread, whether its batch is durable.
pub(crate) type Completion = Box<dyn FnOnce(Result<(), Failed>) + Send>;

type Lock = Box<dyn Any + Send + Sync>;

/// Is told, on the journal's thread, that the journal has failed.
pub(crate) type FailureHook = Box<dyn FnOnce(Failed) + Send>;

/// What the journal's users and its thread share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Signalled when the thread sleeps and has something to do.
    wake: Condvar,
    limits: Limits,
}

struct Limits {
    records: u64,
    queued_bytes: u64,
    longest_batch: usize,
    longest_record: usize,
}

struct State {
    /// In the order of their numbers. Those that were withdrawn are empty.
    queue: VecDeque<Waiting>,
    queued_bytes: u64,
    /// The number of the next batch.
    next_number: u64,
    /// Batches in the queue that somebody waits for.
    urgent: usize,
    /// Batches in the queue that were withdrawn.
    withdrawn: usize,
    /// Since when a batch has been in the queue that nobody waits for.
    lazy_since: Option<Instant>,
    /// Of live records and of those that wait.
    usage: Usage,
    /// Bytes that they may take.
    capacity: u64,
    log_bytes: u64,
    syncs: u64,
    asleep: bool,
    closing: bool,
    failed: Option<Failed>,
    on_failure: Vec<FailureHook>,
}

struct Waiting {
    number: u64,
    body: Vec<u8>,
    usage: Usage,
    blobs: Vec<(RecordId, Blob)>,
    /// What is to be a blob before it is written.
    payloads: Vec<(Reservation, Payload)>,
    /// `None` where nobody waits for it.
    on_durable: Option<Completion>,
    is_withdrawn: bool,
}

impl Waiting {
    /// In memory.
    fn bytes(&self) -> u64 {
        (self.body.len() + self.payloads.iter().map(|(_, payload)| payload.bytes.len()).sum::<usize>()) as u64
    }
}

/// Names a batch that was staged: see [`Journal::withdraw`](crate::Journal::withdraw).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// What a journal holds, and what it has done since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Live records, with those that wait to be written.
    pub records: u64,
    /// Bytes of the log that they need.
    pub record_bytes: u64,
    /// Bytes that they may take.
    pub capacity_bytes: u64,
    /// Bytes of all segments.
    pub log_bytes: u64,
    /// Bytes of all blobs.
    pub blob_bytes: u64,
    /// Calls of fdatasync for batches.
    pub syncs: u64,
}

impl Shared {
    pub fn new(config: &Config, layout: &Layout, log: &Log) -> Shared {
        let state = State {
            queue: VecDeque::new(),
            queued_bytes: 0,
            next_number: 0,
            urgent: 0,
            withdrawn: 0,
            lazy_since: None,
            usage: log.usage(),
            capacity: log.capacity(),
            log_bytes: log.bytes(),
            syncs: 0,
            asleep: false,
            closing: false,
            failed: None,
            on_failure: Vec::new(),
        };
        let limits = Limits {
            records: config.records,
            queued_bytes: config.queued_bytes,
            longest_batch: layout.longest_batch(),
            longest_record: layout.longest_record(),
        };
        Shared { state: Mutex::new(state), wake: Condvar::new(), limits }
    }

    /// Puts a batch into the queue. The thread is not woken for it, unless nobody waits for it: then it is to know when
    /// to look.
    pub fn stage(
        &self,
        batch: Batch,
        payloads: Vec<(Reservation, Payload)>,
        on_durable: Option<Completion>,
    ) -> Result<Ticket, Refused> {
        let too_large =
            |bytes: usize, most: usize| Refused::TooLarge { bytes: bytes as u64, most: most as u64 };
        if batch.body.len() > self.limits.longest_batch {
            return Err(too_large(batch.body.len(), self.limits.longest_batch));
        }
        if batch.longest > self.limits.longest_record {
            return Err(too_large(batch.longest, self.limits.longest_record));
        }
        let mut state = self.lock();
        if let Some(failed) = &state.failed {
            return Err(failed.clone().into());
        }
        if state.closing {
            return Err(Refused::Closed);
        }
        // Whatever only removes is always taken.
        let mut usage = state.usage;
        usage.add(batch.usage);
        let bytes = batch.body.len() + payloads.iter().map(|(_, payload)| payload.bytes.len()).sum::<usize>();
        let queued_bytes = state.queued_bytes + bytes as u64;
        // One that is too long for the queue is alone in it.
        let fits = usage.records <= self.limits.records
            && usage.bytes <= state.capacity
            && (queued_bytes <= self.limits.queued_bytes || state.queued_bytes == 0 && !payloads.is_empty());
        if batch.usage.records > 0 && !fits {
            return Err(Refused::Full);
        }
        state.usage = usage;
        state.queued_bytes = queued_bytes;
        let number = state.next_number;
        state.next_number += 1;
        let is_first_lazy = on_durable.is_none() && state.lazy_since.is_none();
        match &on_durable {
            Some(_) => state.urgent += 1,
            None => state.lazy_since = state.lazy_since.or_else(|| Some(Instant::now())),
        }
        let Batch { body, blobs, usage, .. } = batch;
        let waiting = Waiting { number, body, usage, blobs, payloads, on_durable, is_withdrawn: false };
        state.queue.push_back(waiting);
        if is_first_lazy {
            self.wake_thread(state);
        }
        Ok(Ticket(number))
    }

    /// Has what was staged written.
    pub fn commit(&self) {
        let state = self.lock();
        if state.urgent > 0 {
            self.wake_thread(state);
        }
    }

    /// Takes a batch out of the queue; false if it is not there any more.
    pub fn withdraw(&self, Ticket(number): Ticket) -> bool {
        let mut state = self.lock();
        let Ok(at) = state.queue.binary_search_by_key(&number, |waiting| waiting.number) else {
            return false;
        };
        let waiting = &mut state.queue[at];
        if waiting.is_withdrawn {
            return false;
        }
        waiting.is_withdrawn = true;
        let bytes = waiting.bytes();
        let (body, blobs) = (std::mem::take(&mut waiting.body), std::mem::take(&mut waiting.blobs));
        let payloads = std::mem::take(&mut waiting.payloads);
        let (usage, on_durable) = (waiting.usage, waiting.on_durable.take());
        state.usage.subtract(usage);
        state.queued_bytes -= bytes;
        state.urgent -= usize::from(on_durable.is_some());
        state.withdrawn += 1;
        if state.withdrawn > MAX_GAPS && 2 * state.withdrawn > state.queue.len() {
            state.queue.retain(|waiting| !waiting.is_withdrawn);
            state.withdrawn = 0;
        }
        drop(state);
        // Whatever these hold may call the journal.
        drop((body, blobs, payloads, on_durable));
        true
    }

    fn wake_thread(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::take(&mut state.asleep) {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Lets the thread end after what waits is done.
    pub fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_one();
    }

    pub fn failed(&self) -> Option<Failed> {
        self.lock().failed.clone()
    }

    /// Is called when the journal fails; at once if it has.
    pub fn on_failure(&self, hook: FailureHook) {
        let mut state = self.lock();
        match state.failed.clone() {
            Some(failed) => {
                drop(state);
                hook(failed);
            }
            None => state.on_failure.push(hook),
        }
    }

    /// The journal takes nothing any more. Only the first cause counts.
    pub fn fail(&self, failed: Failed) {
        let mut state = self.lock();
        if state.failed.is_none() {
            state.failed = Some(failed.clone());
            let hooks = std::mem::take(&mut state.on_failure);
            drop(state);
            self.wake.notify_one();
            hooks.into_iter().for_each(|hook| hook(failed.clone()));
        }
    }

    pub fn stats(&self, blobs: &Blobs) -> Stats {
        let blob_bytes = blobs.bytes();
        let state = self.lock();
        Stats {
            records: state.usage.records,
            record_bytes: state.usage.bytes,
            capacity_bytes: state.capacity,
            log_bytes: state.log_bytes,
            blob_bytes,
            syncs: state.syncs,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }
}

impl State {
    fn update(&mut self, log: &mut Log) {
        self.usage.subtract(log.take_freed());
        self.capacity = log.capacity();
        self.log_bytes = log.bytes();
        self.syncs = log.syncs();
    }
}

/// What the thread owns.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    blobs: Arc<Blobs>,
    log: Log,
    durability: Durability,
    /// Taken from the queue and not yet completed, in order.
    group: VecDeque<Waiting>,
    /// How many of them are in the log's buffer.
    staged: usize,
    /// When the first batch was written that is not durable.
    dirty_since: Option<Instant>,
    /// On the folder, until nothing is written any more.
    _lock: Lock,
}

/// What the thread is to do next.
enum Next {
    Write,
    Sync,
    /// The journal is closed.
    Finish,
    /// It has failed.
    Stop,
}

impl Writer {
    pub fn new(
        shared: Arc<Shared>,
        blobs: Arc<Blobs>,
        log: Log,
        durability: Durability,
        lock: Lock,
    ) -> Writer {
        Writer {
            shared,
            blobs,
            log,
            durability,
            group: VecDeque::new(),
            staged: 0,
            dirty_since: None,
            _lock: lock,
        }
    }

    /// The thread's whole life.
    pub fn run(mut self) {
        let result = catch_unwind(AssertUnwindSafe(|| self.serve()));
        let result = result.unwrap_or_else(|_| Err(io::Error::other("the journal's thread has panicked")));
        if let Err(cause) = result {
            self.shared.fail(Failed::new(cause));
        }
        if let Some(failed) = self.shared.failed() {
            let waiting = std::mem::take(&mut self.shared.lock().queue);
            for waiting in self.group.into_iter().chain(waiting) {
                complete(waiting.on_durable, Err(failed.clone()));
            }
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            match self.next() {
                Next::Write => self.write_group()?,
                Next::Sync => self.sync()?,
                Next::Finish => return self.log.finish(),
                Next::Stop => return Ok(()),
            }
            if !self.log.is_dirty() {
                self.blobs.remove_unreferenced()?;
            }
        }
    }

    /// Waits until there is something to do, and takes the batches that wait.
    fn next(&mut self) -> Next {
        let mut state = self.shared.lock();
        state.update(&mut self.log);
        loop {
            let sync_due = self.sync_due();
            let lazy_due = state.lazy_since.map(|since| LAZY_DELAY.saturating_sub(since.elapsed()));
            if state.failed.is_some() {
                return Next::Stop;
            }
            if sync_due == Some(Duration::ZERO) {
                return Next::Sync;
            }
            let is_due = state.urgent > 0 || lazy_due == Some(Duration::ZERO) || state.closing;
            if is_due && state.queue.len() > state.withdrawn {
                std::mem::swap(&mut state.queue, &mut self.group);
                self.group.retain(|waiting| !waiting.is_withdrawn);
                (state.queued_bytes, state.urgent, state.withdrawn) = (0, 0, 0);
                state.lazy_since = None;
                return Next::Write;
            }
            if state.closing {
                return Next::Finish;
            }
            state.asleep = true;
            state = match sync_due.into_iter().chain(lazy_due).min() {
                Some(timeout) => {
                    self.shared.wake.wait_timeout(state, timeout).expect("no panic while the lock is held").0
                }
                None => self.shared.wake.wait(state).expect("no panic while the lock is held"),
            };
            state.asleep = false;
        }
    }

    /// How long from now the next sync is due that nobody waits for.
    fn sync_due(&self) -> Option<Duration> {
        match self.durability {
            Durability::Always => None,
            Durability::Batch { sync_interval } => {
                self.dirty_since.map(|since| sync_interval.saturating_sub(since.elapsed()))
            }
        }
    }

    fn write_group(&mut self) -> io::Result<()> {
        let mut written = 0;
        while self.staged < self.group.len() {
            if !self.group[self.staged].payloads.is_empty() {
                // Nobody before it waits for its payloads, and if there is no room for them it goes alone.
                self.flush()?;
                self.write_payloads()?;
                continue;
            }
            let bytes = self.group[self.staged].body.len();
            if self.log.group_bytes() > 0 && self.log.group_bytes() + bytes > MAX_GROUP_BYTES {
                self.flush()?;
                continue;
            }
            if !self.log.has_room(bytes) {
                self.flush()?;
                self.log.next_segment()?;
                continue;
            }
            let waiting = &mut self.group[self.staged];
            self.log.stage(&waiting.body, std::mem::take(&mut waiting.blobs));
            self.staged += 1;
            written += bytes;
        }
        self.flush()?;
        self.log.maintain(written)
    }

    /// Makes blobs of the payloads of the first batch, or drops it where there is no room for them.
    fn write_payloads(&mut self) -> io::Result<()> {
        let Some(waiting) = self.group.front_mut() else { return Ok(()) };
        for (reservation, Payload { record, digest_at, bytes }) in std::mem::take(&mut waiting.payloads) {
            drop(reservation);
            let digest = BlobDigest::of(&bytes);
            match self.blobs.write(digest, &bytes) {
                Ok(blob) => {
                    waiting.body[digest_at..digest_at + digest.0.len()].copy_from_slice(&digest.0);
                    waiting.blobs.push((record, blob));
                }
                Err(Refused::Failed(failed)) => return Err(failed.into_cause()),
                Err(_) => {
                    let dropped = self.group.pop_front().expect("it is the first");
                    self.shared.lock().usage.subtract(dropped.usage);
                    let full = Failed::new(io::ErrorKind::StorageFull.into());
                    complete(dropped.on_durable, Err(full));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Brings what is staged to where its completions may be called, and calls them.
    fn flush(&mut self) -> io::Result<()> {
        self.log.write()?;
        match self.durability {
            Durability::Always => self.log.sync()?,
            Durability::Batch { .. } => self.dirty_since = self.dirty_since.or_else(|| Some(Instant::now())),
        }
        // Whoever hears that a record is removed finds its room.
        self.shared.lock().update(&mut self.log);
        while self.staged > 0 {
            self.staged -= 1;
            let completed = self.group.pop_front().expect("what is staged is in the group");
            complete(completed.on_durable, Ok(()));
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.dirty_since = None;
        self.log.sync()
    }
}

/// Tells whoever waits for a batch. A panic there is its own: the panic hook reports it, and the journal goes on.
fn complete(on_durable: Option<Completion>, result: Result<(), Failed>) {
    if let Some(on_durable) = on_durable {
        let _ = catch_unwind(AssertUnwindSafe(|| on_durable(result)));
    }
}
