//! A request that ends another one of its client.

use super::answer::{Refusal, RequestDeduplicator};
use super::deduplicate::First;
use super::identify::key;
use super::services::Services;
use super::tasks::Tasks;
use crate::deduplication::{Cancelling, Key, ReplyTo};
use crate::request::answer::Repetition;
use crate::stopping::stopping_error;
use crate::wasm::workers::Workers;
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::{Code, RequestId};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Ends the request that this one is to cancel: it is answered when that one is. Returns any other request. What an
/// earlier process has left is waited for before something is said not to be there.
pub fn cancel(
    first: First,
    services: &Services,
    recovered: &CancellationToken,
    tasks: &Tasks,
) -> Result<Option<First>, Refusal> {
    let Code::Cancel(id) = &first.asked.request.code else { return Ok(Some(first)) };
    if first.asked.destination.is_some() {
        // It goes where the other one has gone.
        return Ok(Some(first));
    }
    let key = match first.asked.sealed_until {
        // Neither knows of the other's names.
        Some(_) => Some(Key { principal: None, reply_to: ReplyTo::Sealed, id: id.clone() }),
        None => key(&first.asked.client, &first.asked.reply_id, id),
    };
    let id = id.clone();
    let canceller = Repetition { pending: first.pending, waiting: first.waiting };
    let Some(key) = key else { return Err(not_found(&id, canceller)) };
    let target =
        Target { id, key, deduplicator: services.deduplicator.clone(), workers: services.workers.clone() };
    // Asked first: what is left by then is known to the deduplicator.
    let is_recovered = recovered.is_cancelled();
    match target.cancel(canceller) {
        Ok(()) => Ok(None),
        Err(Failed::Refused(refusal)) => Err(refusal),
        Err(Failed::NotFound(canceller)) if is_recovered => Err(not_found(&target.id, *canceller)),
        Err(Failed::NotFound(canceller)) => {
            tasks.spawn(wait(target, *canceller, recovered.clone(), tasks.stopped()));
            Ok(None)
        }
    }
}

/// The request that is to end.
struct Target {
    id: RequestId,
    key: Key,
    deduplicator: Arc<RequestDeduplicator>,
    workers: Arc<Workers>,
}

/// Why it is not cancelled.
enum Failed {
    NotFound(Box<Repetition>),
    Refused(Refusal),
}

impl Target {
    fn cancel(&self, canceller: Repetition) -> Result<(), Failed> {
        match self.deduplicator.cancel(&self.key, canceller) {
            Cancelling::Begun(cancellation) => {
                self.workers.cancel(&cancellation);
                Ok(())
            }
            Cancelling::NotFound(canceller) => Err(Failed::NotFound(Box::new(canceller))),
            Cancelling::TooMany(canceller) => {
                let message = "too many requests cancel this one already, try again after 1 s";
                Err(Failed::Refused(canceller.refuse(WireError::new(ErrorKind::Busy, message))))
            }
        }
    }
}

async fn wait(target: Target, canceller: Repetition, recovered: CancellationToken, stop: CancellationToken) {
    let refusal = tokio::select! {
        () = recovered.cancelled() => match target.cancel(canceller) {
            Ok(()) => return,
            Err(Failed::Refused(refusal)) => refusal,
            Err(Failed::NotFound(canceller)) => not_found(&target.id, *canceller),
        },
        () = stop.cancelled() => canceller.refuse(stopping_error()),
    };
    refusal.answer();
}

fn not_found(id: &RequestId, canceller: Repetition) -> Refusal {
    let message = format!("no request `{id}` of this client waits or runs");
    canceller.refuse(WireError::new(ErrorKind::NotFound, message))
}
