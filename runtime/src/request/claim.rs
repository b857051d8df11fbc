//! Whether the request is this gateway's to run, where several gateways are one service.

use super::answer::{Refusal, expired_error};
use super::claimed::Claimed;
use super::deduplicate::{First, conflict};
use super::services::Services;
use crate::deadline::reached;
use crate::shared::{Claim, Shared};
use crate::stopping::stopping_error;
use crate::wasm::workers::Workers;
use offload_protocol::error::{ErrorKind, WireError};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Whether a request has to be claimed, and with whom.
pub fn to_be_claimed<'s>(first: &First, services: &'s Services) -> Option<&'s Shared> {
    services.shared.as_ref().filter(|_| first.pending.registration.is_some())
}

/// Claims the request. `None` for one that is answered with the outcome that another gateway has. One that is not
/// claimed when the gateway stops is another one's. `workers` have it where it is cancelled by another gateway.
pub async fn claim(
    mut first: First,
    shared: Shared,
    workers: Arc<Workers>,
    stop: CancellationToken,
) -> Result<Option<First>, Refusal> {
    let Some(registered) = &mut first.pending.registration else { return Ok(Some(first)) };
    let claimed = Claimed::of(&shared, &registered.names.key, registered.names.fingerprint);
    let claiming = claimed.claim(registered.on_cancelled(workers));
    let timeout = first.asked.request.limits.timeout;
    let deadline = timeout.and_then(|timeout| first.asked.arrived.checked_add(timeout));
    let claim = tokio::select! {
        claim = claiming => Ok(claim),
        () = stop.cancelled() => Err(stopping_error()),
        () = reached(deadline.map(Into::into)) => Err(expired_error()),
    };
    let claim = match claim {
        Ok(claim) => claim,
        Err(error) => return Err(Refusal::of_waiting(first.pending, error, first.waiting)),
    };
    match claim {
        Claim::Ours => {
            registered.claimed = Some(claimed);
            Ok(Some(first))
        }
        Claim::Done(outcome) => match claimed.decode(outcome) {
            Some(answer) => {
                let First { pending, waiting, .. } = first;
                pending.repeat(answer);
                drop(waiting);
                Ok(None)
            }
            // Of another version of the gateway: who asks again under the same name gets no second outcome.
            None => Err(conflict(first.pending, first.waiting)),
        },
        Claim::Conflict => Err(conflict(first.pending, first.waiting)),
        Claim::Unavailable => {
            let message = "the bucket of outcomes is full, or does not answer; try again after 5 s";
            let error = WireError::new(ErrorKind::Busy, message);
            Err(Refusal::of_waiting(first.pending, error, first.waiting))
        }
    }
}
