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
    task::yield_now,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_util::sync::WaitForCancellationFuture;
use tracing::{debug, info};

use crate::{
    acknowledgement::{Acknowledgement, Owed},
    application::{ClientInfo, Received, Route, Version},
    arrival::Arrival,
    codec::{self, Filter, Packet, Publish},
    core::{Core, Ending, clip},
    fan_out::{FanOut, Routed},
    frame,
    handshake::{self, Opened, Unopened},
    incoming::Accepted,
    inflight::Stage,
    message::{Message, QoS},
    rate::Rates,
    reason::{Reason, Violation},
    session::{Evicted, Filled, Pause, Session, over_receive_maximum},
    stats::{Tally, count},
    stream::Stream,
    topic,
    transport::Peer,
};

/// How long a client has to take the last packet and close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Packets after which others have their turn: who sends without end must not keep a thread of the runtime from them.
const BATCH: usize = 128;
/// When a connection without any deadline looks again.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// Serves a connection from its first byte to its last.
pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin>(arrival: Arrival, socket: S) {
    let mut stream = Stream::new(socket, arrival.core.clone());
    let opened = arrival.in_time(handshake::open(&arrival, &mut stream)).await;
    let Arrival { core, peer: Peer { address: peer, .. }, shutdown, .. } = arrival;
    match opened {
        Some(Ok(opened)) => {
            let mut connection = Connection::new(core, stream, opened);
            let end = connection.serve(shutdown.cancelled()).await;
            connection.close(end).await;
        }
        Some(Err(Unopened::Refused)) => {
            let _ = timeout(CLOSE_TIMEOUT, stream.close()).await;
        }
        Some(Err(Unopened::Unanswerable)) => {
            count(&core.counters.violations);
            if let Some(left_out) = core.throttle.line() {
                info!(%peer, left_out, "closed: no acceptable CONNECT");
            }
        }
        Some(Err(Unopened::Lost)) | None => debug!(%peer, "closed before CONNECT"),
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

enum Event {
    Read(io::Result<usize>),
    Written(io::Result<()>),
    /// Something was put into the session.
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
    /// Bytes of the largest packet that the client takes.
    max_packet: usize,
    /// The client may not change an expiry of 0 at the end (section 3.14.2.2.2).
    session_expires_at_once: bool,
    /// One and a half times what was agreed (section 3.1.2.10).
    keep_alive: Option<Duration>,
    last_packet: Instant,
    /// The input may hold a whole packet.
    unread: bool,
    /// What it sent against what it may; `None` if it may send as fast as it can.
    rates: Option<Rates>,
    /// That it sends too fast was logged.
    delay_logged: bool,
    aliases: HashMap<u16, Arc<str>>,
    /// What it has published last, while not all receivers have it.
    publishing: Option<(Message, FanOut, Acknowledgement)>,
    /// The application has messages of which it was not told yet that they are all for now.
    handed_over: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new(core: Arc<Core>, stream: Stream<S>, opened: Opened) -> Self {
        let Opened { connected, version, keep_alive } = opened;
        let client = connected.client;
        let now = Instant::now();
        let ClientInfo { client_id, user, peer, transport, .. } = &*client;
        debug!(client_id = clip(client_id), user = user.as_deref().map(clip), %peer, ?transport, ?version, "connected");
        Self {
            rates: Rates::new(&core.config, now),
            delay_logged: false,
            core,
            unread: !stream.input.is_empty(),
            stream,
            session: connected.session,
            link: connected.link,
            client,
            version,
            max_packet: connected.max_packet,
            session_expires_at_once: connected.session_expiry == 0,
            keep_alive: (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1500)),
            last_packet: now,
            aliases: HashMap::new(),
            publishing: None,
            handed_over: false,
        }
    }

    async fn serve(&mut self, shutdown: WaitForCancellationFuture<'_>) -> End {
        let mut shutdown = pin!(shutdown);
        let mut timer = pin!(sleep_until(self.deadline(Instant::now())));
        loop {
            let Filled { pause: Pause(pause), retained } = match self.fill() {
                Ok(filled) => filled,
                Err(evicted) => return evicted.into(),
            };
            // What it has caused, in slices, comes before what it sends next.
            if self.publishing.is_some() || retained {
                if let Err(evicted) = self.deliver_next() {
                    return evicted.into();
                }
                yield_now().await;
                continue;
            }
            // A client that does not take what it is sent, whose messages are not acknowledged, or that sends too
            // fast, is not heard for the moment: this is what bounds the memory it can bind, and the work.
            let over_rate = self.over_rate();
            let hold = pause || over_rate || self.stream.output.len() >= self.core.config.write_buffer;
            if self.unread && !hold {
                if let Err(end) = self.handle_input() {
                    return end;
                }
                if self.unread {
                    yield_now().await;
                }
                continue;
            }
            match poll_fn(|cx| self.poll_event(cx, hold, timer.as_mut(), shutdown.as_mut())).await {
                Event::Read(Ok(bytes @ 1..)) => {
                    self.unread = true;
                    if let Some(rates) = &mut self.rates {
                        rates.bytes(bytes, &self.core.config, Instant::now());
                    }
                }
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
                Event::Timer => {
                    let now = Instant::now();
                    if hold {
                        self.last_packet = now; // not the client's silence
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

    /// Puts what waits for the client into the output, as far as there is room.
    fn fill(&mut self) -> Result<Filled, Evicted> {
        self.session.fill(self.link, &self.core.config, &self.core.counters, &mut self.stream.output)
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

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        hold: bool,
        mut timer: Pin<&mut Sleep>,
        shutdown: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> Poll<Event> {
        if self.stream.unsent() {
            if let Poll::Ready(written) = self.stream.poll_write(cx) {
                return Poll::Ready(Event::Written(written));
            }
            if let Some(since) = self.stream.stalled {
                let latest = since + self.core.config.write_timeout;
                if timer.deadline() > latest {
                    timer.as_mut().reset(latest);
                }
            }
        }
        if let Some(until) = self.rates.as_ref().and_then(Rates::held_until)
            && timer.deadline() > until
        {
            timer.as_mut().reset(until);
        }
        if shutdown.poll(cx).is_ready() {
            return Poll::Ready(Event::Shutdown);
        }
        if self.session.poll_awake(self.link, cx).is_ready() {
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
        let handled = self.handle_packets(&mut received, &mut answered);
        if std::mem::take(&mut self.handed_over) {
            self.core.application.published();
        }
        self.core.counters.received.add(&received);
        self.core.counters.sent.add(&answered);
        handled
    }

    fn handle_packets(&mut self, received: &mut Tally, answered: &mut Tally) -> Result<(), End> {
        let mut handled = 0;
        while let Some(frame) = frame::next(&self.stream.input, self.core.config.max_packet_size)? {
            let size = frame.size;
            let packet = codec::decode(&frame, self.version, &self.core.config)?;
            self.stream.input.advance(size);
            if handled == 0 {
                self.last_packet = Instant::now();
            }
            handled += 1;
            if let Some(rates) = &mut self.rates
                && !packet.acknowledges()
            {
                rates.message(&self.core.config, Instant::now());
            }
            match &packet {
                Packet::Publish(publish) => received.message(publish.payload.len()),
                _ => received.packets(1),
            }
            let unanswered = self.stream.output.len();
            let Pause(pause) = self.handle(packet)?;
            answered.packets(u64::from(self.stream.output.len() > unanswered));
            let full = pause || self.stream.output.len() >= self.core.config.write_buffer;
            if full || self.publishing.is_some() || handled >= BATCH || self.over_rate() {
                return Ok(());
            }
        }
        self.unread = false;
        self.stream.handled();
        Ok(())
    }

    /// Whether it sent faster than it may, and is to be read from later.
    fn over_rate(&mut self) -> bool {
        let Some(rates) = &mut self.rates else { return false };
        if rates.hold(&self.core.config, Instant::now()) {
            count(&self.core.counters.rate_delays);
            if !self.delay_logged
                && let Some(left_out) = self.core.throttle.line()
            {
                self.delay_logged = true;
                let client_id = clip(&self.client.client_id);
                info!(client_id, peer = %self.client.peer, left_out, "sends faster than it may, read later");
            }
        }
        rates.held_until().is_some()
    }

    fn handle(&mut self, packet: Packet) -> Result<Pause, End> {
        let version = self.version;
        match packet {
            Packet::Publish(publish) => return self.publish(publish),
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
            Packet::Subscribe { id, filters } => self.subscribe(id, &filters)?,
            Packet::Unsubscribe { id, filters } => {
                let removed = self.core.unsubscribe(&self.session, self.link, &filters)?;
                self.answer(|out| codec::unsuback(id, &removed, version, out))?;
            }
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

    fn subscribe(&mut self, id: u16, filters: &[Filter]) -> Result<(), End> {
        let granted = self.core.subscribe(&self.session, self.link, &self.client, filters)?;
        for (filter, granted) in filters.iter().zip(&granted) {
            if let Err(reason) = granted
                && let Some(left_out) = self.core.throttle.line()
            {
                let ClientInfo { client_id, user, peer, .. } = &*self.client;
                let (client_id, user) = (clip(client_id), user.as_deref().map(clip));
                info!(client_id, user, %peer, filter = clip(&filter.path), ?reason, left_out, "subscription refused");
            }
        }
        let version = self.version;
        self.answer(|out| codec::suback(id, &granted, version, out))
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

    fn publish(&mut self, mut publish: Publish) -> Result<Pause, End> {
        self.resolve_alias(&mut publish)?;
        if !topic::valid_name(&publish.topic, &self.core.config) {
            return Err(Violation::new(Reason::TopicNameInvalid, "invalid topic name").into());
        }
        let Publish { topic, payload, qos, retain, dup, id, properties, .. } = publish;
        let mut pause = Pause(false);
        let mut owed = None;
        if qos != QoS::AtMostOnce {
            let mut state = self.session.lock_for(self.link)?;
            let incoming = &mut state.incoming;
            let again = qos == QoS::ExactlyOnce && incoming.holds(id);
            if !again && over_receive_maximum(incoming, self.version, &self.core.config) {
                let detail = "more unacknowledged messages than Receive Maximum";
                return Err(Violation::new(Reason::ReceiveMaximumExceeded, detail).into());
            }
            let accepted = incoming.accept(id, qos);
            pause = Pause(incoming.pending() > usize::from(self.core.config.receive_maximum));
            match accepted {
                Accepted::New(ticket) => owed = Some(ticket),
                Accepted::Repeated => return Ok(pause),
            }
        }
        let owed = owed.map(|ticket| Owed { session: self.session.clone(), ticket, id, qos });
        let ack = Acknowledgement::owed(owed);
        match self.core.route(&self.client, &topic) {
            Route::Application => {
                let client = self.client.clone();
                let received = Received { client, topic, payload, properties, qos, retain, dup, ack };
                self.core.application.publish(received);
                self.handed_over = true;
            }
            Route::Broker => {
                let properties = properties.map(|properties| Arc::new(*properties));
                let message = Message { topic, payload, qos, retain, properties };
                let fan_out = self.core.start(Some(&self.session), &message);
                self.deliver(message, fan_out, ack);
            }
            Route::Refuse => {
                count(&self.core.counters.dropped_refused);
                if let Some(left_out) = self.core.throttle.line() {
                    let ClientInfo { client_id, user, peer, .. } = &*self.client;
                    let (client_id, user) = (clip(client_id), user.as_deref().map(clip));
                    info!(client_id, user, %peer, topic = clip(&topic), left_out, "publish refused");
                }
                ack.refuse(Reason::NotAuthorized);
            }
        }
        Ok(pause)
    }

    /// Delivers a slice of what it has published, and acknowledges it with the last.
    fn deliver(&mut self, message: Message, mut fan_out: FanOut, ack: Acknowledgement) {
        if !self.core.deliver_slice(&message, &mut fan_out, None) {
            self.publishing = Some((message, fan_out, ack));
            return;
        }
        match fan_out.routed {
            Routed { reached: 1.., .. } => ack.complete(),
            // A stranger who hoards keeps nobody from publishing what is retained.
            Routed { refused: 1.., kept: true, .. } => ack.complete(),
            Routed { refused: 1.., .. } => ack.refuse(Reason::QuotaExceeded),
            Routed { .. } => ack.refuse(Reason::NoMatchingSubscribers),
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
            self.deliver(message, fan_out, ack);
            yield_now().await;
        }
    }

    async fn close(&mut self, end: End) {
        self.finish_publishing().await;
        let core = &self.core;
        let (client_id, peer) = (clip(&self.client.client_id), self.client.peer);
        let (publish_will, session_expiry, last_word) = match end {
            End::Goodbye { reason, session_expiry } => (reason != 0, session_expiry, None),
            End::Lost | End::Stalled => (true, None, None),
            End::Violation(violation) => (true, None, Some(violation.reason)),
            End::Evicted(reason) => (true, None, Some(reason)),
            End::KeepAlive => (true, None, Some(Reason::KeepAliveTimeout)),
            End::Shutdown => (false, None, Some(Reason::ServerShuttingDown)),
        };
        match end {
            End::Violation(Violation { reason, detail }) => {
                count(&core.counters.violations);
                if let Some(left_out) = core.throttle.line() {
                    info!(client_id, %peer, ?reason, detail, left_out, "connection closed");
                }
            }
            End::Stalled => {
                count(&core.counters.stalled);
                if let Some(left_out) = core.throttle.line() {
                    info!(client_id, %peer, left_out, "connection closed: nothing is read");
                }
            }
            end => debug!(client_id, %peer, ?end, "disconnected"),
        }
        let will = core.disconnect(&self.session, self.link, Ending { publish_will, session_expiry });
        self.publishing = will.map(|(message, fan_out)| (message, fan_out, Acknowledgement::owed(None)));
        self.finish_publishing().await;
        if let Some(reason) = last_word {
            if self.version == Version::V5 {
                codec::disconnect(reason.in_disconnect(), &mut self.stream.output);
                self.core.counters.sent.packet();
            }
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
