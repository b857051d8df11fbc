//! The memory that all guests have together, and who has how much of it.

use super::limit_reached::LimitReached;
use crate::flow::Name;
use offload_protocol::error::ErrorKind;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The memory of all guests together, beyond what their slots keep anyway: linear memories, and modules that the
/// workers have no room to keep.
///
/// An account may have no more than is left beside it (dynamic thresholds, as in [`offload_policy::Slots`]): half of it
/// all where it is alone, and however many accounts take all that they may, some is left for the next. The only guest
/// of its account that needs any is held back by what is left alone.
#[derive(Debug)]
pub struct GuestMemory {
    /// Bytes in all.
    limit: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Accounts that have any.
    by_account: HashMap<Name, usize>,
}

/// One guest's part of it, or one module's. Given back when it is dropped.
#[derive(Debug)]
pub struct MemoryLease {
    memory: Arc<GuestMemory>,
    account: Name,
    bytes: usize,
}

impl GuestMemory {
    /// Memory of `limit` bytes.
    pub fn new(limit: usize) -> GuestMemory {
        GuestMemory { limit, taken: Mutex::default() }
    }

    /// A lease of nothing yet, on this account.
    pub fn lease(self: &Arc<Self>, account: Name) -> MemoryLease {
        MemoryLease { memory: self.clone(), account, bytes: 0 }
    }

    /// Bytes that are taken.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.lock().all
    }

    /// Whether a panic has left the counts in disorder.
    pub(super) fn is_torn(&self) -> bool {
        self.taken.is_poisoned()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("no panic while the lock is held")
    }
}

impl MemoryLease {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes this many bytes more.
    ///
    /// # Errors
    ///
    /// `busy` when there are no more, or when its account has its part of what there is.
    pub(super) fn grow(&mut self, more: usize) -> Result<(), LimitReached> {
        if more == 0 {
            return Ok(());
        }
        let mut taken = self.memory.lock();
        let busy = |message: &str| LimitReached { kind: ErrorKind::Busy, message: message.to_string() };
        let left = self.memory.limit - taken.all;
        let Some(left) = left.checked_sub(more) else {
            return Err(busy("the memory for all guests together is used up: try again later"));
        };
        let held = taken.by_account.get(&self.account).copied().unwrap_or(0);
        let is_only_one = held == self.bytes;
        if !is_only_one && held + more > left {
            return Err(busy("your guests have their part of the memory for all guests: try again later"));
        }
        taken.all += more;
        match taken.by_account.get_mut(&self.account) {
            Some(held) => *held += more,
            None => drop(taken.by_account.insert(self.account.clone(), more)),
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut taken = self.memory.lock();
        taken.all -= self.bytes;
        let held = taken.by_account.get_mut(&self.account).expect("an account that has a lease is there");
        *held -= self.bytes;
        if *held == 0 {
            taken.by_account.remove(&self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(memory: &Arc<GuestMemory>, account: &str) -> MemoryLease {
        memory.lease(account.into())
    }

    #[test]
    fn what_one_has_another_cannot_have_until_it_is_given_back() {
        let memory = Arc::new(GuestMemory::new(10));
        let (mut one, mut other) = (lease(&memory, "a"), lease(&memory, "b"));
        assert!(one.grow(8).is_ok(), "the only guest of its account");
        assert!(other.grow(3).is_err());
        assert_eq!((other.bytes(), memory.taken()), (0, 8), "a refusal takes nothing");
        drop(one);
        assert!(other.grow(10).is_ok());
        drop(other);
        assert_eq!((memory.taken(), memory.lock().by_account.len()), (0, 0));
    }

    #[test]
    fn an_account_with_many_guests_leaves_as_much_as_it_has() {
        let memory = Arc::new(GuestMemory::new(128));
        let mut held = Vec::new();
        for account in ["a", "b", "c"] {
            let leases = std::iter::from_fn(|| {
                let mut lease = lease(&memory, account);
                lease.grow(1).is_ok().then_some(lease)
            });
            held.push(leases.collect::<Vec<_>>());
        }
        assert_eq!(held.iter().map(Vec::len).collect::<Vec<_>>(), [64, 32, 16]);
        drop(held);
        assert_eq!(memory.taken(), 0);
    }
}
