//! The line that says how it goes, for who waits at a terminal.

use std::convert::Infallible;
use std::future::pending;
use std::io::{IsTerminal, stderr};
use std::ops::Deref;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

use super::schedule::Schedule;
use super::summary::time;
use super::tally::Tally;

/// Between two looks at the figures.
const TICK: Duration = Duration::from_millis(250);

/// Shows it on stderr until it is dropped, which clears the line; nothing where stderr is no terminal.
pub async fn show<T: Deref<Target = Tally>>(schedule: &Schedule, tally: impl Fn() -> T) -> Infallible {
    if !stderr().is_terminal() {
        return pending().await;
    }
    let style = ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is well-formed");
    let line = Line(ProgressBar::new_spinner().with_style(style));
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = (Instant::now(), 0);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let message = match schedule.begin().checked_duration_since(now) {
            Some(left) if !left.is_zero() => format!("warm-up, {} s left", left.as_secs() + 1),
            _ => {
                let tally = tally();
                let rate = (tally.right - before.1) as f64 / (now - before.0).as_secs_f64();
                before = (now, tally.right);
                figures(schedule, &tally, now, rate)
            }
        };
        line.0.set_message(message);
        line.0.tick();
    }
}

struct Line(ProgressBar);

impl Drop for Line {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Begins with what matters most: a narrow terminal shows no more.
fn figures(schedule: &Schedule, tally: &Tally, now: Instant, rate: f64) -> String {
    let elapsed = (now - schedule.begin()).as_secs();
    let of = schedule.planned().map(|planned| format!("/{}", planned.as_secs())).unwrap_or_default();
    let p99 = time(tally.latency.value_at_quantile(0.99));
    let mut line = format!("{elapsed}{of} s  {rate:.0}/s  p99 {p99}  {} in flight", tally.in_flight());
    for (count, what) in
        [(tally.failed(), "failed"), (tally.lost.count, "lost"), (schedule.untaken(now), "to send")]
    {
        if count > 0 {
            line.push_str(&format!("  {count} {what}"));
        }
    }
    line
}
