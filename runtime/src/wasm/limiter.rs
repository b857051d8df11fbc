//! How much linear memory and how many table elements a guest may have, and all guests together.

use super::engine::MEMORY_KEEP_RESIDENT;
use super::guest::LimitReached;
use offload_protocol::error::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wasmtime::ResourceLimiter;

/// The linear memory of all guests together, beyond what their slots keep anyway.
#[derive(Debug)]
pub struct GuestMemory {
    /// Bytes that are left.
    left: AtomicUsize,
}

impl GuestMemory {
    /// So many bytes.
    pub fn new(bytes: usize) -> GuestMemory {
        GuestMemory { left: AtomicUsize::new(bytes) }
    }

    fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        bytes == 0 || self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Ends a guest that asks for more memory than it may have. Refusing the growth instead would let a loop that
/// ignores the refusal burn time, and a program that cannot have its memory rarely has a better answer to give.
///
/// A component has several instances: what counts is what they have together.
pub struct MemoryLimiter {
    memory: Counted,
    table_elements: Counted,
    all: Arc<GuestMemory>,
    /// What of it this guest has.
    taken: usize,
}

struct Counted {
    used: usize,
    limit: usize,
}

impl Counted {
    /// Counts a growth, unless it is over the maximum that the module itself has set: wasmtime refuses that one.
    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<(), usize> {
        let used = self.used.saturating_add(desired - current);
        if used > self.limit {
            return Err(used);
        }
        if maximum.is_none_or(|maximum| desired <= maximum) {
            self.used = used;
        }
        Ok(())
    }
}

impl MemoryLimiter {
    /// For one guest: so many bytes of memory, out of what is there for `all`, and so many elements.
    pub fn new(memory: usize, table_elements: usize, all: Arc<GuestMemory>) -> MemoryLimiter {
        let counted = |limit| Counted { used: 0, limit };
        MemoryLimiter { memory: counted(memory), table_elements: counted(table_elements), all, taken: 0 }
    }
}

impl Drop for MemoryLimiter {
    fn drop(&mut self) {
        self.all.give_back(self.taken);
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.memory.grow(current, desired, maximum).map_err(|asked| {
            let message = format!("asked for {asked} bytes, the limit is {}", self.memory.limit);
            LimitReached { kind: ErrorKind::Memory, message }
        })?;
        let beyond = self.memory.used.saturating_sub(MEMORY_KEEP_RESIDENT);
        let more = beyond.saturating_sub(self.taken);
        if !self.all.take(more) {
            let message = "the memory for all guests together is used up: try again later".to_string();
            return Err(LimitReached { kind: ErrorKind::Busy, message }.into());
        }
        self.taken += more;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.table_elements.grow(current, desired, maximum).map_err(|asked| {
            let limit = self.table_elements.limit;
            let message = format!("asked for tables of {asked} elements, the limit is {limit}");
            LimitReached { kind: ErrorKind::Memory, message }
        })?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn kind(result: wasmtime::Result<bool>) -> Result<bool, ErrorKind> {
        result.map_err(|error| error.downcast_ref::<LimitReached>().expect("our own").kind)
    }

    #[test]
    fn what_one_guest_has_another_cannot_until_it_is_gone() {
        let all = Arc::new(GuestMemory::new(10 * MIB));
        let guest = || MemoryLimiter::new(8 * MIB, 0, all.clone());
        let (mut one, mut other) = (guest(), guest());
        // The first two megabytes of each are its slot's.
        assert_eq!(kind(one.memory_growing(0, 8 * MIB, None)), Ok(true));
        assert_eq!(kind(one.memory_growing(8 * MIB, 9 * MIB, None)), Err(ErrorKind::Memory));
        assert_eq!(kind(other.memory_growing(0, 6 * MIB, None)), Ok(true));
        assert_eq!(kind(other.memory_growing(6 * MIB, 7 * MIB, None)), Err(ErrorKind::Busy));
        drop(one);
        assert_eq!(kind(other.memory_growing(7 * MIB, 8 * MIB, None)), Ok(true));
        drop(other);
        assert_eq!(all.left.load(Ordering::Relaxed), 10 * MIB);
    }
}
