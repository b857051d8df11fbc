//! A request that this gateway runs, and no other of those that are one service.

use super::journal::outcome;
use crate::fingerprint::Fingerprint;
use crate::shared::{SharedName, SharedOutcomes};
use bytes::Bytes;
use offload_journal::RecordId;
use offload_protocol::answer::Answer;
use std::sync::Arc;

/// A request that this gateway runs, as all gateways know it. Dropped, it is another one's to run.
pub struct Claimed {
    outcomes: Arc<dyn SharedOutcomes>,
    name: SharedName,
    fingerprint: Fingerprint,
    has_ended: bool,
}

impl Claimed {
    /// Claimed there, under this name.
    pub fn new(outcomes: Arc<dyn SharedOutcomes>, name: SharedName, fingerprint: Fingerprint) -> Claimed {
        Claimed { outcomes, name, fingerprint, has_ended: false }
    }

    /// Shares the outcome; `then` is given the one that all gateways give.
    pub fn keep(
        mut self,
        outcome: outcome::Encoded,
        answer: Answer,
        then: impl FnOnce(Answer) + Send + 'static,
    ) {
        self.has_ended = true;
        let then = Box::new(move |won| then(decode(won).unwrap_or(answer)));
        self.outcomes.keep(self.name.clone(), self.fingerprint, outcome.into_bytes(), then);
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if !self.has_ended {
            self.outcomes.release(self.name.clone());
        }
    }
}

/// The answer of an outcome as it is shared.
pub fn decode(outcome: Bytes) -> Option<Answer> {
    outcome::decode(outcome, RecordId(0)).map(|(remembered, _)| remembered.answer)
}
