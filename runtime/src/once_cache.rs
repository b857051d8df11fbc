//! What takes long to make is made once: by whoever asks first, while others wait, and kept up to a number of bytes.

use lru::LruCache;
use offload_protocol::error::WireError;
use offload_protocol::request::Digest;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::OnceCell;

/// A value, or why it cannot be made. Permanent errors are kept too: it is not tried again at every request.
pub type Cached<T> = Result<T, WireError>;

/// The place of a value, for all that wait for it.
pub type Cell<T> = Arc<OnceCell<Cached<T>>>;

/// Why a value was not made.
#[derive(Debug)]
pub struct MakeError {
    /// What the client is told.
    pub error: WireError,
    /// Whether it follows from what the value is made from, and would be the same the next time.
    pub permanent: bool,
}

impl MakeError {
    /// It would be the same the next time.
    pub fn permanent(error: WireError) -> MakeError {
        MakeError { error, permanent: true }
    }

    /// It may be different the next time.
    pub fn transient(error: WireError) -> MakeError {
        MakeError { error, permanent: false }
    }
}

/// Bytes that an entry counts beside its value, so that errors are bounded too.
const ENTRY_COST: u64 = 4 << 10;

/// When values that are not used any more are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Time without a use after which a value is dropped.
    pub after: Duration,
    /// Bytes of the most recently used values that stay in any case.
    pub bytes: usize,
}

/// Values by the digest of what they are made from; the least recently used go first.
pub struct OnceCache<T> {
    max_bytes: u64,
    /// Bytes of a value.
    size: fn(&T) -> u64,
    state: Mutex<State<T>>,
}

struct State<T> {
    entries: LruCache<Digest, Entry<T>>,
    bytes: u64,
    /// Calls of [`OnceCache::drop_idle`], which is time enough for entries to tell when they were used.
    looks: u64,
}

struct Entry<T> {
    cell: Cell<T>,
    /// Bytes of `State::bytes` that are this entry's; zero while it is made.
    counted: u64,
    /// `State::looks` when it was used last.
    used: u64,
}

impl<T: Clone> OnceCache<T> {
    /// A cache of at most `max_bytes`, as `size` counts them.
    pub fn new(max_bytes: u64, size: fn(&T) -> u64) -> OnceCache<T> {
        let state = State { entries: LruCache::unbounded(), bytes: 0, looks: 0 };
        OnceCache { max_bytes, size, state: Mutex::new(state) }
    }

    /// The value or the permanent error of this digest, if it has been made.
    pub fn ready(&self, digest: &Digest) -> Option<Cached<T>> {
        let mut state = self.lock();
        let looks = state.looks;
        let entry = state.entries.get_mut(digest)?;
        entry.used = looks;
        entry.cell.get().cloned()
    }

    /// Drops what was not used during the last `intervals` calls of this function, except `bytes` of what was used
    /// last.
    pub fn drop_idle(&self, intervals: u64, bytes: u64) {
        let mut state = self.lock();
        state.looks += 1;
        let idle_since = state.looks.saturating_sub(intervals);
        while state.bytes > bytes
            && let Some((digest, entry)) = state.entries.peek_lru()
            && entry.used < idle_since
        {
            if entry.cell.initialized() {
                state.evict_one();
            } else {
                // Whoever makes it has asked for it all the while.
                let (digest, looks) = (*digest, state.looks);
                state.entries.get_mut(&digest).expect("it was found just now").used = looks;
            }
        }
    }

    /// What is there, or what `make` makes if nobody else does meanwhile; and its cell, for [`OnceCache::replace`].
    ///
    /// # Errors
    ///
    /// Those of `make`.
    pub async fn get_or_make(
        &self,
        digest: Digest,
        make: impl Future<Output = Result<T, MakeError>>,
    ) -> (Cached<T>, Cell<T>) {
        let cell = {
            let mut state = self.lock();
            let used = state.looks;
            let new = || Entry { cell: Arc::default(), counted: 0, used };
            let entry = state.entries.get_or_insert_mut(digest, new);
            entry.used = used;
            entry.cell.clone()
        };
        // Set by whoever of those that wait for it makes it.
        let mut permanent = None;
        let outcome = cell
            .get_or_init(|| async {
                let made = make.await;
                permanent = Some(made.as_ref().map_or_else(|failure| failure.permanent, |_| true));
                made.map_err(|failure| failure.error)
            })
            .await
            .clone();
        if let Some(permanent) = permanent {
            self.account(digest, &cell, &outcome, permanent);
        }
        (outcome, cell)
    }

    /// Puts a better value in the place of an old one, unless the old one was evicted.
    pub fn replace(&self, digest: Digest, old: &Cell<T>, better: T) {
        let mut state = self.lock();
        let State { entries, bytes, looks } = &mut *state;
        let Some(entry) = entries.peek_mut(&digest).filter(|entry| Arc::ptr_eq(&entry.cell, old)) else {
            return;
        };
        let outcome = Ok(better);
        let counted = self.cost(&outcome);
        *bytes = *bytes - entry.counted + counted;
        *entry = Entry { cell: Arc::new(OnceCell::new_with(Some(outcome))), counted, used: *looks };
        state.evict(self.max_bytes);
    }

    /// Counts a new entry, or drops it if its error is transient.
    fn account(&self, digest: Digest, cell: &Cell<T>, outcome: &Cached<T>, permanent: bool) {
        let mut state = self.lock();
        let State { entries, bytes, looks } = &mut *state;
        let entry = match entries.peek_mut(&digest) {
            Some(entry) if Arc::ptr_eq(&entry.cell, cell) => entry,
            // Evicted while it was made.
            _ => return,
        };
        if !permanent {
            entries.pop(&digest);
            return;
        }
        entry.counted = self.cost(outcome);
        entry.used = *looks;
        *bytes += entry.counted;
        state.evict(self.max_bytes);
    }

    fn cost(&self, outcome: &Cached<T>) -> u64 {
        ENTRY_COST + outcome.as_ref().map_or_else(|error| error.message.len() as u64, self.size)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("no panic while the lock is held")
    }
}

impl<T> State<T> {
    /// What was used least recently makes room.
    fn evict(&mut self, max_bytes: u64) {
        while self.bytes > max_bytes && self.evict_one() {}
    }

    fn evict_one(&mut self) -> bool {
        let evicted = self.entries.pop_lru();
        self.bytes -= evicted.as_ref().map_or(0, |(_, entry)| entry.counted);
        evicted.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offload_protocol::error::ErrorKind;
    use std::future::ready;

    fn error() -> WireError {
        WireError::new(ErrorKind::Compile, "no")
    }

    fn cache() -> OnceCache<u64> {
        OnceCache::new(3 * ENTRY_COST, |bytes| *bytes)
    }

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    #[tokio::test]
    async fn it_is_made_once_and_a_failure_of_its_own_is_kept() {
        let cache = cache();
        assert_eq!(cache.get_or_make(digest("a"), ready(Ok(7))).await.0, Ok(7));
        assert_eq!(cache.get_or_make(digest("a"), ready(Ok(8))).await.0, Ok(7));
        let failed = || ready(Err(MakeError::permanent(error())));
        assert_eq!(cache.get_or_make(digest("b"), failed()).await.0, Err(error()));
        assert_eq!(cache.get_or_make(digest("b"), ready(Ok(1))).await.0, Err(error()));
        assert_eq!(cache.ready(&digest("b")), Some(Err(error())));
    }

    #[tokio::test]
    async fn what_may_go_better_the_next_time_is_tried_again() {
        let cache = cache();
        let failed = ready(Err(MakeError::transient(error())));
        assert_eq!(cache.get_or_make(digest("a"), failed).await.0, Err(error()));
        assert_eq!(cache.ready(&digest("a")), None);
        assert_eq!(cache.get_or_make(digest("a"), ready(Ok(1))).await.0, Ok(1));
    }

    #[tokio::test]
    async fn what_was_used_least_recently_makes_room() {
        let cache = cache();
        for name in ["a", "b"] {
            let _ = cache.get_or_make(digest(name), ready(Ok(100))).await;
        }
        assert!(cache.ready(&digest("a")).is_some());
        let _ = cache.get_or_make(digest("c"), ready(Ok(100))).await;
        assert_eq!(["a", "b", "c"].map(|name| cache.ready(&digest(name)).is_some()), [true, false, true]);
    }

    #[tokio::test]
    async fn what_nobody_asks_for_goes_but_for_some_bytes_that_were_used_last() {
        let cache = OnceCache::new(1 << 20, |bytes: &u64| *bytes);
        for name in ["a", "b", "c"] {
            let _ = cache.get_or_make(digest(name), ready(Ok(100))).await;
        }
        let there =
            |cache: &OnceCache<u64>| ["a", "b", "c"].map(|name| cache.lock().entries.contains(&digest(name)));
        let one = ENTRY_COST + 100;
        cache.drop_idle(2, one);
        assert!(cache.ready(&digest("a")).is_some());
        cache.drop_idle(2, one);
        assert_eq!(there(&cache), [true, true, true], "they were used during the last two intervals");
        cache.drop_idle(2, one);
        assert_eq!((there(&cache), cache.lock().bytes), ([true, false, false], one));
        for _ in 0..5 {
            cache.drop_idle(2, one);
        }
        assert_eq!(there(&cache), [true, false, false], "one entry's bytes stay");
    }

    #[tokio::test]
    async fn what_is_being_made_is_asked_for() {
        let cache = OnceCache::new(1 << 20, |bytes: &u64| *bytes);
        let (finish, finished) = tokio::sync::oneshot::channel();
        let making = async {
            cache.get_or_make(digest("a"), async { finished.await.map_err(|_| unreachable!()) }).await.0
        };
        let meanwhile = async {
            let _ = cache.get_or_make(digest("b"), ready(Ok(100))).await;
            for _ in 0..5 {
                cache.drop_idle(1, 0);
            }
            finish.send(7).unwrap();
        };
        assert_eq!(tokio::join!(making, meanwhile).0, Ok(7));
        assert_eq!(cache.ready(&digest("a")), Some(Ok(7)), "it is kept");
        assert_eq!(cache.ready(&digest("b")), None);
    }

    #[tokio::test]
    async fn a_better_one_takes_over_but_not_from_a_newcomer() {
        let cache = cache();
        let (_, old) = cache.get_or_make(digest("a"), ready(Ok(1))).await;
        cache.replace(digest("a"), &old, 2);
        assert_eq!(cache.ready(&digest("a")), Some(Ok(2)));
        cache.replace(digest("a"), &old, 3);
        assert_eq!(cache.ready(&digest("a")), Some(Ok(2)), "the first one is gone");
        assert_eq!(cache.lock().bytes, ENTRY_COST + 2);
    }
}
