//! The connection to one master: made, kept, and made again.

use super::gates::{Join, State};
use super::router::{NetworkError, Shared};
use crate::config;
use offload_mqtt::{
    Connection, ConnectionError, ConnectionOptions, Event, Message, PacketSender, QoS, Sent, Subscription,
    one_line,
};
use offload_policy::Backoff;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, channel, unbounded_channel};
use tokio::time::{Instant, sleep, timeout};

/// First wait between two attempts to connect.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
/// Wait when another router has taken this gate: both wait, so that the newer one gets some work done.
const TAKEN_OVER_WAIT: Duration = Duration::from_secs(30);
/// Longest wait for a connection to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a packet may take to be written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the last words may take.
const LEAVE_WAIT: Duration = Duration::from_secs(1);
/// Messages that the master may have without having acknowledged them.
const MAX_IN_FLIGHT: u16 = 1_024;
/// Packets that wait in the client's own queue; more wait before it.
const MAX_QUEUED: usize = 256;
/// Copies of ordinary messages that wait; beyond that they are dropped.
const MAX_COPIES: usize = 1_024;
/// Largest packet that is taken: the largest of a master.
const MAX_PACKET: usize = super::master::MAX_PACKET;

/// A master, and how it is reached.
pub struct Link {
    index: usize,
    url: String,
    options: ConnectionOptions,
    reconnect_max: Duration,
}

/// A message to the master.
pub struct ToMaster {
    message: Message,
    /// Given back when the connection has it.
    _room: Option<OwnedSemaphorePermit>,
}

impl ToMaster {
    /// One that takes room until the connection has it.
    pub fn with(message: Message, room: OwnedSemaphorePermit) -> ToMaster {
        ToMaster { message, _room: Some(room) }
    }
}

impl From<Message> for ToMaster {
    fn from(message: Message) -> ToMaster {
        ToMaster { message, _room: None }
    }
}

/// Why a connection is no more.
enum Ended {
    Lost(ConnectionError),
    NotSubscribed,
    Left,
}

impl Link {
    /// To each master of the configuration.
    ///
    /// # Errors
    ///
    /// When the files for TLS cannot be used.
    pub fn of(network: &config::Network, join: &Join) -> Result<Vec<Link>, NetworkError> {
        let tls = network.master.0.iter().any(|url| url.scheme.is_tls());
        let tls = tls.then(|| network.tls().client_config()).transpose()?;
        let link = |(index, url): (usize, &config::BrokerUrl)| Link {
            index,
            url: url.to_string(),
            options: ConnectionOptions {
                tls: tls.clone().filter(|_| url.scheme.is_tls()),
                keep_alive: network.keep_alive.into(),
                connect_timeout: CONNECT_TIMEOUT,
                write_timeout: Some(WRITE_TIMEOUT),
                max_in_flight: MAX_IN_FLIGHT,
                max_queued: MAX_QUEUED,
                max_packet: MAX_PACKET,
                will: Some(Shared::leave(join, State::Lost)),
                ..ConnectionOptions::new(&url.address.host, url.address.port, &network.gate)
            },
            reconnect_max: network.reconnect_max.into(),
        };
        Ok(network.master.0.iter().enumerate().map(link).collect())
    }

    /// Until the router stops.
    pub async fn run(self, shared: Arc<Shared>) {
        let mut backoff = Backoff::new(RECONNECT_MIN.min(self.reconnect_max), self.reconnect_max);
        let mut told = None;
        while !shared.stop.is_cancelled() {
            let (sender, connection) = offload_mqtt::open(self.options.clone());
            let mut joined = false;
            let ended = self.connection(&shared, &sender, connection, &mut joined).await;
            if joined {
                shared.lost(self.index);
                backoff.reset();
                told = None;
            }
            let (reason, is_taken_over) = match ended {
                Ended::Left => return,
                Ended::Lost(error) => (explain(&error, &shared.gate), error.is_taken_over()),
                Ended::NotSubscribed => ("the master refuses the subscription".to_owned(), false),
            };
            // What stays as it is, is said once.
            if told.as_ref() != Some(&reason) {
                tracing::warn!(master = self.url, gate = %shared.gate, reason, "no connection to the master; trying again");
                told = Some(reason);
            }
            let mut wait = backoff.wait(RandomState::new().hash_one(()));
            if is_taken_over {
                tracing::error!(
                    master = self.url,
                    gate = %shared.gate,
                    "another router has joined as this gate: give each site a `gate` of its own"
                );
                wait = TAKEN_OVER_WAIT;
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = shared.stop.cancelled() => return,
            }
        }
    }

    async fn connection(
        &self,
        shared: &Arc<Shared>,
        sender: &PacketSender,
        mut connection: Connection,
        joined: &mut bool,
    ) -> Ended {
        let (to_master, mut messages) = unbounded_channel();
        let (copies_to_master, mut copies) = channel::<Message>(MAX_COPIES);
        let mut to_master = Some((to_master, copies_to_master));
        let mut queue = VecDeque::new();
        let mut max_packet = 0;
        loop {
            let event = {
                // Polled to its end: half an event could be a lost packet.
                let mut next = pin!(connection.next());
                loop {
                    // All that waits goes into one write.
                    while queue.len() < MAX_QUEUED
                        && let Ok(message) = messages.try_recv()
                    {
                        queue.push_back(unacknowledged(message));
                    }
                    pump(sender, &mut queue);
                    tokio::select! {
                        biased;
                        event = &mut next => break event,
                        Some(message) = messages.recv() => queue.push_back(unacknowledged(message)),
                        Some(message) = copies.recv(), if queue.len() < MAX_QUEUED => {
                            queue.push_back(unacknowledged(message.into()));
                        }
                        () = shared.stop.cancelled() => {
                            if !*joined {
                                return Ended::Left;
                            }
                            break Ok(Event::Progress);
                        }
                    }
                }
            };
            if shared.stop.is_cancelled() {
                leave(shared, sender, connection, queue, messages).await;
                return Ended::Left;
            }
            match event {
                Ok(Event::Connected(connected)) => {
                    max_packet = connected.max_packet();
                    let filters = ["from/#", "gateway/+/routers"];
                    let subscriptions = filters.map(|filter| Subscription::new(filter, QoS::AtLeastOnce));
                    // The connection is new, so it has room.
                    let _ = sender.subscribe(&subscriptions);
                }
                Ok(Event::SubAck { codes, .. }) => {
                    if codes.iter().any(|code| code.is_error()) {
                        return Ended::NotSubscribed;
                    }
                    let join = serde_json::to_vec(&shared.join).unwrap_or_default();
                    queue.push_back(Message::new("join", join).into());
                    if let Some(to_master) = to_master.take() {
                        shared.connected(self.index, to_master, max_packet);
                        *joined = true;
                    }
                }
                Ok(Event::Message { message, .. }) => shared.received(self.index, message),
                Ok(_) => {}
                Err(error) => return Ended::Lost(error),
            }
        }
    }
}

/// At QoS 0: what is lost with the connection is sent again by routers, and acknowledgements of the master's would say
/// nothing of the other gate.
fn unacknowledged(mut to_master: ToMaster) -> ToMaster {
    to_master.message.qos = QoS::AtMostOnce;
    to_master
}

/// Hands over what the connection has room for.
fn pump(sender: &PacketSender, queue: &mut VecDeque<ToMaster>) {
    while let Some(ToMaster { message, .. }) = queue.front() {
        if sender.publish(message.clone()).is_err() {
            return;
        }
        queue.pop_front();
    }
}

/// Sends what is still to be sent, says that the router goes, and goes.
async fn leave(
    shared: &Shared,
    sender: &PacketSender,
    mut connection: Connection,
    mut queue: VecDeque<ToMaster>,
    mut messages: UnboundedReceiver<ToMaster>,
) {
    while let Ok(message) = messages.try_recv() {
        queue.push_back(unacknowledged(message));
    }
    queue.push_back(Shared::leave(&shared.join, State::Left).into());
    let deadline = Instant::now() + LEAVE_WAIT;
    let mut is_said = false;
    while Instant::now() < deadline {
        pump(sender, &mut queue);
        if queue.is_empty() && !is_said {
            is_said = sender.disconnect().is_ok();
        }
        match timeout(LEAVE_WAIT, connection.next()).await {
            Ok(Ok(Event::Sent(Sent::Disconnect)) | Err(_)) | Err(_) => return,
            Ok(Ok(_)) => {}
        }
    }
}

/// Why there is no connection, and what to do about it where the master can mean one thing alone.
fn explain(error: &ConnectionError, gate: &str) -> String {
    use offload_mqtt::{Reason, ReasonCode};
    match error {
        ConnectionError::Refused(Reason { code: ReasonCode::ClientIdentifierNotValid, .. }) => {
            format!("the certificate is not that of the gate {gate}: its common name has to be {gate}")
        }
        other => one_line(&other.to_string()),
    }
}
