//! The master: a broker of our own, to which routers alone connect. It writes on each message which gate it is from,
//! and hands it to the gate that it is for. It keeps nothing: what is on its way is kept by the routers that sent it.
//!
//! A router is known by the common name of its certificate, which is its gate and its client id. On loopback without
//! TLS it is known by its client id alone. A router that joins as a gate that is there already takes its place, as in
//! MQTT (5, section 3.1.4): after a cut, the old connection may look alive for a while.

use super::gates::{Gate, Gates, Join, Leave, Load, State};
use super::message::TAG_BYTES;
use crate::config;
use crate::telemetry;
use bytes::Bytes;
use offload_broker::{
    Application, BoxFuture, Broker, Certificates, ClientCertificates, ClientInfo, Identity, Login, Message,
    Placed, QoS, Reason, Received, Refusal, Route, Tls, Transport,
};
use offload_protocol::topic;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Largest packet of a router: the largest message of a device, with what routers add.
pub const MAX_PACKET: usize = 40 << 20;

/// Bytes that wait for one router, and for all of them. What routers send each other is at QoS 0, which has half of
/// them; the rest is for what the master says.
const QUEUE_BYTES: usize = 128 << 20;
const ALL_QUEUED_BYTES: usize = 512 << 20;
/// Messages that wait for one router, of which QoS 0 has half. Requests and answers that find no room go back to the
/// router that sent them.
const QUEUE_MESSAGES: usize = 16_384;
/// Bytes of packets that have not come completely: of one router, and of all of them.
const INPUT_BYTES: usize = 64 << 20;
const ALL_INPUT_BYTES: usize = 256 << 20;
/// Most bytes of a certificate or key file.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// How often changed loads are shown.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// Why a master cannot start.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// A certificate or key cannot be read.
    #[error("cannot read {}: {error}; `offload-rt keygen` makes certificates", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Certificates and key do not fit together.
    #[error("the certificates cannot be used: {0}")]
    Certificates(#[from] offload_broker::Error),
    /// It cannot listen.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// Other machines could join, and nothing tells who they are.
    #[error(
        "any machine could join at {0}: on another address than loopback, [master] needs certificate, key and client_ca"
    )]
    Exposed(SocketAddr),
}

/// A running master. It ends when it is dropped.
pub struct Master {
    address: SocketAddr,
    by_tls: bool,
    stop: CancellationToken,
    serving: AbortOnDropHandle<()>,
    _showing: AbortOnDropHandle<()>,
}

impl Master {
    /// Starts a master of this name. Call it within a tokio runtime; when it returns, routers can join.
    ///
    /// # Errors
    ///
    /// When it cannot listen, or not with these certificates.
    pub async fn start(config: &config::Master, name: &str) -> Result<Master, MasterError> {
        let tls = tls(config)?;
        let failed = |error| MasterError::Listen { address: config.address.to_string(), error };
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host(config.address.to_string()).await.map_err(failed)?.collect();
        let exposed = addresses.iter().find(|address| !address.ip().is_loopback());
        if let (Some(exposed), None) = (exposed, &tls) {
            return Err(MasterError::Exposed(*exposed));
        }
        let listener = TcpListener::bind(&*addresses).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let table = Gates { name: name.to_owned(), local: exposed.is_none(), ..Gates::default() };
        let hub = Arc::new(Hub {
            topic: topic::routers(name).into(),
            by_tls: tls.is_some(),
            allowed: config.gates.clone(),
            started: Instant::now(),
            joined: Mutex::new(Joined { table, ..Joined::default() }),
        });
        let broker = Broker::new(limits(), hub.clone());
        hub.show(&broker, &mut hub.joined());
        let stop = CancellationToken::new();
        let by_tls = tls.is_some();
        let transport = tls.map_or(Transport::Tcp, Transport::Tls);
        let (serving, token) = (broker.clone(), stop.clone());
        let serving = tokio::spawn(async move {
            if let Err(error) = serving.serve(listener, transport, token).await {
                tracing::error!(%error, "the master stopped");
            }
        });
        Ok(Master {
            address,
            by_tls,
            stop,
            serving: AbortOnDropHandle::new(serving),
            _showing: AbortOnDropHandle::new(tokio::spawn(show_loads(hub, broker))),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL that routers connect to.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.by_tls { "mqtts" } else { "mqtt" }, self.address)
    }

    /// Closes the connections.
    pub async fn shutdown(self) {
        self.stop.cancel();
        let _ = self.serving.await;
    }
}

/// Shows changed loads, for as long as the master lives.
async fn show_loads(hub: Arc<Hub>, broker: Broker) {
    let mut ticks = interval(SHOW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut joined = hub.joined();
        if std::mem::take(&mut joined.has_new_loads) {
            hub.show(&broker, &mut joined);
        }
    }
}

fn tls(config: &config::Master) -> Result<Option<Tls>, MasterError> {
    let config::Master { certificate: Some(certificate), key: Some(key), client_ca: Some(ca), .. } = config
    else {
        return Ok(None);
    };
    let (chain, key, ca) = (read(certificate)?, read(key)?, read(ca)?);
    let clients = ClientCertificates::Required { ca: &ca };
    Ok(Some(Tls::new(&Certificates { chain: &chain, key: &key, clients })?))
}

fn read(path: &Path) -> Result<Vec<u8>, MasterError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes))
        .map_err(|error| MasterError::Read { path: path.to_owned(), error })?;
    Ok(bytes)
}

fn limits() -> offload_broker::Config {
    offload_broker::Config {
        max_packet_size: MAX_PACKET,
        session_queue_bytes: QUEUE_BYTES,
        session_queue_messages: QUEUE_MESSAGES,
        max_queued_bytes: ALL_QUEUED_BYTES,
        max_input_bytes: ALL_INPUT_BYTES,
        max_input_bytes_per_identity: INPUT_BYTES,
        ..offload_broker::Config::default()
    }
}

/// What routers ask of the master, by its topic.
const JOIN: u32 = 0;
const LEAVE: u32 = 1;
const LOAD: u32 = 2;
const TO: u32 = 3;

/// The application of the master's broker.
struct Hub {
    topic: Arc<str>,
    by_tls: bool,
    /// All gates, if it is empty.
    allowed: Vec<String>,
    started: Instant,
    joined: Mutex<Joined>,
}

#[derive(Default)]
struct Joined {
    table: Gates,
    /// The connections of the gates that are there.
    clients: HashMap<String, Arc<ClientInfo>>,
    sessions: u64,
    has_new_loads: bool,
}

impl Hub {
    fn joined(&self) -> MutexGuard<'_, Joined> {
        self.joined.lock().expect("no panic while it is held")
    }

    /// Publishes the table. Under its lock, so that the newest comes last.
    fn show(&self, broker: &Broker, joined: &mut Joined) {
        joined.table.uptime_ms = self.started.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        let Ok(payload) = serde_json::to_vec(&joined.table) else { return };
        let message = Message { retain: true, ..Message::new(self.topic.clone(), payload, QoS::AtLeastOnce) };
        broker.publish(&message, None);
    }

    fn join(&self, broker: &Broker, client: &Arc<ClientInfo>, payload: &[u8]) -> Result<(), Reason> {
        let join: Join = parse(payload)?;
        let name = &*client.client_id;
        if client.assigned || !topic::is_gate(name) || !self.is_allowed(name) {
            return Err(Reason::NotAuthorized);
        }
        let mut joined = self.joined();
        joined.sessions += 1;
        let (session, address) = (joined.sessions, client.peer.to_string());
        let gate = Gate { state: State::Online, address, since: now(), session, join, load: None };
        tracing::info!(
            gate = name,
            address = gate.address,
            version = gate.join.version,
            "a router has joined"
        );
        joined.table.insert(name, gate);
        joined.clients.insert(name.to_owned(), client.clone());
        self.show(broker, &mut joined);
        Ok(())
    }

    fn leave(&self, broker: &Broker, client: &Arc<ClientInfo>, payload: &[u8]) -> Result<(), Reason> {
        let Leave { state, .. } = parse(payload)?;
        let name = &*client.client_id;
        let mut joined = self.joined();
        // Another connection may be that of the gate by now.
        if !joined.is_of(client) || state == State::Online {
            return Ok(());
        }
        joined.clients.remove(name);
        if let Some(gate) = joined.table.gates.get_mut(name) {
            (gate.state, gate.since, gate.load) = (state, now(), None);
        }
        tracing::info!(gate = name, state = state.as_str(), "a router is gone");
        self.show(broker, &mut joined);
        Ok(())
    }

    fn load(&self, client: &Arc<ClientInfo>, payload: &[u8]) -> Result<(), Reason> {
        let load: Load = parse(payload)?;
        let mut joined = self.joined();
        if joined.is_of(client)
            && let Some(gate) = joined.table.gates.get_mut(&*client.client_id)
        {
            gate.load = Some(load);
            joined.has_new_loads = true;
        }
        Ok(())
    }

    /// Hands a message to another gate, with the name of the one that it is from.
    fn forward(
        &self,
        broker: &Broker,
        client: &Arc<ClientInfo>,
        topic: &str,
        payload: Bytes,
    ) -> Result<(), Reason> {
        let mut levels = topic.splitn(3, '/').skip(1);
        let (Some(to), Some(what)) = (levels.next(), levels.next()) else {
            return Err(Reason::TopicNameInvalid);
        };
        // What the router that sent it is told where it cannot be handed over.
        let back = match what {
            "request" => Some("returned"),
            "answer" => Some("undelivered"),
            "message" | "part" | "received" | "probe" | "running" | "returned" => None,
            _ => return Err(Reason::TopicNameInvalid),
        };
        let receiver = {
            let joined = self.joined();
            if !joined.is_of(client) {
                return Err(Reason::NotAuthorized);
            }
            joined.clients.get(to).cloned()
        };
        let from = &client.client_id;
        // Routers send again what is lost with a connection, so acknowledgements would be packets for nothing.
        let message = Message::new(format!("from/{from}/{what}"), payload.clone(), QoS::AtMostOnce);
        let placed = receiver.map(|receiver| broker.publish_to(&receiver, &message, None, None));
        if placed != Some(Placed::Queued)
            && let Some(back) = back
        {
            let tag = payload.slice(..TAG_BYTES.min(payload.len()));
            let message = Message::new(format!("from/{to}/{back}"), tag, QoS::AtLeastOnce);
            broker.publish_to(client, &message, None, None);
        }
        Ok(())
    }

    fn is_allowed(&self, gate: &str) -> bool {
        self.allowed.is_empty() || self.allowed.iter().any(|allowed| allowed == gate)
    }
}

impl Joined {
    /// Whether this is the connection of its gate.
    fn is_of(&self, client: &Arc<ClientInfo>) -> bool {
        self.clients.get(&*client.client_id).is_some_and(|joined| Arc::ptr_eq(joined, client))
    }
}

impl Application for Hub {
    fn authenticate(&self, login: Login) -> BoxFuture<'_, Result<Identity, Refusal>> {
        Box::pin(async move {
            let refuse = |cause| Err(Refusal::new(Reason::NotAuthorized, cause));
            // Who names itself nothing looks at the table.
            let is_router = !login.client_id.is_empty();
            if is_router && !self.is_allowed(&login.client_id) {
                return refuse("the gate is not among master.gates");
            }
            if !self.by_tls {
                return Ok(Identity::default());
            }
            let Some(name) = login.certificate.filter(|name| topic::is_gate(name)) else {
                return refuse("the common name of the certificate is no gate's name");
            };
            if is_router && login.client_id != name {
                return Err(Refusal::new(
                    Reason::ClientIdentifierNotValid,
                    "the certificate is that of another gate than the router wants to be",
                ));
            }
            Ok(Identity { user: Some(name.into()), credential: 0 })
        })
    }

    fn may_subscribe(&self, _: &ClientInfo, filter: &str) -> bool {
        filter == "from/#" || filter == "gateway/+/routers" || filter == &*self.topic
    }

    fn route(&self, _: &ClientInfo, topic: &str) -> Route {
        match topic {
            "join" => Route::Application(JOIN),
            "leave" => Route::Application(LEAVE),
            "load" => Route::Application(LOAD),
            topic if topic.starts_with("to/") => Route::Application(TO),
            _ => Route::Refuse,
        }
    }

    fn publish(&self, broker: &Broker, received: Received) {
        let Received { client, topic, claim, payload, ack, .. } = received;
        let done = match claim {
            JOIN => self.join(broker, &client, &payload),
            LEAVE => self.leave(broker, &client, &payload),
            LOAD => self.load(&client, &payload),
            _ => self.forward(broker, &client, &topic, payload),
        };
        match done {
            Ok(()) => ack.complete(),
            Err(reason) => {
                tracing::warn!(
                    client = %telemetry::bounded(&client.client_id),
                    topic = %telemetry::bounded(&topic),
                    "a client's message is refused: it has not joined, or is none of a router"
                );
                ack.refuse(reason);
            }
        }
    }
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Reason> {
    serde_json::from_slice(payload).map_err(|_| Reason::PayloadFormatInvalid)
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
