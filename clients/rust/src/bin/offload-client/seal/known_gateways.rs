//! The file of known keys: a line for each, `BROKER GATEWAY SUITE KEY`, the key in base64; `#` begins a comment.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::{env, fs};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use offload_client::PublicKey;

use crate::failure::Failure;
use crate::gateways::GatewayKey;

/// The longest file that is read, in bytes: that of hundreds of gateways.
const MAX_FILE: u64 = 4 << 20;

/// The file.
pub struct KnownGateways {
    path: PathBuf,
    lines: Vec<String>,
}

impl KnownGateways {
    /// Reads this file, by default that of the user. One that is not there is empty.
    pub fn read(path: Option<PathBuf>) -> Result<KnownGateways, Failure> {
        let path = path.or_else(default_path).ok_or_else(|| {
            Failure::usage(
                "--known-gateways: expected, since neither XDG_CONFIG_HOME nor HOME is an absolute path",
            )
        })?;
        let unreadable = |problem: &dyn std::fmt::Display| {
            Failure::new("malformed", format!("cannot read {}: {problem}", path.display()))
        };
        if fs::metadata(&path).is_ok_and(|file| file.len() > MAX_FILE) {
            return Err(unreadable(&format!("more than {MAX_FILE} bytes")));
        }
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.map_err(|error| unreadable(&error))?,
        };
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        // A line that cannot be read may be the one that counts.
        for (index, line) in lines.iter().enumerate() {
            if parse(line).is_none() && !is_comment(line) {
                let number = index + 1;
                return Err(unreadable(&format!("line {number}: expected `BROKER GATEWAY SUITE KEY`")));
            }
        }
        Ok(KnownGateways { path, lines })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys that are known at this broker.
    pub fn keys(&self, broker: &str) -> Vec<GatewayKey> {
        let known = self.lines.iter().filter_map(|line| parse(line));
        known.filter(|(at, _)| *at == broker).map(|(_, key)| key).collect()
    }

    /// From now on this is the one key of its gateway at this broker.
    pub fn replace(&mut self, broker: &str, new: &GatewayKey) -> Result<(), Failure> {
        let is_same = |line: &String| {
            parse(line).is_some_and(|(at, known)| at == broker && known.gateway == new.gateway)
        };
        self.lines.retain(|line| !is_same(line));
        let (gateway, suite) = (&new.gateway, new.key.suite());
        self.lines.push(format!("{broker} {gateway} {suite} {}", STANDARD.encode(new.key.as_bytes())));
        let unwritable = |error: std::io::Error| {
            Failure::new("malformed", format!("cannot write {}: {error}", self.path.display()))
        };
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(unwritable)?;
        }
        let temporary = self.path.with_extension(format!("new-{}", std::process::id()));
        fs::write(&temporary, self.lines.join("\n") + "\n").map_err(unwritable)?;
        fs::rename(&temporary, &self.path).map_err(unwritable)
    }
}

/// The broker and the key of a line; none of a comment, and of what is no such line.
fn parse(line: &str) -> Option<(&str, GatewayKey)> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [broker, gateway, suite, key] = words[..] else { return None };
    let key = PublicKey::new(suite.parse().ok()?, &STANDARD.decode(key).ok()?).ok()?;
    (!is_comment(line)).then(|| (broker, GatewayKey { gateway: gateway.to_owned(), key }))
}

fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

fn default_path() -> Option<PathBuf> {
    let configuration = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = env::home_dir().filter(|path| path.is_absolute()).map(|home| home.join(".config"));
    Some(configuration.or(home)?.join("offload/known_gateways"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use offload_client::Suite;

    fn key(gateway: &str, byte: u8) -> GatewayKey {
        GatewayKey { gateway: gateway.to_owned(), key: PublicKey::new(Suite::X25519, &[byte; 32]).unwrap() }
    }

    #[test]
    fn each_gateway_of_a_broker_has_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/known_gateways");
        let read =
            || KnownGateways::read(Some(path.clone())).unwrap_or_else(|error| panic!("{}", error.message));
        for (broker, key) in [("a:1883", key("x", 1)), ("a:1883", key("y", 2)), ("b:1883", key("x", 3))] {
            read().replace(broker, &key).unwrap();
        }
        read().replace("a:1883", &key("x", 4)).unwrap();
        assert_eq!(read().keys("a:1883"), [key("y", 2), key("x", 4)]);
        assert_eq!(read().keys("b:1883"), [key("x", 3)]);
        assert!(read().keys("c:1883").is_empty());
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("# mine\n\n{text}")).unwrap();
        assert_eq!(read().keys("b:1883"), [key("x", 3)]);
        fs::write(&path, text.replace("x25519", "x25518")).unwrap();
        assert!(KnownGateways::read(Some(path.clone())).is_err_and(|error| error.message.contains("line 1")));
    }
}
