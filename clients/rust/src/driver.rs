//! The task that owns the connection: sends what callers hand in, hands out what comes back, connects again.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, DisconnectReasonCode, Packet, PubAck, PubAckReason, SubAck,
    SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttState, StateError};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::Error;
use crate::client::Shared;
use crate::in_flight::Sequence;
use crate::reconnect::Backoff;

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long after a connection was made again the gateway may still be missing: it lost its own, too.
const GATEWAY_MAY_BE_MISSING: Duration = Duration::from_secs(10);

/// How long to wait before a request that found no gateway is sent again.
const GATEWAY_PAUSE: Duration = Duration::from_millis(250);

/// The connection and what is under way on it.
pub(crate) struct Driver {
    events: EventLoop,
    link: Link,
}

impl Driver {
    /// Connects and subscribes: one attempt, bounded in time.
    pub(crate) async fn connect(shared: Arc<Shared>) -> Result<Self, Error> {
        // Beside the requests in flight the queue holds the subscription and the farewell.
        let capacity = usize::from(shared.options.max_in_flight) + 2;
        let (client, mut events) = AsyncClient::new(shared.options.mqtt(), capacity);
        let mut link = Link::new(shared.clone(), client);
        let failed = |reason: String| Error::Connect { address: shared.options.address(), reason };
        let deadline = Instant::now() + shared.options.connect_timeout;
        loop {
            let event = timeout_at(deadline, events.poll()).await.map_err(|_| failed(timed_out(&shared)))?;
            let subscribed = matches!(event, Ok(Event::Incoming(Packet::SubAck(_))));
            match event {
                Ok(event) => link.handle(event, &mut events)?,
                Err(ConnectionError::ConnectionRefused(code)) => return Err(refused(&shared, code)),
                Err(error) => return Err(failed(describe(&shared, &error))),
            }
            if subscribed {
                // From now on the session is worth keeping, where the broker keeps one.
                events.options.set_clean_start(false);
                link.established = true;
                return Ok(Self { events, link });
            }
        }
    }

    /// Runs until the client is dropped or there is no point in going on.
    pub(crate) async fn run(mut self, mut to_send: mpsc::Receiver<Sequence>) {
        let shared = self.link.shared.clone();
        let mut backoff = Backoff::new();
        backoff.connected(Instant::now());
        loop {
            let Some(event) = self.link.until(&mut to_send, self.events.poll()).await else {
                return self.farewell().await;
            };
            let error = match event {
                Ok(event) => {
                    let connected = matches!(event, Event::Incoming(Packet::ConnAck(_)));
                    if let Err(error) = self.link.handle(event, &mut self.events) {
                        return shared.in_flight.close(error);
                    }
                    if connected {
                        info!("connected again");
                        backoff.connected(Instant::now());
                    }
                    continue;
                }
                Err(error) => error,
            };
            let pause = if taken_over(&error) { None } else { backoff.pause(Instant::now()) };
            let Some(pause) = pause else {
                let reason = format!(
                    "the broker closed it: is another client connected with the id `{}`?",
                    shared.options.client_id
                );
                return shared.in_flight.close(Error::Closed(reason));
            };
            let reason = describe(&shared, &error);
            // Once a loss, not once an attempt.
            if self.link.connected {
                warn!(%reason, "the connection is lost");
            } else {
                debug!(%reason, "no connection yet");
            }
            self.link.connected = false;
            shared.in_flight.set_lost(Some(reason));
            if self.link.until(&mut to_send, sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Says good-bye, so that the broker does not keep the session for a client that was lost.
    async fn farewell(mut self) {
        if !self.link.connected || self.link.client.try_disconnect().is_err() {
            return;
        }
        let gone = async {
            while !matches!(self.events.poll().await, Ok(Event::Outgoing(Outgoing::Disconnect)) | Err(_)) {}
        };
        // A broker that does not read keeps nobody from leaving.
        let _ = timeout(FAREWELL, gone).await;
    }
}

/// What is under way on the connection: which requests are to be sent, and which packet was whose.
struct Link {
    shared: Arc<Shared>,
    client: AsyncClient,
    /// Whether rumqttc may be given messages: not before the CONNACK has said what became of those that it has.
    connected: bool,
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

impl Link {
    fn new(shared: Arc<Shared>, client: AsyncClient) -> Self {
        Self {
            shared,
            client,
            connected: false,
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
                let published = self.client.try_publish_with_properties(
                    message.topic,
                    QoS::AtLeastOnce,
                    false,
                    message.payload,
                    message.properties,
                );
                if published.is_err() {
                    // Its queue is full; the next event says that there is room.
                    return;
                }
                self.handed_over.push_back(sequence);
            }
            self.waiting.pop_front();
        }
    }

    /// Takes one event in. Fails if there is no point in going on.
    fn handle(&mut self, event: Event, events: &mut EventLoop) -> Result<(), Error> {
        match event {
            Event::Incoming(Packet::ConnAck(connack)) => self.connack(&connack, events)?,
            Event::Incoming(Packet::SubAck(suback)) => subscribed(&suback)?,
            Event::Incoming(Packet::PubAck(puback)) => self.puback(&puback),
            Event::Incoming(Packet::Publish(publish)) => {
                self.shared.in_flight.answer(publish);
            }
            // A packet id that is in use already is that of a message written again.
            Event::Outgoing(Outgoing::Publish(packet_id)) if !self.written.contains_key(&packet_id) => {
                if let Some(sequence) = self.handed_over.pop_front() {
                    self.written.insert(packet_id, sequence);
                }
            }
            _ => {}
        }
        self.hand_over();
        Ok(())
    }

    fn connack(&mut self, connack: &ConnAck, events: &mut EventLoop) -> Result<(), Error> {
        self.shared.connected(connack.properties.as_ref().and_then(|given| given.max_packet_size));
        self.shared.in_flight.set_lost(None);
        if !connack.session_present {
            // The broker knows nothing of us: neither the subscription, nor what it has acknowledged, nor whether the
            // answers were sent. Of the old session rumqttc would keep its packet ids, which may exceed the new Receive
            // Maximum, and a message that waits for one of them.
            let queued = std::mem::take(&mut events.state.events);
            events.state = MqttState::new(self.shared.options.max_in_flight, false);
            events
                .state
                .handle_incoming_packet(Packet::ConnAck(connack.clone()))
                .map_err(|error| Error::Closed(error.to_string()))?;
            events.state.events = queued;
            self.handed_over.clear();
            self.written.clear();
            self.no_gateway.clear();
            self.retry_at = None;
            self.waiting = self.shared.in_flight.unanswered().into();
            self.client
                .try_subscribe(self.shared.options.result_topic(), QoS::AtLeastOnce)
                .map_err(|_| Error::Closed("the queue has no room for the subscription".to_owned()))?;
        }
        self.connected_again = self.established.then(Instant::now);
        self.connected = true;
        Ok(())
    }

    fn puback(&mut self, puback: &PubAck) {
        let Some(sequence) = self.written.remove(&puback.pkid) else { return };
        let error = match puback.reason {
            PubAckReason::Success => return,
            PubAckReason::NoMatchingSubscribers => {
                let again =
                    self.connected_again.is_some_and(|since| since.elapsed() < GATEWAY_MAY_BE_MISSING);
                if again {
                    self.no_gateway.push(sequence);
                    self.retry_at.get_or_insert_with(|| Instant::now() + GATEWAY_PAUSE);
                    return;
                }
                Error::NoGateway
            }
            PubAckReason::NotAuthorized => Error::Unauthorized(format!(
                "client `{}` may not publish this request",
                self.shared.options.client_id
            )),
            reason => Error::Refused(format!("{reason:?}")),
        };
        self.shared.in_flight.fail(sequence, error);
    }
}

fn subscribed(suback: &SubAck) -> Result<(), Error> {
    match suback.return_codes.first() {
        Some(SubscribeReasonCode::Success(_)) => Ok(()),
        Some(code) => Err(Error::Unauthorized(format!("no subscription to the answers: {code:?}"))),
        None => Err(Error::Closed("the broker's SUBACK is empty".to_owned())),
    }
}

/// Two clients of one id would evict each other for ever.
fn taken_over(error: &ConnectionError) -> bool {
    matches!(
        error,
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            ..
        })
    )
}

fn refused(shared: &Shared, code: ConnectReturnCode) -> Error {
    match code {
        ConnectReturnCode::BadUserNamePassword => {
            Error::Unauthorized("wrong user name or password".to_owned())
        }
        ConnectReturnCode::NotAuthorized => {
            Error::Unauthorized("the broker does not let this client in".to_owned())
        }
        code => Error::Connect {
            address: shared.options.address(),
            reason: format!("the broker refused the connection: {code:?}"),
        },
    }
}

fn timed_out(shared: &Shared) -> String {
    format!("no answer within {} ms", shared.options.connect_timeout.as_millis())
}

/// What happened, for people.
fn describe(shared: &Shared, error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => {
            match error.kind() {
                io::ErrorKind::ConnectionRefused => {
                    "connection refused: is the gateway running? `offload-rt serve` starts one".to_owned()
                }
                _ => error.to_string(),
            }
        }
        ConnectionError::Timeout(_) => timed_out(shared),
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            "the broker closed the connection".to_owned()
        }
        other => other.to_string(),
    }
}
