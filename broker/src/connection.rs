//! One client's connection: a task that reads packets, handles them, and writes what is due.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    task::yield_now,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_util::sync::WaitForCancellationFuture;
use tracing::{debug, info, warn};

use crate::{
    application::Received,
    connection::{
        handshake::{ConnectError, Opened},
        input_rate::InputRate,
        pending::PendingConnection,
        work_budget::WorkBudget,
    },
    core::{Core, Destination, Ending},
    message::{Message, QoS},
    packet::{
        codec::{self, Packet, Publish},
        frame::{self, Frame, Header, Kind},
        subscribe::{Filter, FilterPacket},
    },
    quotas::input_budget::Reservation,
    reason::{Reason, Refusal, Violation},
    session::{
        Evicted, Filled, Pause, Session,
        acknowledgement::{Acknowledgement, PendingAck},
        client::ClientInfo,
        incoming::{Accepted, Bounds},
        inflight::Stage,
        over_receive_maximum,
    },
    stats::{Tally, count},
    throttle::{Cause, clip},
    topics::{
        fan_out::{FanOut, Routed},
        topic,
    },
    transport::{
        peer::Peer,
        stream::{CLOSE_TIMEOUT, Stream},
    },
    version::Version,
};

pub(crate) mod handshake;
pub(crate) mod input_rate;
pub(crate) mod pending;
pub(crate) mod work_budget;

/// Bytes of an unfinished packet that every connection may hold: a request with a small module fits. Reservation for a
/// larger one is asked for.
const INPUT_SHARE: usize = 16 * 1024;
/// Filters of a SUBSCRIBE or UNSUBSCRIBE after which it is looked whether others should have their turn: some 10 µs.
const FILTERS_AT_ONCE: usize = 16;
/// When a connection without any deadline looks again.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// Serves a connection from its first byte to its last.
pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin>(arrival: PendingConnection, socket: S) {
    let mut stream = Stream::new(socket, arrival.core.clone());
    let opened = arrival.in_time(handshake::open(&arrival, &mut stream)).await;
    let PendingConnection { core, peer: Peer { address: peer, .. }, shutdown, .. } = arrival;
    match opened {
        Some(Ok(opened)) => {
            let mut connection = Connection::new(core, stream, opened);
            let end = connection.serve(shutdown.cancelled()).await;
            connection.close(end).await;
        }
        Some(Err(ConnectError::Refused)) => {
            let _ = timeout(CLOSE_TIMEOUT, stream.close()).await;
        }
        Some(Err(ConnectError::Unanswerable(cause))) => {
            count(&core.counters.violations);
            if let Some(left_out) = core.throttle.line(Cause::Refused) {
                info!(%peer, cause, left_out, "closed: no acceptable CONNECT");
            }
        }
        Some(Err(ConnectError::Lost)) | None => debug!(%peer, "closed before CONNECT"),
    }
}

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// DISCONNECT.
    Goodbye {
        reason: u8,
        session_expiry: Option<u32>,
    },
    /// The client closed without one, or the network failed.
    Lost,
    Violation(Violation),
    /// The session is another connection's, or has ended.
    Evicted(Reason),
    KeepAlive,
    /// The client takes nothing any more.
    Stalled,
    /// A packet that has begun does not come.
    TooSlow,
    Shutdown,
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<Evicted> for End {
    fn from(Evicted(reason): Evicted) -> Self {
        Self::Evicted(reason)
    }
}

/// What a connection has to do next.
struct Next {
    /// The client is not to be heard.
    hold: bool,
    /// A slice of what it has caused is to be delivered, before anything else that it sends.
    due: bool,
}

enum Event {
    Read(io::Result<usize>),
    Written(io::Result<()>),
    /// Something was put into the session, or is as it was waited for.
    Awake,
    Timer,
    Shutdown,
}

struct Connection<S> {
    core: Arc<Core>,
    stream: Stream<S>,
    session: Arc<Session>,
    /// Which connection of the session this is.
    link: u64,
    client: Arc<ClientInfo>,
    version: Version,
    /// See [`ConnectPacket::is_bridge`](crate::packet::connect::ConnectPacket::is_bridge).
    is_bridge: bool,
    /// Bytes of the largest packet that the client takes.
    max_packet: usize,
    /// The client may not change an expiry of 0 at the end (section 3.14.2.2.2).
    session_expires_at_once: bool,
    /// One and a half times what was agreed (section 3.1.2.10).
    keep_alive: Option<Duration>,
    /// When the last packet came, or the last bytes of one that has not come completely.
    last_packet: Instant,
    /// The input may hold a whole packet.
    unread: bool,
    /// How a packet comes that has begun.
    unfinished: Option<InputRate>,
    memory: Memory,
    /// The SUBSCRIBE or UNSUBSCRIBE at the front of the input, while it is not answered.
    filters: Option<FilterPacket>,
    /// A PUBLISH that is refused and not kept, whose bytes are still to come.
    skipped: Option<Skipped>,
    /// `None` while others have their turn.
    turn: Option<WorkBudget>,
    /// Until when its identity has used up its share of the threads.
    over_share: Option<Instant>,
    /// Until when its identity is over its rate.
    over_rate: Option<Instant>,
    /// That it sends too fast was logged.
    delay_logged: bool,
    aliases: HashMap<u16, Arc<str>>,
    /// What it has published last, while not all receivers have it.
    publishing: Option<(Message, FanOut, Acknowledgement)>,
    /// Its messages that were acknowledged and that nobody has, 3.1.1 having no words for it.
    unkept: u64,
    /// The application has messages of which it was not told yet that they are all for now.
    handed_over: bool,
}

/// Reservation for the packet that is coming.
enum Memory {
    /// The connection's own share is enough, as far as is known.
    Share,
    Asked(oneshot::Receiver<Reservation>),
    /// Given back when the packet is handled.
    Granted(Reservation),
    /// Of a packet that is handled: its answer, which is half as large at most, is not sent.
    Answer {
        _room: Reservation,
    },
}

/// All of a PUBLISH but its payload.
struct Skipped {
    publish: Publish,
    destination: Destination,
    size: usize,
    payload: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new(core: Arc<Core>, stream: Stream<S>, opened: Opened) -> Self {
        let Opened { connected, version, is_bridge, keep_alive } = opened;
        let client = connected.client;
        let now = Instant::now();
        let ClientInfo { client_id, user, peer, transport, .. } = &*client;
        debug!(client_id = clip(client_id), user = user.as_deref().map(clip), %peer, ?transport, ?version, "connected");
        Self {
            memory: Memory::Share,
            unfinished: None,
            filters: None,
            skipped: None,
            turn: None,
            over_share: None,
            over_rate: None,
            delay_logged: false,
            core,
            unread: !stream.input.is_empty(),
            stream,
            session: connected.session,
            link: connected.link,
            client,
            version,
            is_bridge,
            max_packet: connected.max_packet,
            session_expires_at_once: connected.session_expiry == 0,
            keep_alive: (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1500)),
            last_packet: now,
            aliases: HashMap::new(),
            publishing: None,
            unkept: 0,
            handed_over: false,
        }
    }

    async fn serve(&mut self, shutdown: WaitForCancellationFuture<'_>) -> End {
        let mut shutdown = pin!(shutdown);
        let mut timer = pin!(sleep_until(self.deadline(Instant::now())));
        loop {
            if self.turn_is_over() {
                self.end_turn();
                yield_now().await;
            }
            self.begin_turn();
            let Next { hold, due } = match self.next() {
                Ok(next) => next,
                Err(evicted) => return evicted.into(),
            };
            if due {
                if let Err(evicted) = self.deliver_next() {
                    return evicted.into();
                }
                continue;
            }
            if self.unread && !hold {
                if let Err(end) = self.handle_input() {
                    return end;
                }
                continue;
            }
            match poll_fn(|cx| self.poll_turn(cx, hold, timer.as_mut(), shutdown.as_mut())).await {
                Event::Read(Ok(bytes @ 1..)) => self.received(bytes),
                Event::Read(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    return Violation::protocol("TLS or WebSocket gone wrong").into();
                }
                Event::Read(_) | Event::Written(Err(_)) => return End::Lost,
                Event::Written(Ok(())) | Event::Awake => {}
                Event::Shutdown => {
                    // What came between the last look and the shutdown is sent too: whoever stops the broker has
                    // published his last words before.
                    let _ = self.fill();
                    return End::Shutdown;
                }
                // The share may be there again, which is looked at when a turn begins.
                Event::Timer if self.over_share.is_some() => self.end_turn(),
                Event::Timer => {
                    let now = Instant::now();
                    if hold {
                        self.last_packet = now; // not the client's silence
                    }
                    if self.unfinished.as_mut().is_some_and(|begun| !begun.suffices(&self.core.config, now)) {
                        return End::TooSlow;
                    }
                    if self.stream.stalled.is_some_and(|since| since + self.core.config.write_timeout <= now)
                    {
                        return End::Stalled;
                    }
                    if self.keep_alive.is_some_and(|keep_alive| self.last_packet + keep_alive <= now) {
                        return End::KeepAlive;
                    }
                    timer.as_mut().reset(self.deadline(now));
                }
            }
        }
    }

    fn turn_is_over(&mut self) -> bool {
        let Some(turn) = &mut self.turn else { return false };
        turn.look(Instant::now());
        turn.is_over()
    }

    /// Begins a turn, if none has begun: its identity may have used up its share meanwhile.
    fn begin_turn(&mut self) {
        if self.turn.is_some() {
            return;
        }
        let now = Instant::now();
        let until = self.core.over_share(&self.client.account, now);
        if until.is_some() && self.over_share.is_none() {
            count(&self.core.counters.share_waits);
        }
        self.over_share = until;
        self.turn = Some(WorkBudget::new(now));
    }

    /// Charges the turn to the identity whose connection it was.
    fn end_turn(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.core.charge(&self.client.account, turn.started);
        }
    }

    /// Puts what waits into the output, and says whether the client is not to be heard for the moment: one that does
    /// not take what it is sent, whose messages are not acknowledged, that sends too fast, for whose packet there is
    /// no room, or whose identity has used up its share of the threads. This is what bounds the memory that it can
    /// bind, and the work.
    fn next(&mut self) -> Result<Next, Evicted> {
        if self.over_share.is_some() {
            // Too short for a packet that has begun to be excused.
            return Ok(Next { hold: true, due: false });
        }
        let Filled { pause: Pause(pause), retained, .. } = self.fill()?;
        let over_rate = self.over_rate();
        let full = self.output_is_full();
        if !full && matches!(self.memory, Memory::Answer { .. }) {
            self.memory = Memory::Share;
        }
        let hold = pause || over_rate || full || matches!(self.memory, Memory::Asked(_));
        if let (Some(begun), Some(turn)) = (&mut self.unfinished, &self.turn) {
            if hold { begun.pause() } else { begun.go_on(turn.started) }
        }
        Ok(Next { hold, due: retained || self.publishing.is_some() })
    }

    fn output_is_full(&self) -> bool {
        self.stream.output.len() >= self.core.config.write_buffer
    }

    /// Takes note of bytes that were read.
    fn received(&mut self, bytes: usize) {
        self.unread = true;
        if let (Some(begun), Some(turn)) = (&mut self.unfinished, &self.turn) {
            begun.received(bytes);
            self.last_packet = turn.started;
        }
        if self.core.config.max_byte_rate > 0 {
            self.client.account.rates.bytes(bytes, &self.core.config, self.core.started.elapsed());
        }
    }

    /// Puts what waits for the client into the output, as far as there is room.
    fn fill(&mut self) -> Result<Filled, Evicted> {
        let Core { config, counters, throttle, .. } = &*self.core;
        let filled = self.session.fill(self.link, config, counters, &mut self.stream.output)?;
        if let Filled { dropped: dropped @ 1.., .. } = filled
            && let Some(left_out) = throttle.line(Cause::Dropped)
        {
            let client_id = clip(&self.client.client_id);
            info!(
                client_id,
                dropped, left_out, "its queue was full, has dropped messages, and is empty again"
            );
        }
        Ok(filled)
    }

    /// Delivers the next slice of what it has published, or else of the retained messages that it is to get.
    fn deliver_next(&mut self) -> Result<(), Evicted> {
        match self.publishing.take() {
            Some((message, fan_out, ack)) => self.deliver(message, fan_out, ack),
            None => self.core.deliver_retained(&self.session, self.link)?,
        }
        Ok(())
    }

    /// When the timer has to look next. Packets that come meanwhile only move `last_packet`.
    fn deadline(&self, now: Instant) -> Instant {
        self.keep_alive.map_or(now + IDLE, |keep_alive| self.last_packet + keep_alive)
    }

    /// [`poll_event`](Self::poll_event), in a turn that ends when there is nothing to do.
    fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        hold: bool,
        timer: Pin<&mut Sleep>,
        shutdown: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> Poll<Event> {
        let held = self.over_share.is_some();
        self.begin_turn();
        if self.over_share.is_some() != held {
            return Poll::Ready(Event::Awake);
        }
        let event = self.poll_event(cx, hold, timer, shutdown);
        if event.is_pending() {
            self.end_turn();
        }
        event
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        hold: bool,
        mut timer: Pin<&mut Sleep>,
        shutdown: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> Poll<Event> {
        if let Some(until) = self.over_share {
            // What falls due meanwhile, and what the client has sent by then, is looked at afterwards.
            if timer.deadline() != until {
                timer.as_mut().reset(until);
            }
            return if shutdown.poll(cx).is_ready() {
                Poll::Ready(Event::Shutdown)
            } else {
                timer.poll(cx).map(|()| Event::Timer)
            };
        }
        let mut look_by = |at: Instant| {
            if timer.deadline() > at {
                timer.as_mut().reset(at);
            }
        };
        if self.stream.unsent() {
            if let Poll::Ready(written) = self.stream.poll_write(cx) {
                return Poll::Ready(Event::Written(written));
            }
            if let Some(since) = self.stream.stalled {
                look_by(since + self.core.config.write_timeout);
            }
        }
        let due = self.unfinished.as_ref().and_then(|begun| begun.due(&self.core.config));
        self.over_rate.into_iter().chain(due).for_each(look_by);
        if shutdown.poll(cx).is_ready() {
            return Poll::Ready(Event::Shutdown);
        }
        if self.session.poll_awake(self.link, cx).is_ready() {
            return Poll::Ready(Event::Awake);
        }
        if let Memory::Asked(asked) = &mut self.memory
            && let Poll::Ready(Ok(room)) = Pin::new(asked).poll(cx)
        {
            // All at once: growing step by step would copy, and hold twice as much.
            self.stream.input.reserve(room.bytes() - self.stream.input.len());
            self.memory = Memory::Granted(room);
            return Poll::Ready(Event::Awake);
        }
        if !hold && let Poll::Ready(read) = self.stream.poll_read(cx) {
            return Poll::Ready(Event::Read(read));
        }
        timer.poll(cx).map(|()| Event::Timer)
    }

    /// Handles the packets that are there, as many as a turn has room for or until the client has to be held back, and
    /// counts them.
    fn handle_input(&mut self) -> Result<(), End> {
        let (mut received, mut answered) = (Tally::default(), Tally::default());
        // Packets are handled as they stand in the input, which is not to be in the way of the rest.
        let mut input = std::mem::take(&mut self.stream.input);
        let handled = self.handle_packets(&mut input, &mut received, &mut answered);
        self.stream.input = input;
        self.stream.handled();
        if std::mem::take(&mut self.handed_over) {
            self.core.application.published();
        }
        self.core.counters.received.add(&received);
        self.core.counters.sent.add(&answered);
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
        while let Some(header) = frame::header(input, self.core.config.max_packet_size)? {
            if input.len() < header.size {
                self.await_rest(header, input)?;
                break;
            }
            let frame = header.frame(input);
            let packet = match self.filters.take() {
                Some(filters) => Packet::Filters(filters),
                None => codec::decode(&frame, self.version, &self.core.config)?,
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
                || self.turn.as_ref().is_none_or(WorkBudget::is_over)
                || self.over_rate()
            {
                return Ok(());
            }
        }
        let begun = !input.is_empty() || self.skipped.is_some();
        if let (true, None, Some(turn)) = (begun, &self.unfinished, &self.turn) {
            self.unfinished = Some(InputRate::new(turn.started));
        }
        self.unread = false;
        Ok(())
    }

    /// A packet of so many bytes was handled, which counts against the rate or does not.
    fn handled(&mut self, size: usize, counts: bool) {
        self.memory = match std::mem::replace(&mut self.memory, Memory::Share) {
            Memory::Granted(room) if self.output_is_full() => Memory::Answer { _room: room },
            _ => Memory::Share,
        };
        self.unfinished = None;
        if let Some(turn) = &mut self.turn {
            self.last_packet = turn.started;
            turn.packet(size, Instant::now);
        }
        if counts && self.core.config.max_message_rate > 0 {
            self.client.account.rates.message(&self.core.config, self.core.started.elapsed());
        }
    }

    /// Looks at the beginning of a packet whose rest is to come. If it is large, there must be room for all of it; a
    /// PUBLISH that will be refused anyway needs none.
    fn await_rest(&mut self, header: Header, input: &mut BytesMut) -> Result<(), End> {
        if header.size <= INPUT_SHARE || !matches!(self.memory, Memory::Share) {
            return Ok(());
        }
        if header.kind == Kind::Publish {
            match codec::publish_head(&header.frame(input), self.version, &self.core.config) {
                Ok((mut publish, payload)) => {
                    self.resolve_alias(&mut publish)?;
                    Self::check_topic(&publish)?;
                    let destination = self.core.destination(&self.client, &publish.topic);
                    if let Destination::Refused(_) | Destination::Nobody = destination {
                        let (size, left) = (header.size, header.size - input.len());
                        let payload = payload.len() + left;
                        self.skipped = Some(Skipped { publish, destination, size, payload });
                        self.stream.skip = left;
                        input.clear();
                        return Ok(());
                    }
                }
                // What it says of itself may not have come yet.
                Err(_) if input.len() < INPUT_SHARE => return Ok(()),
                Err(_) => {}
            }
        }
        self.memory = Memory::Asked(self.core.input.ask(&self.client.account, header.size));
        Ok(())
    }

    /// Whether its identity sent faster than it may, and is to be read from later.
    fn over_rate(&mut self) -> bool {
        let Core { config, counters, throttle, started, .. } = &*self.core;
        if config.max_message_rate == 0 && config.max_byte_rate == 0 {
            return false;
        }
        let until = self.client.account.rates.held_until(config, started.elapsed());
        if until.is_some() && self.over_rate.is_none() {
            count(&counters.rate_delays);
            if !self.delay_logged
                && let Some(left_out) = throttle.line(Cause::Delayed)
            {
                self.delay_logged = true;
                let client_id = clip(&self.client.client_id);
                info!(client_id, peer = %self.client.peer, left_out, "sends faster than it may, read later");
            }
        }
        self.over_rate = until.map(|until| *started + until);
        until.is_some()
    }

    fn handle(&mut self, packet: Packet, frame: &Frame<'_>) -> Result<Pause, End> {
        let version = self.version;
        match packet {
            Packet::Publish(publish) => return self.publish(publish, None),
            Packet::PubAck(id) => {
                self.session.lock_for(self.link)?.outbox.finish(id, Stage::Acknowledged, &self.core.counters);
            }
            Packet::PubRec { id, refused: true } => {
                self.session.lock_for(self.link)?.outbox.finish(id, Stage::Received, &self.core.counters);
            }
            Packet::PubRec { id, refused: false } => {
                let known = self.session.lock_for(self.link)?.outbox.receive(id, &self.core.counters);
                codec::pubrel(id, found(known), version, &mut self.stream.output);
            }
            Packet::PubRel(id) => {
                let known = self.session.lock_for(self.link)?.incoming.release(id);
                codec::pubcomp(id, found(known), version, &mut self.stream.output);
            }
            Packet::PubComp(id) => {
                self.session.lock_for(self.link)?.outbox.finish(id, Stage::Completed, &self.core.counters);
            }
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

    /// Takes note of what a packet makes the broker do beyond reading it.
    fn work(&mut self, units: usize) {
        if let Some(turn) = &mut self.turn {
            turn.work(units);
        }
    }

    /// Handles the next filters of a SUBSCRIBE or UNSUBSCRIBE, and answers it when they are the last. Otherwise it is
    /// kept, to be gone on with before anything else that the client has sent.
    fn handle_filters(&mut self, mut filters: FilterPacket, frame: &Frame<'_>) -> Result<(), End> {
        self.unfinished = None; // all of it has come
        for handled in 0..FILTERS_AT_ONCE {
            let Some(Filter { path, wanted }) = filters.next(frame)? else {
                self.work(handled);
                return self.answer(|out| filters.acknowledge(frame, out));
            };
            match wanted {
                None => filters.removed(self.core.unsubscribe(&self.session, self.link, path)?),
                Some(mut wanted) => {
                    if self.is_bridge {
                        wanted.options.no_local = true;
                        wanted.options.retain_as_published = true;
                    }
                    let granted =
                        self.core.subscribe(&self.session, self.link, &self.client, path, wanted)?;
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

    fn report_denied(&self, what: &'static str, topic: &str, Refusal { reason, cause }: Refusal) {
        if let Some(left_out) = self.core.throttle.line(Cause::Denied) {
            let ClientInfo { client_id, user, peer, .. } = &*self.client;
            let (client_id, user) = (clip(client_id), user.as_deref().map(clip));
            info!(client_id, user, %peer, topic = clip(topic), ?reason, cause, left_out, "{what}");
        }
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

    /// Handles a PUBLISH; `decided` is where it goes, if that is known.
    fn publish(&mut self, mut publish: Publish, decided: Option<Destination>) -> Result<Pause, End> {
        self.resolve_alias(&mut publish)?;
        Self::check_topic(&publish)?;
        let Publish { topic, payload, qos, retain, dup, id, properties, .. } = publish;
        let mut pause = Pause(false);
        let mut pending = None;
        if qos != QoS::AtMostOnce {
            let mut state = self.session.lock_for(self.link)?;
            let incoming = &mut state.incoming;
            let again = qos == QoS::ExactlyOnce && incoming.holds(id);
            if !again && over_receive_maximum(incoming, self.version, &self.core.config) {
                let detail = "more unacknowledged messages than Receive Maximum";
                return Err(Violation::new(Reason::ReceiveMaximumExceeded, detail).into());
            }
            let bounds = Bounds {
                account: &self.client.account,
                // A client of 3.1.1 may send as many as there are identifiers before its first PUBREL.
                session: match self.version {
                    Version::V5 => self.core.config.receive_maximum.into(),
                    Version::V311 => usize::MAX,
                },
                account_bytes: self.core.config.max_unreleased_bytes_per_identity,
            };
            let accepted = incoming.accept(id, qos, &bounds);
            pause = Pause(incoming.pending() > usize::from(self.core.config.receive_maximum));
            match accepted {
                Accepted::New(ticket) => pending = Some(ticket),
                Accepted::Repeated => return Ok(pause),
                Accepted::Refused if self.version == Version::V5 => return Ok(pause),
                Accepted::Refused => {
                    incoming.withdraw_last();
                    let detail = "more QoS 2 messages that are not released than there is room for";
                    return Err(Violation::new(Reason::QuotaExceeded, detail).into());
                }
            }
        }
        let pending = pending.map(|ticket| PendingAck { session: self.session.clone(), ticket, id, qos });
        let ack = Acknowledgement::pending(pending);
        match decided.unwrap_or_else(|| self.core.destination(&self.client, &topic)) {
            Destination::Application => {
                let client = self.client.clone();
                let received = Received { client, topic, payload, properties, qos, retain, dup, ack };
                self.core.application.publish(received);
                self.handed_over = true;
            }
            Destination::Broker => {
                let properties = properties.map(|properties| Arc::new(*properties));
                let message = Message { topic, payload, qos, retain, properties };
                let fan_out = self.core.start(Some(&self.session), &message);
                self.deliver(message, fan_out, ack);
            }
            Destination::Nobody => ack.refuse(Reason::NoMatchingSubscribers),
            Destination::Refused(refusal) => {
                count(&self.core.counters.dropped_refused);
                self.report_denied("publish refused", &topic, refusal);
                ack.refuse(refusal.reason);
            }
        }
        Ok(pause)
    }

    fn check_topic(publish: &Publish) -> Result<(), Violation> {
        if publish.topic.is_empty() {
            return Err(Violation::protocol("empty topic without a topic alias")); // section 3.3.2.1
        }
        if !topic::valid_name(&publish.topic) {
            return Err(Violation::new(Reason::TopicNameInvalid, "invalid topic name"));
        }
        Ok(())
    }

    /// Delivers a slice of what it has published, and acknowledges it with the last.
    fn deliver(&mut self, message: Message, mut fan_out: FanOut, ack: Acknowledgement) {
        let offered = |fan_out: &FanOut| fan_out.routed.reached + fan_out.routed.refused;
        let before = offered(&fan_out);
        let delivered = self.core.deliver_slice(&message, &mut fan_out, None);
        self.work(offered(&fan_out) - before);
        if !delivered {
            self.publishing = Some((message, fan_out, ack));
            return;
        }
        match fan_out.routed {
            Routed { reached: 1.., .. } => ack.complete(),
            // A stranger who hoards keeps nobody from publishing what is retained.
            Routed { refused: 1.., kept: true, .. } => ack.complete(),
            Routed { refused, .. } if refused > 0 => {
                if self.version == Version::V311 && message.qos != QoS::AtMostOnce {
                    self.report_unkept(&message, refused);
                }
                ack.refuse(Reason::QuotaExceeded);
            }
            Routed { .. } => ack.refuse(Reason::NoMatchingSubscribers),
        }
    }

    /// The acknowledgement of 3.1.1 says that a message is safe which is not.
    fn report_unkept(&mut self, message: &Message, refused: usize) {
        self.unkept += 1;
        if let Some(left_out) = self.core.throttle.line(Cause::Unkept) {
            let ClientInfo { client_id, user, peer, .. } = &*self.client;
            let (client_id, user, topic) = (clip(client_id), user.as_deref().map(clip), clip(&message.topic));
            let unkept = self.unkept;
            warn!(
                client_id,
                user,
                %peer,
                topic,
                unkept,
                refused,
                left_out,
                "acknowledged, as 3.1.1 has no words for it, and not kept: there is no room"
            );
        }
    }

    /// Topic aliases (section 3.3.2.3.4), of which each connection may set as many as CONNACK offered.
    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), Violation> {
        let Some(alias) = publish.alias else { return Ok(()) };
        if alias > self.core.config.topic_alias_maximum {
            return Err(Violation::new(Reason::TopicAliasInvalid, "topic alias over the maximum"));
        }
        if publish.topic.is_empty() {
            match self.aliases.get(&alias) {
                Some(topic) => publish.topic = topic.clone(),
                None => return Err(Violation::protocol("topic alias that was never set")),
            }
        } else {
            self.aliases.insert(alias, publish.topic.clone());
        }
        Ok(())
    }

    /// Delivers all that is left of what it has published, since some receivers have it already.
    async fn finish_publishing(&mut self) {
        while let Some((message, fan_out, ack)) = self.publishing.take() {
            let started = Instant::now();
            self.deliver(message, fan_out, ack);
            self.core.charge(&self.client.account, started);
            yield_now().await;
        }
    }

    async fn close(&mut self, end: End) {
        self.end_turn();
        if !matches!(self.memory, Memory::Answer { .. }) {
            self.memory = Memory::Share;
        }
        self.finish_publishing().await;
        self.session.fill_last(self.link, &self.core.counters, &mut self.stream.output);
        let core = &self.core;
        let (client_id, peer) = (clip(&self.client.client_id), self.client.peer);
        let (publish_will, session_expiry, last_word) = match end {
            End::Goodbye { reason, session_expiry } => (reason != 0, session_expiry, None),
            End::Lost | End::Stalled => (true, None, None),
            // What the standard has for a packet that is not complete in time (section 4.13.1) is nearest to this.
            End::TooSlow => (true, None, Some(Reason::KeepAliveTimeout)),
            End::Violation(violation) => (true, None, Some(violation.reason)),
            End::Evicted(reason) => (true, None, Some(reason)),
            End::KeepAlive => (true, None, Some(Reason::KeepAliveTimeout)),
            End::Shutdown => (false, None, Some(Reason::ServerShuttingDown)),
        };
        let is_there = !matches!(end, End::Lost | End::Stalled);
        match end {
            End::Violation(Violation { reason, detail }) => {
                count(&core.counters.violations);
                if let Some(left_out) = core.throttle.line(Cause::Closed) {
                    info!(client_id, %peer, ?reason, detail, left_out, "connection closed");
                }
            }
            End::Stalled => {
                count(&core.counters.stalled);
                if let Some(left_out) = core.throttle.line(Cause::Closed) {
                    info!(client_id, %peer, left_out, "connection closed: nothing is read");
                }
            }
            End::TooSlow => {
                count(&core.counters.too_slow);
                if let Some(left_out) = core.throttle.line(Cause::Closed) {
                    info!(client_id, %peer, left_out, "connection closed: a packet has begun and does not come");
                }
            }
            End::KeepAlive => {
                if let Some(left_out) = core.throttle.line(Cause::Closed) {
                    let waited = self.keep_alive.unwrap_or_default();
                    info!(client_id, %peer, ?waited, left_out, "connection closed: the keepalive ran out");
                }
            }
            end => debug!(client_id, %peer, ?end, "disconnected"),
        }
        let will = core.disconnect(&self.session, self.link, Ending { publish_will, session_expiry });
        self.publishing = will.map(|(message, fan_out)| (message, fan_out, Acknowledgement::pending(None)));
        self.finish_publishing().await;
        if let (Some(reason), Version::V5) = (last_word, self.version) {
            codec::disconnect(reason.in_disconnect(), &mut self.stream.output);
            self.core.counters.sent.packet();
        }
        if last_word.is_some() || is_there && self.stream.unsent() {
            let _ = timeout(CLOSE_TIMEOUT, self.stream.close()).await;
        } else {
            let _ = timeout(CLOSE_TIMEOUT, self.stream.shutdown()).await;
        }
    }
}

impl<S> Drop for Connection<S> {
    /// If the task is cut off, by a panic in the application for example, the session must not stay
    /// connected.
    fn drop(&mut self) {
        let ending = Ending { publish_will: true, session_expiry: None };
        self.core.finish(self.core.disconnect(&self.session, self.link, ending));
    }
}

fn found(known: bool) -> Reason {
    if known { Reason::Success } else { Reason::PacketIdentifierNotFound }
}
