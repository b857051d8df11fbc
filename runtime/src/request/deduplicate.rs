//! Whether the request has come before, under the same `id`.

use super::answer::{PendingAnswer, Refusal, Registered, Repetition, RequestDeduplicator};
use super::decode::Asked;
use super::identify::Identified;
use super::journal::RequestJournal;
use crate::deduplication::Registration;
use crate::modules::Digest;
use crate::suspects::Watched;
use crate::wasm::workers::Waiting;
use offload_protocol::error::{ErrorKind, WireError};
use std::sync::Arc;
use std::time::Instant;

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
    deduplicator: &Arc<RequestDeduplicator>,
    journal: Option<&Arc<RequestJournal>>,
) -> Result<Option<First>, Refusal> {
    let Identified { asked, pending, waiting, digest, name, watched } = identified;
    let Some((key, fingerprint)) = name else {
        return Ok(Some(First { asked, pending, waiting, digest, watched }));
    };
    let kept = pending.way_back.kept.clone();
    let repetition = Repetition { pending, waiting };
    let registration = match asked.sealed_until {
        Some(until) => {
            let sealed = (until, &asked.client.account);
            deduplicator.begin_sealed(&key, fingerprint, sealed, repetition, Instant::now())
        }
        None => deduplicator.begin(&key, fingerprint, repetition, asked.arrived),
    };
    match registration {
        Registration::First(Repetition { mut pending, waiting }) => {
            let account = asked.client.account.clone();
            let registered =
                Registered::new(deduplicator.clone(), journal.cloned(), key, fingerprint, account);
            pending.registration = Some(registered);
            Ok(Some(First { asked, pending, waiting, digest, watched }))
        }
        Registration::InFlight => {
            // It has a record of its own: its answer goes a way of its own. One that the journal does not take is
            // acknowledged with its answer.
            let _ = kept.map(|kept| kept.put());
            Ok(None)
        }
        Registration::Done(repetition, answer) => {
            repetition.answer(answer);
            Ok(None)
        }
        Registration::Prolonged(repetition, answer, record) => {
            let account = asked.client.account.clone();
            Registered::new(deduplicator.clone(), journal.cloned(), key, fingerprint, account)
                .prolong(repetition, answer, record);
            Ok(None)
        }
        Registration::Full(Repetition { pending, waiting }, wait) => {
            let wait = wait.as_secs();
            let message = format!(
                "as many sealed requests are remembered as there is room for (idempotency.sealed, idempotency.bytes), \
                 try again after {wait} s"
            );
            Err(Refusal::of_waiting(pending, WireError::new(ErrorKind::Busy, message), waiting))
        }
        Registration::Conflict(Repetition { pending, waiting }) => {
            let error = WireError::malformed("id", "another request had this id a short time ago");
            Err(Refusal::of_waiting(pending, error, waiting))
        }
    }
}
