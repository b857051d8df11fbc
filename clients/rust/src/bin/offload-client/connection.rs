//! Where to connect and as whom: by flags, named as `mosquitto_pub` names them, environment and configuration file.

mod settings;

use std::ffi::OsStr;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use clap_complete::{ArgValueCompleter, CompletionCandidate};
use offload_client::{
    DEFAULT_HOST, DEFAULT_PORT, DEFAULT_TLS_PORT, Identity, MqttVersion, Options, TlsFiles,
};

pub use self::settings::Configuration;
use self::settings::{Settings, read_password, variable};
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

    /// File with the password; one line end behind it is left out [env: OFFLOAD_PASSWORD_FILE]
    // Not clap's `env`: a password on the command line wins over the environment.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "password")]
    password_file: Option<PathBuf>,

    /// TLS; certificates in PEM of the authorities to trust [default: those that the system trusts, with mqtts://]
    #[arg(long, global = true, value_name = "FILE")]
    cafile: Option<PathBuf>,

    /// TLS; our certificate in PEM, for a broker that wants one
    #[arg(long, global = true, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// The certificate's private key in PEM, not encrypted
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// Version of MQTT to speak: 3.1.1 or 5 [default: 5]
    #[arg(short = 'V', long, global = true, value_name = "VERSION", hide_possible_values = true)]
    mqtt_version: Option<Version>,

    /// mqtt://[user[:password]@]host[:port], or mqtts:// with TLS, instead of host and port [env: OFFLOAD_BROKER]
    // Not clap's `env`: host and port on the command line win over the environment.
    #[arg(long, global = true, value_name = "URL", conflicts_with_all = ["host", "port"])]
    broker: Option<String>,

    /// Configuration file [env: OFFLOAD_CONFIG] [default: ~/.config/offload/client.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The gateway that the configuration file has under this name
    #[arg(long, global = true, value_name = "NAME", conflicts_with_all = ["host", "broker"])]
    #[arg(add = ArgValueCompleter::new(gateways))]
    gateway: Option<String>,
}

/// With the names that `mosquitto_pub` has for them, too.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Version {
    #[value(name = "3.1.1", aliases = ["311", "mqttv311"])]
    V311,
    #[value(name = "5", alias = "mqttv5")]
    V5,
}

/// The environment variable that stands in for `--password-file`.
const PASSWORD_FILE_VARIABLE: &str = "OFFLOAD_PASSWORD_FILE";

/// For a shell that completes `--gateway`: the names that the configuration file has.
fn gateways(start: &OsStr) -> Vec<CompletionCandidate> {
    let config = std::env::args_os().skip_while(|word| word != "--config").nth(1).map(PathBuf::from);
    let configuration = Configuration::find(config.as_deref()).ok().flatten();
    let names = configuration.iter().flat_map(Configuration::gateways);
    let fitting = names.filter(|name| name.starts_with(&*start.to_string_lossy()));
    fitting.map(CompletionCandidate::new).collect()
}

/// What stands in for flags that are not given.
#[derive(Default)]
pub struct Defaults {
    /// The environment's broker, as a URL.
    broker: Option<String>,
    /// The environment's password file.
    password_file: Option<PathBuf>,
    /// What the configuration file says.
    settings: Settings,
}

impl ConnectionFlags {
    /// The client's options by flags, environment, configuration file and defaults, in this order. A file that can be
    /// used though something is wrong with it is warned of on stderr.
    pub fn options(self) -> Result<Options, Failure> {
        let configuration = Configuration::find(self.config())?;
        if let Some(warning) = configuration.as_ref().and_then(Configuration::warning) {
            // Whoever closed stderr does not want to be told.
            let _ = writeln!(stderr(), "{warning}");
        }
        self.options_by(configuration.as_ref())
    }

    /// The file that `--config` names.
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// As [`ConnectionFlags::options`], by a file that has been read.
    pub fn options_by(self, configuration: Option<&Configuration>) -> Result<Options, Failure> {
        let settings = match (configuration, &self.gateway) {
            (Some(configuration), gateway) => configuration.settings(gateway.as_deref())?,
            (None, None) => Settings::default(),
            (None, Some(name)) => {
                let usual = settings::usual_path().unwrap_or_default();
                let problem = format!("--gateway {name}: there is no configuration file {}", usual.display());
                return Err(Failure::usage(problem));
            }
        };
        let broker = match variable(BROKER_VARIABLE).map(|url| url.into_string()) {
            None => None,
            Some(Ok(url)) => Some(url),
            Some(Err(_)) => return Err(Failure::usage(format!("{BROKER_VARIABLE}: expected UTF-8"))),
        };
        let password_file = variable(PASSWORD_FILE_VARIABLE).map(PathBuf::from);
        self.options_with(Defaults { broker, password_file, settings })
    }

    /// As [`ConnectionFlags::options`], with these in place of what is around the process.
    pub fn options_with(self, defaults: Defaults) -> Result<Options, Failure> {
        let by_host = self.host.is_some() || self.port.is_some();
        let url = |name: &str, url: &str| {
            Options::from_url(url).map_err(|error| Failure::usage(format!("{name}: {error}")))
        };
        let by_flag = self.broker.as_deref().map(|given| url("--broker", given)).transpose()?;
        let is_named = by_host || by_flag.is_some() || self.gateway.is_some();
        let by_environment = defaults.broker.filter(|_| !is_named);
        let by_environment = by_environment.map(|given| url(BROKER_VARIABLE, &given)).transpose()?;

        let mut file = defaults.settings;
        let by_url = by_flag.as_ref().or(by_environment.as_ref());
        let host = by_url.map(|options| options.host.as_str()).or(self.host.as_deref());
        // A password, a certificate, an authority that is trusted: all of them are meant for the file's own broker.
        if host.is_some_and(|host| file.host().is_some_and(|other| other != host)) {
            file = Settings::default();
        }

        let wants_tls = self.cafile.is_some() || self.cert.is_some();
        let tls_by_file = file.cafile.is_some() || file.cert.is_some();
        let users = [
            self.username,
            user_of(&by_flag),
            user_of(&by_environment),
            file.username,
            user_of(&file.broker),
        ];
        let passwords = [
            self.password.map(|text| Password::Given("--pw", text)),
            self.password_file.map(|path| Password::InFile("--password-file", path)),
            password_of("--broker", &by_flag),
            defaults.password_file.map(|path| Password::InFile(PASSWORD_FILE_VARIABLE, path)),
            password_of(BROKER_VARIABLE, &by_environment),
            file.pw.map(|text| Password::Given("pw", text)),
            file.password_file.map(|path| Password::InFile("password-file", path)),
            password_of("broker", &file.broker),
        ];
        let mut options = match by_flag.or(by_environment).or(file.broker) {
            Some(options) => Options {
                host: self.host.unwrap_or(options.host),
                port: self.port.unwrap_or(options.port),
                ..options
            },
            None => {
                let tls = wants_tls || tls_by_file;
                let default_port = if tls { DEFAULT_TLS_PORT } else { DEFAULT_PORT };
                Options {
                    host: self.host.or(file.host).unwrap_or_else(|| DEFAULT_HOST.to_owned()),
                    port: self.port.or(file.port).unwrap_or(default_port),
                    tls: tls.then(TlsFiles::default),
                    ..Options::default()
                }
            }
        };
        match &mut options.tls {
            Some(files) => {
                files.ca = self.cafile.or(file.cafile);
                let pair = self.cert.zip(self.key).or(file.cert.zip(file.key));
                files.identity = pair.map(|(certificate, key)| Identity { certificate, key });
            }
            None if wants_tls => {
                return Err(Failure::usage("--cafile and --cert: expected with mqtts://, not with mqtt://"));
            }
            // Those of a file for any broker are for those that have TLS.
            None => {}
        }
        options.mqtt_version = match self.mqtt_version.or(file.mqtt_version) {
            Some(Version::V311) => MqttVersion::V311,
            Some(Version::V5) | None => MqttVersion::V5,
        };
        if let Some(id) = self.id.or(self.long_id).or(file.id) {
            options.client_id = id;
        }
        let password = passwords.into_iter().flatten().next();
        options.credentials = credentials(users.into_iter().flatten().next(), password)?;
        // One request, waited for by one process: a session that outlives it serves nobody.
        options.session_expiry = Duration::ZERO;
        Ok(options)
    }
}

/// Where a password is, and what to call it when something is wrong with it.
enum Password {
    Given(&'static str, String),
    InFile(&'static str, PathBuf),
}

/// The user that a URL names.
fn user_of(url: &Option<Options>) -> Option<String> {
    url.as_ref()?.credentials.as_ref().map(|(user, _)| user.clone())
}

/// The password in a URL. One that names a user alone leaves it to others.
fn password_of(name: &'static str, url: &Option<Options>) -> Option<Password> {
    let (_, password) = url.as_ref()?.credentials.as_ref()?;
    (!password.is_empty()).then(|| Password::Given(name, password.clone()))
}

fn credentials(
    user: Option<String>,
    password: Option<Password>,
) -> Result<Option<(String, String)>, Failure> {
    match (user, password) {
        (Some(user), Some(Password::Given(_, password))) => Ok(Some((user, password))),
        (Some(user), Some(Password::InFile(_, path))) => Ok(Some((user, read_password(&path)?))),
        (Some(user), None) => Ok(Some((user, String::new()))),
        (None, Some(Password::Given(name, _) | Password::InFile(name, _))) => {
            Err(Failure::usage(format!("{name}: expected together with a user name (--username)")))
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        connection: ConnectionFlags,
    }

    fn flags(line: &str) -> Result<ConnectionFlags, clap::Error> {
        Line::try_parse_from(format!("oc {line}").split_whitespace()).map(|line| line.connection)
    }

    /// What a line makes of an environment's broker and a file.
    fn with(line: &str, env: Option<&str>, file: &str) -> Result<Options, String> {
        let settings = toml::from_str(file).unwrap_or_else(|error| panic!("{error}"));
        let defaults = Defaults { broker: env.map(str::to_owned), password_file: None, settings };
        let flags = flags(line).unwrap_or_else(|error| panic!("{error}"));
        flags.options_with(defaults).map_err(|failure| failure.message)
    }

    fn place(options: &Options) -> (&str, u16) {
        (options.host.as_str(), options.port)
    }

    fn credentials(user: &str, password: &str) -> Option<(String, String)> {
        Some((user.to_owned(), password.to_owned()))
    }

    #[test]
    fn files_for_tls_mean_tls() {
        let options = |line, env| with(line, env, "");
        let ca = |options: &Options| options.tls.as_ref().and_then(|files| files.ca.clone());
        let by_host = options("-h box --cafile ca.pem", None).unwrap();
        assert_eq!((by_host.port, ca(&by_host)), (8883, Some("ca.pem".into())));
        let with_port = options("-p 1 --cert me.pem --key me.key", None).unwrap();
        let identity = Identity { certificate: "me.pem".into(), key: "me.key".into() };
        assert_eq!(with_port.port, 1);
        assert_eq!(with_port.tls, Some(TlsFiles { ca: None, identity: Some(identity) }));
        let by_url = options("--broker mqtts://box --cafile ca.pem", None).unwrap();
        assert_eq!((by_url.port, ca(&by_url)), (8883, Some("ca.pem".into())));
        let from_env = options("--cafile ca.pem", Some("mqtts://box:1")).unwrap();
        assert_eq!((from_env.port, ca(&from_env)), (1, Some("ca.pem".into())));
        assert_eq!(options("", Some("mqtts://box")).unwrap().tls, Some(TlsFiles::default()));
        assert_eq!(options("-h box", None).unwrap().tls, None);
        assert!(options("--cafile ca.pem", Some("mqtt://box")).is_err());
        assert!(flags("--cert me.pem").is_err());
    }

    #[test]
    fn flags_win_over_the_environment() {
        let options = |line, env| with(line, env, "");
        let env = Some("mqtt://alice:pw@plant:1");
        let from_env = options("", env).unwrap();
        assert_eq!(
            (place(&from_env), from_env.credentials.clone()),
            (("plant", 1), credentials("alice", "pw"))
        );
        let from_flag = options("--broker mqtt://b:2", env).unwrap();
        assert_eq!((place(&from_flag), from_flag.credentials.clone()), (("b", 2), None));
        let from_port = options("-p 7", env).unwrap();
        assert_eq!((place(&from_port), from_port.credentials.clone()), (("127.0.0.1", 7), None));
        let user = options("-u bob -P x", env).unwrap();
        assert_eq!((place(&user), user.credentials.clone()), (("plant", 1), credentials("bob", "x")));
        assert_eq!(
            options("-P x", None).unwrap_err(),
            "--pw: expected together with a user name (--username)"
        );
        assert!(options("", Some("http://plant")).unwrap_err().starts_with("OFFLOAD_BROKER: "));
        assert!(flags("--broker mqtt://b -h c").is_err());
        assert!(flags("-P x --password-file y").is_err());
        assert!(flags("--gateway a -h c").is_err() && flags("--gateway a --broker mqtt://b").is_err());
    }

    #[test]
    fn the_file_comes_after_flags_and_environment() {
        let file =
            "host = 'plant'\nport = 2\nid = 'me'\nusername = 'alice'\npw = 'pw'\nmqtt-version = '3.1.1'";
        let all = with("", None, file).unwrap();
        assert_eq!((place(&all), all.client_id.as_str()), (("plant", 2), "me"));
        assert_eq!((&all.credentials, all.mqtt_version), (&credentials("alice", "pw"), MqttVersion::V311));
        let some = with("-p 7 -i you -u bob -V 5", None, file).unwrap();
        assert_eq!((place(&some), some.client_id.as_str()), (("plant", 7), "you"));
        assert_eq!((&some.credentials, some.mqtt_version), (&credentials("bob", "pw"), MqttVersion::V5));
        let env = with("", Some("mqtt://plant:9"), file).unwrap();
        assert_eq!((place(&env), env.credentials.clone()), (("plant", 9), credentials("alice", "pw")));
        let env = with("", Some("mqtt://eve:x@plant:9"), file).unwrap();
        assert_eq!(env.credentials, credentials("eve", "x"));
        let by_url = with("-p 7", None, "broker = 'mqtts://alice:pw@plant:2'").unwrap();
        assert_eq!((place(&by_url), by_url.credentials.clone()), (("plant", 7), credentials("alice", "pw")));
        assert_eq!(by_url.tls, Some(TlsFiles::default()));
        let tls = with("", None, "host = 'plant'\ncafile = 'ca'\ncert = 'me.pem'\nkey = 'me.key'").unwrap();
        assert_eq!(tls.port, 8883);
        assert!(tls.tls.is_some_and(|files| files.ca.is_some() && files.identity.is_some()));
    }

    /// A password must not go to whoever else is asked.
    #[test]
    fn what_a_file_has_for_its_broker_is_for_no_other() {
        let file = "host = 'plant'\nport = 2\nusername = 'alice'\npw = 'pw'\ncafile = 'ca'";
        for (line, env, expected) in [
            ("-h box", None, ("box", 1883)),
            ("--broker mqtt://box:3", None, ("box", 3)),
            ("", Some("mqtt://box:4"), ("box", 4)),
        ] {
            let other = with(line, env, file).unwrap();
            assert_eq!(
                (place(&other), other.credentials.clone(), other.tls.clone()),
                (expected, None, None),
                "{line}"
            );
        }
        // One that names no broker is for any.
        let any = with("-h box", None, "username = 'alice'\npw = 'pw'").unwrap();
        assert_eq!((place(&any), any.credentials.clone()), (("box", 1883), credentials("alice", "pw")));
        let plain = with("--broker mqtt://box", None, "cafile = 'ca'").unwrap();
        assert_eq!(plain.tls, None);
    }

    #[test]
    fn a_password_file_goes_with_whoever_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "secret\n").unwrap();
        let path = path.to_str().unwrap();
        let by_env = |line: &str| {
            let defaults = Defaults { password_file: Some(path.into()), ..Defaults::default() };
            flags(line).unwrap().options_with(defaults).map(|options| options.credentials)
        };
        assert_eq!(by_env("-u bob").unwrap(), credentials("bob", "secret"));
        assert_eq!(by_env("-u bob -P x").unwrap(), credentials("bob", "x"));
        assert_eq!(by_env("--broker mqtt://bob@box").unwrap(), credentials("bob", "secret"));
        assert_eq!(by_env("--broker mqtt://bob:x@box").unwrap(), credentials("bob", "x"));
        assert!(by_env("").unwrap_err().message.starts_with("OFFLOAD_PASSWORD_FILE: "));
        let by_flag = with(&format!("-u bob --password-file {path}"), Some("mqtt://a:b@c"), "").unwrap();
        assert_eq!(by_flag.credentials, credentials("bob", "secret"));
        let by_file = with("", None, &format!("username = 'bob'\npassword-file = '{path}'")).unwrap();
        assert_eq!(by_file.credentials, credentials("bob", "secret"));
        assert!(with("-u bob --password-file /no/such", None, "").unwrap_err().contains("/no/such"));
    }
}
