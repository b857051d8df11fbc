//! What is handed to the workers, and what becomes of it.

use super::artifact::Artifact;
use super::guest::{Budget, Ended, Input};
use crate::cancellation::Cancellation;
use crate::flow::Flow;
use crate::suspects::Watched;
use offload_policy::Load;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What fairness and quotas are kept by.
pub type Key = Flow;

/// One guest to run.
pub struct Job {
    /// Whose it is.
    pub key: Key,
    /// What it was admitted with.
    pub load: Load,
    /// The compiled module.
    pub artifact: Arc<Artifact>,
    /// What the guest is given.
    pub input: Arc<Input>,
    /// What it may use.
    pub budget: Budget,
    /// When the request arrived.
    pub arrived: Instant,
    /// When its answer is no longer of use; also bounds its run.
    pub deadline: Option<Instant>,
    /// What knows it again if it crashes the gateway.
    pub watched: Option<Watched>,
    /// What tells that it is cancelled, if it can be.
    pub cancellation: Option<Arc<Cancellation>>,
    /// Whether it ran on a worker that was lost: once it is run again, and not twice.
    pub was_lost: bool,
    /// Takes the outcome, on the worker's thread. Called at most once; dropped where the worker panics with it in hand.
    pub done: Box<dyn FnOnce(RunOutcome) + Send>,
}

impl Job {
    /// Whether it is not to be run, or to end.
    pub fn is_cancelled(&self) -> bool {
        self.cancellation.as_ref().is_some_and(|cancellation| cancellation.is_cancelled())
    }
}

/// What became of a job.
pub enum RunOutcome {
    /// It ran.
    Ran {
        /// How it ended.
        ended: Ended,
        /// Wall-clock time from its first slice to its end.
        run: Duration,
        /// Time from arrival to its first slice.
        queued: Duration,
    },
    /// Its deadline came before a slot did.
    Expired,
    /// The gateway stopped, or it was cancelled, before it could start.
    NotStarted,
    /// The gateway stopped while it ran.
    Stopped,
}
