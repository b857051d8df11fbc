//! SUBSCRIBE and UNSUBSCRIBE, a few filters at a time.

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};
use tracing::info;

use crate::{
    connection::{Connection, FilterStorage, end::End},
    packet::{
        frame::Frame,
        subscribe::{Filter, FilterPacket},
    },
    reason::{Reason, Refusal, Violation},
    session::client::ClientInfo,
    storage::NotStored,
    throttle::{Cause, clip},
};

/// Filters of a SUBSCRIBE or UNSUBSCRIBE that are handled before the budget is looked at: some 10 µs.
const FILTERS_AT_ONCE: usize = 16;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Handles the next filters of a SUBSCRIBE or UNSUBSCRIBE, and answers it when they are the last. Otherwise it is
    /// kept, to be gone on with before anything else that the client has sent.
    pub(super) fn handle_filters(&mut self, mut filters: FilterPacket, frame: &Frame<'_>) -> Result<(), End> {
        self.unfinished = None; // all of it has come
        for handled in 0..FILTERS_AT_ONCE {
            let Some(Filter { path, request }) = filters.next(frame)? else {
                self.work(handled);
                if self.must_store_filters() {
                    self.filters = Some(filters);
                    return Ok(());
                }
                return self.answer(|out| filters.acknowledge(frame, out));
            };
            match request {
                None => filters.removed(self.broker.topics().unsubscribe(
                    &self.session,
                    self.connection_id,
                    path,
                )?),
                Some(mut request) => {
                    if self.is_bridge {
                        request.options.no_local = true;
                        request.options.retain_as_published = true;
                    }
                    let granted = match self.broker.check_subscription(&self.client, path) {
                        Ok(()) => {
                            let topics = self.broker.topics();
                            topics.subscribe(&self.session, self.connection_id, path, request)?
                        }
                        Err(refusal) => Err(refusal),
                    };
                    if let Err(refusal) = granted {
                        self.report_denied("subscription refused", path, refusal);
                    }
                    filters.granted(granted.map_err(|refusal| refusal.reason));
                }
            }
        }
        self.work(FILTERS_AT_ONCE);
        self.filters = Some(filters);
        Ok(())
    }

    /// Whether what a SUBSCRIBE or UNSUBSCRIBE has changed is to be durable before it is answered, and is not.
    fn must_store_filters(&mut self) -> bool {
        let Some(storage) = &self.session.storage else { return false };
        if matches!(self.storing, FilterStorage::Done) {
            self.storing = FilterStorage::Nothing;
            return false;
        }
        let (done, stored) = oneshot::channel();
        let on_durable = Box::new(move |durable: Result<(), NotStored>| {
            if durable.is_ok() {
                let _ = done.send(());
            }
        });
        // One that has failed lets nothing be acknowledged.
        let _ = storage.batch().commit(Some(on_durable));
        self.storing = FilterStorage::Waits(stored);
        true
    }

    /// Appends a packet whose length is up to the client, unless it is larger than the client takes.
    fn answer(&mut self, write: impl FnOnce(&mut BytesMut)) -> Result<(), End> {
        let out = &mut self.stream.output;
        let before = out.len();
        write(out);
        if out.len() - before > self.max_packet {
            out.truncate(before); // [MQTT-3.1.2-24]
            return Err(Violation::new(Reason::PacketTooLarge, "asked for more than it takes").into());
        }
        Ok(())
    }

    pub(super) fn report_denied(&self, what: &'static str, topic: &str, refusal: Refusal) {
        if let Some(left_out) = self.broker.throttle().line(Cause::Denied) {
            let Refusal { reason, cause } = refusal;
            let ClientInfo { client_id, user, peer, .. } = &*self.client;
            let (client_id, user) = (clip(client_id), user.as_deref().map(clip));
            info!(client_id, user, %peer, topic = clip(topic), ?reason, cause, left_out, "{what}");
        }
    }
}
