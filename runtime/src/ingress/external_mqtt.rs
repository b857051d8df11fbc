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

mod backoff;
mod client_id_conflict;
mod driver;
mod grant;
mod log_sampling;
mod namesakes;
mod offer;
mod publication;
mod responder;
mod version;
mod window;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use offload_mqtt::ConnectionOptions;
use offload_tls::TlsError;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use offload_mqtt::Version;

use super::{Notices, Sink};
use crate::config;
use driver::Driver;
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
}

/// How things stand with the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// The first attempt is under way.
    Connecting,
    /// Requests are taken.
    Serving {
        /// The version of MQTT that is spoken.
        version: Version,
        /// Whether other gateways on this broker share the work.
        shared: bool,
    },
    /// There is no connection; the next attempt follows.
    Waiting {
        /// Why, in at most a few hundred characters.
        reason: String,
    },
    /// Another client uses our client id; the next attempt follows after a long wait.
    ClientIdConflict,
    /// The ingress has shut down.
    Stopped,
}

/// A gateway's place on an existing broker.
pub struct ExternalIngress {
    commands: UnboundedSender<Command>,
    status: watch::Receiver<LinkState>,
    task: Option<JoinHandle<()>>,
}

impl ExternalIngress {
    /// Joins `broker`, and returns when it sends requests to `sink`: as long as it is away, or refuses, that takes.
    /// `notices` are published whenever there is a connection.
    /// `client_id` names the session on the broker: the same after a restart, another for each gateway.
    ///
    /// # Errors
    /// When the password file, or the files for TLS, cannot be used.
    pub async fn start(
        broker: &config::Broker,
        client_id: &str,
        sink: Arc<dyn Sink>,
        notices: Notices,
    ) -> Result<ExternalIngress, ExternalError> {
        let ingress = ExternalIngress::connect(broker, client_id, sink, notices)?;
        let mut status = ingress.status();
        // An error would mean that the task is gone, which it is not before a shutdown.
        let _ = status.wait_for(|status| matches!(status, LinkState::Serving { .. })).await;
        Ok(ingress)
    }

    /// Like [`ExternalIngress::start`], without waiting for the broker. Call it within a tokio runtime.
    ///
    /// # Errors
    /// When the password file, or the files for TLS, cannot be used.
    pub fn connect(
        broker: &config::Broker,
        client_id: &str,
        sink: Arc<dyn Sink>,
        notices: Notices,
    ) -> Result<ExternalIngress, ExternalError> {
        let password = broker.password_file.as_deref().map(read_password).transpose()?.unwrap_or_default();
        let tls = broker.tls().map(|files| files.client_config()).transpose()?;
        let address = &broker.url.address;
        let keep_alive: Duration = broker.keep_alive.into();
        let connect_timeout: Duration = broker.connect_timeout.into();
        let options = ConnectionOptions {
            tls,
            credentials: broker.username.clone().map(|name| (name, password)),
            keep_alive,
            connect_timeout,
            write_timeout: Some(connect_timeout + keep_alive * 2 + STALL),
            clean_start: false,
            session_expiry: broker.session_expiry.into(),
            receive_maximum: Some(broker.receive_maximum),
            max_packet: broker.max_packet.as_usize(),
            max_in_flight: MAX_UNCONFIRMED,
            manual_acknowledgement: true,
            ..ConnectionOptions::new(&address.host, address.port, client_id)
        };
        let (sender, receiver) = unbounded_channel();
        let (status, watched) = watch::channel(LinkState::Connecting);
        let commands = sender.clone();
        let driver = Driver::new(broker, options, sink, notices, (sender, receiver), status);
        Ok(ExternalIngress { commands, status: watched, task: Some(tokio::spawn(driver.run())) })
    }

    /// Follows the connection.
    pub fn status(&self) -> watch::Receiver<LinkState> {
        self.status.clone()
    }

    /// Gives this gateway's share of the requests back, and returns when the broker has it, or cannot be told in a
    /// short time. What the broker had set aside for us already is still delivered and can be answered.
    pub async fn stop_taking(&self) {
        let (done, given_back) = oneshot::channel();
        self.send(Command::StopTaking(done));
        // Either way there is nothing more to do: without a connection the next one gives the share back.
        let _ = timeout(STOP_WAIT, given_back).await;
    }

    /// Publishes the answers that were given, for a short time at most, and disconnects. Requests without an answer
    /// stay with the broker until the session expires.
    pub async fn shutdown(mut self) {
        self.send(Command::Shutdown);
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the task of the broker's connection ended badly");
        }
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
fn read_password(path: &Path) -> Result<String, ExternalError> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_PASSWORD_FILE).read_to_string(&mut text))
        .map_err(|source| ExternalError::Password { path: path.to_owned(), source })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
