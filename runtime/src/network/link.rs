//! The connection to one master: made, kept, and made again.
//!
//! Everything goes at QoS 0: what is lost with the connection is sent again by routers, and acknowledgements of the
//! master's would say nothing of the other gate.

use super::gates::{Join, State};
use super::router::{NetworkError, Shared};
use crate::config;
use crate::random::random;
use offload_mqtt::{
    ConnectionError, ConnectionOptions, Opened, Publisher, QoS, Qos0Connection, Subscription, one_line,
};
use offload_policy::Backoff;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

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
/// What a router hears: what is for it, and the table of gates.
const FILTERS: [&str; 2] = ["from/#", "gateway/+/routers"];
/// Largest packet that is taken: the largest of a master.
const MAX_PACKET: usize = super::master::MAX_PACKET;

/// A master, and how it is reached.
pub struct Link {
    index: usize,
    url: String,
    options: ConnectionOptions,
    reconnect_max: Duration,
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
            let mut joined = false;
            let ended = self.connection(&shared, &mut joined).await;
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
            let mut wait = backoff.wait(random());
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

    async fn connection(&self, shared: &Arc<Shared>, joined: &mut bool) -> Ended {
        // What the master has of its own is at QoS 1.
        let subscriptions = FILTERS.map(|filter| Subscription::new(filter, QoS::AtLeastOnce));
        let opened = tokio::select! {
            opened = Qos0Connection::open(&self.options, &subscriptions) => opened,
            () = shared.stop.cancelled() => return Ended::Left,
        };
        let Opened { mut connection, publisher, connected, is_subscribed } = match opened {
            Ok(opened) => opened,
            Err(error) => return Ended::Lost(error),
        };
        if !is_subscribed {
            return Ended::NotSubscribed;
        }
        publisher.publish("join", &serde_json::to_vec(&shared.join).unwrap_or_default());
        shared.connected(self.index, publisher.clone(), connected.max_packet());
        *joined = true;
        let mut stop = pin!(shared.stop.cancelled());
        loop {
            tokio::select! {
                biased;
                () = &mut stop => {
                    leave(shared, connection, &publisher).await;
                    return Ended::Left;
                }
                message = connection.next() => match message {
                    Ok(message) => shared.received(self.index, message),
                    Err(error) => return Ended::Lost(error),
                },
            }
        }
    }
}

/// Sends what is still to be sent, says that the router goes, and goes.
async fn leave(shared: &Shared, connection: Qos0Connection, publisher: &Publisher) {
    let leave = Shared::leave(&shared.join, State::Left);
    publisher.publish(&leave.topic, &leave.payload);
    let _ = timeout(LEAVE_WAIT, connection.disconnect()).await;
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
