//! Log sampling: what clients can cause as often as they like is logged a few times, and then counted.
//!
//! Each place in the code is a cause of its own, so that a flood of one kind hides nothing of another.

use std::collections::HashMap;
use std::panic::Location;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

/// Lines of one cause within an interval. A few tell what is wrong; more of the same tell nothing else.
const MAX_LINES: u32 = 10;
/// The interval, and the time between two counts of what was left out.
const INTERVAL: Duration = Duration::from_secs(60);

/// Logs a line unless this place has logged too many in this interval: `sampled!(warn, %error, "cannot keep a
/// module")`. The line says how many were left out before it. Says whether it was logged.
macro_rules! sampled {
    ($level:ident, $($line:tt)+) => {
        match $crate::log_sampling::sample() {
            Some(left_out) => {
                // Zero is nothing to tell: `None` is no field.
                let left_out = (left_out > 0).then_some(left_out);
                ::tracing::$level!(left_out, $($line)+);
                true
            }
            None => false,
        }
    };
}
pub(crate) use sampled;

/// The causes of this process; as many at most as there are places that ask.
static CAUSES: LazyLock<Mutex<Causes>> = LazyLock::new(Mutex::default);

/// `Some` if the caller may log a line now, with how many of it were left out since the last one.
#[track_caller]
pub(crate) fn sample() -> Option<u64> {
    causes().sample(Location::caller(), interval_now())
}

/// Logs for ever, at intervals, how many lines were left out.
pub(crate) async fn report_left_out() {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        let counts = causes().take_left_out();
        for (place, left_out) in counts {
            tracing::warn!(%place, left_out, "lines of the same kind were left out");
        }
    }
}

fn causes() -> std::sync::MutexGuard<'static, Causes> {
    CAUSES.lock().expect("no panic while the lock is held")
}

/// Numbers the intervals of this process.
fn interval_now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_secs() / INTERVAL.as_secs()
}

#[derive(Default)]
struct Causes(HashMap<&'static Location<'static>, Budget>);

/// What one cause has used of its lines.
#[derive(Default)]
struct Budget {
    interval: u64,
    lines: u32,
    left_out: u64,
}

impl Causes {
    fn sample(&mut self, place: &'static Location<'static>, interval: u64) -> Option<u64> {
        let budget = self.0.entry(place).or_default();
        if budget.interval != interval {
            budget.interval = interval;
            budget.lines = 0;
        }
        if budget.lines == MAX_LINES {
            budget.left_out += 1;
            return None;
        }
        budget.lines += 1;
        Some(std::mem::take(&mut budget.left_out))
    }

    fn take_left_out(&mut self) -> Vec<(&'static Location<'static>, u64)> {
        let counts = self.0.iter_mut().map(|(place, budget)| (*place, std::mem::take(&mut budget.left_out)));
        counts.filter(|(_, left_out)| *left_out > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_lines_in_each_interval_and_the_rest_is_counted() {
        let (flood, rare) = (Location::caller(), here());
        let mut causes = Causes::default();
        let mut lines = |place, interval| (0..1000).filter_map(|_| causes.sample(place, interval)).collect();
        let logged: Vec<u64> = lines(flood, 7);
        assert_eq!(logged, [0; MAX_LINES as usize]);
        let logged: Vec<u64> = lines(flood, 8);
        assert_eq!((logged.len(), logged[0], logged[1]), (MAX_LINES as usize, 990, 0));
        assert_eq!(causes.sample(rare, 8), Some(0), "another cause is not hidden");
        assert_eq!(causes.take_left_out(), [(flood, 990)]);
        assert_eq!(causes.take_left_out(), []);
        assert_eq!(causes.sample(flood, 9), Some(0), "what was told is not told again");
    }

    #[test]
    fn a_place_that_logs_is_a_cause() {
        let here = || sample().is_some();
        assert_eq!((0..100).filter(|_| here()).count(), MAX_LINES as usize);
        assert!(sample().is_some());
    }

    #[track_caller]
    fn here() -> &'static Location<'static> {
        Location::caller()
    }
}
