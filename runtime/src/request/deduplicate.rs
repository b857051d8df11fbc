//! Whether the request has come before, under the same `id`.

use super::answer::{Names, PendingAnswer, Refusal, Registered, Repetition, WayBack};
use super::decode::Asked;
use super::identify::Identified;
use super::services::Services;
use crate::cancellation::Cancellation;
use crate::deduplication::Registration;
use crate::modules::Digest;
use crate::stream::{EndOfStream, Stream};
use crate::suspects::Watched;
use crate::wasm::workers::Waiting;
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::{Code, ReplyForm};
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
pub fn deduplicate(identified: Identified, services: &Services) -> Result<Option<First>, Refusal> {
    let (deduplicator, journal) = (&services.deduplicator, services.journal.as_ref());
    let Identified { asked, pending, waiting, digest, name, watched } = identified;
    let Some((key, fingerprint)) = name else {
        return Ok(Some(First { asked, pending, waiting, digest, watched }));
    };
    let kept = pending.way_back.kept.clone();
    let repetition = Repetition { pending, waiting };
    // A request that cancels another one has nothing to end, and what has begun with the modules is finished.
    let runs = !matches!(asked.request.code, Code::Cancel(_) | Code::Modules(_));
    let cancellation = runs.then(Arc::<Cancellation>::default);
    let streams = asked.request.reply == ReplyForm::Stream && asked.destination.is_none();
    let registration = match asked.sealed_until {
        Some(until) => {
            let sealed = (until, &asked.client.account);
            let now = Instant::now();
            deduplicator.begin_sealed(&key, fingerprint, sealed, repetition, cancellation.clone(), now)
        }
        None => deduplicator.begin(&key, fingerprint, repetition, cancellation.clone(), asked.arrived),
    };
    match registration {
        Registration::First(Repetition { mut pending, waiting }) => {
            let account = asked.client.account.clone();
            let names = Names { key, fingerprint, account };
            pending.stream = streams.then(|| stream(&pending.way_back)).flatten().map(EndOfStream);
            pending.registration =
                Some(Registered::new(deduplicator.clone(), journal.cloned(), names, cancellation));
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
            let names = Names { key, fingerprint, account: asked.client.account.clone() };
            let registered = Registered::new(deduplicator.clone(), journal.cloned(), names, None);
            registered.prolong(repetition, answer, record, services.shared.as_ref());
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
        Registration::Conflict(Repetition { pending, waiting }) => Err(conflict(pending, waiting)),
    }
}

/// Another request had the `id` of this one.
pub fn conflict(pending: PendingAnswer, waiting: Waiting) -> Refusal {
    let error = WireError::malformed("id", "another request had this id a short time ago");
    Refusal::of_waiting(pending, error, waiting)
}

/// The stream of a request that is answered this way. Nothing is left of the connection that asked where an earlier
/// process has kept it: then there is none.
fn stream(way_back: &WayBack) -> Option<Arc<Stream>> {
    let parts = way_back.responder.as_ref()?.parts()?;
    let address = &way_back.address;
    Some(Stream::new(parts, &address.topic, way_back.id.as_ref()?.as_str(), address.max_payload))
}
