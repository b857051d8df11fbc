//! The flags that go before what the configuration file says.

use crate::config::{
    BrokerUrl, BrokerUrls, Config, ConfigError, Draft, HostPort, Masters, NativeMode, Refusal, Refusals,
    master_url,
};
use clap::Args;
use clap::builder::TypedValueParser;
use offload_protocol::topic;
use std::ffi::OsStr;
use std::path::PathBuf;

/// The configuration file, and flags that go before it.
#[derive(Args, Clone)]
pub struct Overrides {
    /// Read this TOML file (`offload-rt config` prints one to start from)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen for MQTT connections here; port 0 picks a free one [default: 127.0.0.1:1883]
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "broker")]
    listen: Option<HostPort>,
    /// Join this MQTT broker instead of starting one: mqtt://HOST[:PORT], or mqtts:// with TLS; or NATS:
    /// nats://HOST[:PORT], or tls://. Several stand in for each other, with commas or by several flags
    #[arg(long, value_name = "URL", value_parser = BrokerParser)]
    broker: Vec<BrokerUrls>,
    /// Be the router of the site of this name, for requests to other sites; takes --master
    #[arg(long, value_name = "NAME", value_parser = gate)]
    gate: Option<String>,
    /// Join the routers at this master, mqtt://HOST[:PORT] on loopback or mqtts:// elsewhere, port 1884 where none is
    /// named; several for one to take over
    #[arg(long, value_name = "URL", value_parser = master_url)]
    master: Vec<BrokerUrl>,
    /// Number of worker threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = count)]
    workers: Option<usize>,
    /// Keep state in this folder [default: ~/.local/state/offload-rt, for root /var/lib/offload-rt]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Let clients connect without authentication, from every address that reaches the gateway
    #[arg(long)]
    allow_anonymous: bool,
    /// Build and run source natively [default: only where no other machine can connect]
    #[arg(long)]
    allow_native: bool,
}

/// Reads the name of a gate.
fn gate(text: &str) -> Result<String, String> {
    let accepted = "accepted: 1 to 64 letters, digits, `_` and `-`";
    if topic::is_gate(text) { Ok(text.to_owned()) } else { Err(accepted.to_owned()) }
}

/// Reads a number of threads; its range is that of the configuration.
fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "accepted: an integer, 1 or more".to_owned())
}

/// Reads a broker's URL. clap's own parsers repeat what they refuse, and that may hold a password.
#[derive(Clone)]
struct BrokerParser;

impl TypedValueParser for BrokerParser {
    type Value = BrokerUrls;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<BrokerUrls, clap::Error> {
        value.to_string_lossy().parse().map_err(|problem: String| {
            let accepted = BrokerUrls::FORM;
            let message = format!("invalid value for '--broker <URL>': {problem}; accepted: {accepted}\n");
            clap::Error::raw(clap::error::ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

impl Overrides {
    /// The configuration to run with.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or anything in it or in a flag is refused.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        Ok(self.into_draft()?.finish()?.config)
    }

    /// The same, not yet completed and checked.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn into_draft(self) -> Result<Draft, ConfigError> {
        let mut draft = match &self.config {
            Some(file) => Draft::read(file)?,
            None => Draft::default(),
        };
        if let Some(address) = self.listen {
            draft.set("listen.address", |config| {
                config.listen.address = address;
                config.broker = None;
            });
        }
        if !self.broker.is_empty() {
            let url = BrokerUrls::concat(self.broker).map_err(|problem| {
                let refusal = Refusal::new("--broker", problem).accepting(BrokerUrls::FORM);
                ConfigError::Refused(Refusals(vec![refusal]))
            })?;
            draft.set("broker.url", |config| config.broker.get_or_insert_default().url = url);
        }
        if let Some(gate) = self.gate {
            draft.set("network.gate", |config| config.network.get_or_insert_default().gate = gate);
        }
        if !self.master.is_empty() {
            let masters = Masters(self.master);
            draft.set("network.master", |config| config.network.get_or_insert_default().master = masters);
        }
        if let Some(count) = self.workers {
            draft.set("workers.count", |config| config.workers.count = count);
        }
        if let Some(folder) = self.data_dir {
            draft.set("data_dir", |config| config.data_dir = folder);
        }
        if self.allow_anonymous {
            draft.set("access.anonymous", |config| config.access.anonymous = Some(true));
        }
        if self.allow_native {
            draft.set("native", |config| config.native = NativeMode::Native);
        }
        Ok(draft)
    }
}
