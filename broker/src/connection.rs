//! One client's connection: a task that reads packets, handles them, and writes what is due.
//!
//! The task works within a [`WorkBudget`] each time that the runtime polls it. It takes what the socket has, handles
//! each whole packet in it ([`input`]), and sends all that is due with one write. What a client has caused for others,
//! a message to many receivers for example, is done in slices before anything else is taken from it.

mod close;
mod end;
mod handshake;
mod input;
mod input_rate;
pub(crate) mod pending;
mod publish;
mod subscribe;
pub(crate) mod upgrade;
mod work_budget;

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    task::yield_now,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_util::sync::WaitForCancellationFuture;
use tracing::{debug, info};

use crate::{
    broker::{Broker, authorization::Destination},
    connection::{
        end::End,
        handshake::{ConnectError, Opened},
        input_rate::InputRate,
        pending::PendingConnection,
        work_budget::WorkBudget,
    },
    message::Message,
    packet::{codec::Publish, subscribe::FilterPacket},
    quotas::input_budget::Reservation,
    reason::Violation,
    session::{Evicted, Filled, Pause, Session, acknowledgement::Acknowledgement, client::ClientInfo},
    stats::count,
    throttle::{Cause, clip},
    topics::fan_out::FanOut,
    transport::{
        peer::Peer,
        stream::{CLOSE_TIMEOUT, Stream},
    },
    version::Version,
};

/// When a connection without any deadline looks again.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// Serves a connection from its first byte to its last.
pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin>(pending: PendingConnection, socket: S) {
    let mut stream = Stream::new(socket, pending.broker.context().clone());
    let opened = pending.in_time(handshake::open(&pending, &mut stream)).await;
    let PendingConnection { broker, peer: Peer { address: peer, .. }, shutdown, .. } = pending;
    match opened {
        Some(Ok(opened)) => {
            let mut connection = Connection::new(broker, stream, opened);
            let end = connection.serve(shutdown.cancelled()).await;
            connection.close(end).await;
        }
        Some(Err(ConnectError::Refused)) => {
            let _ = timeout(CLOSE_TIMEOUT, stream.close()).await;
        }
        Some(Err(ConnectError::Unanswerable(cause))) => {
            count(&broker.counters().violations);
            if let Some(left_out) = broker.throttle().line(Cause::Refused) {
                info!(%peer, cause, left_out, "closed: no acceptable CONNECT");
            }
        }
        Some(Err(ConnectError::Lost)) | None => debug!(%peer, "closed before CONNECT"),
    }
}

struct Connection<S> {
    broker: Broker,
    stream: Stream<S>,
    session: Arc<Session>,
    /// Which connection of the session this is.
    connection_id: u64,
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
    /// The rate at which a packet comes that has begun.
    unfinished: Option<InputRate>,
    memory: PacketMemory,
    /// The SUBSCRIBE or UNSUBSCRIBE at the front of the input, while it is not answered.
    filters: Option<FilterPacket>,
    /// Whether that is to be answered when it is durable.
    storing: FilterStorage,
    /// Where the PUBLISH at the front of the input goes, if that was decided before all of it had come.
    destination: Option<Destination>,
    /// A PUBLISH that is refused and not kept, whose bytes are still to come.
    skipped: Option<Skipped>,
    /// `None` between two polls.
    budget: Option<WorkBudget>,
    /// Until when its identity has used up its share of the threads.
    over_share: Option<Instant>,
    /// Until when its identity is over its rate.
    over_rate: Option<Instant>,
    /// That it sends too fast was logged.
    delay_logged: bool,
    aliases: HashMap<u16, Arc<str>>,
    /// The message that it has published last, while not all receivers have it.
    publishing: Option<(Message, FanOut, Acknowledgement)>,
    /// Its messages that were acknowledged and that nobody has, 3.1.1 having no code for it.
    unkept: u64,
    /// The application has messages of which it was not told yet that they are all for now.
    handed_over: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new(broker: Broker, stream: Stream<S>, opened: Opened) -> Self {
        let Opened { connected, version, is_bridge, keep_alive } = opened;
        let client = connected.client;
        let now = Instant::now();
        let ClientInfo { client_id, user, peer, transport, .. } = &*client;
        debug!(client_id = clip(client_id), user = user.as_deref().map(clip), %peer, ?transport, ?version, "connected");
        Self {
            memory: PacketMemory::OwnShare,
            unfinished: None,
            filters: None,
            storing: FilterStorage::Nothing,
            skipped: None,
            budget: None,
            destination: None,
            over_share: None,
            over_rate: None,
            delay_logged: false,
            broker,
            unread: !stream.input.is_empty(),
            stream,
            session: connected.session,
            connection_id: connected.connection_id,
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
            if self.budget_is_spent() {
                self.settle_budget();
                yield_now().await;
            }
            self.begin_budget();
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
            match poll_fn(|cx| self.poll_within_budget(cx, hold, timer.as_mut(), shutdown.as_mut())).await {
                Event::Read(Ok(bytes @ 1..)) => self.received(bytes),
                Event::Read(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    return Violation::protocol("TLS or WebSocket gone wrong").into();
                }
                Event::Read(_) | Event::Written(Err(_)) => return End::Lost,
                Event::Written(Ok(())) | Event::Awake => {}
                Event::StorageFailed => return End::StorageFailed,
                Event::Shutdown => {
                    // What came between the last look and the shutdown is sent too: whoever stops the broker has
                    // published a last message before.
                    let _ = self.fill();
                    return End::Shutdown;
                }
                // The share may be there again, which is looked at when a budget begins.
                Event::Timer if self.over_share.is_some() => self.settle_budget(),
                Event::Timer => {
                    let now = Instant::now();
                    if hold {
                        self.last_packet = now; // not the client's silence
                    }
                    if self
                        .unfinished
                        .as_mut()
                        .is_some_and(|begun| !begun.is_enough(self.broker.config(), now))
                    {
                        return End::TooSlow;
                    }
                    if self
                        .stream
                        .stalled
                        .is_some_and(|since| since + self.broker.config().write_timeout <= now)
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

    /// Whether the time of this poll is up, and others are to have theirs.
    fn budget_is_spent(&mut self) -> bool {
        let Some(budget) = &mut self.budget else { return false };
        budget.check_time(Instant::now());
        budget.is_spent()
    }

    /// Begins a budget, if there is none: its identity may have used up its share of the threads meanwhile.
    fn begin_budget(&mut self) {
        if self.budget.is_some() {
            return;
        }
        let now = Instant::now();
        let until = self.broker.quotas().over_share(&self.client.account, now);
        if until.is_some() && self.over_share.is_none() {
            count(&self.broker.counters().share_waits);
        }
        self.over_share = until;
        self.budget = Some(WorkBudget::new(now));
    }

    /// Charges what was used of the budget to the identity whose connection this is.
    fn settle_budget(&mut self) {
        if let Some(budget) = self.budget.take() {
            self.broker.quotas().charge(&self.client.account, budget.started);
        }
    }

    /// Puts what waits into the output, and says whether the client is not to be read from for the moment: one that
    /// does not take what it is sent, whose messages are not acknowledged, that sends too fast, for whose packet there
    /// is no memory, or whose identity has used up its share of the threads. This is what bounds the memory that it can
    /// bind, and the work.
    fn next(&mut self) -> Result<Next, Evicted> {
        if self.over_share.is_some() {
            // Too short for a packet that has begun to be excused.
            return Ok(Next { hold: true, due: false });
        }
        let Filled { pause: Pause(pause), retained, .. } = self.fill()?;
        let over_rate = self.over_rate();
        let full = self.output_is_full();
        if !full && matches!(self.memory, PacketMemory::Answer { .. }) {
            self.memory = PacketMemory::OwnShare;
        }
        let waits = matches!(self.memory, PacketMemory::Requested(_))
            || matches!(self.storing, FilterStorage::Waits(_));
        let hold = pause || over_rate || full || waits;
        if let (Some(begun), Some(budget)) = (&mut self.unfinished, &self.budget) {
            if hold { begun.pause() } else { begun.resume(budget.started) }
        }
        Ok(Next { hold, due: retained || self.publishing.is_some() })
    }

    fn output_is_full(&self) -> bool {
        self.stream.output.len() >= self.broker.config().write_buffer
    }

    /// Takes note of bytes that were read.
    fn received(&mut self, bytes: usize) {
        self.unread = true;
        if let (Some(begun), Some(budget)) = (&mut self.unfinished, &self.budget) {
            begun.received(bytes);
            self.last_packet = budget.started;
        }
        if self.broker.config().max_byte_rate > 0 {
            self.client.account.rates.bytes(bytes, self.broker.config(), self.broker.quotas().clock());
        }
    }

    /// Puts what waits for the client into the output, as far as there is room.
    fn fill(&mut self) -> Result<Filled, Evicted> {
        let (config, counters) = (self.broker.config(), self.broker.counters());
        let filled = self.session.fill(self.connection_id, config, counters, &mut self.stream.output)?;
        if let Filled { dropped: dropped @ 1.., .. } = filled
            && let Some(left_out) = self.broker.throttle().line(Cause::Dropped)
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
            None => self.broker.topics().deliver_retained(&self.session, self.connection_id)?,
        }
        Ok(())
    }

    /// When the timer has to look next. Packets that come meanwhile only move `last_packet`.
    fn deadline(&self, now: Instant) -> Instant {
        self.keep_alive.map_or(now + IDLE, |keep_alive| self.last_packet + keep_alive)
    }

    /// [`poll_event`](Self::poll_event), within a budget that is settled when there is nothing to do.
    fn poll_within_budget(
        &mut self,
        cx: &mut Context<'_>,
        hold: bool,
        timer: Pin<&mut Sleep>,
        shutdown: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> Poll<Event> {
        let held = self.over_share.is_some();
        self.begin_budget();
        if self.over_share.is_some() != held {
            return Poll::Ready(Event::Awake);
        }
        let event = self.poll_event(cx, hold, timer, shutdown);
        if event.is_pending() {
            self.settle_budget();
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
                look_by(since + self.broker.config().write_timeout);
            }
        }
        let due = self.unfinished.as_ref().and_then(|begun| begun.due(self.broker.config()));
        self.over_rate.into_iter().chain(due).for_each(look_by);
        if shutdown.poll(cx).is_ready() {
            return Poll::Ready(Event::Shutdown);
        }
        if self.session.poll_awake(self.connection_id, cx).is_ready() {
            return Poll::Ready(Event::Awake);
        }
        if let PacketMemory::Requested(requested) = &mut self.memory
            && let Poll::Ready(Ok(reservation)) = Pin::new(requested).poll(cx)
        {
            // All at once: growing step by step would copy, and hold twice as much.
            self.stream.input.reserve(reservation.bytes() - self.stream.input.len());
            self.memory = PacketMemory::Granted(reservation);
            return Poll::Ready(Event::Awake);
        }
        if let FilterStorage::Waits(stored) = &mut self.storing
            && let Poll::Ready(stored) = Pin::new(stored).poll(cx)
        {
            self.storing = FilterStorage::Done;
            return Poll::Ready(if stored.is_ok() { Event::Awake } else { Event::StorageFailed });
        }
        if !hold && let Poll::Ready(read) = self.stream.poll_read(cx) {
            return Poll::Ready(Event::Read(read));
        }
        timer.poll(cx).map(|()| Event::Timer)
    }

    /// Takes note of what a packet makes the broker do beyond reading it.
    fn work(&mut self, units: usize) {
        if let Some(budget) = &mut self.budget {
            budget.work(units);
        }
    }
}

/// Memory for the packet that is coming.
enum PacketMemory {
    /// The connection's own share is enough, as far as is known.
    OwnShare,
    Requested(oneshot::Receiver<Reservation>),
    /// Given back when the packet is handled.
    Granted(Reservation),
    /// Of a packet that is handled: its answer, which is half as large at most, is not sent.
    Answer {
        _reservation: Reservation,
    },
}

/// How far the storage is with the filters of a session that is stored.
enum FilterStorage {
    Nothing,
    Waits(oneshot::Receiver<()>),
    Done,
}

/// All of a PUBLISH but its payload.
struct Skipped {
    publish: Publish,
    destination: Destination,
    size: usize,
    payload: usize,
}

/// What a connection has to do next.
struct Next {
    /// The client is not to be read from.
    hold: bool,
    /// A slice of what it has caused is to be delivered, before anything else that it sends.
    due: bool,
}

enum Event {
    Read(io::Result<usize>),
    Written(io::Result<()>),
    /// Something was put into the session, or is as it was waited for.
    Awake,
    /// What was waited for never comes.
    StorageFailed,
    Timer,
    Shutdown,
}
