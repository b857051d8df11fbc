//! The end of a connection: what its client has published is delivered, its session told, its client told.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::yield_now,
    time::{Instant, timeout},
};
use tracing::{debug, info};

use crate::{
    connection::{Connection, PacketMemory, end::End},
    packet::codec,
    reason::Violation,
    registry::Ending,
    session::acknowledgement::Acknowledgement,
    stats::count,
    throttle::{Cause, clip},
    transport::stream::CLOSE_TIMEOUT,
    version::Version,
};

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) async fn close(&mut self, end: End) {
        self.settle_budget();
        if !matches!(self.memory, PacketMemory::Answer { .. }) {
            self.memory = PacketMemory::OwnShare;
        }
        self.finish_publishing().await;
        self.session.fill_last(self.connection_id, self.broker.counters(), &mut self.stream.output);
        self.report(&end);
        let registry = self.broker.registry();
        let due_will = registry.disconnect(&self.session, self.connection_id, end.ending());
        let will = due_will.and_then(|due| self.broker.publish_will(due));
        self.publishing = will.map(|(message, fan_out)| (message, fan_out, Acknowledgement::pending(None)));
        self.finish_publishing().await;
        let reason = end.reason();
        if let (Some(reason), Version::V5) = (reason, self.version) {
            codec::disconnect(reason.in_disconnect(), &mut self.stream.output);
            self.broker.counters().sent.packet();
        }
        let is_there = !matches!(end, End::Lost | End::Stalled);
        if reason.is_some() || is_there && self.stream.unsent() {
            let _ = timeout(CLOSE_TIMEOUT, self.stream.close()).await;
        } else {
            let _ = timeout(CLOSE_TIMEOUT, self.stream.shutdown()).await;
        }
    }

    /// Delivers all that is left of what it has published, since some receivers have it already.
    async fn finish_publishing(&mut self) {
        while let Some((message, fan_out, ack)) = self.publishing.take() {
            let started = Instant::now();
            self.deliver(message, fan_out, ack);
            self.broker.quotas().charge(&self.client.account, started);
            yield_now().await;
        }
    }

    fn report(&self, end: &End) {
        let (counters, throttle) = (self.broker.counters(), self.broker.throttle());
        let (client_id, peer) = (clip(&self.client.client_id), self.client.peer);
        match end {
            End::Violation(Violation { reason, detail }) => {
                count(&counters.violations);
                if let Some(left_out) = throttle.line(Cause::Closed) {
                    info!(client_id, %peer, ?reason, detail, left_out, "connection closed");
                }
            }
            End::Stalled => {
                count(&counters.stalled);
                if let Some(left_out) = throttle.line(Cause::Closed) {
                    info!(client_id, %peer, left_out, "connection closed: nothing is read");
                }
            }
            End::TooSlow => {
                count(&counters.too_slow);
                if let Some(left_out) = throttle.line(Cause::Closed) {
                    info!(client_id, %peer, left_out, "connection closed: a packet has begun and does not come");
                }
            }
            End::KeepAlive => {
                if let Some(left_out) = throttle.line(Cause::Closed) {
                    let waited = self.keep_alive.unwrap_or_default();
                    info!(client_id, %peer, ?waited, left_out, "connection closed: the keepalive ran out");
                }
            }
            end => debug!(client_id, %peer, ?end, "disconnected"),
        }
    }
}

impl<S> Drop for Connection<S> {
    /// If the task is cut off, by a panic in the application for example, the session must not stay
    /// connected.
    fn drop(&mut self) {
        let ending = Ending { publish_will: true, session_expiry: None };
        if let Some(due) = self.broker.registry().disconnect(&self.session, self.connection_id, ending) {
            self.broker.publish_will_to_all(due);
        }
    }
}
