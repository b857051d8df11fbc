//! Log lines that clients can cause are bounded in length, and in rate for each cause apart: a few a second, then only
//! a count, so that a flood of one kind hides nothing of another, and a flood of its own kind is still seen in numbers.

use std::{
    convert::Infallible,
    num::NonZeroU32,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracing::info;

/// Lines of one cause within a second.
const LINES_PER_SECOND: u32 = 10;
/// Time after which what was left out is told, though no further line of its cause comes.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

pub(crate) struct Throttle {
    started: Instant,
    budgets: [Budget; Cause::ALL.len()],
}

/// What a line is about. Each has a budget of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Credentials that are wrong or missing: somebody may be guessing passwords.
    LogIn,
    /// Connections that are refused for anything else, or never come to a CONNECT.
    Refused,
    /// Connections that are closed for what their client does, or does not do.
    Closed,
    /// Connections that another one with their client id has taken over.
    TakenOver,
    /// Publishes and subscriptions that are not permitted or exceed a limit.
    Denied,
    /// Messages for which there is no room.
    Dropped,
    /// Messages for which there is no room, and whose publisher cannot be told.
    Unkept,
    /// Clients that are read later because they send faster than they may.
    Delayed,
    /// Faults on this side: of the application, or of the system.
    Fault,
}

impl Cause {
    const ALL: [Self; 9] = [
        Self::LogIn,
        Self::Refused,
        Self::Closed,
        Self::TakenOver,
        Self::Denied,
        Self::Dropped,
        Self::Unkept,
        Self::Delayed,
        Self::Fault,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::LogIn => "failed log-ins",
            Self::Refused => "refused connections",
            Self::Closed => "closed connections",
            Self::TakenOver => "connections taken over",
            Self::Denied => "refused publishes and subscriptions",
            Self::Dropped => "dropped messages",
            Self::Unkept => "messages acknowledged and not kept",
            Self::Delayed => "clients over their rate",
            Self::Fault => "faults",
        }
    }
}

/// What one cause has left in this second.
#[derive(Default)]
struct Budget {
    second: AtomicU64,
    /// Written or asked for in this second.
    lines: AtomicU32,
    /// Asked for, not written, and not told yet.
    left_out: AtomicU32,
}

impl Throttle {
    pub fn new() -> Self {
        Self { started: Instant::now(), budgets: Default::default() }
    }

    /// `Some` if a line of this cause may be written, with how many were left out since the last one, if any were.
    /// Threads that race when a second begins may write a line more.
    pub fn line(&self, cause: Cause) -> Option<Option<NonZeroU32>> {
        self.budgets[cause as usize].line(self.started.elapsed().as_secs())
    }

    /// Tells at intervals how many lines were left out, for ever.
    pub async fn keep_reporting(&self) -> Infallible {
        loop {
            sleep(REPORT_INTERVAL).await;
            for (cause, left_out) in self.left_out() {
                info!(left_out, "{}: not all were logged", cause.name());
            }
        }
    }

    /// What was left out and not told, by cause; it counts as told from now on.
    fn left_out(&self) -> impl Iterator<Item = (Cause, NonZeroU32)> {
        Cause::ALL
            .into_iter()
            .filter_map(|cause| Some((cause, self.budgets[cause as usize].take_left_out()?)))
    }
}

impl Budget {
    fn line(&self, second: u64) -> Option<Option<NonZeroU32>> {
        if self.second.swap(second, Relaxed) != second {
            self.lines.store(0, Relaxed);
        }
        if self.lines.fetch_add(1, Relaxed) < LINES_PER_SECOND {
            return Some(self.take_left_out());
        }
        self.left_out.fetch_add(1, Relaxed);
        None
    }

    fn take_left_out(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.left_out.swap(0, Relaxed))
    }
}

/// A text from a client, as much of it as goes into a log line.
pub(crate) fn clip(text: &str) -> &str {
    const LONGEST: usize = 100;
    &text[..text.floor_char_boundary(LONGEST)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(number: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(number)
    }

    #[test]
    fn lines_are_bounded_and_counted() {
        let budget = Budget::default();
        let written: Vec<_> = (0..100).filter_map(|_| budget.line(0)).collect();
        assert_eq!(written, [None; 10]);
        assert_eq!(budget.line(1), Some(count(90)));
        assert_eq!(budget.line(1), Some(None));
    }

    #[test]
    fn a_flood_of_one_cause_hides_no_other() {
        let throttle = Throttle::new();
        for _ in 0..1_000 {
            throttle.line(Cause::Closed);
        }
        assert_eq!(throttle.line(Cause::LogIn), Some(None));
    }

    #[test]
    fn what_is_left_out_is_told_once_though_no_line_follows() {
        let throttle = Throttle::new();
        let budget = &throttle.budgets[Cause::LogIn as usize];
        for _ in 0..15 {
            budget.line(7);
        }
        let told: Vec<_> = throttle.left_out().collect();
        assert_eq!(told, [(Cause::LogIn, NonZeroU32::new(5).unwrap())]);
        assert_eq!(throttle.left_out().count(), 0);
        assert_eq!(budget.line(8), Some(None));
    }
}
