//! What takes long to make is made once: by whoever asks first, while others wait, and kept up to a number of bytes.

use offload_policy::FairCache;
use offload_protocol::error::WireError;
use offload_protocol::request::Digest;
use std::sync::{Arc, Mutex, MutexGuard};
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

/// Values by the digest of what they are made from; the least recently used go first.
pub struct OnceCache<T> {
    max_bytes: usize,
    /// Bytes of a value.
    size: fn(&T) -> u64,
    state: Mutex<State<T>>,
}

struct State<T> {
    /// All on one account. An entry weighs its bytes, and nothing while it is made; `looks` is its time.
    entries: FairCache<(), Digest, Cell<T>, u64>,
    /// Calls of [`OnceCache::drop_idle`], which is time enough for entries to tell when they were used.
    looks: u64,
}

impl<T: Clone> OnceCache<T> {
    /// A cache of at most `max_bytes`, as `size` counts them.
    pub fn new(max_bytes: u64, size: fn(&T) -> u64) -> OnceCache<T> {
        let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        OnceCache { max_bytes, size, state: Mutex::new(State { entries: FairCache::new(), looks: 0 }) }
    }

    /// The value or the permanent error of this digest, if it has been made.
    pub fn ready(&self, digest: &Digest) -> Option<Cached<T>> {
        let mut state = self.lock();
        let looks = state.looks;
        state.entries.get(digest, looks)?.get().cloned()
    }

    /// Drops what was not used during the last `intervals` calls of this function, except `bytes` of what was used
    /// last.
    pub fn drop_idle(&self, intervals: u64, bytes: u64) {
        let mut state = self.lock();
        state.looks += 1;
        let idle_since = state.looks.saturating_sub(intervals);
        // What is being made is being asked for.
        while state.entries.weight() as u64 > bytes
            && let Some((&digest, used)) = state.entries.least_recently_used(|cell| cell.initialized())
            && used < idle_since
        {
            state.entries.remove(&digest);
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
            let looks = state.looks;
            state.entries.get_or_insert_with(&digest, looks, || (Cell::default(), (), 0)).clone()
        };
        let asked = Asked { cache: self, digest, cell: Some(cell) };
        let cell = asked.cell.as_ref().expect("given back when it is dropped");
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
            self.account(digest, cell, &outcome, permanent);
        }
        let cell = cell.clone();
        (outcome, cell)
    }

    /// Puts a better value in the place of an old one, unless the old one was evicted.
    pub fn replace(&self, digest: Digest, old: &Cell<T>, better: T) {
        let mut state = self.lock();
        let looks = state.looks;
        if state.holds(&digest, old) {
            let outcome = Ok(better);
            let cost = self.cost(&outcome);
            let cell = Arc::new(OnceCell::new_with(Some(outcome)));
            state.entries.insert(digest, cell, (), cost, looks);
            state.evict(self.max_bytes);
        }
    }

    /// Counts a new entry, or drops it if its error is transient.
    fn account(&self, digest: Digest, cell: &Cell<T>, outcome: &Cached<T>, permanent: bool) {
        let mut state = self.lock();
        // It may have been evicted while it was made.
        if !state.holds(&digest, cell) {
            return;
        }
        if !permanent {
            state.entries.remove(&digest);
            return;
        }
        let looks = state.looks;
        state.entries.get(&digest, looks);
        state.entries.reweigh(&digest, self.cost(outcome));
        state.evict(self.max_bytes);
    }

    fn cost(&self, outcome: &Cached<T>) -> usize {
        let bytes = ENTRY_COST + outcome.as_ref().map_or_else(|error| error.message.len() as u64, self.size);
        usize::try_from(bytes).expect("what is in memory has a size")
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("no panic while the lock is held")
    }
}

/// Whoever waits for a value, until it gives up or has it.
struct Asked<'c, T> {
    cache: &'c OnceCache<T>,
    digest: Digest,
    /// Given back under the cache's lock, so that the last of several who give up is known.
    cell: Option<Cell<T>>,
}

impl<T> Drop for Asked<'_, T> {
    /// Forgets a value that was not made and that nobody else waits for: it weighs nothing, so nothing else would.
    fn drop(&mut self) {
        let Some(cell) = self.cell.take() else { return };
        if cell.initialized() {
            return;
        }
        let mut state = self.cache.state.lock().expect("no panic while the lock is held");
        let is_there = state.holds(&self.digest, &cell);
        drop(cell);
        let only_kept = |cell: &Cell<T>| Arc::strong_count(cell) == 1;
        if is_there && state.entries.peek(&self.digest).is_some_and(only_kept) {
            state.entries.remove(&self.digest);
        }
    }
}

impl<T> State<T> {
    /// Whether this is the cell of what is there now.
    fn holds(&self, digest: &Digest, cell: &Cell<T>) -> bool {
        self.entries.peek(digest).is_some_and(|there| Arc::ptr_eq(there, cell))
    }

    /// What was used least recently makes room.
    fn evict(&mut self, max_bytes: usize) {
        while self.entries.weight() > max_bytes && self.entries.evict_for(&(), 0, |_| true).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fair_semaphore::tests::is_waiting;
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

    /// Each client that gives up before its value is made leaves nothing behind; the last one takes the entry along.
    #[tokio::test]
    async fn whoever_gives_up_leaves_nothing() {
        let cache = cache();
        for number in 0..1_000 {
            let never = std::future::pending::<Result<u64, MakeError>>;
            let digest = digest(&number.to_string());
            let (mut first, mut second) =
                (Box::pin(cache.get_or_make(digest, never())), Box::pin(cache.get_or_make(digest, never())));
            assert!(is_waiting(&mut first).await && is_waiting(&mut second).await);
            drop(first);
            assert_eq!(cache.lock().entries.len(), 1, "one still waits");
            drop(second);
            assert_eq!(cache.lock().entries.len(), 0);
        }
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
        let there = |cache: &OnceCache<u64>| {
            ["a", "b", "c"].map(|name| cache.lock().entries.peek(&digest(name)).is_some())
        };
        let one = ENTRY_COST + 100;
        cache.drop_idle(2, one);
        assert!(cache.ready(&digest("a")).is_some());
        cache.drop_idle(2, one);
        assert_eq!(there(&cache), [true, true, true], "they were used during the last two intervals");
        cache.drop_idle(2, one);
        assert_eq!((there(&cache), cache.lock().entries.weight() as u64), ([true, false, false], one));
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
        assert_eq!(cache.lock().entries.weight() as u64, ENTRY_COST + 2);
    }
}
