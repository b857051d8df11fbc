//! What a slice takes of the CPU, measured as well as it is worth.
//!
//! Most guests end in their first slice, after microseconds: for these the wall clock is read, which costs a tenth of
//! the thread's CPU clock. While it is short a guest is not charged for it, since the kernel may have run others in it:
//! a short guest would be taken for a long one, and wait for all that are short. A first slice that takes long is
//! looked at again: the thread's CPU clock was read not long before it began, which tells what of it was CPU time for
//! certain.

use offload_policy::SliceTime;
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// The ticker ends slices long before; what it cannot end is one instruction, such as `memory.fill`, and code without a
/// loop or a call.
const FREE: Duration = Duration::from_nanos(SliceTime::FREE.as_nanos());

/// A reading of the CPU clock older than this is made anew before a first slice. It is what a first slice's measure can
/// be short of the truth by, where the thread never paused.
const MARK_AGE: Duration = Duration::from_micros(500);

thread_local! {
    /// When this thread's CPU clock was last read for a first slice, and what it said.
    static MARK: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// Measures one slice of a guest, on its thread.
pub enum SliceClock {
    /// The guest's first.
    First(Instant),
    /// Another one: the thread's CPU time when it began.
    Later(Duration),
}

impl SliceClock {
    /// The slice begins: a guest's first one at `now`.
    pub fn first(now: Instant) -> SliceClock {
        MARK.with(|mark| {
            if mark.get().is_none_or(|(at, _)| now.saturating_duration_since(at) > MARK_AGE) {
                mark.set(Some((now, thread_cpu_time())));
            }
        });
        SliceClock::First(now)
    }

    /// A later slice begins.
    pub fn later() -> SliceClock {
        SliceClock::Later(thread_cpu_time())
    }

    /// The slice has ended.
    pub fn used(&self) -> SliceTime {
        match self {
            SliceClock::Later(start) => SliceTime::Charged(thread_cpu_time().saturating_sub(*start).into()),
            SliceClock::First(start) => {
                let elapsed = start.elapsed();
                let used = if elapsed > FREE { used_since(*start) } else { Duration::ZERO };
                if used > FREE { SliceTime::Charged(used.into()) } else { SliceTime::Free(elapsed.into()) }
            }
        }
    }
}

/// CPU time of this thread since `start`, at the least: all since the last reading but the whole time between that and
/// `start`.
fn used_since(start: Instant) -> Duration {
    let Some((at, cpu)) = MARK.get() else { return Duration::ZERO };
    (thread_cpu_time().saturating_sub(cpu)).saturating_sub(start.saturating_duration_since(at))
}

fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// Takes so much CPU time.
    fn compute(time: Duration) {
        let start = thread_cpu_time();
        while thread_cpu_time() - start < time {}
    }

    fn on_new_thread<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
        thread::spawn(test).join().unwrap()
    }

    #[test]
    fn a_first_slice_is_charged_when_it_computes_for_long() {
        let used = on_new_thread(|| {
            let clock = SliceClock::first(Instant::now());
            compute(3 * FREE);
            clock.used()
        });
        assert!(Duration::from(used.charged()) >= 3 * FREE, "{used:?}");
    }

    #[test]
    fn a_first_slice_is_free_when_it_is_short_or_its_thread_does_not_run() {
        for computed in [Duration::ZERO, FREE / 2] {
            let used = on_new_thread(move || {
                let clock = SliceClock::first(Instant::now());
                compute(computed);
                thread::sleep(2 * FREE);
                clock.used()
            });
            assert!(used.charged().is_zero(), "{used:?}");
        }
    }

    #[test]
    fn what_was_computed_before_is_not_charged() {
        let (used, computed) = on_new_thread(|| {
            SliceClock::first(Instant::now());
            compute(FREE);
            let (before, start) = (thread_cpu_time(), Instant::now());
            compute(FREE / 2);
            (used_since(start), thread_cpu_time() - before)
        });
        assert!(used <= computed, "{used:?} of {computed:?}");
    }

    #[test]
    fn a_later_slice_is_charged_whole() {
        let used = on_new_thread(|| {
            let clock = SliceClock::later();
            compute(MARK_AGE);
            clock.used()
        });
        assert!(Duration::from(used.charged()) >= MARK_AGE, "{used:?}");
    }
}
