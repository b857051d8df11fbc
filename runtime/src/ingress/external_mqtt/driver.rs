//! The task that owns the connection: connects, subscribes, carries messages both ways, and connects again.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use offload_mqtt::{
    Connected, Connection, ConnectionError, ConnectionOptions, Event, MAX_PACKET, Message, PacketSender,
    Peer, Properties, QoS, Sent, Subscription, Version, one_line,
};
use offload_policy::{Backoff, Receipt, Received, Window};
use offload_protocol::topic;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use super::brokers::Brokers;
use super::client_id_conflict::ClientIdConflict;
use super::counters::Counters;
use super::grant::Grant;
use super::group_keys::{GroupKeys, Step};
use super::link_state::LinkState;
use super::log_sampling::PowersOfTwo;
use super::namesakes::{Namesakes, Reaction};
use super::offer::Offer;
use super::publication::Publication;
use super::responder::{Command, ExternalResponder, MAX_PARTS};
use super::version::Choice;
use super::{Asked, Group, MAX_UNCONFIRMED};
use crate::client::Client;
use crate::config;
use crate::deadline::reached;
use crate::ingress::{Acceptance, Delivery, DeliveryProperties, Intake, Notice, Notices, Tap};
use crate::keys::KeysError;
use crate::log_sampling::sampled;
use crate::random::random;
use crate::telemetry;

/// A connection that lasted so long was a good one: the next attempt is made soon again.
const GOOD: Duration = Duration::from_secs(10);
/// First and longest wait when another client uses our client id. Both of them wait, so that each gets some work done.
const CONFLICT_WAIT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));
/// Time and bytes after which the connection's task lets others run: a broker that has much for us does not keep the
/// answers, or another task, waiting.
const WORK_BUDGET: (Duration, usize) = (Duration::from_millis(1), 256 << 10);
/// Stands for the packet identifier of a message at QoS 0, which has none.
const QOS_0: u16 = 0;
/// How long the last answers may take to reach the broker when the ingress shuts down.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub(super) struct Driver {
    brokers: Brokers,
    /// That of the attempt or connection that is under way, for logs.
    broker: String,
    /// Without the address, the version and the will, which differ from one attempt to the next.
    options: ConnectionOptions,
    /// Whether requests are taken here; else what is published is all.
    takes_requests: bool,
    /// The group of gateways.
    share: String,
    /// What the broker is asked for at most.
    offer: Offer,
    notices: Notices,
    /// What is subscribed to for the sake of other sites.
    others: Arc<[String]>,
    /// Takes copies of ordinary messages.
    tap: Option<Tap>,
    ways: Ways,
    counters: Arc<Counters>,
    room_for_parts: Arc<Semaphore>,
    choice: Choice,
    backoff: Backoff,
    conflict_backoff: Backoff,
    conflict: ClientIdConflict,
    window: Window<Publication>,
    hasher: RandomState,
    /// False when the gateway takes no more requests.
    taking: bool,
    /// Bytes of the largest packet that the broker takes: the one that was connected last.
    max_packet: usize,
    /// Who waits until the broker has our share back.
    given_back: Vec<oneshot::Sender<()>>,
    /// Set when the ingress shuts down: the latest time for it.
    deadline: Option<Instant>,
    namesakes: Option<Namesakes>,
    /// What this gateway and those that share its requests agree on.
    group: Option<Agreement>,
    /// Answers for which there was no room.
    dropped: PowersOfTwo,
    /// Answers that the broker refused.
    refused: PowersOfTwo,
    /// Answers that no packet could hold.
    unfit: PowersOfTwo,
    /// What answers in the broker's place, found out once for a failure that stays the same.
    peer: Option<(ConnectionError, Option<Peer>)>,
    /// What the log has said that the broker has.
    known_offer: Offer,
}

/// Which keys the gateways of a group have, and what waits for that.
struct Agreement {
    keys: GroupKeys,
    /// Says when the keys were renewed.
    renewals: watch::Receiver<()>,
    /// The status with these keys.
    status: Box<dyn Fn() -> Notice + Send>,
    /// Hears why the gateway cannot start.
    refusal: Option<oneshot::Sender<KeysError>>,
    /// What an earlier session brings before the keys are known for the first time.
    early: Vec<(Message, Option<u16>, bool)>,
}

impl Agreement {
    fn new(group: Group, share: &str, refusal: oneshot::Sender<KeysError>) -> Agreement {
        let Group { keys, instance, status } = group;
        let renewals = keys.changes();
        let keys = GroupKeys::new(keys, topic::group_keys(share), instance);
        Agreement { keys, renewals, status, refusal: Some(refusal), early: Vec::new() }
    }
}

/// The ways between the connection and the rest of the gateway.
pub(super) struct Ways {
    /// Where requests go.
    pub intake: Intake,
    /// What the others ask for.
    pub commands: UnboundedReceiver<Command>,
    /// For the responders.
    pub sender: UnboundedSender<Command>,
    /// Where the connection's state is shown.
    pub link_state: watch::Sender<LinkState>,
}

/// What is true of one connection.
struct Link {
    sender: PacketSender,
    version: Version,
    /// Set when the broker has accepted the connection.
    since: Option<Instant>,
    shared: bool,
    /// Whether the broker has known our session.
    session_present: bool,
    /// As [`Driver::others`].
    others: Arc<[String]>,
    /// What was subscribed to and is not confirmed, in this order.
    subscribing: VecDeque<Purpose>,
    /// Answers that may be on their way at once.
    window: usize,
    max_packet: usize,
    offer: Offer,
    /// What was taken since other tasks ran.
    work: WorkBudget,
    /// Subscriptions that are still to be ended.
    unsubscribe: VecDeque<String>,
    /// Subscriptions that the broker is to end, and has not confirmed.
    unsubscribing: usize,
    disconnecting: bool,
}

/// What is subscribed to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Requests,
    /// The status that gateways of this name share.
    Namesakes,
    /// The keys of the group.
    Keys,
}

/// What is used of [`WORK_BUDGET`].
#[derive(Default)]
struct WorkBudget {
    time: Duration,
    bytes: usize,
}

impl WorkBudget {
    /// Counts one more piece of work. Whether the budget is used up, and other tasks are to run; it is a new one then.
    fn spend(&mut self, time: Duration, bytes: usize) -> bool {
        self.time += time;
        self.bytes += bytes;
        let is_used_up = self.time >= WORK_BUDGET.0 || self.bytes >= WORK_BUDGET.1;
        if is_used_up {
            *self = WorkBudget::default();
        }
        is_used_up
    }
}

/// Why a connection is no more.
enum Ended {
    /// It was not made, or has ended.
    Lost(ConnectionError),
    /// The broker grants no subscription to the requests, and says why.
    NotSubscribed(String),
    /// As many requests were given up. The broker delivers them again on the next connection.
    GivenUp(usize),
}

impl Ended {
    fn error(&self) -> Option<&ConnectionError> {
        match self {
            Ended::Lost(error) => Some(error),
            Ended::NotSubscribed(_) | Ended::GivenUp(_) => None,
        }
    }
}

impl Driver {
    pub fn new(
        broker: &config::Broker,
        brokers: Brokers,
        asked: Asked,
        options: ConnectionOptions,
        notices: Notices,
        ways: Ways,
        counters: Arc<Counters>,
    ) -> Driver {
        Driver {
            broker: brokers.current().to_string(),
            brokers,
            takes_requests: asked.takes_requests,
            share: broker.share.clone(),
            namesakes: notices.instance.clone().map(Namesakes::new),
            options,
            offer: Offer::ALL,
            notices,
            others: asked.others,
            tap: asked.tap,
            group: asked.group.map(|(group, refusal)| Agreement::new(group, &broker.share, refusal)),
            ways,
            counters,
            room_for_parts: Arc::new(Semaphore::new(MAX_PARTS)),
            choice: Choice::new(broker.protocol),
            backoff: Backoff::new(broker.reconnect_min.into(), broker.reconnect_max.into()),
            conflict_backoff: Backoff::new(CONFLICT_WAIT.0, CONFLICT_WAIT.1),
            conflict: ClientIdConflict::default(),
            window: Window::default(),
            hasher: RandomState::new(),
            taking: true,
            max_packet: usize::MAX,
            given_back: Vec::new(),
            deadline: None,
            dropped: PowersOfTwo::default(),
            refused: PowersOfTwo::default(),
            unfit: PowersOfTwo::default(),
            peer: None,
            known_offer: Offer::ALL,
        }
    }

    pub async fn run(mut self) {
        loop {
            let version = self.choice.version();
            self.broker = self.brokers.current().to_string();
            let (sender, connection) = offload_mqtt::open(self.options(version));
            let mut link = Link::new(sender, version, self.others.clone());
            let Some(ended) = self.connection(&mut link, connection).await else { break };
            self.window.disconnected();
            if let Some(group) = &mut self.group {
                group.keys.disconnected();
                group.early.clear();
            }
            // Nobody is there to confirm it, or to send anything.
            self.given_back.clear();
            let lasted = link.since.map(|since| since.elapsed());
            self.choice.ended(ended.error().filter(|_| lasted.is_none()));
            let offer = ended.error().map_or(Offer::ALL, Offer::after).and(self.offer);
            if offer != self.offer {
                self.offer = offer;
                continue;
            }
            if lasted.is_some() {
                // The next broker behind this address may have what this one lacked.
                self.offer = Offer::ALL;
            }
            let wait = if self.conflict.ended(ended.error(), lasted) {
                self.report(LinkState::ClientIdConflict);
                self.conflict_backoff.wait(random())
            } else {
                let was_good = lasted.is_some_and(|lasted| lasted >= GOOD);
                if was_good {
                    self.backoff.reset();
                    self.conflict_backoff.reset();
                }
                let was_connected = lasted.is_some();
                let reason = match ended {
                    Ended::Lost(error) => self.reason(&error, was_connected).await,
                    Ended::NotSubscribed(reason) => {
                        format!("the broker refuses the subscription to the request topics: {reason}")
                    }
                    Ended::GivenUp(count) => {
                        format!("{count} requests were given up: the broker is to deliver them again")
                    }
                };
                self.report(LinkState::Waiting { reason });
                if self.brokers.advance(was_good) {
                    // The next one of the list need not wait for this one's sake.
                    continue;
                }
                self.backoff.wait(random())
            };
            debug!(broker = self.broker, ?wait, "connecting again after a wait");
            if self.pause(wait).await {
                break;
            }
        }
        self.report(LinkState::Stopped);
    }

    /// What the next attempt is made with.
    ///
    /// A connection is a new one each time. It could be made again and would publish again what was not acknowledged,
    /// but forgets that when the session is gone, and does not know what was answered meanwhile. What outlives a
    /// connection is in the window.
    fn options(&self, version: Version) -> ConnectionOptions {
        let max_packet = match version {
            Version::V5 => self.options.max_packet,
            // A larger packet would end the connection, and be delivered again on the next one, for ever: the broker
            // cannot be told. So all are taken, and admission refuses what is too large.
            Version::V311 => MAX_PACKET,
        };
        let will = Publication::from(self.notices.offline.clone()).message(self.offer);
        let (url, tls) = (self.brokers.current(), self.options.tls.clone());
        ConnectionOptions {
            host: url.address.host.clone(),
            port: url.address.port,
            tls: tls.filter(|_| url.scheme.is_tls()),
            version,
            max_packet,
            will: Some(will),
            ..self.options.clone()
        }
    }

    /// Why there is no connection, and where something else than a broker answers, what to try.
    async fn reason(&mut self, error: &ConnectionError, was_connected: bool) -> String {
        if let ConnectionError::Refused(reason) = error {
            return format!("the broker refuses the connection: {reason}");
        }
        let told = one_line(&error.to_string());
        if was_connected {
            return told;
        }
        if self.peer.as_ref().is_none_or(|(known, _)| known != error) {
            let options = self.options(self.choice.version());
            self.peer = Some((error.clone(), options.identify_peer().await));
        }
        match &self.peer {
            Some((_, Some(peer))) => peer.to_string(),
            _ => told,
        }
    }

    /// Handles commands while there is no connection. True when the ingress is to end.
    async fn pause(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            if self.may_leave() {
                return true;
            }
            tokio::select! {
                Some(command) = self.ways.commands.recv() => self.command(command, None),
                () = sleep_until(until) => return false,
                () = reached(self.deadline) => return true,
            }
        }
    }

    /// Told to shut down, with nothing left to say.
    fn may_leave(&self) -> bool {
        self.deadline.is_some() && self.window.is_settled()
    }

    /// One connection, from the attempt to its end. `None` when the ingress is to end.
    async fn connection(&mut self, link: &mut Link, mut connection: Connection) -> Option<Ended> {
        loop {
            let event = {
                // Polled to its end, whatever else happens meanwhile: half an event could be a lost packet.
                let mut next = pin!(connection.next());
                loop {
                    if link.since.is_some() {
                        self.pump(link);
                        match self.window.to_be_delivered_again() {
                            count @ 1.. if self.deadline.is_none() => return Some(Ended::GivenUp(count)),
                            _ => {}
                        }
                    } else if self.may_leave() {
                        return None;
                    }
                    let takes_lines = link.since.is_some() && self.window.nothing_waits();
                    let agreed_by = self.group.as_ref().and_then(|group| group.keys.deadline());
                    tokio::select! {
                        event = &mut next => break event,
                        Some(command) = self.ways.commands.recv() => self.command(command, Some(link)),
                        Some(line) = self.notices.audit_log.recv(), if takes_lines => {
                            self.answer(None, line.into());
                        }
                        () = renewed(&mut self.group), if link.since.is_some() => {
                            self.agree_on_keys(link, GroupKeys::renewed);
                        }
                        () = reached(agreed_by) => self.agree_on_keys(link, GroupKeys::overdue),
                        () = reached(self.deadline) => return None,
                    }
                }
            };
            match event {
                Ok(Event::Sent(Sent::Disconnect)) => return None,
                Ok(event) => {
                    let (began, bytes) = (Instant::now(), size(&event));
                    if let Err(reason) = self.event(event, link) {
                        return Some(Ended::NotSubscribed(reason));
                    }
                    if link.work.spend(began.elapsed(), bytes) {
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) => return Some(Ended::Lost(error)),
            }
        }
    }

    /// Takes in an event. An error says why the broker grants no subscription to the requests.
    fn event(&mut self, event: Event, link: &mut Link) -> Result<(), String> {
        match event {
            Event::Connected(connected) => self.connected(&connected, link),
            Event::SubAck { codes, text, .. } => return self.subscribed(Grant::of(&codes, text), link),
            Event::Message { message, packet_id, dup } => self.deliver(message, packet_id, dup, link),
            Event::Sent(Sent::Publish(packet_id)) => {
                self.window.published(packet_id);
                if packet_id == QOS_0 {
                    self.counters.message_out();
                }
            }
            Event::PubAck { packet_id, reason } => {
                let answer = self.window.confirmed(packet_id);
                if reason.code.is_error() {
                    self.counters.dropped();
                } else {
                    self.counters.message_out();
                }
                let Some(answer) = answer.filter(|_| reason.code.is_error()) else { return Ok(()) };
                if self.group.as_ref().is_some_and(|group| *group.keys.topic() == answer.topic) {
                    self.agree_on_keys(link, |keys| keys.denied(&reason.to_string()));
                } else if let Some(count) = self.refused.count() {
                    let topic = telemetry::bounded(&answer.topic);
                    warn!(%topic, %reason, count, "the broker refuses answers: see its access rules");
                }
            }
            Event::UnsubAck { .. } => {
                link.unsubscribing = link.unsubscribing.saturating_sub(1);
                self.tell_given_back(link);
            }
            Event::PubRec { .. } | Event::PubComp { .. } | Event::Sent(_) | Event::Progress => {}
        }
        Ok(())
    }

    fn filters(&self, shared: bool) -> Vec<String> {
        filters(shared, &self.share, &self.others)
    }

    fn subscribed(&mut self, grant: Grant, link: &mut Link) -> Result<(), String> {
        match link.subscribing.pop_front() {
            Some(Purpose::Namesakes) => {
                if let Grant::None(reason) = grant {
                    info!(
                        broker = self.broker,
                        reason, "cannot see whether another gateway has the same name"
                    );
                }
                return Ok(());
            }
            Some(Purpose::Keys) => {
                self.agree_on_keys(link, |keys| keys.subscribed(grant));
                return Ok(());
            }
            Some(Purpose::Requests) | None => {}
        }
        match grant {
            Grant::NotShared if link.shared => {
                link.shared = false;
                link.subscribe_to_requests(&self.share);
                return Ok(());
            }
            Grant::NotShared => return Err("subscriptions are not supported".to_owned()),
            Grant::None(reason) => return Err(reason),
            Grant::Some(reason) => {
                warn!(broker = self.broker, reason, "the broker refuses one of the two request topics");
            }
            Grant::All => {}
        }
        self.report(LinkState::Serving { version: link.version, shared: link.shared });
        Ok(())
    }

    fn connected(&mut self, connected: &Connected, link: &mut Link) {
        // What another broker is owed is not this one's.
        self.window.connected(connected.session_present && self.brokers.is_the_last_one());
        self.brokers.connected();
        link.since = Some(Instant::now());
        link.window = connected.receive_maximum.unwrap_or(u16::MAX).min(MAX_UNCONFIRMED).into();
        link.max_packet = connected.max_packet();
        self.max_packet = link.max_packet;
        link.offer = Offer::of(connected).and(self.offer);
        self.warn_of_what_is_missing(link.offer);
        // MQTT 3.1.1 cannot say whether they are shared, so there they are not.
        link.shared = link.version == Version::V5 && connected.shared_subscription_available != Some(false);
        link.session_present = connected.session_present;
        match &self.group {
            Some(group) if self.taking => {
                link.subscribe(Purpose::Keys, [group.keys.topic().to_string()]);
            }
            _ => self.take_up(link),
        }
    }

    /// The group has gone on in its agreement on keys.
    fn agree_on_keys(&mut self, link: &mut Link, step: impl FnOnce(&mut GroupKeys) -> Vec<Step>) {
        let Some(group) = self.group.as_mut() else { return };
        for step in step(&mut group.keys) {
            match step {
                Step::Publish(notice) => self.answer(None, notice.into()),
                Step::Agreed => self.agreed(link),
                Step::Refused(error) => {
                    if let Some(refusal) = self.group.as_mut().and_then(|group| group.refusal.take()) {
                        // The gateway that waits for it ends this task.
                        let _ = refusal.send(error);
                    }
                }
            }
        }
    }

    /// The keys of this gateway are known.
    fn agreed(&mut self, link: &mut Link) {
        let Some(group) = &mut self.group else { return };
        group.refusal = None;
        self.notices.status = (group.status)();
        let early = std::mem::take(&mut group.early);
        self.take_up(link);
        for (message, packet_id, dup) in early {
            self.deliver(message, packet_id, dup, link);
        }
    }

    /// Says that this gateway is there, and asks for its requests.
    fn take_up(&mut self, link: &mut Link) {
        if self.namesakes.is_some() && self.taking {
            link.subscribe(Purpose::Namesakes, [self.notices.offline.topic.to_string()]);
        }
        self.announce();
        if !self.takes_requests {
            self.report(LinkState::Serving { version: link.version, shared: false });
            return;
        }
        if !self.taking {
            link.unsubscribe = [self.filters(true), self.filters(false)].concat().into();
            return;
        }
        if link.session_present {
            // The session may be from a time when this gateway subscribed in the other way.
            link.unsubscribe = self.filters(!link.shared).into();
        }
        link.subscribe_to_requests(&self.share);
    }

    fn warn_of_what_is_missing(&mut self, offer: Offer) {
        let known = std::mem::replace(&mut self.known_offer, offer);
        let broker = &self.broker;
        if known.qos_1 && !offer.qos_1 {
            warn!(broker, "the broker has QoS 0 alone: requests and answers are lost with a connection");
        }
        if known.retained && !offer.retained {
            warn!(
                broker,
                "the broker retains nothing: the gateway's status is seen by those alone who listen when it changes"
            );
        }
    }

    fn deliver(&mut self, message: Message, packet_id: Option<u16>, dup: bool, link: &mut Link) {
        if let Some(group) = self.group.as_mut().filter(|group| !group.keys.has_agreed())
            && message.topic != **group.keys.topic()
        {
            group.early.push((message, packet_id, dup));
            return;
        }
        self.counters.message_in();
        let Message { topic, payload, retain, properties, .. } = message;
        let Properties { response_topic, correlation_data, user_properties, .. } = properties;
        let properties = DeliveryProperties { response_topic, correlation_data, user_properties };
        let receipt = match packet_id {
            None => None,
            Some(packet_id) => {
                let rest =
                    (&properties.response_topic, &properties.correlation_data, &properties.user_properties);
                let content = self.hasher.hash_one((&topic, &payload, rest));
                match self.window.received(packet_id, dup, content) {
                    Received::New(receipt) => Some(receipt),
                    Received::Again => {
                        debug!(topic = %telemetry::bounded(&topic), "delivered again: it runs, or was answered");
                        return;
                    }
                }
            }
        };
        let plain = topic::parse_routed(&topic).map_or(&*topic, |routed| routed.plain);
        let Some(request) = topic::parse_request(plain) else {
            receipt.inspect(|receipt| self.window.settle(*receipt));
            if self.group.as_ref().is_some_and(|group| **group.keys.topic() == *topic) {
                self.agree_on_keys(link, |keys| keys.hear(&payload));
                return;
            }
            if *topic == *self.notices.offline.topic {
                // What was retained before this gateway came is not what another one does now.
                if !retain {
                    self.hear_namesake(&payload);
                }
                return;
            }
            match self.tap.as_ref().filter(|tap| tap.wants(&topic)) {
                Some(tap) => (tap.take)(&topic, &payload, retain),
                None => debug!(topic = %telemetry::bounded(&topic), "not a request topic: ignored"),
            }
            return;
        };
        // The broker knows who published this, and does not say: the reply id stands in.
        let flow: Arc<str> = request.reply_id.into();
        let principal = (!flow.is_empty()).then(|| flow.clone());
        let client = Client { principal, account: flow.clone(), flow, web: false };
        let acceptance = Acceptance::with_the_answer();
        let (commands, room_for_parts) = (self.ways.sender.clone(), self.room_for_parts.clone());
        let responder = Box::new(ExternalResponder::new(receipt, commands, room_for_parts, self.max_packet));
        let retained = retain;
        let delivery = Delivery { client, topic, payload, properties, retained, acceptance, responder };
        let batch = self.ways.intake.batch();
        batch.deliver(delivery);
        batch.end();
    }

    fn command(&mut self, command: Command, link: Option<&mut Link>) {
        match command {
            Command::Answer(receipt, answer) => self.answer(receipt, *answer),
            Command::Leave(receipt, request) => match link {
                Some(link) if link.since.is_some() && !link.shared => {
                    // The others have it, too.
                    receipt.inspect(|receipt| self.window.settle(*receipt));
                }
                _ => self.answer(receipt, *request),
            },
            // What is not connected takes none.
            Command::Part(part) => {
                if link.is_some_and(|link| link.since.is_some()) {
                    self.answer(None, *part);
                }
            }
            Command::Notice(notice) => {
                let connected = link.is_some_and(|link| link.since.is_some());
                self.publish_notice(notice, connected);
            }
            Command::Settle(receipt) => self.window.settle(receipt),
            Command::Release(receipt) => self.window.release(receipt),
            Command::StopTaking(done) => {
                self.given_back.push(done);
                self.stop_taking(link);
            }
            Command::Shutdown => {
                let connected = link.as_ref().is_some_and(|link| link.since.is_some());
                self.stop_taking(link);
                let first = self.deadline.is_none();
                self.deadline.get_or_insert(Instant::now() + SHUTDOWN_WAIT);
                if first && connected {
                    self.announce();
                }
            }
        }
    }

    fn stop_taking(&mut self, link: Option<&mut Link>) {
        let was_taking = std::mem::replace(&mut self.taking, false);
        match link.filter(|link| link.since.is_some()) {
            Some(link) => {
                if was_taking && self.takes_requests {
                    link.unsubscribe.extend(filters(link.shared, &self.share, &self.others));
                }
                self.tell_given_back(link);
            }
            // Nothing comes now, and the next connection gives the share back.
            None => self.given_back.clear(),
        }
    }

    /// Tells those who wait, when the broker has our share back.
    fn tell_given_back(&mut self, link: &Link) {
        if !self.taking && link.unsubscribe.is_empty() && link.unsubscribing == 0 {
            self.given_back.clear();
        }
    }

    /// A gateway of this name, or another one, has published its status.
    fn hear_namesake(&mut self, document: &[u8]) {
        let Some(namesakes) = self.namesakes.as_mut().filter(|_| self.deadline.is_none()) else { return };
        match namesakes.hear(document) {
            Reaction::Nothing => return,
            // Whoever may publish there can pretend any number of them.
            Reaction::Greet(other) => {
                _ = sampled!(
                    warn,
                    broker = self.broker,
                    other,
                    "another gateway on this broker has the same name, and both publish their status on {}: give each \
                 a `name` of its own",
                    self.notices.offline.topic
                )
            }
            Reaction::Reassert(Some(gone)) => self.publish_instance(&gone, Bytes::new()),
            Reaction::Reassert(None) => {}
        }
        self.announce();
    }

    /// A status is kept for the next connection too, unless the last one is out already.
    fn publish_notice(&mut self, notice: Notice, connected: bool) {
        if notice.topic != self.notices.offline.topic {
            if connected {
                self.answer(None, notice.into());
            }
        } else if self.deadline.is_none() {
            self.notices.status = notice;
            if connected {
                self.announce();
            }
        }
    }

    /// Publishes the gateway's status: for its name, and for this gateway alone. To be called while there is a
    /// connection.
    fn announce(&mut self) {
        // A gateway that may not start was never there.
        if self.group.as_ref().is_some_and(|group| !group.keys.has_agreed()) {
            return;
        }
        let leaving = self.deadline.is_some();
        let status = self.notices.status.clone();
        if let Some(instance) = self.namesakes.as_ref().map(|namesakes| namesakes.instance().to_owned()) {
            let document = if leaving { Bytes::new() } else { status.payload.clone() };
            self.publish_instance(&instance, document);
        }
        let status = if leaving { self.notices.offline.clone() } else { status };
        self.answer(None, status.into());
    }

    /// Replaces the document of one gateway among those of this name; an empty one removes it.
    fn publish_instance(&mut self, instance: &str, payload: Bytes) {
        let topic = topic::instance_status(&self.notices.offline.topic, instance).into();
        self.answer(None, Notice { topic, payload, retain: true }.into());
    }

    fn answer(&mut self, receipt: Option<Receipt>, answer: Publication) {
        let weight = answer.weight();
        if self.window.answer(receipt, answer, weight) {
            return;
        }
        self.counters.dropped();
        if let Some(count) = self.dropped.count() {
            warn!(broker = self.broker, count, "answers dropped: too many wait for the broker");
        }
    }

    /// Hands over what the connection has room for.
    fn pump(&mut self, link: &mut Link) {
        let sender = &link.sender;
        while let Some(filter) = link.unsubscribe.front() {
            if sender.unsubscribe(filter).is_err() {
                return;
            }
            link.unsubscribe.pop_front();
            link.unsubscribing += 1;
        }
        while let Some(packet_id) = self.window.next_acknowledgement() {
            if sender.acknowledge(packet_id).is_err() {
                return;
            }
            self.window.acknowledged();
        }
        while let Some(answer) = self.window.next_answer(link.window) {
            if !topic::is_valid_name(&answer.topic) || !answer.fit(link.version, link.max_packet) {
                if let Some(count) = self.unfit.count() {
                    warn!(topic = %telemetry::bounded(&answer.topic), count, "answers that fit into no packet");
                }
                self.counters.dropped();
                self.window.give_up();
            } else if sender.publish(answer.message(link.offer)).is_err() {
                return;
            } else {
                self.window.handed_over();
            }
        }
        if self.may_leave() && !link.disconnecting {
            link.disconnecting = sender.disconnect().is_ok();
        }
    }

    /// Logs a change of status, once, and tells those who watch.
    fn report(&self, status: LinkState) {
        let changed = self.ways.link_state.send_if_modified(|known| {
            let changed = *known != status;
            if changed {
                known.clone_from(&status);
            }
            changed
        });
        if !changed {
            return;
        }
        let (broker, client_id) = (&self.broker, &self.options.client_id);
        match status {
            LinkState::Connecting => {}
            LinkState::Serving { .. } if !self.takes_requests => {
                info!(broker, "the status is published here")
            }
            LinkState::Serving { version, shared } => {
                info!(client_id, %version, shared, "serving via {broker}");
                if version == Version::V311 {
                    warn!(
                        broker,
                        "MQTT 3.1.1 has no Receive Maximum: Mosquitto holds 20 requests in flight, and drops all but \
                         1000 more in silence"
                    );
                }
                if !shared {
                    warn!(broker, "no shared subscription: with another gateway on this broker, both answer");
                }
            }
            LinkState::Waiting { reason } => warn!(broker, reason, "no connection; trying again"),
            LinkState::ClientIdConflict => error!(
                broker,
                client_id,
                "another gateway seems to use this client id; is the data directory copied? Waiting, so as not to \
                 fight for it"
            ),
            LinkState::Stopped => info!(broker, "stopped"),
        }
    }
}

impl Link {
    fn new(sender: PacketSender, version: Version, others: Arc<[String]>) -> Link {
        Link {
            sender,
            version,
            since: None,
            shared: false,
            session_present: false,
            others,
            subscribing: VecDeque::new(),
            window: 0,
            max_packet: 0,
            offer: Offer::ALL,
            work: WorkBudget::default(),
            unsubscribe: VecDeque::new(),
            unsubscribing: 0,
            disconnecting: false,
        }
    }

    fn subscribe_to_requests(&mut self, group: &str) {
        self.subscribe(Purpose::Requests, filters(self.shared, group, &self.others));
    }

    fn subscribe(&mut self, purpose: Purpose, filters: impl IntoIterator<Item = String>) {
        let subscriptions: Vec<Subscription> = filters
            .into_iter()
            // What was retained before we came is no request: the broker need not send it. The keys are retained.
            .map(|filter| Subscription {
                wants_retained: purpose == Purpose::Keys,
                ..Subscription::new(filter, QoS::AtLeastOnce)
            })
            .collect();
        // The connection is new, so it has room.
        if self.sender.subscribe(&subscriptions).is_ok() {
            self.subscribing.push_back(purpose);
        }
    }
}

/// Bytes of what an event brings.
fn size(event: &Event) -> usize {
    match event {
        Event::Message { message, .. } => message.topic.len() + message.payload.len(),
        _ => 0,
    }
}

/// What is subscribed to for the sake of other sites: requests to them, and messages that they may have.
pub(super) fn others(asks_others: bool, tap: Option<&Tap>) -> Arc<[String]> {
    let requests = asks_others.then_some([topic::ROUTED_LOCAL_CODE_FILTER, topic::ROUTED_INPUT_CODE_FILTER]);
    let requests = requests.into_iter().flatten().map(str::to_owned);
    requests.chain(tap.iter().flat_map(|tap| tap.filters.iter().cloned())).collect()
}

/// The subscriptions of a gateway. Those of a group are shared: each request reaches one member.
fn filters(shared: bool, group: &str, others: &[String]) -> Vec<String> {
    let prefix = if shared { format!("$share/{group}/") } else { String::new() };
    [topic::LOCAL_CODE_FILTER, topic::INPUT_CODE_FILTER]
        .into_iter()
        .chain(others.iter().map(String::as_str))
        .map(|filter| format!("{prefix}{filter}"))
        .collect()
}

/// Returns when the group's keys were read again; never without a group.
async fn renewed(group: &mut Option<Agreement>) {
    match group {
        // The sender is as old as the keys, which the group has.
        Some(group) => drop(group.renewals.changed().await),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_budget_is_used_up_by_time_and_by_bytes() {
        let mut work = WorkBudget::default();
        let lasts = |work: &mut WorkBudget, time, bytes| (1..).find(|_| work.spend(time, bytes));
        for _ in 0..2 {
            assert_eq!(lasts(&mut work, Duration::from_micros(10), 100), Some(100));
            assert_eq!(lasts(&mut work, Duration::ZERO, 64 << 10), Some(4));
        }
    }
}
