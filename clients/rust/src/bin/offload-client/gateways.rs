//! `offload-client gateways`: who is there, by the status documents that gateways have their broker retain.

mod discovery;
mod sealing_keys;
mod table;

use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::Duration;

use clap::Args;
use offload_client::Options;
use offload_mqtt::{Full, QoS, ReasonCode};
use offload_protocol::topic;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, timeout, timeout_at};

use self::discovery::Discovery;
pub use self::sealing_keys::{GatewayKey, sealing_keys};
use crate::acknowledgement::{AckPacket, Acknowledgement};
use crate::connection::ConnectionFlags;
use crate::failure::Failure;
use crate::link::{Link, LinkEvent};
use crate::message::text;
use crate::report::{print, report_failure, unless_unprintable};
use crate::units;

/// Nobody is there.
const EXIT_NONE: u8 = 1;

/// The columns of a terminal that does not say how many it has.
const DEFAULT_COLUMNS: usize = 80;

/// List the gateways of a broker, how busy they are and what they take
///
/// Exits 1 when there is none, 125 on an error.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Gateways {
    /// How long to collect what gateways say: 2s, 500ms. A broker that cannot be reached is given up after 5 s
    #[arg(long, value_name = "T", value_parser = units::duration, default_value = "1s")]
    wait: Duration,

    /// Print one JSON array on stdout: the documents as the gateways published them. An error is one object, as of
    /// `send`
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  offload-client gateways
  offload-client -h plant-broker gateways --wait 3s --json";

impl Gateways {
    /// Runs the command; returns its exit code.
    pub fn run(self, connection: ConnectionFlags) -> u8 {
        let collected = connection.options().and_then(|options| {
            let discovery = collect(&options, self.wait)?;
            Ok((discovery, options))
        });
        let (discovery, options) = match collected {
            Ok(collected) => collected,
            Err(failure) => return report_failure(&failure, self.json),
        };
        let exit_code = if discovery.is_empty() { nobody(&options, self.wait).report() } else { 0 };
        let printed = if self.json {
            discovery.as_json() + "\n"
        } else if discovery.is_empty() {
            String::new()
        } else {
            table::table(&discovery.rows(), columns())
        };
        unless_unprintable(print(stdout(), printed.as_bytes()), exit_code)
    }
}

fn nobody(options: &Options, wait: Duration) -> Failure {
    let Options { host, port, .. } = options;
    let message = format!(
        "no gateway has said anything at {host}:{port} within {} ms: is it running? `offload-rt serve` starts one",
        wait.as_millis()
    );
    Failure { exit_code: EXIT_NONE, ..Failure::new("not-found", message) }
}

/// How wide the table may be; anything, where no terminal shows it.
fn columns() -> Option<usize> {
    let size = terminal_size::terminal_size_of(stdout());
    stdout()
        .is_terminal()
        .then(|| size.map_or(DEFAULT_COLUMNS, |(terminal_size::Width(columns), _)| columns.into()))
}

/// The names of all gateways' programs, as far as they are heard of within `limit`; for so long after the subscription
/// is granted that gateways of this broker are heard.
pub fn programs(options: &Options, wait: Duration, limit: Duration) -> Vec<String> {
    let options = Options { connect_timeout: limit, ..options.clone() };
    let discovery = runtime().ok().and_then(|runtime| {
        let heard = async { timeout(limit, listen(&options, wait, |_| {})).await };
        runtime.block_on(heard).ok()?.ok()
    });
    discovery.map(|discovery| discovery.programs()).unwrap_or_default()
}

fn collect(options: &Options, wait: Duration) -> Result<Discovery, Failure> {
    let warn = |warning: &str| {
        // Whoever closed stderr does not want to be told.
        let _ = writeln!(stderr(), "warning: {warning}");
    };
    runtime()?.block_on(listen(options, wait, warn))
}

fn runtime() -> Result<Runtime, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new("internal", format!("no runtime: {error}")))
}

/// Hears what is retained, and what is published meanwhile, for so long from the granted subscription on.
async fn listen(options: &Options, wait: Duration, warn: impl Fn(&str)) -> Result<Discovery, Failure> {
    let unreachable = |reason: &str| {
        let Options { host, port, .. } = options;
        Failure::new("connection", format!("cannot ask {host}:{port}: {}", text(reason)))
    };
    let mut link = Link::connect(options, options.mqtt_version)?;
    let mut discovery = Discovery::default();
    let mut subscribed = false;
    // The connection itself is given up in time.
    let mut deadline = None;
    loop {
        match until(deadline, link.event()).await {
            Some(LinkEvent::Acknowledged(acknowledgement)) => {
                if !subscribed {
                    permitted(&acknowledgement)?;
                }
                match acknowledgement.packet {
                    AckPacket::ConnAck => {
                        let subscription = link.subscribe(&topic::gateway_status("+"), QoS::AtLeastOnce);
                        subscription.map_err(|Full| unreachable("nothing can be sent"))?;
                        // Gateways that share a name. Whoever may not see that sees the others.
                        let each = topic::instance_status(&topic::gateway_status("+"), "+");
                        let _ = link.subscribe(&each, QoS::AtLeastOnce);
                        deadline = Some(Instant::now() + options.connect_timeout);
                    }
                    AckPacket::SubAck if !subscribed => {
                        (subscribed, deadline) = (true, Some(Instant::now() + wait))
                    }
                    _ => {}
                }
            }
            Some(LinkEvent::Message(message)) => {
                if let Err(warning) = discovery.take(&message) {
                    warn(&warning);
                }
            }
            Some(LinkEvent::Sent(..)) => {}
            Some(LinkEvent::Disconnected(code, reason)) => {
                let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                return Err(unreachable(&format!("it ended the connection: {code}{reason}")));
            }
            Some(LinkEvent::Closed(reason)) => {
                return Err(unreachable(reason.as_deref().unwrap_or("the connection ended")));
            }
            None if subscribed => break,
            None => return Err(unreachable("no answer in time")),
        }
    }
    link.farewell(drop).await;
    Ok(discovery)
}

/// What `future` yields, or nothing when the deadline comes first.
async fn until<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}

fn permitted(acknowledgement: &Acknowledgement) -> Result<(), Failure> {
    let Some(code) = acknowledgement.refusal() else { return Ok(()) };
    let refused = match acknowledgement.packet {
        AckPacket::ConnAck => "the broker does not let this client in",
        _ => "the broker does not let this client see gateways",
    };
    let unauthorized = matches!(code.reason, ReasonCode::NotAuthorized | ReasonCode::BadUserNamePassword);
    // What the broker says of itself is of no use here, but what it says of the refusal.
    let reason =
        acknowledgement.details.last().map(|reason| format!(" ({})", text(reason))).unwrap_or_default();
    let kind = if unauthorized { "unauthorized" } else { "refused" };
    let hint = match code.reason {
        ReasonCode::UnsupportedProtocolVersion | ReasonCode::RefusedProtocolVersion => {
            "; it may speak another version of MQTT, as NATS does: `-V 3.1.1`"
        }
        _ => "",
    };
    Err(Failure::new(kind, format!("{refused}: {code}{reason}{hint}")))
}
