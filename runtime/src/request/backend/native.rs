//! Requests that run natively, in the sandbox.

use super::UNNAMED;
use super::comparison::{Compared, Comparison};
use crate::cancellation::cancelled;
use crate::request::answer::Refusal;
use crate::request::run::Run;
use crate::request::services::Services;
use crate::request::tasks::Tasks;
use crate::source::{Buildable, SourceBackend};
use crate::wasm::guest::Input;
use crate::wasm::workers::RunOutcome;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Builds and runs the source in a task of its own.
pub fn start(source: Buildable, compare: bool, run: Run, services: &Services, tasks: &Tasks) {
    let Services { source_backend, modules, workers, .. } = services;
    let comparison = compare.then(|| Comparison {
        source_backend: source_backend.clone(),
        modules: modules.clone(),
        workers: workers.clone(),
        stop: tasks.comparing_stopped(),
    });
    tasks.spawn(build_and_run(source_backend.clone(), source, run, comparison, tasks.stopped()));
}

/// Builds the source and runs the program; when it is answered, runs it again to compare, if it is to be.
async fn build_and_run(
    source_backend: Arc<SourceBackend>,
    source: Buildable,
    run: Run,
    comparison: Option<Comparison>,
    stop: CancellationToken,
) {
    let Run { client, pending, waiting, watched, timing, budget, memory, given } = run;
    let input = given.into_input(UNNAMED.into(), None);
    // Nobody waits for what is compared.
    let comparison = comparison.map(|comparison| (comparison, Input { stream: None, ..input.clone() }));
    let outcome = tokio::select! {
        outcome = source_backend.run(&client, &source, input, &budget, memory, timing) => outcome,
        () = cancelled(pending.cancellation()) => Ok(RunOutcome::Stopped),
        () = stop.cancelled() => Ok(RunOutcome::Stopped),
    };
    match (outcome, comparison) {
        (Ok(RunOutcome::Ran { ended, run, queued }), Some((comparison, input))) => {
            pending.finish(RunOutcome::Ran { ended: ended.clone(), run, queued });
            let compared = Compared { client, source, input, budget, waiting, watched, native: ended };
            comparison.run(compared).await;
        }
        (Ok(outcome), _) => {
            pending.finish(outcome);
            drop(waiting);
        }
        (Err(error), _) => Refusal::of_waiting(pending, error, waiting).answer(),
    }
}
