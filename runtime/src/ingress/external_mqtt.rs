//! Requests from an existing MQTT broker.
//!
//! MQTT 5 with an explicit Receive Maximum, a persistent session and manual acknowledgement: a request is acknowledged
//! once the broker has its answer, so what the gateway holds when it dies is delivered again. Gateways on one broker
//! share the work by a shared subscription. With MQTT 3.1.1, which the configuration or an old broker may want, there
//! is no back-pressure, and no way to tell whether the broker shares subscriptions: the subscriptions are plain, and a
//! second gateway answers everything too.
//!
//! Acknowledgements are sent as answers are done, not in the order of the requests (MQTT 5, section 4.6, wants the
//! order): in order, one long request would hold back thousands of short ones.
//!
//! Of several brokers one is used at a time. The list is gone through in its order, without a wait, and then again
//! after one; a connection that is lost begins it anew.

mod brokers;
mod client_id_conflict;
pub(super) mod counters;
mod driver;
mod grant;
mod group_keys;
mod link_state;
mod log_sampling;
mod namesakes;
mod offer;
mod publication;
mod responder;
mod version;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use offload_broker::{BoxFuture, OnAcknowledged};
use offload_mqtt::ConnectionOptions;
use offload_tls::TlsError;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

pub use link_state::LinkState;
pub use offload_mqtt::Version;

use super::intake::Intake;
use super::outgoing::Outgoing;
use super::{Handover, Ingress, Notice, Notices, Statistics, Tap};
use crate::client::Client;
use crate::config;
use crate::keys::{Keys, KeysError};
use brokers::Brokers;
use counters::Counters;
use driver::{Driver, Ways, others};
use responder::Command;

/// How long the broker may take to confirm that it took our share back.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// How long a write may take, on top of the time to connect and that in which an idle connection is probed.
const STALL: Duration = Duration::from_secs(10);
/// Answers on their way to the broker without its acknowledgement, where the broker allows as many.
const MAX_UNCONFIRMED: u16 = 1_024;
/// Largest password file that is read, in bytes.
const MAX_PASSWORD_FILE: u64 = 64 << 10;

/// Why a broker cannot be joined at all. One that is away, or refuses, is tried again for ever.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// The files for TLS cannot be used.
    #[error("cannot join the broker by TLS: {0}")]
    Tls(#[from] TlsError),
    /// The password file cannot be read.
    #[error("cannot read the broker's password from {}: {source}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The keys that requests are sealed to cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// A gateway's connection to an existing broker. Dropped, it shuts down.
pub struct ExternalIngress {
    url: Arc<ArcSwap<String>>,
    commands: UnboundedSender<Command>,
    link_state: watch::Receiver<LinkState>,
    counters: Arc<Counters>,
    /// The task that owns the connection.
    tasks: TaskTracker,
}

/// What it takes to join a broker.
pub struct Settings<'s> {
    /// The broker.
    pub broker: &'s config::Broker,
    /// Where it is, or those that stand in for each other.
    pub urls: &'s config::BrokerUrls,
    /// Names the session on the broker: the same after a restart, another for each gateway.
    pub client_id: &'s str,
    /// Whether requests are taken here; else the gateway's notices are published, and nothing of the session is kept.
    pub takes_requests: bool,
    /// Whether requests to other sites are taken.
    pub asks_others: bool,
    /// Takes copies of ordinary messages.
    pub tap: Option<Tap>,
    /// The keys that it has together with those that share its requests; none where these are not compared.
    pub group: Option<Group>,
}

/// What the gateways that share requests agree on before they take any.
pub struct Group {
    /// This gateway's keys; none where the others may have some.
    pub keys: Arc<Keys>,
    /// Tells this gateway from the others.
    pub instance: String,
    /// The status of this gateway with the keys that it has then.
    pub status: Box<dyn Fn() -> Notice + Send>,
}

/// What is asked of the broker.
struct Asked {
    /// Requests to this gateway.
    takes_requests: bool,
    /// What is subscribed to for the sake of other sites.
    others: Arc<[String]>,
    /// Takes copies of ordinary messages.
    tap: Option<Tap>,
    /// What the gateways of a group agree on, and who hears that they do not.
    group: Option<(Group, oneshot::Sender<KeysError>)>,
}

impl Ingress for ExternalIngress {
    type Settings<'s> = Settings<'s>;
    type Error = ExternalError;

    /// As long as the broker is away, or refuses, this takes.
    async fn start(
        settings: Self::Settings<'_>,
        intake: Intake,
        notices: Notices,
    ) -> Result<ExternalIngress, ExternalError> {
        let (refusal, refused) = oneshot::channel();
        let ingress = ExternalIngress::open(settings, refusal, intake, notices)?;
        let mut link_state = ingress.link_state();
        let serving = async {
            // An error would mean that the task is gone, which it is not before a shutdown.
            let _ = link_state.wait_for(|state| matches!(state, LinkState::Serving { .. })).await;
        };
        let refusal = tokio::select! {
            // Sent by nobody where the keys are the group's.
            Ok(error) = refused => Some(error),
            () = serving => None,
        };
        if let Some(error) = refusal {
            ingress.shutdown().await;
            return Err(error.into());
        }
        Ok(ingress)
    }

    fn url(&self) -> String {
        self.url.load().to_string()
    }

    fn address(&self) -> Option<SocketAddr> {
        None
    }

    fn publish_answer(&self, _: &Client, answer: Outgoing, _: Option<OnAcknowledged>) -> Handover {
        self.send(Command::Answer(None, Box::new(answer.into())));
        Handover::Complete
    }

    fn publish_notice(&self, notice: Notice) {
        self.send(Command::Notice(notice));
    }

    /// Gives this gateway's share of the requests back. What the broker had set aside for it already is still delivered
    /// and can be answered.
    fn stop_taking(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let (done, given_back) = oneshot::channel();
            self.send(Command::StopTaking(done));
            // Either way there is nothing more to do: without a connection the next one gives the share back.
            let _ = timeout(STOP_WAIT, given_back).await;
        })
    }

    /// Requests without an answer stay with the broker until the session expires.
    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.send(Command::Shutdown);
            self.tasks.wait().await;
        })
    }

    fn statistics(&self) -> Statistics {
        let connected = matches!(*self.link_state.borrow(), LinkState::Serving { .. });
        self.counters.snapshot(usize::from(connected))
    }
}

impl ExternalIngress {
    /// Like [`Ingress::start`], without waiting for the broker. Call it within a tokio runtime.
    ///
    /// # Errors
    /// When the password file, or the files for TLS, cannot be used.
    pub fn connect(
        settings: Settings<'_>,
        intake: Intake,
        notices: Notices,
    ) -> Result<ExternalIngress, ExternalError> {
        ExternalIngress::open(settings, oneshot::channel().0, intake, notices)
    }

    /// `refusal` hears that the gateway's keys are not its group's.
    fn open(
        Settings { broker, urls, client_id, takes_requests, asks_others, tap, group }: Settings<'_>,
        refusal: oneshot::Sender<KeysError>,
        intake: Intake,
        notices: Notices,
    ) -> Result<ExternalIngress, ExternalError> {
        let password = match &broker.password_file {
            Some(path) => read_password(path)
                .map_err(|source| ExternalError::Password { path: path.clone(), source })?,
            None => String::new(),
        };
        let tls = broker.tls().map(|files| files.client_config()).transpose()?;
        let address = &urls.first().address;
        let brokers = Brokers::new(urls);
        let url = brokers.url();
        let keep_alive: Duration = broker.keep_alive.into();
        let connect_timeout: Duration = broker.connect_timeout.into();
        let options = ConnectionOptions {
            tls,
            credentials: broker.username.clone().map(|name| (name, password)),
            keep_alive,
            connect_timeout,
            write_timeout: Some(connect_timeout + keep_alive * 2 + STALL),
            clean_start: !takes_requests,
            session_expiry: broker.session_expiry.into(),
            receive_maximum: Some(broker.receive_maximum),
            max_packet: broker.max_packet.as_usize(),
            max_in_flight: MAX_UNCONFIRMED,
            manual_acknowledgement: true,
            ..ConnectionOptions::new(&address.host, address.port, client_id)
        };
        let (commands, receiver) = unbounded_channel();
        let (reported, link_state) = watch::channel(LinkState::Connecting);
        let counters = Arc::new(Counters::default());
        let ways = Ways { intake, commands: receiver, sender: commands.clone(), link_state: reported };
        let group = group.map(|group| (group, refusal));
        let asked = Asked { takes_requests, others: others(asks_others, tap.as_ref()), tap, group };
        let driver = Driver::new(broker, brokers, asked, options, notices, ways, counters.clone());
        let tasks = TaskTracker::new();
        let driving = tokio::spawn(driver.run());
        tasks.spawn(async move {
            if let Err(error) = driving.await {
                tracing::error!(%error, "the task of the broker's connection ended badly");
            }
        });
        tasks.close();
        Ok(ExternalIngress { url, commands, link_state, counters, tasks })
    }

    /// Follows the connection.
    pub fn link_state(&self) -> watch::Receiver<LinkState> {
        self.link_state.clone()
    }

    fn send(&self, command: Command) {
        // The task is gone only after a shutdown, when there is nothing left to do.
        let _ = self.commands.send(command);
    }
}

impl Drop for ExternalIngress {
    fn drop(&mut self) {
        self.send(Command::Shutdown);
    }
}

/// The first line of `path`.
pub(super) fn read_password(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_PASSWORD_FILE).read_to_string(&mut text)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
