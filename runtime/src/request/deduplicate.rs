//! Whether the request has come before, under the same `id`.

use super::answer::{PendingAnswer, Refusal, Registered, Repetition};
use super::decode::Asked;
use super::identify::Identified;
use crate::deduplication::{Deduplicator, Registration};
use crate::modules::Digest;
use crate::suspects::Watched;
use crate::wasm::workers::Waiting;
use offload_protocol::error::WireError;
use std::sync::Arc;

/// A request that is to be run: the first of its name, or one without a name.
pub struct First {
    pub asked: Asked,
    pub pending: PendingAnswer,
    pub waiting: Waiting,
    pub digest: Option<Digest>,
    pub watched: Option<Watched>,
}

/// Registers a request that has a name. `None` for a repetition: it is answered, now or with the one that runs.
pub fn deduplicate(
    identified: Identified,
    deduplicator: &Arc<Deduplicator<Repetition>>,
) -> Result<Option<First>, Refusal> {
    let Identified { asked, pending, waiting, digest, name, watched } = identified;
    let Some((key, fingerprint)) = name else {
        return Ok(Some(First { asked, pending, waiting, digest, watched }));
    };
    match deduplicator.begin(&key, fingerprint, Repetition { pending, waiting }, asked.arrived) {
        Registration::First(Repetition { mut pending, waiting }) => {
            let account = asked.client.account.clone();
            pending.registration = Some(Registered::new(deduplicator.clone(), key, account));
            Ok(Some(First { asked, pending, waiting, digest, watched }))
        }
        Registration::InFlight => Ok(None),
        Registration::Done(repetition, answer) => {
            repetition.answer(answer);
            Ok(None)
        }
        Registration::Conflict(Repetition { pending, waiting }) => {
            let error = WireError::malformed("id", "another request had this id a short time ago");
            Err(Refusal::of_waiting(pending, error, waiting))
        }
    }
}
