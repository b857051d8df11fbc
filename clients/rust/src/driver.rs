//! The task that owns the connection: sends what callers hand in, hands out what comes back, connects again.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use offload_mqtt::{
    Connected, Connection, ConnectionError, ConnectionOptions, Event, Message, PacketSender, QoS, Reason,
    ReasonCode, Sent, Subscription, Version, one_line,
};
use offload_protocol::topic;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::client::Shared;
use crate::explain::{explain, is_unauthorized};
use crate::in_flight::Sequence;
use crate::reconnect::ReconnectPolicy;
use crate::{Error, Part};

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long after a connection was made again the gateway may still be missing: it lost its own, too.
const GATEWAY_MAY_BE_MISSING: Duration = Duration::from_secs(10);

/// How long to wait before a request that found no gateway is sent again.
const GATEWAY_PAUSE: Duration = Duration::from_millis(250);

/// The broker grants no subscription to `result/<client id>`.
const NO_ANSWERS: &str =
    "no subscription to the answers (where clients have names, the client id has to be the own one: -i NAME)";

/// The connection and what is under way on it.
pub(crate) struct Driver {
    connection: Connection,
    under_way: UnderWay,
}

impl Driver {
    /// Connects and subscribes: one attempt, bounded in time.
    pub(crate) async fn connect(shared: Arc<Shared>) -> Result<Self, Error> {
        let options = &shared.options;
        let (sender, mut connection) = offload_mqtt::open(ConnectionOptions {
            session_expiry: options.session_expiry,
            max_in_flight: options.max_in_flight,
            // Beside the requests in flight there are the subscription and the farewell.
            max_queued: usize::from(options.max_in_flight) + 2,
            ..options.connection()?
        });
        let mut under_way = UnderWay::new(shared.clone(), sender);
        let failed = |reason: String| Error::Connect { address: options.address(), reason };
        let deadline = Instant::now() + options.connect_timeout;
        let mut connected = false;
        loop {
            let event =
                timeout_at(deadline, connection.next()).await.unwrap_or(Err(ConnectionError::TimedOut));
            let subscribed = matches!(event, Ok(Event::SubAck { .. }));
            connected |= matches!(event, Ok(Event::Connected(_)));
            match event {
                Ok(event) => under_way.handle(event)?,
                Err(error) => {
                    let explained = explain(&error, options.connect_timeout);
                    if is_unauthorized(&error) {
                        return Err(Error::Unauthorized(explained));
                    }
                    if connected || matches!(error, ConnectionError::Refused(_)) {
                        return Err(failed(explained));
                    }
                    let peer = options.connection()?.identify_peer().await;
                    return Err(failed(peer.map_or(explained, |peer| peer.to_string())));
                }
            }
            if subscribed {
                // From now on the session is worth keeping. MQTT 3.1.1 cannot say for how long, so there every
                // connection has a new one.
                if connection.version() == Version::V5 {
                    connection.resume_session();
                }
                under_way.established = true;
                return Ok(Self { connection, under_way });
            }
        }
    }

    /// Runs until the client is dropped or there is no point in going on.
    pub(crate) async fn run(mut self, mut to_send: mpsc::Receiver<Sequence>) {
        let shared = self.under_way.shared.clone();
        let mut reconnects = ReconnectPolicy::new();
        reconnects.connected(Instant::now());
        let mut fatal = FatalRequest::default();
        loop {
            let Some(event) = self.under_way.until(&mut to_send, self.connection.next()).await else {
                return self.farewell().await;
            };
            let error = match event {
                Ok(event) => {
                    let connected = matches!(event, Event::Connected(_));
                    if let Err(error) = self.under_way.handle(event) {
                        return shared.in_flight.close(error);
                    }
                    if connected {
                        info!("connected again");
                        reconnects.connected(Instant::now());
                    }
                    continue;
                }
                Err(error) => error,
            };
            if self.under_way.connected {
                fatal.connection_lost(self.under_way.unacknowledged());
            }
            // Two clients of one id would evict each other for ever.
            let taken_over = error.is_taken_over();
            let reason = explain(&error, shared.options.connect_timeout);
            let pause = if taken_over { None } else { reconnects.pause(Instant::now()) };
            let Some(pause) = pause else {
                let id = &shared.options.client_id;
                let reason = match fatal.size() {
                    _ if taken_over => format!("another client has connected with the id `{id}`"),
                    Some(size) => format!(
                        "{reason}, each time that a request of {size} bytes was sent: is it larger than the broker \
                         takes? In MQTT 5 it would say how much that is"
                    ),
                    None => {
                        format!("{reason}, again and again: is another client connected with the id `{id}`?")
                    }
                };
                return shared.in_flight.close(Error::Closed(reason));
            };
            // Once a loss, not once an attempt.
            if self.under_way.connected {
                warn!(%reason, "the connection is lost");
            } else {
                debug!(%reason, "no connection yet");
            }
            self.under_way.connected = false;
            shared.in_flight.set_lost(Some(reason));
            if self.under_way.until(&mut to_send, sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Says good-bye, so that the broker does not keep the session for a client that was lost.
    async fn farewell(mut self) {
        if !self.under_way.connected || self.under_way.sender.disconnect().is_err() {
            return;
        }
        let gone = async {
            while !matches!(self.connection.next().await, Ok(Event::Sent(Sent::Disconnect)) | Err(_)) {}
        };
        // A broker that does not read keeps nobody from leaving.
        let _ = timeout(FAREWELL, gone).await;
    }
}

/// A request that no connection outlives: in MQTT 3.1.1 a broker can refuse a packet only by closing the connection.
#[derive(Default)]
struct FatalRequest {
    /// The largest request that was not acknowledged when the connection was lost last, and the bytes of its packet.
    last: Option<(Sequence, usize)>,
    /// It was the same one the time before.
    again: bool,
}

impl FatalRequest {
    fn connection_lost(&mut self, unacknowledged: Option<(Sequence, usize)>) {
        self.again = self.last == unacknowledged;
        self.last = unacknowledged;
    }

    /// Bytes of its packet, if there seems to be one.
    fn size(&self) -> Option<usize> {
        self.last.filter(|_| self.again).map(|(_, size)| size)
    }
}

/// What is under way on the connection: the requests to be sent, and the request of each packet.
struct UnderWay {
    shared: Arc<Shared>,
    sender: PacketSender,
    /// Whether messages may be queued: not before the CONNACK has said what became of those that are.
    connected: bool,
    has_qos_1: bool,
    /// Whether there was a connection with a subscription before.
    established: bool,
    /// When the connection was made again; `None` for the first one.
    connected_again: Option<Instant>,
    /// To be queued.
    waiting: VecDeque<Sequence>,
    /// Queued, and written in this order.
    queued: VecDeque<Sequence>,
    /// Written and not acknowledged, by packet id.
    written: HashMap<u16, Sequence>,
    /// Found no gateway; to be sent again at `retry_at`.
    no_gateway: Vec<Sequence>,
    retry_at: Option<Instant>,
}

impl UnderWay {
    fn new(shared: Arc<Shared>, sender: PacketSender) -> Self {
        Self {
            shared,
            sender,
            connected: false,
            has_qos_1: true,
            established: false,
            connected_again: None,
            waiting: VecDeque::new(),
            queued: VecDeque::new(),
            written: HashMap::new(),
            no_gateway: Vec::new(),
            retry_at: None,
        }
    }

    /// Awaits `future`, taking in requests meanwhile; one of the connection must not be dropped half-way. `None` when
    /// the client is gone.
    async fn until<F: Future>(
        &mut self,
        to_send: &mut mpsc::Receiver<Sequence>,
        future: F,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            let retry_at = self.retry_at;
            tokio::select! {
                output = &mut future => return Some(output),
                sequence = to_send.recv() => self.waiting.push_back(sequence?),
                () = async { sleep_until(retry_at.unwrap_or_else(Instant::now)).await }, if retry_at.is_some() => {
                    self.retry_at = None;
                    self.waiting.extend(self.no_gateway.drain(..));
                }
            }
            self.queue();
        }
    }

    /// Queues what there is room for.
    fn queue(&mut self) {
        while self.connected
            && let Some(&sequence) = self.waiting.front()
        {
            if let Some(mut message) = self.shared.in_flight.message(sequence) {
                if !self.has_qos_1 {
                    message.qos = QoS::AtMostOnce;
                }
                if self.sender.publish(message).is_err() {
                    // The next event says that there is room.
                    return;
                }
                self.queued.push_back(sequence);
            }
            self.waiting.pop_front();
        }
    }

    /// Takes in what happened. Fails if there is no point in going on.
    fn handle(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Connected(connected) => self.connected(&connected)?,
            Event::SubAck { codes, text, .. } => subscribed(&codes, text)?,
            Event::PubAck { packet_id, reason } => self.acknowledged(packet_id, reason),
            Event::Message { message, .. } => self.message(message),
            // A packet id that is in use already is that of a message written again.
            Event::Sent(Sent::Publish(packet_id)) if !self.written.contains_key(&packet_id) => {
                // Nobody acknowledges what is sent at QoS 0.
                if let Some(sequence) = self.queued.pop_front()
                    && packet_id != 0
                {
                    self.written.insert(packet_id, sequence);
                }
            }
            _ => {}
        }
        self.queue();
        Ok(())
    }

    /// A part of a stream, or an answer.
    fn message(&self, message: Message) {
        let Shared { options, in_flight, .. } = &*self.shared;
        match topic::parse_stream(&message.topic, &options.result_topic()) {
            Some((id, offset)) if options.streams => {
                in_flight.part(id, Part { offset, bytes: message.payload });
            }
            _ => in_flight.answer(message),
        }
    }

    fn connected(&mut self, connected: &Connected) -> Result<(), Error> {
        self.shared.connected(connected);
        self.shared.in_flight.set_lost(None);
        self.has_qos_1 = connected.has_qos_1();
        if !connected.session_present {
            // The broker knows nothing of us: neither the subscription, nor what it has acknowledged, nor whether the
            // answers were sent.
            self.queued.clear();
            self.written.clear();
            self.no_gateway.clear();
            self.retry_at = None;
            self.waiting = self.shared.in_flight.unanswered().into();
            let answers = self.shared.options.result_topic();
            let streams = self.shared.options.streams.then(|| format!("{answers}/stream/#"));
            // A broker that refuses the streams has answers all the same.
            let filters = [answers].into_iter().chain(streams);
            let filters: Vec<_> = filters.map(|filter| Subscription::new(filter, QoS::AtLeastOnce)).collect();
            self.sender
                .subscribe(&filters)
                .map_err(|_| Error::Closed("the queue has no room for the subscription".to_owned()))?;
        }
        self.connected_again = self.established.then(Instant::now);
        self.connected = true;
        Ok(())
    }

    /// The largest request that the broker has not acknowledged, with the bytes of its packet.
    fn unacknowledged(&self) -> Option<(Sequence, usize)> {
        let Shared { options, in_flight, .. } = &*self.shared;
        let sent = self.queued.iter().chain(self.written.values());
        let sizes = sent.filter_map(|sequence| {
            Some((*sequence, in_flight.message(*sequence)?.packet_size(options.mqtt_version)))
        });
        sizes.max_by_key(|(_, size)| *size)
    }

    fn acknowledged(&mut self, packet_id: u16, reason: Reason) {
        let Some(sequence) = self.written.remove(&packet_id) else { return };
        let error = match reason.code {
            ReasonCode::Success => return,
            ReasonCode::NoMatchingSubscribers => {
                let again =
                    self.connected_again.is_some_and(|since| since.elapsed() < GATEWAY_MAY_BE_MISSING);
                if again {
                    self.no_gateway.push(sequence);
                    self.retry_at.get_or_insert_with(|| Instant::now() + GATEWAY_PAUSE);
                    return;
                }
                Error::NoGateway
            }
            ReasonCode::NotAuthorized => {
                let id = &self.shared.options.client_id;
                let told = reason.text.map(|text| format!("; the broker says: {}", one_line(&text)));
                let told = told.unwrap_or_default();
                let topic = self.shared.in_flight.message(sequence).map(|message| message.topic);
                let rule = topic.map(|topic| format!(": a rule has to let it publish on {topic}"));
                let rule = rule.unwrap_or_default();
                Error::Unauthorized(format!("client `{id}` may not publish this request{rule}{told}"))
            }
            _ => Error::Refused(reason.to_string()),
        };
        self.shared.in_flight.fail(sequence, error);
    }
}

/// What the broker says to the subscription.
fn subscribed(codes: &[ReasonCode], text: Option<String>) -> Result<(), Error> {
    match codes.first() {
        None => Err(Error::Closed("the broker's SUBACK is empty".to_owned())),
        // What MQTT 3.1.1 calls it, which has nothing else to say.
        Some(ReasonCode::Failure) => Err(Error::Unauthorized(NO_ANSWERS.to_owned())),
        Some(code) if code.is_error() => {
            Err(Error::Unauthorized(format!("{NO_ANSWERS}: {}", Reason { code: *code, text })))
        }
        Some(_) => Ok(()),
    }
}
