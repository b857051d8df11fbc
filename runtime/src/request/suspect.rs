//! Whether the request has crashed the gateway. One that may have runs alone; one that has is not run.

use super::answer::{Refusal, expired_error};
use super::backend::Backend;
use super::resolve::Resolved;
use super::run::Run;
use crate::deadline::reached;
use crate::stopping::stopping_error;
use crate::telemetry;
use tokio_util::sync::CancellationToken;

/// Ends a request that has crashed the gateway, if it is to run in the gateway's own process.
pub fn refuse_poison(resolved: Resolved) -> Result<Resolved, Refusal> {
    let Resolved { backend, run, topic, digest } = &resolved;
    let runs_in_this_process = match backend {
        Backend::Wasm(_) => true,
        Backend::Native { .. } => false,
    };
    let Some(watched) = run.watched.as_ref().filter(|_| runs_in_this_process) else { return Ok(resolved) };
    let what = || {
        let code = digest.map_or_else(|| "no module".to_owned(), |digest| format!("module {digest}"));
        let (client, topic) = (telemetry::bounded(run.client.key()), telemetry::bounded(topic));
        format!("a request of `{client}` on `{topic}` with {code}")
    };
    match watched.refuse_poison(what) {
        Ok(()) => Ok(resolved),
        Err(error) => Err(resolved.run.refuse(error)),
    }
}

/// Waits until a suspect may run alone; any other may run at once. Refuses it if its time runs out, or the gateway
/// stops, before that.
pub async fn isolate(mut run: Run, stop: &CancellationToken) -> Result<Run, Refusal> {
    let Some(mut watched) = run.watched.take() else { return Ok(run) };
    let alone = tokio::select! {
        alone = watched.alone(&run.client) => alone,
        () = reached(run.timing.deadline.map(Into::into)) => return Err(run.refuse(expired_error())),
        () = stop.cancelled() => return Err(run.refuse(stopping_error())),
    };
    if let Some(alone) = alone {
        watched.admit(alone);
    }
    run.watched = Some(watched);
    Ok(run)
}
