//! The configuration file: connection settings that need not be flags, and gateways by name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use offload_client::Options;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

use super::Version;
use crate::failure::Failure;

/// The environment variable that stands in for `--config`.
pub const CONFIG_VARIABLE: &str = "OFFLOAD_CONFIG";

/// Where the file is below the user's folder for configuration.
const USUAL_PATH: &str = "offload/client.toml";

/// Bytes of a configuration file; another file given by mistake is refused before it fills the memory.
const MAX_FILE: u64 = 1 << 20;

/// Bytes of a password: as many as MQTT can carry.
const MAX_PASSWORD: u64 = 65_535;

/// What the file says of one connection, with the names of the flags.
#[derive(Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    #[serde(deserialize_with = "broker")]
    pub broker: Option<Options>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub id: Option<String>,
    pub username: Option<String>,
    pub pw: Option<String>,
    pub password_file: Option<PathBuf>,
    pub cafile: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub mqtt_version: Option<Version>,
    /// Connections by name; none within one of them.
    gateway: BTreeMap<String, Settings>,
}

impl Settings {
    /// The host that they are for; none where they are for any.
    pub fn host(&self) -> Option<&str> {
        self.broker.as_ref().map(|broker| broker.host.as_str()).or(self.host.as_deref())
    }

    fn has_a_password(&self) -> bool {
        let in_url = self.broker.as_ref().and_then(|broker| broker.credentials.as_ref());
        self.pw.is_some() || in_url.is_some_and(|(_, password)| !password.is_empty())
    }

    /// What cannot be meant, though each key is right.
    fn contradiction(&self) -> Option<&'static str> {
        let has_tls = self.cafile.is_some() || self.cert.is_some();
        if self.broker.is_some() && (self.host.is_some() || self.port.is_some()) {
            Some("broker: expected instead of host and port, not beside them")
        } else if self.broker.as_ref().is_some_and(|broker| broker.tls.is_none()) && has_tls {
            Some("cafile and cert: expected with mqtts://, not with mqtt://")
        } else if self.cert.is_some() != self.key.is_some() {
            Some("cert and key: expected together")
        } else if self.pw.is_some() && self.password_file.is_some() {
            Some("pw: expected instead of password-file, not beside it")
        } else {
            None
        }
    }

    /// Paths in a file are relative to the folder that it is in.
    fn resolve_paths(&mut self, folder: &Path) {
        let paths = [&mut self.password_file, &mut self.cafile, &mut self.cert, &mut self.key];
        for path in paths.into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }
}

/// A file that was found and read.
pub struct Configuration {
    path: PathBuf,
    settings: Settings,
}

impl Configuration {
    /// Reads the file that `flag` or the environment names, else the usual one if it is there.
    ///
    /// # Errors
    ///
    /// When a file that is named is not there, or the file cannot be read or has anything that is not accepted; with
    /// the line, and what is.
    pub fn find(flag: Option<&Path>) -> Result<Option<Self>, Failure> {
        let named = flag.map(Path::to_owned).or_else(|| variable(CONFIG_VARIABLE).map(PathBuf::from));
        match named {
            Some(path) => Self::read(&path).map(Some),
            None => match usual_path() {
                Some(path) if path.is_file() => Self::read(&path).map(Some),
                _ => Ok(None),
            },
        }
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let text = read_text(path, MAX_FILE)?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Failure> {
        let mut settings: Settings = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            let line = line.map(|line| format!(":{line}")).unwrap_or_default();
            Failure::usage(format!("{}{line}: {}", path.display(), error.message().replace('\n', ": ")))
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        settings.resolve_paths(folder);
        settings.gateway.values_mut().for_each(|gateway| gateway.resolve_paths(folder));
        let refused = |table: &str, problem| Failure::usage(format!("{}: {table}{problem}", path.display()));
        if let Some(problem) = settings.contradiction() {
            return Err(refused("", problem));
        }
        for (name, gateway) in &settings.gateway {
            let problem = if !gateway.gateway.is_empty() {
                Some("expected no gateway within a gateway")
            } else if gateway.host().is_none() {
                Some("expected broker or host")
            } else {
                gateway.contradiction()
            };
            if let Some(problem) = problem {
                return Err(refused(&format!("[gateway.{name}]: "), problem));
            }
        }
        Ok(Self { path: path.to_owned(), settings })
    }

    /// The settings of the gateway with this name, else those that stand above all gateways.
    ///
    /// # Errors
    ///
    /// When there is no gateway of this name; lists those that there are.
    pub fn settings(&self, gateway: Option<&str>) -> Result<Settings, Failure> {
        let Some(name) = gateway else {
            return Ok(self.settings.clone());
        };
        self.settings.gateway.get(name).cloned().ok_or_else(|| {
            let known: Vec<_> = self.gateways().collect();
            let known = if known.is_empty() { "it has none".into() } else { known.join(", ") };
            let path = self.path.display();
            Failure::usage(format!("--gateway {name}: expected a gateway of {path}: {known}"))
        })
    }

    /// The names of the gateways.
    pub fn gateways(&self) -> impl Iterator<Item = &str> {
        self.settings.gateway.keys().map(String::as_str)
    }

    /// What is wrong with the file, though it can be used.
    pub fn warning(&self) -> Option<String> {
        let has_passwords =
            self.settings.has_a_password() || self.settings.gateway.values().any(Settings::has_a_password);
        (has_passwords && others_can_read(&self.path)).then(|| {
            let path = self.path.display();
            format!("warning: {path}: others can read the password in it; `chmod 600 {path}` keeps them out")
        })
    }
}

/// The value of an environment variable that is set to something.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Reads a password: all of the file but one line end behind it.
///
/// # Errors
///
/// When the file cannot be read, or holds no text of at most [`MAX_PASSWORD`] bytes.
pub fn read_password(path: &Path) -> Result<String, Failure> {
    let mut password = read_text(path, MAX_PASSWORD)?;
    if password.ends_with('\n') {
        password.pop();
        if password.ends_with('\r') {
            password.pop();
        }
    }
    Ok(password)
}

fn read_text(path: &Path, max: u64) -> Result<String, Failure> {
    let refused = |problem: String| Failure::usage(format!("{}: {problem}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| refused(error.to_string()))?;
    file.take(max + 1).read_to_end(&mut bytes).map_err(|error| refused(error.to_string()))?;
    if bytes.len() as u64 > max {
        return Err(refused(format!("expected at most {max} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| refused("expected UTF-8".to_owned()))
}

/// `$XDG_CONFIG_HOME/offload/client.toml`, by default in `~/.config`.
pub fn usual_path() -> Option<PathBuf> {
    // The specification has relative paths ignored.
    let folder = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = folder.or_else(|| std::env::home_dir().map(|home| home.join(".config")))?;
    Some(folder.join(USUAL_PATH))
}

#[cfg(unix)]
fn others_can_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    /// Bits of the file's mode by which its group, or everyone, may read it.
    const READABLE_BY_OTHERS: u32 = 0o044;
    path.metadata().is_ok_and(|data| data.permissions().mode() & READABLE_BY_OTHERS != 0)
}

#[cfg(not(unix))]
fn others_can_read(_: &Path) -> bool {
    false
}

fn broker<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Options>, D::Error> {
    let url = String::deserialize(deserializer)?;
    Options::from_url(&url).map(Some).map_err(D::Error::custom)
}

/// As a text, with the flag's values; 5 as a number too.
impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Versions;
        impl Visitor<'_> for Versions {
            type Value = Version;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"5\" or \"3.1.1\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Version, E> {
                Version::from_str(text, false)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Version, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Versions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Configuration, String> {
        Configuration::parse(Path::new("/etc/me/client.toml"), text).map_err(|failure| failure.message)
    }

    #[test]
    fn keys_are_those_of_the_flags_and_paths_belong_to_the_file() {
        let text = "broker = 'mqtts://box:1'\nid = 'me'\nusername = 'a'\npassword-file = 'secret'\n\
                    cafile = 'ca.pem'\ncert = '/me.pem'\nkey = 'me.key'\nmqtt-version = '3.1.1'\n\
                    [gateway.plant]\nhost = 'plant'\nport = 2\npw = 'x'\nmqtt-version = 5\n";
        let configuration = parse(text).unwrap();
        let top = configuration.settings(None).unwrap();
        assert_eq!(
            (top.host(), top.id.as_deref(), top.username.as_deref()),
            (Some("box"), Some("me"), Some("a"))
        );
        assert_eq!(top.password_file, Some("/etc/me/secret".into()));
        assert_eq!((top.cafile, top.cert), (Some("/etc/me/ca.pem".into()), Some("/me.pem".into())));
        assert!(top.mqtt_version == Some(Version::V311));
        let plant = configuration.settings(Some("plant")).unwrap();
        assert_eq!((plant.host(), plant.port, plant.id.as_deref()), (Some("plant"), Some(2), None));
        assert!(plant.mqtt_version == Some(Version::V5));
        let unknown = configuration.settings(Some("plnat")).err().unwrap();
        assert!(
            unknown.message.ends_with("expected a gateway of /etc/me/client.toml: plant"),
            "{}",
            unknown.message
        );
    }

    #[test]
    fn what_is_wrong_has_its_line_and_what_is_accepted() {
        for (text, told) in [
            ("id = 'me'\npasword = 'x'\n", &["client.toml:2: ", "pasword", "username", "password-file"][..]),
            ("[gateway.a]\nhost = 'a'\nprt = 1\n", &["client.toml:3: ", "prt", "port"]),
            ("\n\nport = 70000\n", &["client.toml:3: ", "70000"]),
            ("id = 5\n", &["client.toml:1: ", "string"]),
            ("id = \n", &["client.toml:1: "]),
            ("\nbroker = 'http://box'\n", &["client.toml:2: ", "mqtt[s]://"]),
            ("mqtt-version = 4\n", &["client.toml:1: ", "\"5\" or \"3.1.1\""]),
            ("host = 'a'\nbroker = 'mqtt://a'\n", &["client.toml: ", "broker", "host"]),
            ("broker = 'mqtt://a'\ncafile = 'ca'\n", &["client.toml: ", "mqtts://"]),
            ("cert = 'me.pem'\n", &["client.toml: ", "key"]),
            ("pw = 'x'\npassword-file = 'y'\n", &["client.toml: ", "password-file"]),
            ("[gateway.a]\nport = 1\n", &["client.toml: ", "[gateway.a]", "broker or host"]),
            ("[gateway.a]\nhost = 'a'\n[gateway.a.gateway.b]\nhost = 'b'\n", &["[gateway.a]", "within"]),
        ] {
            let message = parse(text).err().unwrap_or_else(|| panic!("{text} is accepted"));
            assert!(told.iter().all(|part| message.contains(part)), "{text}{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_password_that_others_can_read_is_warned_of() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.toml");
        for (text, mode, warns) in [
            ("pw = 'x'\n", 0o644, true),
            ("broker = 'mqtt://a:x@box'\n", 0o640, true),
            ("[gateway.a]\nhost = 'a'\npw = 'x'\n", 0o604, true),
            ("pw = 'x'\n", 0o600, false),
            ("broker = 'mqtt://a@box'\n", 0o644, false),
            ("password-file = 'x'\n", 0o644, false),
        ] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let configuration = Configuration::find(Some(&path)).unwrap().unwrap();
            let warning = configuration.warning();
            assert_eq!(warning.is_some(), warns, "{text}{mode:o}: {warning:?}");
            assert!(warning.is_none_or(|warning| warning.contains("chmod 600")));
        }
    }

    #[test]
    fn a_password_file_loses_one_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        for (text, password) in
            [("x", "x"), ("x\n", "x"), ("x\r\n", "x"), ("x\n\n", "x\n"), (" x \n", " x "), ("", "")]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_password(&path).unwrap(), password, "{text:?}");
        }
        std::fs::write(&path, vec![b'x'; 65_536]).unwrap();
        assert!(read_password(&path).is_err());
        assert!(read_password(folder.path()).is_err());
    }
}
