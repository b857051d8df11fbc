//! Requests with an `id` run once: a repetition waits for the outcome of the first, or gets it again.
//!
//! The deduplicator lives in memory and is bounded. It holds no clock, and knows nothing of what waits: the caller
//! passes the time, and whatever it needs to answer a repetition. Where outcomes outlive the process, each has a record
//! in the journal: the deduplicator begins with these, and says which of them it has forgotten.

mod sealed;

pub use sealed::{Until, forgotten};

use crate::cancellation::Cancellation;
use crate::config;
use crate::fingerprint::Fingerprint;
use offload_journal::RecordId;
use offload_policy::Retention;
use offload_protocol::answer::Answer;
use offload_protocol::request::RequestId;
use sealed::SealedIds;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What an outcome costs beside its bytes.
const ENTRY_COST: usize = 512;

/// Requests at once that cancel one other, which ends soon.
const MAX_CANCELLERS: usize = 64;

/// What names a request: whoever repeats all of it means the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The authenticated identity, if there is one.
    pub principal: Option<Arc<str>>,
    /// Who waits for the answer.
    pub reply_to: ReplyTo,
    /// The request's own name.
    pub id: RequestId,
}

/// Who waits for the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReplyTo {
    /// The reply id.
    Id(Arc<str>),
    /// The connection of a client with an empty reply id, by its client id: it is answered there alone.
    Connection(Arc<str>),
    /// Whoever can open the answer: the id of a sealed request names it alone.
    Sealed,
}

/// Whose an outcome is: what a request is known by, but its `id`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Owner {
    Principal(Arc<str>),
    Unnamed(ReplyTo),
}

impl Owner {
    fn of(key: &Key) -> Owner {
        match &key.principal {
            Some(principal) => Owner::Principal(principal.clone()),
            None => Owner::Unnamed(key.reply_to.clone()),
        }
    }
}

/// What becomes of a request that has an `id`.
#[derive(Debug, PartialEq)]
pub enum Registration<W> {
    /// It is the first of its name, to be run; [`Deduplicator::end`] must follow.
    First(W),
    /// The first one is on its way: this one's answer comes with that one's.
    InFlight,
    /// It has been run, with this outcome.
    Done(W, Answer),
    /// Another request had this name.
    Conflict(W),
    /// A sealed request that comes again, sealed later: it is to be remembered longer, with this outcome in the place
    /// of that which this record has.
    Prolonged(W, Answer, Option<RecordId>),
    /// There is no room to remember a sealed request, before this time has passed.
    Full(W, Duration),
}

/// What becomes of a request that cancels another one.
#[derive(Debug)]
pub enum Cancelling<W> {
    /// It waits until the other one has ended, which is to be told by this.
    Begun(Arc<Cancellation>),
    /// No such request waits or runs.
    NotFound(W),
    /// Too many wait for its end already.
    TooMany(W),
}

/// Who has waited for the end of a request.
#[derive(Debug, PartialEq)]
pub struct Waiters<W> {
    /// Its repetitions.
    pub repetitions: Vec<W>,
    /// Those that have cancelled it.
    pub cancellers: Vec<W>,
}

impl<W> Default for Waiters<W> {
    fn default() -> Self {
        Waiters { repetitions: Vec::new(), cancellers: Vec::new() }
    }
}

/// An outcome that an earlier process has left.
pub struct Remembered {
    /// Of this request.
    pub key: Key,
    /// What tells it from others of its name.
    pub fingerprint: Fingerprint,
    /// Who pays for it.
    pub account: Arc<str>,
    /// What it says.
    pub answer: Answer,
    /// Where the journal has it.
    pub record: RecordId,
    /// Until when it is remembered, in milliseconds since 1970, if the request was sealed.
    pub sealed_until: Option<u64>,
}

/// Is told of records whose outcomes are forgotten.
pub type OnForgotten = Box<dyn Fn(Vec<RecordId>) + Send + Sync>;

/// The requests that have an `id`, while they run and for the retention time afterwards. `W` is who waits for an
/// outcome.
pub struct Deduplicator<W> {
    config: config::Idempotency,
    on_forgotten: OnForgotten,
    state: Mutex<State<W>>,
}

struct State<W> {
    entries: HashMap<Key, Entry<W>>,
    /// The keys of all entries that are done.
    done: Retention<Arc<str>, Owner, Key, Instant>,
    /// The sealed requests, that run and that are done.
    sealed: SealedIds,
}

struct Entry<W> {
    fingerprint: Fingerprint,
    progress: Progress<W>,
    /// Of a sealed request.
    until: Option<Until>,
}

enum Progress<W> {
    /// It waits or runs.
    Running(Running<W>),
    /// With the record of the outcome, if there is one.
    Done(Answer, Option<RecordId>),
}

struct Running<W> {
    /// These wait for its outcome. Each of them was admitted, which bounds them.
    waiters: Waiters<W>,
    /// Its outcome is decided, and nobody can cancel it any more.
    is_decided: bool,
    /// How it is told that it is cancelled; `None` where it cannot be.
    cancellation: Option<Arc<Cancellation>>,
}

impl<W> Running<W> {
    fn is_cancelled(&self) -> bool {
        !self.waiters.cancellers.is_empty()
    }
}

fn cost(answer: &Answer) -> usize {
    ENTRY_COST + answer.stdout.len() + answer.stderr.len()
}

impl<W> Deduplicator<W> {
    /// An empty deduplicator.
    pub fn new(config: config::Idempotency, on_forgotten: OnForgotten) -> Deduplicator<W> {
        let state = State { entries: HashMap::new(), done: Retention::new(), sealed: SealedIds::default() };
        Deduplicator { config, on_forgotten, state: Mutex::new(state) }
    }

    /// What is remembered of an outcome: all of it if it is small enough, and nothing otherwise. Of a sealed request it
    /// is always remembered that it was run.
    pub fn kept(&self, key: &Key, answer: &Answer) -> Option<Answer> {
        let is_small = self.takes(answer);
        match key.reply_to {
            ReplyTo::Sealed if is_small && self.lock().sealed.has_room(cost(answer), &self.config) => {
                Some(answer.clone())
            }
            ReplyTo::Sealed => Some(sealed::forgotten(&key.id)),
            _ => is_small.then(|| answer.clone()),
        }
    }

    /// Whether an outcome is small enough to be remembered.
    fn takes(&self, answer: &Answer) -> bool {
        cost(answer) <= self.config.bytes.as_usize()
    }

    /// Remembers what an earlier process has left, with its age, the oldest first. Each name is there once.
    pub fn restore(&self, outcomes: impl IntoIterator<Item = (Remembered, Duration)>, now: Instant) {
        let mut forgotten = Vec::new();
        let mut state = self.lock();
        for (Remembered { key, fingerprint, account, answer, record, sealed_until: _ }, age) in outcomes {
            let since = now.checked_sub(age).filter(|_| age < self.config.retention.duration());
            match since.filter(|_| self.takes(&answer)) {
                Some(since) => {
                    forgotten.extend(state.forget(now, &self.config, cost(&answer)));
                    state.done.push(account, Owner::of(&key), key.clone(), cost(&answer), since);
                    let progress = Progress::Done(answer, Some(record));
                    state.entries.insert(key, Entry { fingerprint, progress, until: None });
                }
                None => forgotten.push(record),
            }
        }
        self.unlock_and_tell(state, forgotten);
    }

    /// The same of sealed requests, with the time until which each is remembered.
    pub fn restore_sealed(&self, outcomes: impl IntoIterator<Item = (Remembered, Until)>, now: Instant) {
        let mut forgotten = Vec::new();
        let mut state = self.lock();
        for (Remembered { key, fingerprint, account, answer, record, .. }, until) in outcomes {
            if until.at <= now {
                forgotten.push(record);
                continue;
            }
            state.sealed.enter(&account);
            state.sealed.done(until, &key.id, &account, cost(&answer));
            let progress = Progress::Done(answer, Some(record));
            state.entries.insert(key, Entry { fingerprint, progress, until: Some(until) });
        }
        self.unlock_and_tell(state, forgotten);
    }

    /// A request with a name comes in. `waiter` is kept if it has to wait, and otherwise given back. The first one is
    /// told by `cancellation` that it is cancelled; without it, it cannot be.
    pub fn begin(
        &self,
        key: &Key,
        fingerprint: Fingerprint,
        waiter: W,
        cancellation: Option<Arc<Cancellation>>,
        now: Instant,
    ) -> Registration<W> {
        self.begin_until(key, fingerprint, None, waiter, cancellation, now)
    }

    /// A sealed request comes in, which is remembered until then at this account's expense.
    pub fn begin_sealed(
        &self,
        key: &Key,
        fingerprint: Fingerprint,
        sealed: (Until, &Arc<str>),
        waiter: W,
        cancellation: Option<Arc<Cancellation>>,
        now: Instant,
    ) -> Registration<W> {
        self.begin_until(key, fingerprint, Some(sealed), waiter, cancellation, now)
    }

    fn begin_until(
        &self,
        key: &Key,
        fingerprint: Fingerprint,
        sealed: Option<(Until, &Arc<str>)>,
        waiter: W,
        cancellation: Option<Arc<Cancellation>>,
        now: Instant,
    ) -> Registration<W> {
        let mut state = self.lock();
        let forgotten = state.forget(now, &self.config, 0);
        let State { entries, sealed: sealed_ids, .. } = &mut *state;
        let later = |entry: &Entry<W>| {
            let (new, _) = sealed?;
            entry.until.is_some_and(|until| until.at < new.at).then_some(new)
        };
        let registration = match entries.get_mut(key) {
            Some(entry) if entry.fingerprint != fingerprint => Registration::Conflict(waiter),
            Some(entry) => {
                let later = later(entry);
                let earlier = later.and_then(|later| entry.until.replace(later));
                match &mut entry.progress {
                    Progress::Running(running) => {
                        running.waiters.repetitions.push(waiter);
                        Registration::InFlight
                    }
                    Progress::Done(answer, record) => match earlier.zip(later) {
                        Some((earlier, later)) => {
                            sealed_ids.prolong(&key.id, earlier, later);
                            Registration::Prolonged(waiter, answer.clone(), *record)
                        }
                        None => Registration::Done(waiter, answer.clone()),
                    },
                }
            }
            None => match sealed.and_then(|(_, account)| sealed_ids.is_full(account, &self.config, now)) {
                Some(wait) => Registration::Full(waiter, wait),
                None => {
                    if let Some((_, account)) = sealed {
                        sealed_ids.enter(account);
                    }
                    let running = Running { waiters: Waiters::default(), is_decided: false, cancellation };
                    let (progress, until) = (Progress::Running(running), sealed.map(|(until, _)| until));
                    entries.insert(key.clone(), Entry { fingerprint, progress, until });
                    Registration::First(waiter)
                }
            },
        };
        self.unlock_and_tell(state, forgotten);
        registration
    }

    /// Another request cancels this one: from now on its outcome is that it was cancelled, whatever it does until it
    /// ends. `canceller` waits for that, or is given back.
    pub fn cancel(&self, key: &Key, canceller: W) -> Cancelling<W> {
        let mut state = self.lock();
        let Some(Entry { progress: Progress::Running(running), .. }) = state.entries.get_mut(key) else {
            return Cancelling::NotFound(canceller);
        };
        match &running.cancellation {
            Some(cancellation) if running.is_cancelled() || !running.is_decided => {
                if running.waiters.cancellers.len() == MAX_CANCELLERS {
                    return Cancelling::TooMany(canceller);
                }
                running.waiters.cancellers.push(canceller);
                Cancelling::Begun(cancellation.clone())
            }
            _ => Cancelling::NotFound(canceller),
        }
    }

    /// The first one is about to end: whether it was cancelled. If not, it cannot be any more.
    pub fn decide(&self, key: &Key) -> bool {
        let mut state = self.lock();
        let Some(Entry { progress: Progress::Running(running), .. }) = state.entries.get_mut(key) else {
            return false;
        };
        running.is_decided = true;
        running.is_cancelled()
    }

    /// The first one has ended, with an outcome that is to be remembered at this account's expense, and the record that
    /// has it if there is one; or with none. Returns who has waited for it.
    pub fn end(
        &self,
        key: &Key,
        account: &Arc<str>,
        outcome: Option<(&Answer, Option<RecordId>)>,
        now: Instant,
    ) -> Waiters<W> {
        let mut state = self.lock();
        let Some(entry) = state.entries.remove(key) else { return Waiters::default() };
        let mut forgotten = Vec::new();
        let Entry { fingerprint, progress, until } = entry;
        if let Some(until) = until {
            match outcome {
                Some((answer, record)) => {
                    state.sealed.done(until, &key.id, account, cost(answer));
                    let progress = Progress::Done(answer.clone(), record);
                    state.entries.insert(key.clone(), Entry { fingerprint, progress, until: Some(until) });
                }
                None => state.sealed.leave(account),
            }
        } else if let Some((answer, record)) = outcome.filter(|(answer, _)| self.takes(answer)) {
            forgotten = state.forget(now, &self.config, cost(answer));
            state.done.push(account.clone(), Owner::of(key), key.clone(), cost(answer), now);
            let progress = Progress::Done(answer.clone(), record);
            state.entries.insert(key.clone(), Entry { fingerprint, progress, until: None });
        }
        self.unlock_and_tell(state, forgotten);
        match progress {
            Progress::Running(running) => running.waiters,
            Progress::Done(..) => Waiters::default(),
        }
    }

    /// Until when a request that runs is to be remembered, if it is a sealed one.
    pub fn sealed_until(&self, key: &Key) -> Option<Until> {
        self.lock().entries.get(key)?.until
    }

    /// Another record has the outcome of a sealed request that is to be remembered longer.
    pub fn recorded_again(&self, key: &Key, record: Option<RecordId>) {
        if let Some(Entry { progress: Progress::Done(_, old), .. }) = self.lock().entries.get_mut(key) {
            *old = record;
        }
    }

    fn unlock_and_tell(&self, state: MutexGuard<'_, State<W>>, forgotten: Vec<RecordId>) {
        drop(state);
        if !forgotten.is_empty() {
            (self.on_forgotten)(forgotten);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().expect("no panic while the lock is held")
    }
}

impl<W> State<W> {
    /// Forgets what is too old, and what must go so that an outcome of `room` bytes fits (0: none is coming). Returns
    /// the records of that.
    fn forget(&mut self, now: Instant, config: &config::Idempotency, room: usize) -> Vec<RecordId> {
        let (coming, mut forgotten) = (usize::from(room > 0), Vec::new());
        while let Some(id) = self.sealed.pop_before(now) {
            forgotten.extend(self.remove(&Key { principal: None, reply_to: ReplyTo::Sealed, id }));
        }
        if let Some(before) = now.checked_sub(config.retention.duration()) {
            while let Some(key) = self.done.pop_before(before) {
                forgotten.extend(self.remove(&key));
            }
        }
        while self.done.len() + coming > config.outcomes || self.done.bytes() + room > config.bytes.as_usize()
        {
            let Some(key) = self.done.pop_of_largest() else { break };
            forgotten.extend(self.remove(&key));
        }
        forgotten
    }

    /// Returns the record of the outcome.
    fn remove(&mut self, key: &Key) -> Option<RecordId> {
        match self.entries.remove(key)?.progress {
            Progress::Done(_, record) => record,
            Progress::Running(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ByteSize, TimeSpan};
    use crate::fingerprint::Fingerprinter;
    use offload_protocol::answer::Outcome;

    fn key(id: &str) -> Key {
        let reply_to = ReplyTo::Id("device".into());
        Key { principal: None, reply_to, id: RequestId::try_from(id).unwrap() }
    }

    pub(super) fn print(code: &str) -> Fingerprint {
        Fingerprinter::new("wasm").part(code.as_bytes()).finish()
    }

    pub(super) fn answer(bytes: usize) -> Answer {
        Answer {
            id: None,
            outcome: Outcome::Exited(0),
            stdout: vec![b'x'; bytes].into(),
            content_range: None,
            stderr: Default::default(),
            fuel: 0,
            run_us: 0,
            queue_us: 0,
        }
    }

    fn deduplicator(outcomes: usize) -> Deduplicator<u32> {
        let (retention, bytes) = (TimeSpan::secs(600), ByteSize::kib(64));
        Deduplicator::new(
            config::Idempotency { retention, outcomes, bytes, ..Default::default() },
            Box::new(|_| {}),
        )
    }

    #[test]
    fn repetitions_join_and_later_ones_get_the_stored_outcome() {
        let (deduplicator, now) = (deduplicator(10), Instant::now());
        assert_eq!(deduplicator.begin(&key("a"), print("x"), 1, None, now), Registration::First(1));
        assert_eq!(deduplicator.begin(&key("a"), print("x"), 2, None, now), Registration::InFlight);
        assert_eq!(deduplicator.begin(&key("a"), print("y"), 3, None, now), Registration::Conflict(3));
        assert_eq!(deduplicator.begin(&key("b"), print("y"), 4, None, now), Registration::First(4));
        assert_eq!(
            deduplicator.end(&key("a"), &"account".into(), Some((&answer(1), None)), now).repetitions,
            vec![2]
        );
        assert_eq!(deduplicator.begin(&key("a"), print("x"), 5, None, now), Registration::Done(5, answer(1)));
        assert_eq!(deduplicator.begin(&key("a"), print("y"), 6, None, now), Registration::Conflict(6));
        let later = now + Duration::from_secs(600);
        assert_eq!(deduplicator.begin(&key("a"), print("y"), 7, None, later), Registration::First(7));
    }

    #[test]
    fn what_is_cancelled_stays_so_and_what_has_ended_cannot_be() {
        let (deduplicator, now) = (deduplicator(10), Instant::now());
        let begin = |id: &str, cancellation| deduplicator.begin(&key(id), print("x"), 0, cancellation, now);
        assert!(matches!(deduplicator.cancel(&key("a"), 1), Cancelling::NotFound(1)));
        let cancellation = Arc::<Cancellation>::default();
        begin("a", Some(cancellation.clone()));
        begin("b", Some(cancellation.clone()));
        begin("canceller", None);
        let Cancelling::Begun(told) = deduplicator.cancel(&key("a"), 1) else { panic!("it runs") };
        assert!(Arc::ptr_eq(&told, &cancellation));
        assert!(deduplicator.decide(&key("a")) && deduplicator.decide(&key("a")));
        // It has not ended yet.
        assert!(matches!(deduplicator.cancel(&key("a"), 2), Cancelling::Begun(_)));
        assert_eq!(deduplicator.begin(&key("a"), print("x"), 3, None, now), Registration::InFlight);
        let waiters = deduplicator.end(&key("a"), &"account".into(), Some((&answer(1), None)), now);
        assert_eq!(waiters, Waiters { repetitions: vec![3], cancellers: vec![1, 2] });
        assert!(matches!(deduplicator.cancel(&key("a"), 4), Cancelling::NotFound(4)));
        // Its own outcome came first.
        assert!(!deduplicator.decide(&key("b")));
        assert!(matches!(deduplicator.cancel(&key("b"), 5), Cancelling::NotFound(5)));
        assert!(matches!(deduplicator.cancel(&key("canceller"), 6), Cancelling::NotFound(6)));
    }

    #[test]
    fn few_wait_for_the_end_of_one() {
        let (deduplicator, now) = (deduplicator(10), Instant::now());
        deduplicator.begin(&key("a"), print("x"), 0, Some(Arc::default()), now);
        for canceller in 0..MAX_CANCELLERS as u32 {
            assert!(matches!(deduplicator.cancel(&key("a"), canceller), Cancelling::Begun(_)));
        }
        assert!(matches!(deduplicator.cancel(&key("a"), 99), Cancelling::TooMany(99)));
    }

    #[test]
    fn what_is_no_outcome_is_not_remembered() {
        let (deduplicator, now) = (deduplicator(10), Instant::now());
        deduplicator.begin(&key("a"), print("x"), 1, None, now);
        deduplicator.begin(&key("a"), print("x"), 2, None, now);
        assert_eq!(deduplicator.end(&key("a"), &"account".into(), None, now).repetitions, vec![2]);
        assert_eq!(deduplicator.begin(&key("a"), print("y"), 3, None, now), Registration::First(3));
    }

    #[test]
    fn names_of_others_are_others_names() {
        let (deduplicator, now) = (deduplicator(10), Instant::now());
        let other = Key { principal: Some("p".into()), ..key("a") };
        let unnamed = Key { reply_to: ReplyTo::Connection("device".into()), ..key("a") };
        for (n, key) in [key("a"), other, unnamed].iter().enumerate() {
            assert_eq!(
                deduplicator.begin(key, print("x"), n as u32, None, now),
                Registration::First(n as u32)
            );
        }
    }

    #[test]
    fn the_oldest_outcomes_make_room() {
        let (deduplicator, now) = (deduplicator(2), Instant::now());
        for id in ["a", "b", "c"] {
            deduplicator.begin(&key(id), print(id), 0, None, now);
            deduplicator.end(&key(id), &"account".into(), Some((&answer(1), None)), now);
        }
        assert_eq!(deduplicator.begin(&key("b"), print("b"), 1, None, now), Registration::Done(1, answer(1)));
        assert_eq!(deduplicator.begin(&key("a"), print("a"), 1, None, now), Registration::First(1));
        // One that leaves no room for the others, and one that never fits.
        deduplicator.end(&key("a"), &"account".into(), Some((&answer((64 << 10) - ENTRY_COST), None)), now);
        assert_eq!(deduplicator.begin(&key("b"), print("b"), 1, None, now), Registration::First(1));
        deduplicator.end(&key("b"), &"account".into(), Some((&answer(64 << 10), None)), now);
        assert_eq!(deduplicator.begin(&key("b"), print("b"), 1, None, now), Registration::First(1));
        assert!(matches!(deduplicator.begin(&key("a"), print("a"), 1, None, now), Registration::Done(1, _)));
    }

    #[test]
    fn what_an_earlier_process_has_left_is_known_for_the_rest_of_its_time() {
        let forgotten = Arc::new(Mutex::new(Vec::new()));
        let told = forgotten.clone();
        let (retention, bytes) = (TimeSpan::secs(600), ByteSize::kib(64));
        let config = config::Idempotency { retention, outcomes: 2, bytes, ..Default::default() };
        let on_forgotten = Box::new(move |records| told.lock().unwrap().extend(records));
        let deduplicator: Deduplicator<u32> = Deduplicator::new(config, on_forgotten);
        let remembered = |id: &str, age: u64, record| {
            let account = "account".into();
            let outcome = Remembered {
                key: key(id),
                fingerprint: print(id),
                account,
                answer: answer(1),
                record: RecordId(record),
                sealed_until: None,
            };
            (outcome, Duration::from_secs(age))
        };
        let now = Instant::now();
        let left = [("old", 600, 1), ("a", 599, 2), ("b", 300, 3), ("c", 0, 4)];
        deduplicator.restore(left.map(|(id, age, record)| remembered(id, age, record)), now);
        assert_eq!(*forgotten.lock().unwrap(), [RecordId(1), RecordId(2)], "too old; more than there may be");
        assert_eq!(deduplicator.begin(&key("a"), print("a"), 1, None, now), Registration::First(1));
        assert_eq!(deduplicator.begin(&key("b"), print("b"), 1, None, now), Registration::Done(1, answer(1)));
        assert_eq!(deduplicator.begin(&key("b"), print("x"), 1, None, now), Registration::Conflict(1));
        let later = now + Duration::from_secs(300);
        assert_eq!(deduplicator.begin(&key("b"), print("b"), 2, None, later), Registration::First(2));
        assert_eq!(forgotten.lock().unwrap().last(), Some(&RecordId(3)));
        deduplicator.end(&key("a"), &"account".into(), Some((&answer(1), Some(RecordId(5)))), later);
        deduplicator.end(&key("b"), &"account".into(), Some((&answer(1), None)), later);
        assert_eq!(forgotten.lock().unwrap().last(), Some(&RecordId(4)), "the oldest makes room");
    }
}
