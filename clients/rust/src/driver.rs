//! The task that owns the connection: sends what callers hand in, hands out what comes back, connects again.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use offload_mqtt::one_line;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::Error;
use crate::client::Shared;
use crate::in_flight::Sequence;
use crate::link::{self, Acknowledgement, Events, Failure, Happened, Publisher};
use crate::reconnect::ReconnectPolicy;

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long after a connection was made again the gateway may still be missing: it lost its own, too.
const GATEWAY_MAY_BE_MISSING: Duration = Duration::from_secs(10);

/// How long to wait before a request that found no gateway is sent again.
const GATEWAY_PAUSE: Duration = Duration::from_millis(250);

/// The connection and what is under way on it.
pub(crate) struct Driver {
    events: Events,
    under_way: UnderWay,
}

impl Driver {
    /// Connects and subscribes: one attempt, bounded in time.
    pub(crate) async fn connect(shared: Arc<Shared>) -> Result<Self, Error> {
        // Beside the requests in flight the queue holds the subscription and the farewell.
        let capacity = usize::from(shared.options.max_in_flight) + 2;
        let (publisher, mut events) = link::open(&shared.options, capacity)?;
        let mut under_way = UnderWay::new(shared.clone(), publisher);
        let failed = |reason: String| Error::Connect { address: shared.options.address(), reason };
        let deadline = Instant::now() + shared.options.connect_timeout;
        let mut connected = false;
        loop {
            let happened = timeout_at(deadline, events.poll()).await.unwrap_or(Err(Failure::TimedOut));
            let subscribed = matches!(happened, Ok(Happened::Subscribed(Ok(()))));
            connected |= matches!(happened, Ok(Happened::Connected { .. }));
            match happened {
                Ok(happened) => under_way.handle(happened)?,
                Err(Failure::Unauthorized(reason)) => return Err(Error::Unauthorized(reason)),
                Err(failure) if connected || matches!(failure, Failure::Refused(_)) => {
                    return Err(failed(describe(&shared, &failure)));
                }
                Err(failure) => {
                    let peer = shared.options.identify_peer().await;
                    return Err(failed(
                        peer.map_or_else(|| describe(&shared, &failure), |peer| peer.to_string()),
                    ));
                }
            }
            if subscribed {
                events.keep_session();
                under_way.established = true;
                return Ok(Self { events, under_way });
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
            let Some(happened) = self.under_way.until(&mut to_send, self.events.poll()).await else {
                return self.farewell().await;
            };
            let failure = match happened {
                Ok(happened) => {
                    let connected = matches!(happened, Happened::Connected { .. });
                    if let Err(error) = self.under_way.handle(happened) {
                        return shared.in_flight.close(error);
                    }
                    if connected {
                        info!("connected again");
                        reconnects.connected(Instant::now());
                    }
                    continue;
                }
                Err(failure) => failure,
            };
            if self.under_way.connected {
                fatal.connection_lost(self.under_way.unacknowledged());
            }
            let reason = describe(&shared, &failure);
            // Two clients of one id would evict each other for ever.
            let taken_over = matches!(failure, Failure::TakenOver);
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
        if !self.under_way.connected || self.under_way.publisher.try_disconnect().is_err() {
            return;
        }
        let gone =
            async { while !matches!(self.events.poll().await, Ok(Happened::Disconnected) | Err(_)) {} };
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

/// What is under way on the connection: which requests are to be sent, and which packet was whose.
struct UnderWay {
    shared: Arc<Shared>,
    publisher: Publisher,
    /// Whether rumqttc may be given messages: not before the CONNACK has said what became of those that it has.
    connected: bool,
    has_qos_1: bool,
    /// Whether there was a connection with a subscription before.
    established: bool,
    /// When the connection was made again; `None` for the first one.
    connected_again: Option<Instant>,
    /// To be given to rumqttc.
    waiting: VecDeque<Sequence>,
    /// Given to rumqttc, which writes them in this order.
    handed_over: VecDeque<Sequence>,
    /// Written and not acknowledged, by packet id.
    written: HashMap<u16, Sequence>,
    /// Found no gateway; to be sent again at `retry_at`.
    no_gateway: Vec<Sequence>,
    retry_at: Option<Instant>,
}

impl UnderWay {
    fn new(shared: Arc<Shared>, publisher: Publisher) -> Self {
        Self {
            shared,
            publisher,
            connected: false,
            has_qos_1: true,
            established: false,
            connected_again: None,
            waiting: VecDeque::new(),
            handed_over: VecDeque::new(),
            written: HashMap::new(),
            no_gateway: Vec::new(),
            retry_at: None,
        }
    }

    /// Awaits `future`, taking in requests meanwhile; a future of rumqttc must not be dropped half-way. `None` when
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
            self.hand_over();
        }
    }

    /// Gives rumqttc what it takes.
    fn hand_over(&mut self) {
        while self.connected
            && let Some(&sequence) = self.waiting.front()
        {
            if let Some(message) = self.shared.in_flight.message(sequence) {
                if self.publisher.try_publish(message, self.has_qos_1).is_err() {
                    // The next event says that there is room.
                    return;
                }
                self.handed_over.push_back(sequence);
            }
            self.waiting.pop_front();
        }
    }

    /// Takes in what happened. Fails if there is no point in going on.
    fn handle(&mut self, happened: Happened) -> Result<(), Error> {
        match happened {
            Happened::Connected { session_present, max_packet, has_qos_1 } => {
                self.has_qos_1 = has_qos_1;
                self.connected(session_present, max_packet)?;
            }
            Happened::Subscribed(granted) => granted?,
            Happened::Acknowledged(packet_id, acknowledgement) => {
                self.acknowledged(packet_id, acknowledgement);
            }
            Happened::Message(message) => self.shared.in_flight.answer(message),
            // A packet id that is in use already is that of a message written again.
            Happened::Written(packet_id) if !self.written.contains_key(&packet_id) => {
                // Nobody acknowledges what is sent at QoS 0.
                if let Some(sequence) = self.handed_over.pop_front()
                    && packet_id != 0
                {
                    self.written.insert(packet_id, sequence);
                }
            }
            Happened::Written(_) | Happened::Disconnected | Happened::Other => {}
        }
        self.hand_over();
        Ok(())
    }

    fn connected(&mut self, session_present: bool, max_packet: Option<u32>) -> Result<(), Error> {
        self.shared.connected(max_packet);
        self.shared.in_flight.set_lost(None);
        if !session_present {
            // The broker knows nothing of us: neither the subscription, nor what it has acknowledged, nor whether the
            // answers were sent.
            self.handed_over.clear();
            self.written.clear();
            self.no_gateway.clear();
            self.retry_at = None;
            self.waiting = self.shared.in_flight.unanswered().into();
            self.publisher
                .try_subscribe(self.shared.options.result_topic())
                .map_err(|_| Error::Closed("the queue has no room for the subscription".to_owned()))?;
        }
        self.connected_again = self.established.then(Instant::now);
        self.connected = true;
        Ok(())
    }

    /// The largest request that the broker has not acknowledged, with the bytes of its packet.
    fn unacknowledged(&self) -> Option<(Sequence, usize)> {
        let Shared { options, in_flight, .. } = &*self.shared;
        let sent = self.handed_over.iter().chain(self.written.values());
        let sizes = sent.filter_map(|sequence| {
            Some((*sequence, in_flight.message(*sequence)?.packet_size(options.mqtt_version)))
        });
        sizes.max_by_key(|(_, size)| *size)
    }

    fn acknowledged(&mut self, packet_id: u16, acknowledgement: Acknowledgement) {
        let Some(sequence) = self.written.remove(&packet_id) else { return };
        let error = match acknowledgement {
            Acknowledgement::Taken => return,
            Acknowledgement::NobodyListens => {
                let again =
                    self.connected_again.is_some_and(|since| since.elapsed() < GATEWAY_MAY_BE_MISSING);
                if again {
                    self.no_gateway.push(sequence);
                    self.retry_at.get_or_insert_with(|| Instant::now() + GATEWAY_PAUSE);
                    return;
                }
                Error::NoGateway
            }
            Acknowledgement::Unauthorized(reason) => {
                let id = &self.shared.options.client_id;
                let told = reason.map(|reason| format!("; the broker says: {}", one_line(&reason)));
                let told = told.unwrap_or_default();
                Error::Unauthorized(format!("client `{id}` may not publish this request{told}"))
            }
            Acknowledgement::Refused(reason) => Error::Refused(reason),
        };
        self.shared.in_flight.fail(sequence, error);
    }
}

/// What happened, for people.
fn describe(shared: &Shared, failure: &Failure) -> String {
    match failure {
        Failure::TimedOut => {
            format!("no answer within {} ms", shared.options.connect_timeout.as_millis())
        }
        other => other.to_string(),
    }
}
