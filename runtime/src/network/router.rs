//! The router of a site: requests leave by it, and come in by it.

use super::arrivals::{Arrival, Arrivals, Name};
use super::departures::{Cancelled, Departure, Departures, Done};
use super::gates::{Gates, Join, Leave, Load, MasterState, State};
use super::link::Link;
use super::message::{
    Exported, MAX_HOPS, Reply, Request, Tag, decode_answer, decode_part, decode_tags, encode_answer,
    encode_part, encode_tags, sealed_room,
};
use crate::cancellation::cancelled_error;
use crate::client::Client;
use crate::config;
use crate::ingress::{
    Acceptance, Delivery, DeliveryProperties, Handover, Ingress, Intake, Notice, Outgoing, Parts, Responder,
    Seal, Tap,
};
use crate::log_sampling::sampled;
use crate::site::Site;
use crate::stopping::stopping_error;
use crate::telemetry;
use bytes::Bytes;
use offload_broker::OnAcknowledged;
use offload_mqtt::{Message, Publisher};
use offload_policy::{DepartureBounds, GatewayLoad};
use offload_protocol::answer::{Answer, Outcome};
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::{self, Code, RequestId};
use offload_protocol::sealed;
use offload_protocol::topic;
use offload_tls::TlsError;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often deadlines and ages are looked at.
const TICK: Duration = Duration::from_millis(100);

/// How often a changed load is told.
const LOAD_EVERY: Duration = Duration::from_secs(1);

/// So long after its start a master does not know all gates yet, at the most: their routers come back. By default it
/// takes one 7.5 s to notice that its connection is dead, and up to 2 s for the next attempt.
const GATHERING: Duration = Duration::from_secs(15);

/// Gates that are remembered although no master knows them any more.
const MAX_REMEMBERED: usize = 1_024;

/// Answers of one gate that are received before it is told so at once, and not at the next tick.
const RECEIPTS_AT_ONCE: usize = 64;

/// Tags in one message at the most.
const MAX_TAGS: usize = 1_024;

/// Bytes of a packet beside the payload: its topic, and what MQTT adds.
const PACKET_OVERHEAD: usize = 256;

/// Bytes that may wait for a connection to a master before what nobody has to get is left out: parts of streams, and
/// copies of ordinary messages.
const MAX_BACKLOG: usize = 1 << 20;

/// Why there is no way to other sites.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The files for TLS cannot be used.
    #[error("cannot join the master by TLS: {0}")]
    Tls(#[from] TlsError),
    /// The system has no randomness.
    #[error("randomness: {0}")]
    Random(#[from] getrandom::Error),
}

/// What a router is made of.
pub struct RouterSettings<'s> {
    /// Its table of the configuration.
    pub network: &'s config::Network,
    /// The name of its gateway, for the topic of its table.
    pub name: &'s str,
    /// Its site.
    pub site: Arc<Site>,
    /// Says how busy the gateway is.
    pub load: Box<dyn Fn() -> Load + Send + Sync>,
}

/// The way to other sites. Clones are handles to the same one.
#[derive(Clone)]
pub struct Router(Arc<Shared>);

/// What the links and all who send share.
pub(super) struct Shared {
    pub join: Join,
    pub gate: Arc<str>,
    site: Arc<Site>,
    table_topic: Arc<str>,
    name: String,
    load: Box<dyn Fn() -> Load + Send + Sync>,
    /// The gates that requests are handed on to.
    overflow: Vec<Arc<str>>,
    overflows_code: bool,
    /// What other sites may have of ordinary messages, and below which topic their own are published.
    export: Vec<String>,
    import_prefix: String,
    state: Mutex<Routing>,
    /// Whether a request was sent that is not written yet.
    unflushed: AtomicBool,
    /// What is behind the router; `None` before it starts and when it has stopped.
    way_in: Mutex<Option<WayIn>>,
    pub stop: CancellationToken,
    links: Mutex<Vec<Link>>,
    tasks: TaskTracker,
}

/// What is behind the router.
#[derive(Clone)]
struct WayIn {
    /// Takes the requests of other sites.
    intake: Intake,
    /// Shows the table of gates.
    ingress: Arc<dyn Ingress>,
}

struct Routing {
    departures: Departures,
    arrivals: Arrivals,
    masters: Vec<MasterLink>,
    /// Answers that have come from each gate, which it is not told yet.
    receipts: BTreeMap<Arc<str>, Vec<Tag>>,
    /// Gates that there have been: one that a master has forgotten is away, and not unknown.
    remembered: BTreeSet<String>,
    /// How long a request waits for its site.
    age: Duration,
}

/// A master, as far as it is connected.
struct MasterLink {
    url: String,
    /// Where messages to it go.
    publisher: Option<Publisher>,
    max_payload: usize,
    /// Its table, and until when it may not know all gates.
    gates: Option<(Gates, Instant)>,
    told: Option<Load>,
}

impl Router {
    /// Not connected to anything yet.
    ///
    /// # Errors
    ///
    /// When the files for TLS cannot be used.
    pub fn new(settings: RouterSettings<'_>) -> Result<Router, NetworkError> {
        let RouterSettings { network, name, site, load } = settings;
        let mut instance = [0; 8];
        getrandom::fill(&mut instance)?;
        // JSON readers hold numbers of 53 bits.
        let instance = u64::from_ne_bytes(instance) >> 11;
        let bounds = DepartureBounds {
            requests: network.buffer_requests,
            bytes: network.buffer_bytes.as_usize(),
            age: network.buffer_age.duration().into(),
        };
        let join = Join {
            instance,
            local: site.is_local(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            imports: network.import.iter().map(|filter| filter.to_string()).collect(),
        };
        let links = Link::of(network, &join)?;
        let masters = network.master.0.iter().map(|url| MasterLink {
            url: url.to_string(),
            publisher: None,
            max_payload: 0,
            gates: None,
            told: None,
        });
        let routing = Routing {
            departures: Departures::new(bounds, instance),
            arrivals: Arrivals::default(),
            masters: masters.collect(),
            receipts: BTreeMap::new(),
            remembered: BTreeSet::new(),
            age: bounds.age.into(),
        };
        Ok(Router(Arc::new(Shared {
            join,
            gate: network.gate.as_str().into(),
            site,
            table_topic: topic::routers(name).into(),
            name: name.to_owned(),
            load,
            overflow: network.overflow.iter().map(|gate| gate.as_str().into()).collect(),
            overflows_code: network.overflow_code,
            export: network.export.iter().map(|filter| filter.to_string()).collect(),
            import_prefix: network.import_prefix.clone(),
            state: Mutex::new(routing),
            unflushed: AtomicBool::new(false),
            way_in: Mutex::new(None),
            stop: CancellationToken::new(),
            links: Mutex::new(links),
            tasks: TaskTracker::new(),
        })))
    }

    /// Joins the masters. What comes in goes to `intake`; `ingress` shows the table of gates. Call it once, within a
    /// tokio runtime.
    pub fn start(&self, intake: Intake, ingress: Arc<dyn Ingress>) {
        let shared = &self.0;
        *shared.way_in.lock().expect("no panic while it is held") = Some(WayIn { intake, ingress });
        shared.publish_table();
        for link in std::mem::take(&mut *shared.links.lock().expect("no panic while it is held")) {
            shared.tasks.spawn(link.run(shared.clone()));
        }
        shared.tasks.spawn(tick(shared.clone()));
        shared.tasks.close();
    }

    /// Sends a request to another site with the next [`flush`](Self::flush). It is answered in time, by whatever
    /// becomes of it. Returns the number by which it can be cancelled, if it is taken.
    pub fn send(&self, departure: Departure) -> Option<u64> {
        let (gate, now) = (departure.gate.clone(), Instant::now());
        let (number, refused) = {
            let mut routing = self.0.unflushed_routing();
            self.0.unflushed.store(true, Ordering::Relaxed);
            match routing.departures.insert(departure, now) {
                Ok(number) => {
                    routing.pump(&gate, now);
                    let exists = routing.exists(&gate, now);
                    (Some(number), if exists { Vec::new() } else { routing.give_up(now) })
                }
                Err(refused) => (None, vec![refused]),
            }
        };
        tell(refused);
        number
    }

    /// Writes the requests that were sent, on the caller's thread: those of a batch go out together.
    pub fn flush(&self) {
        if self.0.unflushed.load(Ordering::Relaxed) {
            self.0.unflushed.store(false, Ordering::Relaxed);
            drop(self.0.routing());
        }
    }

    /// Cancels the request of this number and `id`. It is answered here; the gate that has it is told, in the name of
    /// its client, and nobody waits for what that says.
    pub fn cancel(&self, number: u64, id: RequestId) {
        let Some(cancelled) = self.0.routing().departures.cancel(number) else { return };
        let Cancelled { gate, request, done, was_sent } = cancelled;
        done(Err(cancelled_error()));
        let cancel = request::encode(&request::Request::new(Code::Cancel(id)));
        if let (true, Ok((_, payload, user_properties))) = (was_sent, cancel) {
            let request = Request { payload, user_properties, ..request };
            let (arrived, done) = (Instant::now(), Box::new(|_| {}));
            self.send(Departure {
                gate,
                request,
                arrived,
                deadline: None,
                may_wait: true,
                stream: None,
                done,
            });
            self.flush();
        }
    }

    /// The gate to hand a request on to that has come through these, if this gateway is saturated and the rule names
    /// one that is less busy.
    pub fn overflow(&self, path: &[&str]) -> Option<Arc<str>> {
        let shared = &self.0;
        if shared.overflow.is_empty() || path.len() >= usize::from(MAX_HOPS) {
            return None;
        }
        let Load { workers, running, waiting, runnable } = (shared.load)();
        let routing = shared.unflushed_routing();
        // What is on its way to others does not wait for the workers here.
        let waiting = waiting.saturating_sub(routing.departures.len());
        let own = GatewayLoad { workers, requests: running + waiting, waiting: waiting + runnable };
        let is_new = |gate: &&Arc<str>| !path.contains(&&***gate) && **gate != shared.gate;
        let others = shared.overflow.iter().filter(is_new).filter_map(|gate| {
            let (_, link) = routing.link_to(gate)?;
            let load = link.gates.as_ref()?.0.gates.get(&**gate)?.load?;
            // What is on its way there may not be in that yet.
            let requests = load.running + load.waiting + routing.departures.of(gate);
            Some((gate, GatewayLoad { workers: load.workers, requests, waiting: load.waiting }))
        });
        offload_policy::overflow(own, others).cloned()
    }

    /// What takes copies of ordinary messages for other sites, if any may have some.
    pub fn tap(&self) -> Option<Tap> {
        let shared = self.0.clone();
        let (filters, but_below) = (shared.export.clone(), shared.import_prefix.clone());
        let take =
            Box::new(move |topic: &str, payload: &Bytes, retain| shared.export(topic, payload, retain));
        (!self.0.export.is_empty()).then_some(Tap { filters, but_below, take })
    }

    /// Whether code that requests bring is handed on, too.
    pub fn overflows_code(&self) -> bool {
        self.0.overflows_code
    }

    /// Ends the requests that wait for a site that is away: the gateway stops, and another process may wait for it.
    pub fn stop_waiting(&self) {
        let waiting = self.0.routing().departures.stop_waiting();
        tell(waiting.into_iter().map(|done| (done, stopping_error())).collect());
    }

    /// Ends the requests that are on their way: the gateway stops.
    pub fn stop_sending(&self) {
        let all = self.0.routing().departures.stop();
        tell(all.into_iter().map(|done| (done, stopping_error())).collect());
    }

    /// Leaves the masters.
    pub async fn shutdown(&self) {
        self.abort();
        self.0.tasks.wait().await;
    }

    /// Leaves them too, and does not wait for that.
    pub fn abort(&self) {
        self.0.stop.cancel();
        // What is behind the router holds the router.
        *self.0.way_in.lock().expect("no panic while it is held") = None;
    }
}

/// Tells those who wait why they get no answer.
fn tell(given_up: Vec<(Done, WireError)>) {
    for (done, error) in given_up {
        done(Err(error));
    }
}

/// Looks at the clock, for as long as the router lives.
async fn tick(shared: Arc<Shared>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.stop.cancelled() => return,
        }
        let now = Instant::now();
        let given_up = {
            let mut routing = shared.routing();
            for gate in routing.departures.wanted() {
                routing.pump(&gate, now);
            }
            routing.tell_of_requests(now);
            routing.give_up(now)
        };
        tell(given_up);
        if now.saturating_duration_since(told) >= LOAD_EVERY {
            told = now;
            let load = (shared.load)();
            shared.routing().tell_load(load);
        }
    }
}

impl Routing {
    /// The first master that is joined and has this gate.
    fn link_to(&self, gate: &str) -> Option<(usize, &MasterLink)> {
        let has_gate =
            |link: &MasterLink| link.gates.as_ref().is_some_and(|(gates, _)| gates.is_online(gate));
        self.masters.iter().enumerate().find(|(_, link)| link.publisher.is_some() && has_gate(link))
    }

    /// Whether there may be such a gate.
    fn exists(&self, gate: &str, now: Instant) -> bool {
        self.remembered.contains(gate) || self.masters.iter().any(|link| link.may_know(gate, now))
    }

    /// Sends what this gate takes.
    fn pump(&mut self, gate: &str, now: Instant) {
        let Some((link, MasterLink { publisher: Some(publisher), max_payload, .. })) = self.link_to(gate)
        else {
            return;
        };
        let (publisher, max_payload) = (publisher.clone(), *max_payload);
        while let Some(bytes) = self.departures.send(gate, link, now) {
            if bytes.len() > max_payload {
                let message = format!("request: {} bytes, the master takes {max_payload}", bytes.len());
                let error = WireError::new(ErrorKind::TooLarge, message);
                let refused = Request::tag(bytes.into());
                if let Some(done) = refused.and_then(|tag| self.departures.answered(tag, gate)) {
                    // On a task of its own: who is told may ask for the lock that is held here.
                    tokio::spawn(async move { done(Err(error)) });
                }
                continue;
            }
            publisher.publish(&format!("to/{gate}/request"), &bytes);
        }
    }

    /// Sends an answer to this gate, by the link by which it has asked if that is there. Where the gate is away, it
    /// asks again when it is back.
    fn send_answer(&self, gate: &str, link: usize, answer: &[u8]) {
        let way_back = self.masters[link].publisher.as_ref();
        let other = || self.link_to(gate).and_then(|(_, link)| link.publisher.as_ref());
        if let Some(publisher) = way_back.or_else(other) {
            publisher.publish(&format!("to/{gate}/answer"), answer);
        }
    }

    /// Sends a part of a stream by the link by which its request came last, if that is there and has room.
    fn send_part(&self, name: &Name, offset: u64, part: &[u8]) {
        let (gate, tag) = name;
        let Some(link) = self.arrivals.link(name) else { return };
        if let Some(publisher) = self.masters[link].publisher.as_ref().filter(|it| has_room(it)) {
            publisher.publish(&format!("to/{gate}/part"), &encode_part(*tag, offset, part));
        }
    }

    fn give_up(&mut self, now: Instant) -> Vec<(Done, WireError)> {
        let Routing { departures, masters, remembered, .. } = self;
        let may_know = |gate: &str| masters.iter().any(|link| link.may_know(gate, now));
        departures.give_up(now, |gate| remembered.contains(gate) || may_know(gate))
    }

    /// Tells the gates which answers have come, asks them for what is late, and sends the answers again that found no
    /// room.
    fn tell_of_requests(&mut self, now: Instant) {
        for (gate, received) in std::mem::take(&mut self.receipts) {
            self.send_tags(&gate, "received", &received);
        }
        for ((gate, _), asked_for) in self.departures.probe(now) {
            self.send_tags(&gate, "probe", &asked_for);
        }
        for (gate, link, answer) in self.arrivals.send_again() {
            // A gate that is away asks for it when it is back.
            if self.link_to(&gate).is_some() {
                self.send_answer(&gate, link, &answer);
            }
        }
    }

    /// An answer of this gate has come: it need not keep it.
    fn receipt(&mut self, gate: &str, tag: Tag) {
        let receipts = self.receipts.entry(gate.into()).or_default();
        receipts.push(tag);
        if receipts.len() >= RECEIPTS_AT_ONCE
            && let Some((gate, received)) = self.receipts.remove_entry(gate)
        {
            self.send_tags(&gate, "received", &received);
        }
    }

    /// Tells this gate something of these requests, if it is there.
    fn send_tags(&self, gate: &str, what: &str, tags: &[Tag]) {
        if let Some((_, MasterLink { publisher: Some(publisher), .. })) = self.link_to(gate) {
            for tags in tags.chunks(MAX_TAGS) {
                publisher.publish(&format!("to/{gate}/{what}"), &encode_tags(tags));
            }
        }
    }

    /// This gate asks what has become of its requests.
    fn probed(&mut self, gate: &str, link: usize, tags: Vec<Tag>) {
        let gate: Arc<str> = gate.into();
        let (mut running, mut unknown) = (Vec::new(), Vec::new());
        for tag in tags {
            match self.arrivals.look(&(gate.clone(), tag)) {
                Arrival::Running => running.push(tag),
                Arrival::New => unknown.push(tag),
                Arrival::Answered(answer) => self.send_answer(&gate, link, &answer),
                Arrival::Received => {}
            }
        }
        for (what, tags) in [("running", running), ("returned", unknown)] {
            if !tags.is_empty() {
                self.send_tags(&gate, what, &tags);
            }
        }
    }

    /// Remembers the gates that this master may have forgotten since.
    fn remember(&mut self, before: &Gates) {
        for gate in before.gates.keys() {
            if self.remembered.len() < MAX_REMEMBERED && !self.remembered.contains(gate) {
                self.remembered.insert(gate.clone());
            }
        }
    }

    fn tell_load(&mut self, load: Load) {
        let Ok(text) = serde_json::to_vec(&load) else { return };
        for link in self.masters.iter_mut().filter(|link| link.told != Some(load)) {
            if let Some(publisher) = &link.publisher {
                link.told = Some(load);
                publisher.publish("load", &text);
            }
        }
    }
}

/// The lock on what is routed. When it is given back, what was published under it is written: outside of it, since that
/// takes a system call.
struct FlushedRouting<'a>(Option<MutexGuard<'a, Routing>>);

impl Deref for FlushedRouting<'_> {
    type Target = Routing;

    fn deref(&self) -> &Routing {
        self.0.as_ref().expect("held until it is dropped")
    }
}

impl DerefMut for FlushedRouting<'_> {
    fn deref_mut(&mut self) -> &mut Routing {
        self.0.as_mut().expect("held until it is dropped")
    }
}

impl Drop for FlushedRouting<'_> {
    fn drop(&mut self) {
        let Some(routing) = self.0.take() else { return };
        let publishers = routing.masters.iter().filter_map(|link| link.publisher.clone());
        let unwritten: Vec<Publisher> = publishers.filter(|publisher| publisher.unwritten() > 0).collect();
        drop(routing);
        unwritten.iter().for_each(Publisher::flush);
    }
}

/// Whether what nobody has to get may be published.
fn has_room(publisher: &Publisher) -> bool {
    publisher.unwritten() < MAX_BACKLOG
}

impl MasterLink {
    /// Whether this gate may be there. While the master is away, or has not heard of all gates, that is not known.
    fn may_know(&self, gate: &str, now: Instant) -> bool {
        match (&self.publisher, &self.gates) {
            (Some(_), Some((gates, gathering))) => gates.gates.contains_key(gate) || now < *gathering,
            _ => true,
        }
    }
}

impl Shared {
    /// What is published until this is dropped is written then.
    fn routing(&self) -> FlushedRouting<'_> {
        FlushedRouting(Some(self.unflushed_routing()))
    }

    /// What is published until this is dropped is written by the next who flushes.
    fn unflushed_routing(&self) -> MutexGuard<'_, Routing> {
        self.state.lock().expect("no panic while it is held")
    }

    fn way_in(&self) -> Option<WayIn> {
        self.way_in.lock().expect("no panic while it is held").clone()
    }

    /// A master takes messages of this size from here.
    pub fn connected(&self, link: usize, publisher: Publisher, max_packet: usize) {
        let mut routing = self.routing();
        let master = &mut routing.masters[link];
        tracing::info!(master = master.url, gate = %self.gate, "joined the master");
        master.publisher = Some(publisher);
        master.max_payload = max_packet.saturating_sub(PACKET_OVERHEAD);
        master.told = None;
    }

    /// The connection to a master has ended.
    pub fn lost(&self, link: usize) {
        {
            let mut routing = self.routing();
            let master = &mut routing.masters[link];
            master.publisher = None;
            if let Some((before, _)) = master.gates.take() {
                routing.remember(&before);
            }
            let now = Instant::now();
            routing.departures.lost_link(link, now);
            for gate in routing.departures.wanted() {
                routing.pump(&gate, now);
            }
        }
        self.publish_table();
    }

    /// A message has come from a master.
    pub fn received(self: &Arc<Self>, link: usize, message: Message) {
        let Message { topic, payload, .. } = message;
        let mut levels = topic.splitn(3, '/');
        match (levels.next(), levels.next(), levels.next()) {
            (Some("from"), Some(gate), Some("request")) => self.request(link, gate, payload),
            (Some("from"), Some(gate), Some("answer")) => self.answer(gate, payload),
            (Some("from"), Some(gate), Some("part")) => self.part(gate, payload),
            (Some("from"), Some(gate), Some("message")) => self.import(gate, payload),
            (Some("from"), Some(gate), Some(what)) => self.told(link, gate, what, payload),
            (Some("gateway"), Some(_), Some("routers")) => self.table(link, &payload),
            _ => {
                _ = sampled!(warn, topic = %telemetry::bounded(&topic), "the master sends what is unknown here")
            }
        }
    }

    fn table(&self, link: usize, payload: &[u8]) {
        let Ok(gates) = serde_json::from_slice::<Gates>(payload) else {
            _ = sampled!(warn, "the master's table of gates cannot be read");
            return;
        };
        {
            let mut routing = self.routing();
            let now = Instant::now();
            let gathering = GATHERING.min(routing.age);
            let gathering = now + gathering.saturating_sub(Duration::from_millis(gates.uptime_ms));
            let before = routing.masters[link].gates.replace((gates, gathering)).map(|(gates, _)| gates);
            // What another connection of a router was sent may be lost with that.
            for (gate, _) in before.iter().flat_map(|before| &before.gates) {
                let after = routing.masters[link].gates.as_ref().and_then(|(gates, _)| gates.session(gate));
                if after != before.as_ref().and_then(|before| before.session(gate)) {
                    routing.departures.lost_gate(gate, link, now);
                }
            }
            for gate in routing.departures.wanted() {
                routing.pump(&gate, now);
            }
            let mut tables = routing.masters.iter().filter_map(|link| link.gates.as_ref());
            self.site.set_network_is_local(tables.all(|(gates, _)| gates.are_local()));
        }
        self.publish_table();
    }

    /// Shows the gates to this site.
    fn publish_table(&self) {
        let Some(WayIn { ingress, .. }) = self.way_in() else { return };
        let gates = {
            let routing = self.unflushed_routing();
            let first = routing.masters.iter().find_map(|link| link.gates.as_ref());
            let masters = routing
                .masters
                .iter()
                .map(|link| MasterState { url: link.url.clone(), joined: link.publisher.is_some() });
            Gates {
                name: self.name.clone(),
                gate: Some(self.gate.to_string()),
                masters: masters.collect(),
                ..first.map(|(gates, _)| gates.clone()).unwrap_or_default()
            }
        };
        if let Ok(payload) = serde_json::to_vec(&gates) {
            ingress.publish_notice(Notice {
                topic: self.table_topic.clone(),
                payload: payload.into(),
                retain: true,
            });
        }
    }

    /// This gate, or the master about it, says something of these requests.
    fn told(&self, link: usize, gate: &str, what: &str, payload: Bytes) {
        let Some(tags) = decode_tags(payload) else {
            _ = sampled!(warn, gate, "what another site says cannot be read: its version is another one");
            return;
        };
        let (mut routing, now) = (self.routing(), Instant::now());
        let name = |tag| (Arc::<str>::from(gate), tag);
        match what {
            "returned" => tags.into_iter().for_each(|tag| routing.departures.returned(tag, gate, now)),
            "running" => tags.into_iter().for_each(|tag| routing.departures.confirmed(tag, gate, now)),
            "received" => tags.into_iter().for_each(|tag| routing.arrivals.received(&name(tag))),
            "undelivered" => tags.into_iter().for_each(|tag| routing.arrivals.undelivered(&name(tag))),
            "probe" => routing.probed(gate, link, tags),
            _ => _ = sampled!(warn, gate, "another site says what is unknown here"),
        }
    }

    /// A request has come from this gate, by this link.
    fn request(self: &Arc<Self>, link: usize, gate: &str, payload: Bytes) {
        let Some(WayIn { intake, .. }) = self.way_in() else { return };
        let Some((tag, age, request)) = Request::decode(payload) else {
            _ = sampled!(warn, gate, "a request of another site cannot be read: its version is another one");
            return;
        };
        let name: Name = (gate.into(), tag);
        let arrival = self.unflushed_routing().arrivals.begin(&name, link);
        let answer_room = request.answer_room.and_then(|room| usize::try_from(room).ok());
        let responder = RoutedResponder { shared: self.clone(), name: Some(name), answer_room };
        match arrival {
            Arrival::New => {}
            Arrival::Running | Arrival::Received => return responder.forget(),
            Arrival::Answered(answer) => {
                responder.forget();
                return self.routing().send_answer(gate, link, &answer);
            }
        }
        let has_gone_too_far = request.has_gone_too_far();
        let Request { principal, web, path, topic, answer_topic, user_properties, payload, .. } = request;
        let plain = topic::parse_routed(&topic).map_or(&*topic, |routed| routed.plain);
        if has_gone_too_far || topic::parse_request(plain).is_none() {
            let problem = format!("more than {MAX_HOPS} gateways have handed the request on");
            return responder.fail(telemetry::internal_error(&problem));
        }
        let delivery = Delivery {
            client: Client::routed(gate, principal.as_deref(), web, &path),
            topic,
            payload,
            properties: DeliveryProperties {
                response_topic: Some(answer_topic),
                user_properties,
                ..DeliveryProperties::default()
            },
            retained: false,
            acceptance: Acceptance::with_the_answer(),
            responder: Box::new(responder),
        };
        let now = Instant::now();
        let batch = intake.batch();
        batch.deliver_since(delivery, now.checked_sub(age).unwrap_or(now));
        batch.end();
    }

    /// An answer has come from this gate.
    fn answer(&self, gate: &str, payload: Bytes) {
        let Some((tag, reply)) = decode_answer(payload) else {
            _ = sampled!(warn, gate, "an answer of another site cannot be read: its version is another one");
            return;
        };
        let done = {
            let mut routing = self.routing();
            let done = routing.departures.answered(tag, gate);
            // One that nobody waits for any more need not be kept either.
            routing.receipt(gate, tag);
            routing.pump(gate, Instant::now());
            done
        };
        if let Some(done) = done {
            done(Ok(reply));
        }
    }

    /// A part of a stream has come from this gate. Of what was answered here nothing is streamed any more.
    fn part(&self, gate: &str, payload: Bytes) {
        let Some((tag, offset, part)) = decode_part(payload) else { return };
        let stream = self.unflushed_routing().departures.stream(tag, gate);
        if let Some(stream) = stream {
            stream.relay(offset, part);
        }
    }

    /// Hands a copy of an ordinary message to the sites that take it.
    fn export(&self, topic: &str, payload: &Bytes, retain: bool) {
        let routing = self.unflushed_routing();
        let mut bytes = None;
        let mut reached: Vec<&str> = vec![&*self.gate];
        for link in &routing.masters {
            let (Some(publisher), Some((gates, _))) = (&link.publisher, &link.gates) else { continue };
            for gate in gates.importers(&self.gate, topic) {
                if reached.contains(&gate) {
                    continue;
                }
                reached.push(gate);
                let copy = || {
                    let (path, payload) = (vec![self.gate.to_string()], payload.clone());
                    Exported { path, topic: topic.to_owned(), retain, payload }.encode()
                };
                let bytes = bytes.get_or_insert_with(copy).clone();
                if bytes.len() > link.max_payload || !has_room(publisher) {
                    _ = sampled!(
                        warn,
                        gate,
                        "messages for another site are dropped: the way to it takes no more"
                    );
                    continue;
                }
                publisher.publish(&format!("to/{gate}/message"), &bytes);
                // Those that a client has sent together are written together.
                publisher.wake();
            }
        }
    }

    /// Publishes a message of another site, if this one takes it.
    fn import(&self, gate: &str, payload: Bytes) {
        let (Some(WayIn { ingress, .. }), Some(copy)) = (self.way_in(), Exported::decode(payload)) else {
            return;
        };
        let Exported { path, topic, retain, payload } = copy;
        let (own, name) = (&*self.gate, format!("{gate}/{topic}"));
        let is_wanted = self.join.imports.iter().any(|filter| topic::matches(filter, &name));
        // No message goes in circles, whatever the other site sends.
        let is_far = path.iter().any(|gate| gate == own) || path.len() > usize::from(MAX_HOPS);
        if is_wanted && !is_far && topic::is_valid_name(&topic) {
            let topic = format!("{}/{name}", self.import_prefix).into();
            ingress.publish_notice(Notice { topic, payload, retain });
        }
    }

    /// Bytes that the payload of an answer to this gate may have.
    fn room(&self, gate: &str) -> usize {
        self.unflushed_routing().link_to(gate).map_or(usize::MAX, |(_, link)| link.max_payload)
    }

    /// What is said when the router goes.
    pub fn leave(join: &Join, state: State) -> Message {
        let leave = Leave { instance: join.instance, state };
        Message::new("leave", serde_json::to_vec(&leave).unwrap_or_default())
    }
}

/// The way back to another site.
struct RoutedResponder {
    shared: Arc<Shared>,
    /// `None` once it is answered.
    name: Option<Name>,
    /// As in [`Request`].
    answer_room: Option<usize>,
}

impl RoutedResponder {
    fn finish(mut self, outgoing: Outgoing) {
        let Some(name) = self.name.take() else { return };
        let (gate, tag) = name.clone();
        let room = self.shared.room(&gate);
        let bytes = match &outgoing.seal {
            Some(seal) => match self.seal(&outgoing, seal, sealed_room(room)) {
                Some(sealed) => encode_answer(tag, &Reply::Sealed(sealed.into())),
                None => failed(tag, telemetry::internal_error("an answer cannot be sealed")),
            },
            None => in_clear(tag, outgoing.answer, room),
        };
        self.send(name, &gate, bytes);
    }

    /// In `room` bytes, and in as many as its receiver takes; where that has not even room for an error, it is no
    /// reason to answer in clear.
    fn seal(&self, outgoing: &Outgoing, seal: &Seal, room: usize) -> Option<Vec<u8>> {
        let taken = self.answer_room.map(|taken| sealed::answer_room(seal.form, taken));
        let fits = taken.filter(|taken| *taken < room).and_then(|taken| outgoing.seal(seal, Some(taken)));
        fits.or_else(|| outgoing.seal(seal, Some(room)))
    }

    fn fail(mut self, error: WireError) {
        let Some(name) = self.name.take() else { return };
        let (gate, tag) = name.clone();
        self.send(name, &gate, failed(tag, error));
    }

    fn send(&self, name: Name, gate: &str, bytes: Bytes) {
        let mut routing = self.shared.routing();
        if let Some(link) = routing.arrivals.answered(name, bytes.clone()) {
            routing.send_answer(gate, link, &bytes);
        }
    }

    fn forget(mut self) {
        self.name = None;
    }
}

fn failed(tag: Tag, error: WireError) -> Bytes {
    encode_answer(tag, &Reply::Clear(Answer::failed(None, error)))
}

/// An answer that everybody on the way can read, in `room` bytes.
fn in_clear(tag: Tag, answer: Answer, room: usize) -> Bytes {
    let bytes = encode_answer(tag, &Reply::Clear(answer.clone()));
    if bytes.len() <= room {
        return bytes;
    }
    let message = format!("the answer has {} bytes, the master takes {room}", bytes.len());
    let outcome = Outcome::Failed(WireError::new(ErrorKind::Output, message));
    let cut = Answer { outcome, stdout: Bytes::new(), stderr: Bytes::new(), ..answer };
    encode_answer(tag, &Reply::Clear(cut))
}

impl Responder for RoutedResponder {
    fn answer(self: Box<Self>, answer: Outgoing, _: Option<OnAcknowledged>) -> Handover {
        self.finish(answer);
        Handover::Complete
    }

    fn ignore(self: Box<Self>) {}

    fn parts(&self) -> Option<Box<dyn Parts>> {
        Some(Box::new(RoutedParts { shared: self.shared.clone(), name: self.name.clone()? }))
    }
}

/// The way of parts of a stream to another site, while few wait for the connection.
struct RoutedParts {
    shared: Arc<Shared>,
    name: Name,
}

impl Parts for RoutedParts {
    fn publish(&self, _: String, offset: u64, part: Bytes) {
        self.shared.routing().send_part(&self.name, offset, &part);
    }
}

impl Drop for RoutedResponder {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.shared.unflushed_routing().arrivals.given_up(&name);
        }
    }
}
