//! A request as all gateways know it that are one service, and its outcome among them.
//!
//! Of a sealed request they see what nobody can read who does not have its `id`, which whoever opens it has: the hash
//! of that is its name, a key that derives from it seals the outcome, and it hides the fingerprint.

use super::journal::outcome;
use crate::deduplication::{Key, ReplyTo};
use crate::fingerprint::{Fingerprint, Fingerprinter};
use crate::shared::{Claim, KeptOutcome, OnCancelled, Shared, SharedName, SharedOutcomes};
use bytes::Bytes;
use offload_broker::BoxFuture;
use offload_journal::RecordId;
use offload_protocol::answer::Answer;
use offload_seal::AnswerKey;
use std::sync::Arc;

/// A request that this gateway is to run, as all gateways know it. Dropped after it was claimed, it is another one's to
/// run.
pub struct Claimed {
    outcomes: Arc<dyn SharedOutcomes>,
    name: SharedName,
    fingerprint: Fingerprint,
    /// What seals the outcome of a sealed request.
    secret: Option<AnswerKey>,
    has_ended: bool,
}

/// What the other gateways know of an outcome.
pub enum Kept {
    /// They give it too.
    Ours,
    /// They give this one.
    Theirs(Answer),
    /// Nothing.
    Unshared,
}

impl Claimed {
    /// The request of this name, which is not claimed yet.
    pub fn of(shared: &Shared, key: &Key, fingerprint: Fingerprint) -> Claimed {
        Claimed {
            outcomes: outcomes(shared, key).clone(),
            name: name(key),
            fingerprint: shown(key, fingerprint),
            secret: secret(key),
            has_ended: false,
        }
    }

    /// Claims it. `on_cancelled` is called when another gateway has cancelled it.
    pub fn claim(&self, on_cancelled: Option<OnCancelled>) -> BoxFuture<'_, Claim> {
        self.outcomes.claim(self.name.clone(), self.fingerprint, on_cancelled)
    }

    /// What seals its outcome, if it is sealed.
    pub fn secret(&self) -> Option<&AnswerKey> {
        self.secret.as_ref()
    }

    /// Bytes of the largest outcome that can be shared.
    pub fn max_outcome(&self) -> usize {
        self.outcomes.max_outcome()
    }

    /// Shares the outcome; `then` is told what all gateways give.
    pub fn keep(mut self, outcome: outcome::Encoded, then: impl FnOnce(Kept) + Send + 'static) {
        self.has_ended = true;
        let (outcomes, name, fingerprint) = (self.outcomes.clone(), self.name.clone(), self.fingerprint);
        let then = move |kept| {
            then(match kept {
                KeptOutcome::Ours => Kept::Ours,
                KeptOutcome::Theirs(theirs) => self.decode(theirs).map_or(Kept::Ours, Kept::Theirs),
                KeptOutcome::Unshared => Kept::Unshared,
            });
        };
        outcomes.keep(name, fingerprint, outcome.into_bytes(), Box::new(then));
    }

    /// The answer of an outcome as it is shared.
    pub fn decode(&self, outcome: Bytes) -> Option<Answer> {
        let remembered = match &self.secret {
            Some(secret) => outcome::decode_sealed(outcome, RecordId(0), secret),
            None => outcome::decode(outcome, RecordId(0)).map(|(remembered, _)| remembered),
        };
        remembered.map(|remembered| remembered.answer)
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if !self.has_ended {
            self.outcomes.release(self.name.clone());
        }
    }
}

/// Where the gateways have the outcome of this request.
pub fn outcomes<'s>(shared: &'s Shared, key: &Key) -> &'s Arc<dyn SharedOutcomes> {
    if key.reply_to == ReplyTo::Sealed { &shared.sealed } else { &shared.outcomes }
}

/// The fingerprint of this request as the gateways show it each other.
pub fn shown(key: &Key, fingerprint: Fingerprint) -> Fingerprint {
    match key.reply_to {
        ReplyTo::Sealed => hidden(key, "print", &fingerprint.0),
        _ => fingerprint,
    }
}

/// What seals the outcome of this request, if it is sealed.
pub fn secret(key: &Key) -> Option<AnswerKey> {
    (key.reply_to == ReplyTo::Sealed).then(|| AnswerKey::new(&hidden(key, "secret", &[]).0))
}

/// What a request is called among the gateways.
pub fn name(key: &Key) -> SharedName {
    let (kind, reply_to) = match &key.reply_to {
        ReplyTo::Id(id) => ("id", &**id),
        ReplyTo::Connection(client_id) => ("connection", &**client_id),
        ReplyTo::Sealed => ("sealed", ""),
    };
    let principal = key.principal.iter().map(|principal| principal.as_bytes());
    let name = Fingerprinter::new("shared outcome").list(principal).part(kind.as_bytes());
    name.part(reply_to.as_bytes()).part(key.id.as_str().as_bytes()).finish().to_hex().into()
}

/// What only whoever has the `id` can compute.
fn hidden(key: &Key, what: &str, of: &[u8]) -> Fingerprint {
    let id = key.id.as_str().as_bytes();
    Fingerprinter::new("shared sealed outcome").part(what.as_bytes()).part(id).part(of).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use offload_protocol::request::RequestId;

    #[test]
    fn the_other_gateways_broker_sees_nothing_of_a_sealed_request() {
        let key = |id: &str| Key {
            principal: None,
            reply_to: ReplyTo::Sealed,
            id: RequestId::try_from(id).unwrap(),
        };
        let (a, b) = (key("0123456789abcdefghijkl"), key("0123456789abcdefghijkm"));
        let print = [7; 32];
        let all = [hidden(&a, "print", &print), hidden(&b, "print", &print), hidden(&a, "secret", &[])];
        assert!(all[0] != all[1] && all[0] != all[2] && all[0].0 != print);
        assert!(all.iter().all(|hidden| hidden.to_hex() != *name(&a)));
        assert_eq!(hidden(&a, "print", &print), all[0], "on all gateways");
    }
}
