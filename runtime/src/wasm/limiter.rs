//! How much linear memory and how many table elements a guest may have.

use super::limit_reached::LimitReached;
use super::memory::MemoryLease;
use crate::config::slot::MEMORY_KEEP_RESIDENT;
use offload_protocol::error::ErrorKind;
use std::fmt::{self, Display};
use std::future::{self, Future};
use std::pin::Pin;
use std::task::{Context, Poll};
use wasmtime::ResourceLimiterAsync;

/// Bytes that a guest grows by before its slice ends, beyond what its slot keeps. The pages are faulted in when they
/// are written, which one `memory.fill` may do without a pause: of this much it takes some 3 ms, of all that a guest
/// may have 25 ms. So a first slice, which may be on a connection's thread, has no more of them than this.
pub const GROWTH_STEP: usize = 8 << 20;

/// Growths that a guest may be refused; at the next one it is ended, since a `memory.grow` that fails takes time and
/// next to no fuel. An allocator asks once for each allocation that fails.
pub const MAX_REFUSED_GROWTHS: u32 = 10_000;

/// Grants growth up to a guest's limits. What is over them is refused as WebAssembly has it: `memory.grow` and
/// `table.grow` return -1, and the program may do without.
///
/// A component has several instances: what counts is what they have together.
pub struct MemoryLimiter {
    memory: Counted,
    table_elements: Counted,
    /// What it has beyond what its slot keeps.
    beyond: MemoryLease,
    /// What it had of that when growth last ended a slice.
    paused_at: usize,
    refused_growths: u32,
    /// The last growth that was asked for, if it was refused.
    refusal: Option<Refusal>,
}

/// A growth over a limit.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    what: &'static str,
    asked: usize,
    limit: usize,
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { what, asked, limit } = self;
        write!(f, "asked for {asked} {what}, the limit is {limit}")
    }
}

struct Counted {
    what: &'static str,
    used: usize,
    limit: usize,
}

impl Counted {
    /// Counts a growth, unless it is over the maximum that the module itself has set: wasmtime refuses that one.
    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<(), Refusal> {
        let asked = self.used.saturating_add(desired - current);
        if asked > self.limit {
            return Err(Refusal { what: self.what, asked, limit: self.limit });
        }
        if maximum.is_none_or(|maximum| desired <= maximum) {
            self.used = asked;
        }
        Ok(())
    }
}

impl MemoryLimiter {
    /// The limits of one guest: `memory` bytes, those beyond its slot's own from the lease, and `table_elements`.
    pub fn new(memory: usize, table_elements: usize, beyond: MemoryLease) -> MemoryLimiter {
        MemoryLimiter {
            memory: Counted { what: "bytes of memory", used: 0, limit: memory },
            table_elements: Counted { what: "table elements", used: 0, limit: table_elements },
            beyond,
            paused_at: 0,
            refused_growths: 0,
            refusal: None,
        }
    }

    /// What the guest asked for last, if it did not get it.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Whether the growth is granted.
    fn grow_memory(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimitReached> {
        let grown = self.memory.grow(current, desired, maximum);
        if grown.is_ok() {
            let beyond = self.memory.used.saturating_sub(MEMORY_KEEP_RESIDENT);
            self.beyond.grow(beyond.saturating_sub(self.beyond.bytes()))?;
        }
        self.answer(grown)
    }

    fn grow_table(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimitReached> {
        let grown = self.table_elements.grow(current, desired, maximum);
        self.answer(grown)
    }

    fn answer(&mut self, grown: Result<(), Refusal>) -> Result<bool, LimitReached> {
        self.refusal = grown.err();
        let Some(refusal) = self.refusal else { return Ok(true) };
        self.refused_growths += 1;
        if self.refused_growths > MAX_REFUSED_GROWTHS {
            let message =
                format!("went on asking: {refusal}, and it was refused {MAX_REFUSED_GROWTHS} times");
            return Err(LimitReached { kind: ErrorKind::Memory, message });
        }
        Ok(false)
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

fn answer<'a>(result: Result<bool, LimitReached>) -> Answer<'a> {
    match result {
        Ok(true) => Box::pin(Granted),
        result => Box::pin(future::ready(result.map_err(Into::into))),
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
        if let Ok(true) = grown
            && self.is_to_pause()
        {
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

    fn kind(result: Result<bool, LimitReached>) -> Result<bool, ErrorKind> {
        result.map_err(|error| error.kind)
    }

    #[test]
    fn what_one_guest_has_another_cannot_until_it_is_gone() {
        let all = Arc::new(GuestMemory::new(10 * MIB));
        let guest = |account: &str| MemoryLimiter::new(8 * MIB, 0, all.lease(account.into()));
        let (mut one, mut other) = (guest("a"), guest("b"));
        // The first two megabytes of each are its slot's.
        assert_eq!(kind(one.grow_memory(0, 8 * MIB, None)), Ok(true));
        assert_eq!(kind(one.grow_memory(8 * MIB, 9 * MIB, None)), Ok(false));
        assert_eq!(kind(other.grow_memory(0, 6 * MIB, None)), Ok(true));
        assert_eq!(kind(other.grow_memory(6 * MIB, 7 * MIB, None)), Err(ErrorKind::Busy));
        drop(one);
        assert_eq!(kind(other.grow_memory(7 * MIB, 8 * MIB, None)), Ok(true));
        drop(other);
        assert_eq!(all.taken(), 0);
    }

    #[test]
    fn whoever_goes_on_asking_is_ended() {
        let all = Arc::new(GuestMemory::new(100 * MIB));
        let mut limiter = MemoryLimiter::new(MIB, 10, all.lease("a".into()));
        for _ in 0..MAX_REFUSED_GROWTHS / 2 {
            assert_eq!(kind(limiter.grow_memory(0, 2 * MIB, None)), Ok(false));
            assert_eq!(kind(limiter.grow_table(0, 11, None)), Ok(false));
            // What only the module's own maximum rules out is wasmtime's to refuse.
            assert_eq!(kind(limiter.grow_memory(0, MIB, Some(MIB / 2))), Ok(true));
            assert!(limiter.refusal().is_none());
        }
        assert_eq!(kind(limiter.grow_memory(0, MIB, None)), Ok(true));
        assert_eq!(kind(limiter.grow_table(0, 11, None)), Err(ErrorKind::Memory));
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
