//! How much linear memory and how many table elements a guest may have.

use super::engine::MEMORY_KEEP_RESIDENT;
use super::guest::LimitReached;
use super::memory::MemoryLease;
use offload_protocol::error::ErrorKind;
use std::future::{self, Future};
use std::pin::Pin;
use std::task::{Context, Poll};
use wasmtime::ResourceLimiterAsync;

/// Bytes that a guest grows by before its slice ends, beyond what its slot keeps. The pages are faulted in when they
/// are written, which one `memory.fill` may do without a pause: of this much it takes some 3 ms, of all that a guest
/// may have 25 ms. So a first slice, which may be on a connection's thread, has no more of them than this.
pub const GROWTH_STEP: usize = 8 << 20;

/// Ends a guest that asks for more memory than it may have. Refusing the growth instead would let a loop that
/// ignores the refusal burn time, and a program that cannot have its memory rarely has a better answer to give.
///
/// A component has several instances: what counts is what they have together.
pub struct MemoryLimiter {
    memory: Counted,
    table_elements: Counted,
    /// What it has beyond what its slot keeps.
    beyond: MemoryLease,
    /// What it had of that when growth last ended a slice.
    paused_at: usize,
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
    /// For one guest: so many bytes of memory, those beyond its slot's own out of this lease, and so many elements.
    pub fn new(memory: usize, table_elements: usize, beyond: MemoryLease) -> MemoryLimiter {
        let counted = |limit| Counted { used: 0, limit };
        MemoryLimiter {
            memory: counted(memory),
            table_elements: counted(table_elements),
            beyond,
            paused_at: 0,
        }
    }

    fn grow_memory(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<(), LimitReached> {
        self.memory.grow(current, desired, maximum).map_err(|asked| {
            let message = format!("asked for {asked} bytes, the limit is {}", self.memory.limit);
            LimitReached { kind: ErrorKind::Memory, message }
        })?;
        let beyond = self.memory.used.saturating_sub(MEMORY_KEEP_RESIDENT);
        self.beyond.grow(beyond.saturating_sub(self.beyond.bytes()))
    }

    fn grow_table(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<(), LimitReached> {
        self.table_elements.grow(current, desired, maximum).map_err(|asked| {
            let limit = self.table_elements.limit;
            let message = format!("asked for tables of {asked} elements, the limit is {limit}");
            LimitReached { kind: ErrorKind::Memory, message }
        })
    }

    /// Whether it has grown by a step since it was last asked to pause.
    fn is_to_pause(&mut self) -> bool {
        let grown = self.beyond.bytes() - self.paused_at >= GROWTH_STEP;
        if grown {
            self.paused_at = self.beyond.bytes();
        }
        grown
    }
}

/// What `async_trait` makes of the methods below. They are written out because every memory and table of every guest is
/// asked for: a future of no size is boxed without an allocation.
type Answer<'a> = Pin<Box<dyn Future<Output = wasmtime::Result<bool>> + Send + 'a>>;

struct Granted;

impl Future for Granted {
    type Output = wasmtime::Result<bool>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(true))
    }
}

fn answer<'a>(result: Result<(), LimitReached>) -> Answer<'a> {
    match result {
        Ok(()) => Box::pin(Granted),
        Err(error) => Box::pin(future::ready(Err(error.into()))),
    }
}

impl ResourceLimiterAsync for MemoryLimiter {
    fn memory_growing<'a, 'b>(
        &'a mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Answer<'b>
    where
        'a: 'b,
    {
        let grown = self.grow_memory(current, desired, maximum);
        if grown.is_ok() && self.is_to_pause() {
            return Box::pin(async {
                tokio::task::yield_now().await;
                Ok(true)
            });
        }
        answer(grown)
    }

    fn table_growing<'a, 'b>(
        &'a mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Answer<'b>
    where
        'a: 'b,
    {
        answer(self.grow_table(current, desired, maximum))
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::GuestMemory;
    use super::*;
    use std::sync::Arc;
    use std::task::Waker;

    const MIB: usize = 1 << 20;

    fn kind(result: Result<(), LimitReached>) -> Result<(), ErrorKind> {
        result.map_err(|error| error.kind)
    }

    #[test]
    fn what_one_guest_has_another_cannot_until_it_is_gone() {
        let all = Arc::new(GuestMemory::new(10 * MIB));
        let guest = |account: &str| MemoryLimiter::new(8 * MIB, 0, all.lease(account.into()));
        let (mut one, mut other) = (guest("a"), guest("b"));
        // The first two megabytes of each are its slot's.
        assert_eq!(kind(one.grow_memory(0, 8 * MIB, None)), Ok(()));
        assert_eq!(kind(one.grow_memory(8 * MIB, 9 * MIB, None)), Err(ErrorKind::Memory));
        assert_eq!(kind(other.grow_memory(0, 6 * MIB, None)), Ok(()));
        assert_eq!(kind(other.grow_memory(6 * MIB, 7 * MIB, None)), Err(ErrorKind::Busy));
        drop(one);
        assert_eq!(kind(other.grow_memory(7 * MIB, 8 * MIB, None)), Ok(()));
        drop(other);
        assert_eq!(all.taken(), 0);
    }

    #[test]
    fn each_step_of_growth_is_a_pause() {
        let all = Arc::new(GuestMemory::new(100 * MIB));
        let mut limiter = MemoryLimiter::new(64 * MIB, 0, all.lease("a".into()));
        let step = GROWTH_STEP + MEMORY_KEEP_RESIDENT;
        let sizes = [0, MIB, step - 1, step, step + MIB, 64 * MIB, 64 * MIB];
        let pauses = sizes.windows(2).map(|sizes| {
            let mut answer = limiter.memory_growing(sizes[0], sizes[1], None);
            answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
        });
        assert_eq!(pauses.collect::<Vec<_>>(), [false, false, true, false, true, false]);
    }
}
