//! Requests that run as guests: on the spot if their module is ready, else when it is prepared.

use super::{Module, ReadyModule};
use crate::cancellation::{cancelled, cancelled_error};
use crate::client::Client;
use crate::deadline::reached;
use crate::modules::{Artifact, Modules};
use crate::request::answer::expired_error;
use crate::request::run::Run;
use crate::request::services::Services;
use crate::request::suspect::isolate;
use crate::request::tasks::Tasks;
use crate::source::{Buildable, BuiltProgram, SourceBackend};
use crate::stopping::stopping_error;
use crate::telemetry;
use crate::wasm::engine::Tier;
use crate::wasm::workers::Workers;
use bytes::Bytes;
use offload_protocol::error::WireError;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Puts the request into the workers' queue, at once or when that is possible.
pub fn start(module: Module, run: Run, services: &Services, tasks: &Tasks) {
    let Services { modules, source_backend, workers, .. } = services;
    match module {
        Module::Ready(module) if !run.is_suspect() => workers.submit(run.into_job(module)),
        Module::Ready(module) => tasks.spawn(submit(module, run, workers.clone(), tasks.stopped())),
        Module::Unprepared(digest, content) => {
            let (client, modules) = (run.client.clone(), modules.clone());
            let sealed = run.pending.way_back.seal.is_some();
            let preparing = async move {
                modules.prepare(&client, digest, content, sealed).await.map(ReadyModule::unnamed)
            };
            tasks.spawn(prepare(preparing, run, workers.clone(), tasks.stopped()));
        }
        Module::Unbuilt(source) => {
            let preparing = build(source_backend.clone(), modules.clone(), run.client.clone(), source);
            tasks.spawn(prepare(preparing, run, workers.clone(), tasks.stopped()));
        }
    }
}

/// Prepares the request's module and submits it, unless its time runs out first, or it is cancelled. When its time runs
/// out preparing goes on: the next request for this module will find it done.
async fn prepare(
    preparing: impl Future<Output = Result<ReadyModule, WireError>> + Send + 'static,
    run: Run,
    workers: Arc<Workers>,
    stop: CancellationToken,
) {
    let stopped = stop.clone();
    let prepared = tokio::spawn(async move {
        stopped.run_until_cancelled(preparing).await.unwrap_or_else(|| Err(stopping_error()))
    });
    let abort = prepared.abort_handle();
    let error = tokio::select! {
        joined = prepared => match joined {
            Ok(Ok(module)) => return submit(module, run, workers, stop).await,
            Ok(Err(error)) => error,
            Err(panic) => telemetry::internal_error(&format!("compile: {panic}")),
        },
        () = reached(run.timing.deadline.map(Into::into)) => expired_error(),
        () = cancelled(run.pending.cancellation()) => {
            // Nobody waits for a compiler that is still at work for this one alone.
            abort.abort();
            cancelled_error()
        }
        () = stop.cancelled() => stopping_error(),
    };
    run.refuse(error).answer();
}

/// Puts the request into the queue when it may run, and sees to it that somebody takes it from there.
async fn submit(module: ReadyModule, run: Run, workers: Arc<Workers>, stop: CancellationToken) {
    match isolate(run, &stop).await {
        Ok(run) => {
            workers.submit(run.into_job(module));
            workers.dispatch();
        }
        Err(refusal) => refusal.answer(),
    }
}

/// Builds source as wasm, and prepares that.
async fn build(
    source_backend: Arc<SourceBackend>,
    modules: Arc<Modules>,
    client: Client,
    source: Buildable,
) -> Result<ReadyModule, WireError> {
    let made = source_backend.wasm(&client, &source).await?;
    let artifact = artifact_of(&modules, &client, &made).await?;
    Ok(ReadyModule::of_source(made, artifact))
}

/// What source was built into becomes an artifact as any module does; but nobody can name it by digest.
pub async fn artifact_of(
    modules: &Arc<Modules>,
    client: &Client,
    made: &BuiltProgram,
) -> Result<Arc<Artifact>, WireError> {
    let module = Bytes::copy_from_slice(made.program.bytes());
    modules.compile(client, made.digest, Some(module), Tier::Baseline).await
}
