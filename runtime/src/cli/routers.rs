//! `offload-rt routers`: the gates that a master or a gateway knows.

use super::output;
use crate::config::{BrokerUrl, Draft, Network, master_url};
use crate::network::gates::{Gates, Load, MasterState};
use anyhow::{Context, anyhow, bail};
use clap::Args;
use offload_mqtt::{ConnectionError, ConnectionOptions, Event, QoS, Reason, ReasonCode, Subscription};
use offload_tls::{Identity, TlsFiles};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Longest wait for the table.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom to ask.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Routers {
    /// A master; its port is 1884 where none is named [default: the master of --config, else mqtt://127.0.0.1]
    #[arg(long, value_name = "URL", value_parser = master_url)]
    master: Option<BrokerUrl>,
    /// The broker of a gateway that is a router, in place of a master; its port is 1883, with TLS 8883, where none is
    /// named
    #[arg(long, value_name = "URL", conflicts_with = "master")]
    broker: Option<BrokerUrl>,
    /// Read the [network] table of this TOML file: its master, and the certificate for it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// CA certificates, in PEM, that verify the master
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// Certificate to show, in PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// User name, for the broker of a gateway
    #[arg(long, short = 'u', value_name = "NAME", requires = "pw")]
    username: Option<String>,
    /// The password
    #[arg(long, short = 'P', value_name = "PASSWORD", requires = "username")]
    pw: Option<String>,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  offload-rt routers
  offload-rt routers --master mqtt://127.0.0.1:1884 --json
  offload-rt routers --broker mqtt://127.0.0.1 -u panel -P secret
  offload-rt routers --config north.toml
  offload-rt routers --master mqtts://master.example \\
    --cafile keys/ca.pem --cert keys/north.pem --key keys/north.key

A master elsewhere than on loopback shows it to whoever has a certificate of its
authority. At a gateway with [access] it takes a rule: subscribe to
gateway/+/routers.

Exit codes: 0, or 1 where nobody answers.";

pub fn run(command: Routers) -> anyhow::Result<ExitCode> {
    let network = match &command.config {
        Some(file) => Draft::read(file)?.finish()?.config.network.unwrap_or_default(),
        None => Network::default(),
    };
    let named = command.broker.clone().or_else(|| command.master.clone());
    let url = named.or_else(|| network.master.0.first().cloned());
    let url = url.unwrap_or(master_url("mqtt://127.0.0.1").map_err(|error| anyhow!(error))?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let gates = runtime.block_on(ask(&command, &network, &url))?;
    if command.json {
        output::print_line(serde_json::to_string(&gates)?)?;
    } else {
        output::print(shown(&gates))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The table that is retained there.
async fn ask(command: &Routers, network: &Network, url: &BrokerUrl) -> anyhow::Result<Gates> {
    let identity = command.cert.clone().zip(command.key.clone());
    let identity = identity.map(|(certificate, key)| Identity { certificate, key });
    let of_network = network.tls();
    let files =
        TlsFiles { ca: command.cafile.clone().or(of_network.ca), identity: identity.or(of_network.identity) };
    let options = ConnectionOptions {
        tls: url.scheme.is_tls().then(|| files.client_config()).transpose()?,
        credentials: command.username.clone().zip(command.pw.clone()),
        ..ConnectionOptions::new(&url.address.host, url.address.port, "")
    };
    let (sender, mut connection) = offload_mqtt::open(options.clone());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let event = timeout_at(deadline, connection.next()).await;
        let event =
            event.with_context(|| format!("{url} shows no table of gates: is it a master, or a router?"))?;
        let event = match event {
            Ok(event) => event,
            Err(error) => bail!("cannot reach {url}: {}", explained(error, &options).await),
        };
        match event {
            Event::Connected(_) => {
                sender.subscribe(&[Subscription::new("gateway/+/routers", QoS::AtLeastOnce)])?;
            }
            Event::SubAck { codes, .. } if codes.iter().any(|code| code.is_error()) => {
                bail!("{url} lets this client not see gateway/+/routers: it needs a rule to subscribe");
            }
            Event::Message { message, .. } => {
                let _ = sender.disconnect();
                return serde_json::from_slice(&message.payload).context("the table cannot be read");
            }
            _ => {}
        }
    }
}

/// Why there is no connection, and what to try.
async fn explained(error: ConnectionError, options: &ConnectionOptions) -> String {
    match error {
        ConnectionError::Io { kind: ErrorKind::ConnectionRefused, .. } => format!(
            "{error}: does `offload-rt master` run there? --master names another one, --broker the broker of a gateway"
        ),
        ConnectionError::Refused(Reason { code: ReasonCode::NotAuthorized, .. }) => {
            format!("{error}: it takes a user name (-u, -P) or a certificate (--cert, --key)")
        }
        ConnectionError::Protocol { .. } | ConnectionError::TimedOut => identified(error, options).await,
        closed if closed.is_closed() => identified(closed, options).await,
        other => other.to_string(),
    }
}

/// What answers there, where that is known to be no broker of this kind.
async fn identified(error: ConnectionError, options: &ConnectionOptions) -> String {
    let peer = options.identify_peer().await;
    peer.map_or_else(|| error.to_string(), |peer| peer.to_string())
}

/// For people.
fn shown(gates: &Gates) -> String {
    let mut rows =
        vec![["GATE", "STATE", "ADDRESS", "VERSION", "WORKERS", "RUNNING", "WAITING"].map(str::to_owned)];
    rows.extend(gates.gates.iter().map(|(name, gate)| {
        let numbers = match gate.load {
            Some(Load { workers, running, waiting, .. }) => {
                [workers, running, waiting].map(|number| number.to_string())
            }
            None => [const { String::new() }; 3],
        };
        let [workers, running, waiting] = numbers;
        let state = gate.state.as_str().to_owned();
        [name.clone(), state, gate.address.clone(), gate.join.version.clone(), workers, running, waiting]
    }));
    let mut text = output::table(&rows);
    for MasterState { url, joined } in &gates.masters {
        let how = if *joined { "joined" } else { "away" };
        text.push_str(&format!("master {url}: {how}\n"));
    }
    text
}
