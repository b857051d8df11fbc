//! How many builds and runs there are at a time, and for whom.

use crate::client::Client;
use crate::config;
use crate::fair_semaphore::{FairSemaphore, Permit, SHARES};
use offload_policy::{PermitLimits, Urgency};

/// Builds at once that are for comparison alone, beside those of `[sandbox] concurrency`.
const BUILDS_TO_COMPARE: usize = 1;

/// What a build is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client waits for the answer.
    Answer,
    /// The result is compared, and nobody waits for it.
    Comparison,
}

/// The permits of builds and runs.
pub struct SourcePermits {
    answers: FairSemaphore,
    /// Builds for comparison have permits of their own: they never keep an answer waiting.
    comparisons: FairSemaphore,
}

impl SourcePermits {
    /// As many as the configuration says.
    pub fn new(config: &config::Sandbox) -> SourcePermits {
        SourcePermits {
            answers: semaphore(config, config.concurrency, config.places()),
            comparisons: semaphore(config, BUILDS_TO_COMPARE, BUILDS_TO_COMPARE),
        }
    }

    /// Waits for a permit.
    pub async fn acquire(&self, client: &Client, purpose: Purpose) -> Permit {
        let semaphore = match purpose {
            Purpose::Answer => &self.answers,
            Purpose::Comparison => &self.comparisons,
        };
        semaphore.acquire(client, Urgency::Awaited).await
    }
}

/// `at_once` permits run at full speed. What has held one for longer than `sandbox.hold` goes on beside them, up to
/// `slots` in all: the sandbox stops none, since one that sleeps costs no time and one that computes gives way to all
/// others.
fn semaphore(config: &config::Sandbox, at_once: usize, slots: usize) -> FairSemaphore {
    FairSemaphore::new(PermitLimits {
        concurrency: at_once,
        quantum: config.hold.duration().into(),
        slots,
        shares: SHARES,
        round: None,
    })
}
