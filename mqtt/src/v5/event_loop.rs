//! The connection in MQTT 5: carries packets both ways, and says how it ends.
//!
//! It is used as rumqttc's `v5::EventLoop` is, with rumqttc's client, options, packets and state.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use rumqttc::v5::mqttbytes::Error as PacketError;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Connect, ConnectReturnCode, Packet};
use rumqttc::v5::{AsyncClient, Event, MqttOptions, MqttState, Request, StateError};
use rustls::ClientConfig;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_util::codec::Framed;

use super::codec::Codec;
use crate::stream::{self, Stream};
use crate::{ConnectionError, ConnectionOptions, Reason, Version};

/// Packets that are taken in before their events are handed out.
const MAX_BATCH: usize = 10;
/// Bytes to be written beyond which no further request is put to them.
const MAX_UNWRITTEN: usize = 8 << 10;
/// Packets that are answered while the broker takes no bytes; no more are taken in.
const MAX_UNWRITTEN_ANSWERS: usize = 4_096;

/// A connection that is made when it is polled first, and again when it is polled after its end.
pub(super) struct EventLoop {
    /// What the next connection is made with.
    pub(super) options: MqttOptions,
    /// What is in flight, and the events that wait to be taken.
    state: MqttState,
    requests: flume::Receiver<Request>,
    /// What the last connection left unsent, for one that resumes its session.
    pending: VecDeque<Request>,
    network: Option<Network>,
    /// Why the connection has ended, until that is told.
    ended: Option<ConnectionError>,
    tls: Option<Arc<ClientConfig>>,
    write_timeout: Option<Duration>,
    connected_before: bool,
}

/// The packets of a connection.
pub(super) type Packets = Framed<Box<dyn Stream>, Codec>;

struct Network {
    packets: Packets,
    /// None where the broker wants no keep-alive.
    pings: Option<Interval>,
    /// Messages at QoS 1 and 2 that may be in flight.
    max_in_flight: u16,
    /// Answers to packets that came, among what is to be written.
    answers: usize,
    /// Since when the broker has not taken all that is to be written.
    stalled: Option<Instant>,
}

/// A packet that has come, or `None` at the end of the stream.
type Received = Option<Result<Packet, PacketError>>;

/// A client, and the connection that carries out its requests. rumqttc's options lack some of what is given.
pub(super) fn open(options: MqttOptions, given: &ConnectionOptions) -> (AsyncClient, EventLoop) {
    let (sender, requests) = flume::bounded(given.max_queued);
    let event_loop = EventLoop {
        state: new_state(&options),
        options,
        requests,
        pending: VecDeque::new(),
        network: None,
        ended: None,
        tls: given.tls.clone(),
        write_timeout: given.write_timeout,
        connected_before: false,
    };
    (AsyncClient::from_senders(sender), event_loop)
}

fn new_state(options: &MqttOptions) -> MqttState {
    MqttState::new(in_flight_limit(options), options.manual_acks())
}

fn in_flight_limit(options: &MqttOptions) -> u16 {
    options.get_outgoing_inflight_upper_limit().unwrap_or(u16::MAX)
}

impl EventLoop {
    /// Waits for what happens next; connects where there is no connection. To be polled to its end: dropped half way it
    /// can lose a packet.
    ///
    /// # Errors
    ///
    /// When no connection comes about, or it has ended; after all that came before.
    pub(super) async fn poll(&mut self) -> Result<Event, ConnectionError> {
        if self.network.is_none() {
            let longest = Duration::from_secs(self.options.connection_timeout());
            let connected = timeout(longest, self.connect()).await;
            let (network, connack) = connected.map_err(|_| ConnectionError::TimedOut)??;
            self.network = Some(network);
            let connected_before = std::mem::replace(&mut self.connected_before, true);
            if connected_before && !connack.session_present {
                // Of the old session nothing is left at the broker, so neither are its packet identifiers.
                self.pending.clear();
                let events = std::mem::take(&mut self.state.events);
                self.state = new_state(&self.options);
                self.state.events = events;
            }
            self.state.handle_incoming_packet(Packet::ConnAck(connack))?;
        }
        loop {
            if let Some(event) = self.state.events.pop_front() {
                return Ok(event);
            }
            // What came before the end was handed out first.
            if let Some(error) = self.ended.take() {
                self.disconnected();
                return Err(error);
            }
            self.ended = self.step().await.err();
        }
    }

    async fn connect(&mut self) -> Result<(Network, ConnAck), ConnectionError> {
        let (packets, connack) = connect(&self.options, self.tls.as_ref()).await?;
        let properties = connack.properties.as_ref();
        let keep_alive = keep_alive(&self.options, &connack);
        let receive_maximum = properties.and_then(|properties| properties.receive_max).unwrap_or(u16::MAX);
        let max_in_flight = receive_maximum.min(in_flight_limit(&self.options));
        let pings = pings(keep_alive);
        Ok((Network { packets, pings, max_in_flight, answers: 0, stalled: None }, connack))
    }

    /// Writes what is due, all at once: the answers to what came before, and the requests that wait. Where nothing is,
    /// waits for what comes first: a packet, a request, or the time to ping.
    async fn step(&mut self) -> Result<(), ConnectionError> {
        let EventLoop { state, requests, pending, network, .. } = self;
        let network = network.as_mut().expect("connected before");
        loop {
            let has_room = state.inflight() < network.max_in_flight && state.collision.is_none();
            if network.unwritten() >= MAX_UNWRITTEN || (pending.is_empty() && !has_room) {
                break;
            }
            let Some(request) = pending.pop_front().or_else(|| requests.try_recv().ok()) else { break };
            let is_last = matches!(request, Request::Disconnect);
            if let Some(packet) = state.handle_outgoing_packet(request)? {
                network.packets.feed(packet).await?;
            }
            if is_last {
                // Whoever is told that it is written polls no more.
                let written = network.packets.flush();
                return match self.write_timeout {
                    Some(longest) => {
                        Ok(timeout(longest, written).await.map_err(|_| ConnectionError::Stalled)??)
                    }
                    None => Ok(written.await?),
                };
            }
        }
        if network.unwritten() > 0 {
            let packet = match network.write(self.write_timeout).await? {
                Some(packet) => Some(packet),
                // Requests that never end are no reason to read nothing.
                None => network.packets.next().now_or_never(),
            };
            return match packet {
                Some(packet) => network.take_in(packet, state).await,
                None => Ok(()),
            };
        }
        let has_room = state.inflight() < network.max_in_flight && state.collision.is_none();
        tokio::select! {
            biased;
            () = next_ping(&mut network.pings) => pending.push_back(Request::PingReq),
            packet = network.packets.next() => network.take_in(packet, state).await?,
            request = next_request(requests), if has_room => pending.push_back(request),
        }
        Ok(())
    }

    /// Keeps what a connection that resumes the session has to send again. Acknowledgements are not among it: the
    /// broker delivers again what they were for.
    fn disconnected(&mut self) {
        self.network = None;
        self.pending.extend(self.state.clean());
        self.pending.extend(self.requests.drain());
        self.pending.retain(|request| !matches!(request, Request::PubAck(_) | Request::PingReq));
    }
}

/// Connects, and sends CONNECT: the connection, and how the broker has accepted it.
///
/// # Errors
///
/// When there is no connection, or the broker refuses it.
pub(super) async fn connect(
    options: &MqttOptions,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<(Packets, ConnAck), ConnectionError> {
    let (host, port) = options.broker_address();
    let stream = stream::open(&host, port, tls).await?;
    let mut packets = Framed::new(stream, Codec::new(options.max_packet_size()));
    // What is put to it waits for `flush`, and never for the broker.
    packets.set_backpressure_boundary(usize::MAX);
    let connect = Connect {
        client_id: options.client_id(),
        keep_alive: options.keep_alive().as_secs().try_into().unwrap_or(u16::MAX),
        clean_start: options.clean_start(),
        properties: options.connect_properties(),
    };
    packets.send(Packet::Connect(connect, options.last_will(), options.credentials())).await?;
    let connack = match packets.next().await {
        Some(Ok(Packet::ConnAck(connack))) => connack,
        Some(Ok(Packet::Disconnect(disconnect))) => {
            let reason = disconnect.properties.and_then(|properties| properties.reason_string);
            let code = disconnect.reason_code.into();
            return Err(ConnectionError::Disconnected(Reason { code, text: reason }));
        }
        Some(Ok(_)) => {
            return Err(ConnectionError::protocol(Version::V5, "another packet than CONNACK"));
        }
        Some(Err(error)) => return Err(error.into()),
        None => return Err(ConnectionError::Closed),
    };
    let properties = connack.properties.as_ref();
    if connack.code != ConnectReturnCode::Success {
        let reason = properties.and_then(|properties| properties.reason_string.clone());
        return Err(ConnectionError::Refused(Reason { code: connack.code.into(), text: reason }));
    }
    packets.codec_mut().set_max_outgoing(properties.and_then(|properties| properties.max_packet_size));
    Ok((packets, connack))
}

/// What the broker wants, or else what we do.
pub(super) fn keep_alive(options: &MqttOptions, connack: &ConnAck) -> Duration {
    let wanted = connack.properties.as_ref().and_then(|properties| properties.server_keep_alive);
    wanted.map_or(options.keep_alive(), |seconds| Duration::from_secs(seconds.into()))
}

impl Network {
    /// Bytes that are to be written.
    fn unwritten(&self) -> usize {
        self.packets.write_buffer().len()
    }

    /// Writes what is to be written, or finds a packet where that takes time: a broker that cannot get rid of what it
    /// has for us may read no more until it can.
    ///
    /// # Errors
    ///
    /// When it has taken longer than this.
    async fn write(&mut self, longest: Option<Duration>) -> Result<Option<Received>, ConnectionError> {
        let Network { packets, answers, stalled, .. } = self;
        let since = stalled.unwrap_or_else(Instant::now);
        let turn = poll_fn(|cx| {
            if let Poll::Ready(written) = packets.poll_flush_unpin(cx) {
                (*answers, *stalled) = (0, None);
                return Poll::Ready(Ok(written.map(|()| None)?));
            }
            stalled.get_or_insert(since);
            if *answers >= MAX_UNWRITTEN_ANSWERS {
                return Poll::Pending;
            }
            packets.poll_next_unpin(cx).map(|packet| Ok(Some(packet)))
        });
        let Some(longest) = longest else { return turn.await };
        tokio::select! {
            biased;
            turn = turn => turn,
            () = sleep_until(since + longest) => Err(ConnectionError::Stalled),
        }
    }

    /// Takes in a packet, and others that are there already. What answers them is written as far as the broker takes it
    /// at once.
    async fn take_in(&mut self, mut packet: Received, state: &mut MqttState) -> Result<(), ConnectionError> {
        for left in (0..MAX_BATCH).rev() {
            let taken = packet.ok_or(ConnectionError::Closed)??;
            if let Some(answer) = state.handle_incoming_packet(taken)? {
                self.packets.feed(answer).await?;
                self.answers += 1;
            }
            // What is taken out has to be taken in.
            let next = if left > 0 { self.packets.next().now_or_never() } else { None };
            let Some(next) = next else { break };
            packet = next;
        }
        if self.unwritten() > 0
            && let Some(written) = self.packets.flush().now_or_never()
        {
            (self.answers, self.stalled) = (0, None);
            written?;
        }
        Ok(())
    }
}

/// When to ask whether the broker is there, if ever.
pub(super) fn pings(keep_alive: Duration) -> Option<Interval> {
    (!keep_alive.is_zero()).then(|| {
        let mut pings = interval_at(Instant::now() + keep_alive, keep_alive);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings
    })
}

async fn next_ping(pings: &mut Option<Interval>) {
    match pings {
        Some(pings) => {
            pings.tick().await;
        }
        None => pending().await,
    }
}

async fn next_request(requests: &flume::Receiver<Request>) -> Request {
    match requests.recv_async().await {
        Ok(request) => request,
        // The client is gone; what the broker says may still be of use.
        Err(_) => pending().await,
    }
}

impl From<PacketError> for ConnectionError {
    fn from(error: PacketError) -> ConnectionError {
        match error {
            PacketError::Io(error) => error.into(),
            error => ConnectionError::protocol(Version::V5, &error.to_string()),
        }
    }
}

impl From<StateError> for ConnectionError {
    fn from(error: StateError) -> ConnectionError {
        match error {
            StateError::Io(error) => error.into(),
            StateError::Deserialization(error) => error.into(),
            StateError::ServerDisconnect { reason_code, reason_string } => {
                ConnectionError::Disconnected(Reason { code: reason_code.into(), text: reason_string })
            }
            StateError::AwaitPingResp | StateError::CollisionTimeout => ConnectionError::TimedOut,
            StateError::ConnectionAborted => ConnectionError::Closed,
            error => ConnectionError::protocol(Version::V5, &error.to_string()),
        }
    }
}
