//! The flags that say where to connect and as whom, named as `mosquitto_pub` names them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use offload_client::{
    DEFAULT_HOST, DEFAULT_PORT, DEFAULT_TLS_PORT, Identity, MqttVersion, Options, TlsFiles,
};

use crate::failure::Failure;

/// The environment variable that stands in for `--broker`.
const BROKER_VARIABLE: &str = "OFFLOAD_BROKER";

#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionFlags {
    /// Broker to connect to, usually the gateway itself [default: 127.0.0.1]
    #[arg(short = 'h', long, global = true)]
    host: Option<String>,

    /// Port of the broker [default: 1883, with TLS 8883]
    #[arg(short, long, global = true)]
    port: Option<u16>,

    /// MQTT client id, and reply id of the request [default: a random one]
    #[arg(short, long = "client-id", value_name = "ID", global = true)]
    id: Option<String>,

    /// The same; behind `send`, --id is that of the request
    #[arg(long = "id", value_name = "ID", conflicts_with = "id")]
    long_id: Option<String>,

    /// User name
    #[arg(short, long, global = true, value_name = "NAME")]
    username: Option<String>,

    /// Password
    #[arg(short = 'P', long = "pw", global = true, value_name = "PASSWORD")]
    password: Option<String>,

    /// TLS; certificates in PEM of the authorities to trust [default: those that the system trusts, with mqtts://]
    #[arg(long, global = true, value_name = "FILE")]
    cafile: Option<PathBuf>,

    /// TLS; our certificate in PEM, for a broker that wants one
    #[arg(long, global = true, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// The certificate's private key in PEM, not encrypted
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// Version of MQTT to speak
    #[arg(short = 'V', long, global = true, value_name = "VERSION", default_value = "5")]
    mqtt_version: Version,

    /// mqtt://[user[:password]@]host[:port], or mqtts:// with TLS, instead of host and port [env: OFFLOAD_BROKER]
    // Not clap's `env`: host and port on the command line win over the environment.
    #[arg(long, global = true, value_name = "URL", conflicts_with_all = ["host", "port"])]
    broker: Option<String>,
}

/// With the names that `mosquitto_pub` has for them, too.
#[derive(Clone, Copy, ValueEnum)]
enum Version {
    #[value(name = "3.1.1", aliases = ["311", "mqttv311"])]
    V311,
    #[value(name = "5", alias = "mqttv5")]
    V5,
}

impl ConnectionFlags {
    /// The client's options by flags, environment and defaults, in this order.
    pub fn options(self) -> Result<Options, Failure> {
        self.options_with(std::env::var(BROKER_VARIABLE).ok().filter(|url| !url.is_empty()))
    }

    pub fn options_with(self, from_environment: Option<String>) -> Result<Options, Failure> {
        let by_host = self.host.is_some() || self.port.is_some();
        let wants_tls = self.cafile.is_some() || self.cert.is_some();
        let mut options = match (self.broker, from_environment) {
            (Some(url), _) => {
                Options::from_url(&url).map_err(|error| Failure::usage(format!("--broker: {error}")))?
            }
            (None, Some(url)) if !by_host => Options::from_url(&url)
                .map_err(|error| Failure::usage(format!("{BROKER_VARIABLE}: {error}")))?,
            _ => Options {
                host: self.host.unwrap_or_else(|| DEFAULT_HOST.to_owned()),
                port: self.port.unwrap_or(if wants_tls { DEFAULT_TLS_PORT } else { DEFAULT_PORT }),
                tls: wants_tls.then(TlsFiles::default),
                ..Options::default()
            },
        };
        match &mut options.tls {
            Some(files) => {
                files.ca = self.cafile;
                let pair = self.cert.zip(self.key);
                files.identity = pair.map(|(certificate, key)| Identity { certificate, key });
            }
            None if wants_tls => {
                return Err(Failure::usage("--cafile and --cert: expected with mqtts://, not with mqtt://"));
            }
            None => {}
        }
        options.mqtt_version = match self.mqtt_version {
            Version::V311 => MqttVersion::V311,
            Version::V5 => MqttVersion::V5,
        };
        if let Some(id) = self.id.or(self.long_id) {
            options.client_id = id;
        }
        let (known_user, known_password) = options.credentials.take().unzip();
        options.credentials = match (self.username.or(known_user), self.password.or(known_password)) {
            (Some(user), password) => Some((user, password.unwrap_or_default())),
            (None, Some(_)) => return Err(Failure::usage("--pw: expected together with --username")),
            (None, None) => None,
        };
        // One request, waited for by one process: a session that outlives it serves nobody.
        options.session_expiry = Duration::ZERO;
        Ok(options)
    }
}
