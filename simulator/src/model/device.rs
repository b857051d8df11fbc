//! A device: when it sends next.

use crate::clock::Nanos;
use crate::random::Stream;
use crate::scenario::{Arrival, DeviceGroup, Surge};

/// One device. There may be a million: what all of a group have is in the group.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its random numbers.
    pub random: Stream,
    /// When its arrival process is due next, jitter aside; the number of the next line of a trace.
    next: Nanos,
    /// Its group's number.
    pub group: u32,
    /// Its own, of all in the scenario.
    pub number: u32,
}

impl Device {
    /// The device of this number, of all in the scenario.
    pub fn new(seed: u64, number: u32, group: u32) -> Self {
        Self { random: Stream::new(seed, "device", number.into()), next: 0, group, number }
    }

    /// When its arrival process is first due; a device that thinks begins as if it had been thinking.
    pub fn first(&mut self, group: &DeviceGroup) -> Option<Nanos> {
        match &group.arrival {
            Arrival::Periodic { every, .. } => {
                self.next = self.random.below(*every);
                Some(self.late(group))
            }
            Arrival::Trace(times) => times.first().copied(),
            Arrival::Think { mean } => Some(self.memoryless(*mean, group.surge, 0)),
            _ => self.following(group, 0),
        }
    }

    /// When its arrival process is due after `now`, when it was; `None` where it thinks only when it has its answer, or
    /// where its trace is at its end.
    #[inline(always)]
    pub fn following(&mut self, group: &DeviceGroup, now: Nanos) -> Option<Nanos> {
        match &group.arrival {
            Arrival::Periodic { every, .. } => {
                self.next += (*every as f64 / factor(group.surge, now)) as Nanos;
                Some(self.late(group).max(now))
            }
            Arrival::Poisson { between } => Some(self.memoryless(*between, group.surge, now)),
            Arrival::Burst { every, .. } => Some(self.memoryless(*every, group.surge, now)),
            Arrival::Think { .. } => None,
            Arrival::Trace(times) => {
                self.next += 1;
                times.get(self.next as usize).copied()
            }
        }
    }

    /// The number of the line of its trace that is due.
    pub fn trace_line(&self) -> u64 {
        self.next
    }

    fn late(&mut self, group: &DeviceGroup) -> Nanos {
        let Arrival::Periodic { jitter, .. } = group.arrival else { return self.next };
        self.next + if jitter == 0 { 0 } else { self.random.below(jitter) }
    }

    /// When a process without memory is due after `now`. It may be drawn anew where its rate changes.
    #[inline(always)]
    pub fn memoryless(&mut self, mean: Nanos, surge: Option<Surge>, now: Nanos) -> Nanos {
        match surge {
            Some(surge) => self.memoryless_in(mean, surge, now),
            None => now.saturating_add(self.random.exponential_time(mean)),
        }
    }

    /// Drawn anew where its rate changes.
    #[cold]
    fn memoryless_in(&mut self, mean: Nanos, surge: Surge, mut now: Nanos) -> Nanos {
        loop {
            let mean = (mean as f64 / factor(Some(surge), now)) as Nanos;
            let at = now.saturating_add(self.random.exponential_time(mean));
            let changes = [surge.at, surge.at.saturating_add(surge.lasts)];
            match changes.into_iter().find(|change| *change > now) {
                Some(change) if at > change => now = change,
                _ => return at,
            }
        }
    }
}

/// How many times as often devices send now.
fn factor(surge: Option<Surge>, now: Nanos) -> f64 {
    match surge {
        Some(Surge { at, lasts, factor }) if now >= at && now - at < lasts => factor,
        _ => 1.0,
    }
}
