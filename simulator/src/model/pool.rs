//! Compilers, and sandboxes: what takes long and is shared out by the runtime's own permits ([`Permits`]). A job at
//! full priority has a core; those that are demoted share what cores are left.

use std::collections::BTreeMap;

use offload_policy::{Change, PermitId, PermitLimits, Permits, Shares, Stage, Urgency};

use super::order::{Key, Order};
use crate::clock::{Nanos, from_policy, policy_time};

/// What of the jobs that have begun one device and one account may have, as in the runtime.
pub const SHARES: Shares = Shares { flow: 25, account: 50 };

/// A job that needs a permit.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// For which request it is.
    pub order: Order,
    /// Whether it makes a module, or runs one.
    pub makes: bool,
    /// Time on a core.
    pub length: Nanos,
}

/// What has happened since the last look.
#[derive(Debug, Default)]
pub struct Progress {
    /// Jobs that have begun.
    pub begun: Vec<Work>,
    /// Jobs that have ended.
    pub ended: Vec<Work>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Pool {
    permits: Permits<Key, Work>,
    running: BTreeMap<PermitId, Running>,
    cores: usize,
    /// Until when the work of those that run is counted.
    counted: Nanos,
}

#[derive(Debug)]
struct Running {
    work: Work,
    /// In nanoseconds.
    remaining: f64,
    stage: Stage,
}

impl Pool {
    /// Nothing has begun.
    pub fn new(limits: PermitLimits) -> Self {
        let cores = limits.concurrency;
        Self { permits: Permits::new(limits), running: BTreeMap::new(), cores, counted: 0 }
    }

    /// A job waits for its permit.
    pub fn request(&mut self, work: Work) {
        self.permits.request(work.order.key, work, Urgency::Awaited);
    }

    /// Jobs that wait for a permit, and those that have one.
    pub fn load(&self) -> (usize, usize) {
        (self.permits.waiting(), self.running.len())
    }

    /// What has happened by now: to be called after each [`request`](Self::request), and when it is [due](Self::due).
    pub fn advance(&mut self, now: Nanos) -> Progress {
        let mut progress = Progress::default();
        let elapsed = now.saturating_sub(self.counted) as f64;
        let demoted = self.demoted_speed();
        for running in self.running.values_mut() {
            running.remaining -= elapsed * running.stage.speed(demoted);
        }
        self.counted = now;
        loop {
            // Half a nanosecond is what rounding leaves.
            let ended = self.running.iter().filter(|(_, running)| running.remaining < 0.5).map(|(id, _)| *id);
            for id in ended.collect::<Vec<_>>() {
                self.permits.release(id);
                progress.ended.extend(self.running.remove(&id).map(|running| running.work));
            }
            let changes = self.permits.advance(policy_time(now));
            if changes.is_empty() {
                return progress;
            }
            for change in changes {
                match change {
                    Change::Granted(id, work, stage) => {
                        progress.begun.push(work);
                        self.running.insert(id, Running { work, remaining: work.length as f64, stage });
                    }
                    Change::Moved(id, stage) => {
                        if let Some(running) = self.running.get_mut(&id) {
                            running.stage = stage;
                        }
                    }
                }
            }
        }
    }

    /// When something happens next by itself.
    pub fn due(&self, now: Nanos) -> Option<Nanos> {
        let demoted = self.demoted_speed();
        let ends = self.running.values().filter_map(|running| {
            let speed = running.stage.speed(demoted);
            (speed > 0.0).then(|| now + ((running.remaining / speed) as Nanos).max(1))
        });
        ends.chain(self.permits.next_deadline(policy_time(now)).map(from_policy)).min()
    }

    /// All jobs, which are gone.
    pub fn drain(&mut self) -> Vec<Work> {
        let mut all: Vec<Work> = self.running.values().map(|running| running.work).collect();
        self.permits.retain_waiting(|work| {
            all.push(*work);
            false
        });
        all
    }

    /// What one that is demoted gets of a core.
    fn demoted_speed(&self) -> f64 {
        let at = |stage| self.running.values().filter(|running| running.stage == stage).count();
        let left = self.cores.saturating_sub(at(Stage::Full));
        (left as f64 / at(Stage::Demoted).max(1) as f64).min(1.0)
    }
}

/// How fast a job goes.
trait Speed {
    fn speed(self, demoted: f64) -> f64;
}

impl Speed for Stage {
    fn speed(self, demoted: f64) -> f64 {
        match self {
            Stage::Full => 1.0,
            Stage::Demoted => demoted,
            Stage::Stopped => 0.0,
        }
    }
}
