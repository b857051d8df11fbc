//! A request that ran when the gateway crashed runs alone.

use super::answer::{Refusal, expired_error};
use super::run::Run;
use crate::cancellation::{cancelled, cancelled_error};
use crate::deadline::reached;
use crate::stopping::stopping_error;
use tokio_util::sync::CancellationToken;

/// Waits until a suspect may run alone; any other may run at once. Refuses it if its time runs out, it is cancelled, or
/// the gateway stops, before that.
pub async fn isolate(mut run: Run, stop: &CancellationToken) -> Result<Run, Refusal> {
    let Some(mut watched) = run.watched.take() else { return Ok(run) };
    let alone = tokio::select! {
        alone = watched.alone(&run.client) => alone,
        () = reached(run.timing.deadline.map(Into::into)) => return Err(run.refuse(expired_error())),
        () = cancelled(run.pending.cancellation()) => return Err(run.refuse(cancelled_error())),
        () = stop.cancelled() => return Err(run.refuse(stopping_error())),
    };
    if let Some(alone) = alone {
        watched.admit(alone);
    }
    run.watched = Some(watched);
    Ok(run)
}
