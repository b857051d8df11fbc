//! Source that was run natively, run as wasm too: beside the answer, which has gone out before.

use super::wasm::artifact_of;
use crate::client::Client;
use crate::modules::Modules;
use crate::source::{Buildable, SourceBackend};
use crate::suspects::{Verdict, Watched};
use crate::wasm::guest::{Budget, Ended, Input};
use crate::wasm::workers::{Job, RunOutcome, Waiting, Workers};
use offload_protocol::error::{ErrorKind, WireError};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// What it takes to run source as wasm.
pub struct Comparison {
    pub source_backend: Arc<SourceBackend>,
    pub modules: Arc<Modules>,
    pub workers: Arc<Workers>,
    /// Ends it: nobody waits for it.
    pub stop: CancellationToken,
}

/// A run to repeat as wasm.
pub struct Compared {
    pub client: Client,
    pub source: Buildable,
    pub input: Input,
    pub budget: Budget,
    /// The request counts as waiting until it has been compared.
    pub waiting: Waiting,
    /// One that has crashed the gateway is not compared again.
    pub watched: Option<Watched>,
    /// How it ended natively.
    pub native: Ended,
}

impl Comparison {
    /// Runs it, and tells in what it differs. It has a run's whole time, whatever the request has left of its own.
    pub async fn run(self, compared: Compared) {
        let Comparison { source_backend, modules, workers, stop } = self;
        let Compared { client, source, input, budget, waiting, watched, native: natively } = compared;
        if watched.as_ref().is_some_and(|watched| watched.verdict() != Verdict::Innocent) {
            return;
        }
        let Some(_leave) = source_backend.compare(&client, &source) else { return };
        let as_wasm = async {
            let made = source_backend.wasm_to_compare(&client, &source).await?;
            let artifact = artifact_of(&modules, &client, &made).await?;
            let (key, load) = waiting.into_job();
            let (sender, receiver) = oneshot::channel();
            workers.submit(Job {
                key,
                load,
                artifact,
                input: Arc::new(Input {
                    name: made.program.path().into(),
                    folder: made.folder.clone(),
                    ..input
                }),
                budget,
                arrived: Instant::now(),
                deadline: None,
                watched,
                cancellation: None,
                was_lost: false,
                // Whoever has asked may have stopped waiting.
                done: Box::new(move |outcome| drop(sender.send(outcome))),
            });
            workers.dispatch();
            Ok::<_, WireError>(receiver.await.unwrap_or(RunOutcome::Stopped))
        };
        match stop.run_until_cancelled(as_wasm).await {
            Some(Ok(RunOutcome::Ran { ended, .. })) if is_its_own(&ended) && is_its_own(&natively) => {
                source_backend.tell_difference(&client, &source, &natively, Ok(&ended));
            }
            Some(Err(error)) if error.kind != ErrorKind::Internal => {
                source_backend.tell_difference(&client, &source, &natively, Err(&error));
            }
            _ => {}
        }
    }
}

/// Whether it ended by what it does, and not by what the machine had left.
fn is_its_own(ended: &Ended) -> bool {
    !matches!(&ended.result, Err(error) if matches!(error.kind, ErrorKind::Internal | ErrorKind::Busy))
}
