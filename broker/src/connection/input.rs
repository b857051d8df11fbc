//! What a client sends: packets are taken off the input one by one and handled, within the budget and the client's
//! quotas.

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tracing::info;

use crate::{
    broker::authorization::Destination,
    connection::{
        Connection, PacketMemory, Skipped, end::End, input_rate::InputRate, work_budget::WorkBudget,
    },
    packet::{
        codec::{self, Packet},
        frame::{self, Frame, Header, Kind},
    },
    reason::{Reason, Violation},
    session::{Evicted, Pause, inflight::Stage},
    stats::{Tally, count},
    throttle::{Cause, clip},
};

/// Bytes of an unfinished packet that every connection may hold: a request with a small module fits. Memory for a
/// larger one is reserved.
const OWN_SHARE: usize = 16 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Handles the packets that are there, as many as the budget allows or until the client has to be held back, and
    /// counts them.
    pub(super) fn handle_input(&mut self) -> Result<(), End> {
        let (mut received, mut answered) = (Tally::default(), Tally::default());
        // Packets are handled as they stand in the input, which is not to be in the way of the rest.
        let mut input = std::mem::take(&mut self.stream.input);
        let handled = self.handle_packets(&mut input, &mut received, &mut answered);
        self.stream.input = input;
        self.stream.handled();
        if std::mem::take(&mut self.handed_over) {
            self.broker.application().published(&self.broker);
        }
        self.broker.counters().received.add(&received);
        self.broker.counters().sent.add(&answered);
        handled
    }

    fn handle_packets(
        &mut self,
        input: &mut BytesMut,
        received: &mut Tally,
        answered: &mut Tally,
    ) -> Result<(), End> {
        if let Some(skipped) = self.skipped.take_if(|_| self.stream.skip == 0) {
            received.message(skipped.payload);
            self.handled(skipped.size, true);
            self.publish(skipped.publish, Some(skipped.destination))?;
        }
        while let Some(header) = frame::header(input, self.broker.config().max_packet_size)? {
            if input.len() < header.size {
                self.await_rest(header, input)?;
                break;
            }
            let frame = header.frame(input);
            let packet = match self.filters.take() {
                Some(filters) => Packet::Filters(filters),
                None => codec::decode(&frame, self.version, self.broker.config())?,
            };
            let payload =
                if let Packet::Publish(publish) = &packet { Some(publish.payload.len()) } else { None };
            let counts = !packet.acknowledges();
            let unanswered = self.stream.output.len();
            let handled = self.handle(packet, &frame);
            if self.filters.is_some() {
                return Ok(());
            }
            match payload {
                Some(payload) => received.message(payload),
                None => received.packets(1),
            }
            let Pause(pause) = handled?;
            input.advance(header.size);
            answered.packets(u64::from(self.stream.output.len() > unanswered));
            self.handled(header.size, counts);
            if pause
                || self.output_is_full()
                || self.publishing.is_some()
                || self.budget.as_ref().is_none_or(WorkBudget::is_spent)
                || self.over_rate()
            {
                return Ok(());
            }
        }
        let begun = !input.is_empty() || self.skipped.is_some();
        if let (true, None, Some(budget)) = (begun, &self.unfinished, &self.budget) {
            self.unfinished = Some(InputRate::new(budget.started));
        }
        self.unread = false;
        Ok(())
    }

    fn handle(&mut self, packet: Packet, frame: &Frame<'_>) -> Result<Pause, End> {
        let version = self.version;
        match packet {
            Packet::Publish(publish) => {
                let decided = self.destination.take();
                return self.publish(publish, decided);
            }
            Packet::PubAck(id) => self.finish(id, Stage::Acknowledged)?,
            Packet::PubRec { id, refused: true } => self.finish(id, Stage::Received)?,
            Packet::PubRec { id, refused: false } => {
                let known = self.session.received(self.connection_id, id, self.broker.counters())?;
                if let Some(known) = known {
                    codec::pubrel(id, Reason::of_identifier(known), version, &mut self.stream.output);
                }
            }
            Packet::PubRel(id) => {
                let most = self.broker.config().receive_maximum;
                match self.session.release(self.connection_id, id, most)? {
                    Ok(known) => {
                        codec::pubcomp(id, Reason::of_identifier(known), version, &mut self.stream.output);
                    }
                    Err(pause) => return Ok(pause),
                }
            }
            Packet::PubComp(id) => self.finish(id, Stage::Completed)?,
            Packet::Filters(filters) => self.handle_filters(filters, frame)?,
            Packet::PingReq => codec::pingresp(&mut self.stream.output),
            Packet::Disconnect { reason, session_expiry } => {
                if self.session_expires_at_once && session_expiry.is_some_and(|expiry| expiry > 0) {
                    return Err(
                        Violation::protocol("DISCONNECT gives a session an expiry that had none").into()
                    );
                }
                return Err(End::Goodbye { reason, session_expiry });
            }
        }
        Ok(Pause(false))
    }

    /// The client has finished with a message that waited for this.
    fn finish(&self, id: u16, stage: Stage) -> Result<(), Evicted> {
        self.session.finish(self.connection_id, id, stage, self.broker.counters())
    }

    /// A packet of `size` bytes was handled; `counts` says whether it counts against the rate.
    fn handled(&mut self, size: usize, counts: bool) {
        self.memory = match std::mem::replace(&mut self.memory, PacketMemory::OwnShare) {
            PacketMemory::Granted(reservation) if self.output_is_full() => {
                PacketMemory::Answer { _reservation: reservation }
            }
            _ => PacketMemory::OwnShare,
        };
        self.unfinished = None;
        if let Some(budget) = &mut self.budget {
            self.last_packet = budget.started;
            budget.packet(size, Instant::now);
        }
        if counts && self.broker.config().max_message_rate > 0 {
            self.client.account.rates.message(self.broker.config(), self.broker.quotas().clock());
        }
    }

    /// Looks at the beginning of a packet whose rest is to come. If it is large, there must be memory for all of it;
    /// a PUBLISH that will be refused anyway needs none.
    fn await_rest(&mut self, header: Header, input: &mut BytesMut) -> Result<(), End> {
        if header.size <= OWN_SHARE || !matches!(self.memory, PacketMemory::OwnShare) {
            return Ok(());
        }
        if header.kind == Kind::Publish {
            match codec::publish_head(&header.frame(input), self.version, self.broker.config()) {
                Ok((mut publish, payload)) => {
                    self.resolve_alias(&mut publish)?;
                    Self::check_topic(&publish)?;
                    let destination = self.broker.destination(&self.client, &publish.topic);
                    if let Destination::Refused(_) | Destination::Nobody = destination {
                        let (size, left) = (header.size, header.size - input.len());
                        let payload = payload.len() + left;
                        self.skipped = Some(Skipped { publish, destination, size, payload });
                        self.stream.skip = left;
                        input.clear();
                        return Ok(());
                    }
                    self.destination = Some(destination);
                }
                // What it says of itself may not have come yet.
                Err(_) if input.len() < OWN_SHARE => return Ok(()),
                Err(_) => {}
            }
        }
        self.memory =
            PacketMemory::Requested(self.broker.quotas().input.reserve(&self.client.account, header.size));
        Ok(())
    }

    /// Whether its identity sent faster than it may, and is to be read from later.
    pub(super) fn over_rate(&mut self) -> bool {
        let config = self.broker.config();
        if config.max_message_rate == 0 && config.max_byte_rate == 0 {
            return false;
        }
        let until = self.broker.quotas().over_rate(&self.client.account, config);
        if until.is_some() && self.over_rate.is_none() {
            count(&self.broker.counters().rate_delays);
            if !self.delay_logged
                && let Some(left_out) = self.broker.throttle().line(Cause::Delayed)
            {
                self.delay_logged = true;
                let client_id = clip(&self.client.client_id);
                info!(client_id, peer = %self.client.peer, left_out, "sends faster than it may, read later");
            }
        }
        self.over_rate = until;
        until.is_some()
    }
}
