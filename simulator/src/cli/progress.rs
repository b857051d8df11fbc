//! A progress bar on a terminal: simulated time and real time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::clock::Nanos;
use crate::replicas::Watcher;
use crate::scenario::units::Time;

/// Steps of the bar.
const STEPS: u64 = 1_000;

/// How far replicas are.
pub struct Progress {
    bar: ProgressBar,
    duration: Nanos,
    /// By replica: the virtual time that it has come to.
    times: Vec<AtomicU64>,
    started: Instant,
}

impl Progress {
    /// Of replicas that take this much virtual time each. Nothing is shown where standard error is no terminal.
    pub fn new(replicas: usize, duration: Nanos) -> Self {
        Self::of("", replicas, duration)
    }

    /// The same of one simulation of several, which is called so.
    pub fn of(what: &str, replicas: usize, duration: Nanos) -> Self {
        let bar = ProgressBar::new(STEPS);
        if let Ok(style) =
            ProgressStyle::with_template("{prefix}{bar:30} {percent:>3} %  {msg}  {elapsed} (left: {eta})")
        {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_owned());
        let times = std::iter::repeat_with(AtomicU64::default).take(replicas).collect();
        Self { bar, duration, times, started: Instant::now() }
    }

    /// All is done: the bar goes, and what it took is told, where somebody may look.
    pub fn finish(&self, events: u64) {
        let is_hidden = self.bar.is_hidden();
        self.bar.finish_and_clear();
        if !is_hidden {
            let took = self.started.elapsed().as_secs_f64();
            let rate = events as f64 / took / 1e6;
            eprintln!("{events} events in {took:.1} s: {rate:.2} million a second");
        }
    }
}

/// A simulation of several leaves nothing behind.
impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Watcher for Progress {
    fn at(&self, replica: usize, now: Nanos) -> bool {
        self.times[replica].store(now, Ordering::Relaxed);
        let done: u64 = self.times.iter().map(|time| time.load(Ordering::Relaxed) / 1_000).sum();
        let all = self.duration / 1_000 * self.times.len() as u64;
        self.bar.set_position((done as f64 / all.max(1) as f64 * STEPS as f64) as u64);
        let seconds = now / crate::clock::SECOND * crate::clock::SECOND;
        self.bar.set_message(format!("{} simulated", Time(seconds)));
        true
    }
}
