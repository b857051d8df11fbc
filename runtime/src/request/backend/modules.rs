//! Requests about the modules that a client has at the gateway: listed, stored, removed.

use crate::deadline::reached;
use crate::modules::{Digest, Modules};
use crate::request::answer::expired_error;
use crate::request::run::Run;
use crate::request::services::Services;
use crate::request::tasks::Tasks;
use crate::stopping::stopping_error;
use crate::telemetry;
use crate::wasm::guest::Ended;
use crate::wasm::workers::RunOutcome;
use bytes::Bytes;
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::encode_list;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// What is to be done.
pub enum Operation {
    /// The client's modules are listed.
    List,
    /// This module is compiled, and kept for the client.
    Store(Digest, Bytes),
    /// The client's module is forgotten.
    Remove(Digest),
}

/// Does it in a task, and answers.
pub fn start(operation: Operation, run: Run, services: &Services, tasks: &Tasks) {
    tasks.spawn(answer(operation, run, services.modules.clone(), tasks.stopped()));
}

/// Answers with what has become of it, unless the request's time runs out first. It goes on even then: what was begun
/// with the disk is finished.
async fn answer(operation: Operation, run: Run, modules: Arc<Modules>, stop: CancellationToken) {
    let (client, most, started) = (run.client.clone(), run.budget.stdout, Instant::now());
    let sealed = run.pending.way_back.seal.is_some();
    let doing = async move {
        match operation {
            Operation::List => {
                let list = modules.list(&client).await?;
                within(most, encode_list(&list), list.len())
            }
            Operation::Store(digest, module) => {
                modules.store(&client, digest, module, sealed).await.map(|stored| encode_list(&[stored]))
            }
            Operation::Remove(digest) => modules.remove(&client, digest).await.map(|()| Bytes::new()),
        }
    };
    let stopped = stop.clone();
    let done = tokio::spawn(async move {
        stopped.run_until_cancelled(doing).await.unwrap_or_else(|| Err(stopping_error()))
    });
    let done = tokio::select! {
        joined = done => joined.unwrap_or_else(|panic| Err(telemetry::internal_error(&format!("modules: {panic}")))),
        () = reached(run.timing.deadline.map(Into::into)) => Err(expired_error()),
        () = stop.cancelled() => Err(stopping_error()),
    };
    let stdout = match done {
        Ok(stdout) => stdout,
        Err(error) => return run.refuse(error).answer(),
    };
    let Run { pending, waiting, timing, .. } = run;
    let ended = Ended { result: Ok(0), stdout, stderr: Bytes::new(), fuel: 0 };
    let queued = started.saturating_duration_since(timing.arrived);
    pending.finish(RunOutcome::Ran { ended, run: started.elapsed(), queued });
    // Whoever waits until nothing waits any more waits for the answer too.
    drop(waiting);
}

/// A list is held to the limit of stdout.
fn within(most: usize, list: Bytes, modules: usize) -> Result<Bytes, WireError> {
    if list.len() <= most {
        return Ok(list);
    }
    let bytes = list.len();
    let message = format!(
        "the list of {modules} modules has {bytes} bytes, stdout is limited to {most} bytes (limits.stdout)"
    );
    Err(WireError::new(ErrorKind::Output, message))
}
