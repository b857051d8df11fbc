//! The requests that wait for more than a worker: for a module to be prepared, to be alone, or for a sandbox.

use crate::stream::Stream;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One task for each request that waits. What bounds admission bounds them. Clones are handles to the same ones.
#[derive(Clone)]
pub struct Tasks {
    runtime: Handle,
    tracker: TaskTracker,
    stop: CancellationToken,
    stop_comparing: CancellationToken,
}

impl Tasks {
    /// Tasks of this runtime.
    pub fn new(runtime: Handle) -> Tasks {
        Tasks {
            runtime,
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            stop_comparing: CancellationToken::new(),
        }
    }

    /// A request waits in a task. It answers soon after [`stopped`](Self::stopped).
    pub fn spawn(&self, waiting: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(waiting, &self.runtime);
    }

    /// What a request writes is published as it is written. Nobody waits for this: the request ends it.
    pub fn follow(&self, stream: Arc<Stream>) {
        self.runtime.spawn(stream.follow());
    }

    /// Cancelled when the gateway stops.
    pub fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Cancelled when comparisons are to end, which nobody waits for.
    pub fn comparing_stopped(&self) -> CancellationToken {
        self.stop_comparing.clone()
    }

    /// Ends comparisons.
    pub fn stop_comparing(&self) {
        self.stop_comparing.cancel();
    }

    /// Ends all that wait, and returns when they have answered.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
