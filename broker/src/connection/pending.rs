//! A connection between accept and CONNECT: what is known of it, and how long it has.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    sync::Arc,
};

use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    broker::Broker, quotas::account::Account, reason::Reason, throttle::Cause, transport::peer::Peer,
};

/// An accepted connection whose client is not known yet.
pub(crate) struct PendingConnection {
    pub broker: Broker,
    pub peer: Peer,
    /// Of the address that it comes from: who pays until it is known who it is.
    pub account: Arc<Account>,
    /// Over a limit of connections: only to be told so.
    pub over_limit: bool,
    /// When all of its CONNECT must be there.
    pub deadline: Instant,
    pub shutdown: CancellationToken,
}

impl PendingConnection {
    /// Waits for a step on the way to CONNECT; `None` when time is up or the broker shuts down. What it takes is
    /// charged to the address that it comes from.
    pub async fn in_time<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        let mut step = pin!(step);
        let charged = poll_fn(|cx| {
            let started = Instant::now();
            let polled = step.as_mut().poll(cx);
            self.broker.quotas().charge_unknown(&self.account, started);
            polled
        });
        let within_share = async {
            if let Some(until) = self.broker.quotas().over_share(&self.account, Instant::now()) {
                sleep_until(until).await;
            }
            charged.await
        };
        tokio::select! {
            done = timeout_at(self.deadline, within_share) => done.ok(),
            () = self.shutdown.cancelled() => None,
        }
    }
}

/// Counts and logs a connection over a limit that is closed without an answer.
pub(crate) fn refused_at_once(broker: &Broker, peer: SocketAddr) {
    broker.counters().connection_refused(Reason::QuotaExceeded);
    if let Some(left_out) = broker.throttle().line(Cause::Refused) {
        warn!(%peer, left_out, "too many connections, one was closed");
    }
}
