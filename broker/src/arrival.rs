//! A connection between accept and CONNECT: what is known of it, and how long it has.

use std::{future::Future, net::SocketAddr, sync::Arc};

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{core::Core, reason::Reason, transport::Peer};

pub(crate) struct Arrival {
    pub core: Arc<Core>,
    pub peer: Peer,
    /// Over a limit of connections: only to be told so.
    pub over_limit: bool,
    /// When all of its CONNECT must be there.
    pub deadline: Instant,
    pub shutdown: CancellationToken,
}

impl Arrival {
    /// Waits for a step on the way to CONNECT; `None` when time is up or the broker shuts down.
    pub async fn in_time<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = timeout_at(self.deadline, step) => done.ok(),
            () = self.shutdown.cancelled() => None,
        }
    }
}

/// Counts and logs a connection over a limit that is closed without a word.
pub(crate) fn refused_at_once(core: &Core, peer: SocketAddr) {
    core.counters.connection_refused(Reason::QuotaExceeded);
    if let Some(left_out) = core.throttle.line() {
        warn!(%peer, left_out, "too many connections, one was closed");
    }
}
