//! A storage in memory, which keeps what is durable apart from what is only handed over.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

use offload_broker::storage::{
    Batch, Key, MessageRecord, NotStored, OnDurable, Record, RetainedRecord, Storage, Ticket,
};

/// Clones are handles to the same one.
#[derive(Clone, Default)]
pub struct FakeStorage(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    last_key: u64,
    waiting: VecDeque<Waiting>,
    durable: BTreeMap<Key, Record>,
    /// Nothing becomes durable meanwhile.
    held: bool,
    full: bool,
    /// Long messages find no room when their turn comes.
    disk_full: bool,
    failed: bool,
    /// A thread makes durable what waits.
    working: bool,
    batches: usize,
    /// Records of the largest batch.
    most_records: usize,
}

struct Waiting {
    number: u64,
    puts: Vec<(Key, Record)>,
    removals: Vec<Key>,
    on_durable: Option<OnDurable>,
}

struct FakeBatch {
    storage: FakeStorage,
    waiting: Waiting,
}

impl FakeStorage {
    /// One that an earlier process has left.
    pub fn with(records: &[(Key, Record)]) -> Self {
        let storage = Self::default();
        let mut state = storage.lock();
        state.last_key = records.last().map_or(0, |(key, _)| key.0);
        state.durable = records.iter().cloned().collect();
        drop(state);
        storage
    }

    pub fn hold(&self) {
        self.lock().held = true;
    }

    /// Makes durable what was held.
    pub fn release(&self) {
        self.lock().held = false;
        self.work();
    }

    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    pub fn set_disk_full(&self, full: bool) {
        self.lock().disk_full = full;
    }

    /// Nothing becomes durable from now on, and nothing is taken.
    pub fn fail(&self) {
        let waiting = {
            let mut state = self.lock();
            state.failed = true;
            std::mem::take(&mut state.waiting)
        };
        let completions = waiting.into_iter().filter_map(|waiting| waiting.on_durable);
        completions.for_each(|on_durable| on_durable(Err(NotStored::Failed)));
    }

    /// What a crash leaves now.
    pub fn durable(&self) -> Vec<(Key, Record)> {
        self.lock().durable.iter().map(|(key, record)| (*key, record.clone())).collect()
    }

    /// What is there when all is durable that was handed over.
    pub fn settled(&self) -> Vec<(Key, Record)> {
        let mut state = self.lock();
        while state.working || !state.waiting.is_empty() {
            state = self.0.changed.wait(state).unwrap();
        }
        drop(state);
        self.durable()
    }

    /// Batches that were handed over.
    pub fn batches(&self) -> usize {
        self.lock().batches
    }

    /// Records that were put with one batch at most.
    pub fn most_records(&self) -> usize {
        self.lock().most_records
    }

    fn work(&self) {
        let mut state = self.lock();
        if state.working || state.held || state.waiting.is_empty() {
            return;
        }
        state.working = true;
        drop(state);
        let storage = self.clone();
        thread::spawn(move || {
            let mut state = storage.lock();
            while let Some(waiting) = (!state.held).then(|| state.waiting.pop_front()).flatten() {
                let Waiting { puts, removals, on_durable, .. } = waiting;
                let fits = !state.disk_full || !puts.iter().any(|(_, record)| is_long(record));
                if fits {
                    state.durable.extend(puts);
                    for key in removals {
                        state.durable.remove(&key);
                    }
                }
                drop(state);
                if let Some(on_durable) = on_durable {
                    on_durable(if fits { Ok(()) } else { Err(NotStored::Full) });
                }
                state = storage.lock();
            }
            state.working = false;
            drop(state);
            storage.0.changed.notify_all();
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }
}

/// As long as what the journal keeps in files.
fn is_long(record: &Record) -> bool {
    let (Record::Message(MessageRecord { message, .. }) | Record::Retained(RetainedRecord { message, .. })) =
        record
    else {
        return false;
    };
    message.payload.len() >= 64 * 1024
}

impl Storage for FakeStorage {
    fn batch(&self) -> Box<dyn Batch> {
        let waiting = Waiting { number: 0, puts: Vec::new(), removals: Vec::new(), on_durable: None };
        Box::new(FakeBatch { storage: self.clone(), waiting })
    }

    fn withdraw(&self, Ticket(number): Ticket) -> bool {
        let mut state = self.lock();
        let before = state.waiting.len();
        let (withdrawn, waiting) = std::mem::take(&mut state.waiting)
            .into_iter()
            .partition::<VecDeque<_>, _>(|waiting: &Waiting| waiting.number == number);
        state.waiting = waiting;
        let is_withdrawn = state.waiting.len() < before;
        drop(state);
        drop(withdrawn);
        is_withdrawn
    }
}

impl Batch for FakeBatch {
    fn put(&mut self, record: Record) -> Key {
        let mut state = self.storage.lock();
        state.last_key += 1;
        let key = Key(state.last_key);
        self.waiting.puts.push((key, record));
        key
    }

    fn remove(&mut self, key: Key) {
        self.waiting.removals.push(key);
    }

    fn commit(mut self: Box<Self>, on_durable: Option<OnDurable>) -> Result<Ticket, NotStored> {
        let mut state = self.storage.lock();
        if state.failed {
            return Err(NotStored::Failed);
        }
        if state.full && !self.waiting.puts.is_empty() {
            return Err(NotStored::Full);
        }
        state.batches += 1;
        state.most_records = state.most_records.max(self.waiting.puts.len());
        let number = state.batches as u64;
        self.waiting.on_durable = on_durable;
        self.waiting.number = number;
        state.waiting.push_back(self.waiting);
        drop(state);
        self.storage.work();
        Ok(Ticket(number))
    }
}
