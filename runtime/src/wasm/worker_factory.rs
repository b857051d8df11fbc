//! What makes a worker: at start, and again when it has panicked.

use super::artifact::Artifact;
use super::engine;
use super::linking::Linkers;
use super::scheduler::Scheduler;
use super::ticker::Ticks;
use super::worker::Worker;
use crate::config::capacity::LoadedLimits;
use crate::config::{Compiler, Limits};
use crate::flow::Name;
use std::sync::Arc;

/// The account of what is loaded at start.
const GATEWAY: &str = "";

/// Makes the workers of one gateway.
pub struct WorkerFactory {
    /// Slots of each.
    pub slots: usize,
    /// What guests may use.
    pub limits: Limits,
    /// What modules may have.
    pub compiler: Compiler,
    /// What each keeps loaded.
    pub loaded: LoadedLimits,
    /// Baseline code runs on one engine for all.
    pub baseline: Option<Arc<Linkers>>,
    /// What each has loaded from its start.
    pub warm: Vec<Arc<Artifact>>,
    /// What they share.
    pub scheduler: Arc<Scheduler>,
}

impl WorkerFactory {
    /// The worker of this number, with an engine of its own, for which `ticks` are from now on.
    ///
    /// # Errors
    ///
    /// When the address space of its pool cannot be reserved.
    pub fn make(&self, index: usize, ticks: &Ticks) -> wasmtime::Result<Worker> {
        let engine = engine::worker(self.slots, &self.limits, &self.compiler)?;
        ticks.set_engine(Some(engine.clone()));
        let linkers = Linkers::new(engine)?;
        let (scheduler, baseline) = (self.scheduler.clone(), self.baseline.clone());
        let mut worker = Worker::new(index, scheduler, ticks.clone(), linkers, baseline, self.loaded);
        let gateway = Name::from(GATEWAY);
        for artifact in &self.warm {
            worker.warm(artifact, &gateway);
        }
        Ok(worker)
    }
}
