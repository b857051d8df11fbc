//! The gateway's keys, to which requests are sealed: a file of them, the newest first.
//!
//! A key that was replaced opens requests for a grace time, so that what is under way, and clients that know no other
//! yet, lose nothing. Then it is retired: what is sealed to it is refused as if it were unknown.

mod file;
mod proof;

use crate::auth::reload::{Reload, WatchedFiles};
use crate::config;
use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use offload_protocol::request::{Digest, Rejected};
use offload_protocol::sealed::SealedRequest;
use offload_seal::{Opened, SecretKey, Suite};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

pub use file::{KeysError, list, rotate};
pub use proof::{MAX_AHEAD, accepted_after};

/// The file's name in the data directory.
pub const FILE: &str = "sealing-keys";

/// Said where other gateways of a group have renewed keys that are not here yet.
pub(crate) const OUTDATED: &str = "the keys are not the other gateways' any more: what was sealed to theirs is left \
                                   to them; copy the file of the gateway whose keys were renewed last";

/// The keys in force.
pub struct Keys {
    path: PathBuf,
    set: ArcSwap<KeySet>,
    changes: watch::Sender<()>,
    /// The fingerprints of the keys that other gateways of one service open.
    others: ArcSwap<Vec<String>>,
}

/// What a file of keys holds.
pub struct KeySet {
    /// The newest first.
    keys: Vec<Key>,
    grace: Duration,
}

/// One key of it.
pub struct Key {
    /// The key.
    pub secret: SecretKey,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When another took its place, in seconds since 1970.
    pub replaced: Option<u64>,
}

/// A key as the status lists it.
#[derive(Serialize, Clone)]
pub struct PublishedKey {
    suite: &'static str,
    /// Base64.
    public: String,
    /// `sha256:…`.
    pub fingerprint: String,
}

/// Where the keys of a gateway with this configuration are.
pub fn path(config: &config::Config) -> PathBuf {
    config.keys.path.clone().unwrap_or_else(|| config.data_dir.join(FILE))
}

impl Keys {
    /// Reads the keys of this configuration, and makes them first where there are none. Returns whether it has made
    /// them. This waits for the disk.
    ///
    /// # Errors
    ///
    /// When they cannot be read or made, or others than their owner may read them.
    pub fn open(config: &config::Config) -> Result<(Arc<Keys>, bool), KeysError> {
        let path = path(config);
        let is_new = file::create(&path)?;
        let set = KeySet::new(file::read(&path)?, config.keys.grace.duration());
        tracing::debug!(path = %path.display(), set = %set.fingerprint(), "requests can be sealed");
        let (set, changes) = (ArcSwap::from_pointee(set), watch::Sender::new(()));
        let others = ArcSwap::default();
        Ok((Arc::new(Keys { path, set, changes, others }), is_new))
    }

    /// None as yet: those of a gateway whose group may have some.
    pub fn none(config: &config::Config) -> Arc<Keys> {
        let set = ArcSwap::from_pointee(KeySet::new(Vec::new(), config.keys.grace.duration()));
        let (changes, others) = (watch::Sender::new(()), ArcSwap::default());
        Arc::new(Keys { path: path(config), set, changes, others })
    }

    /// Makes keys where there are none. This waits for the disk.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn make(&self) -> Result<(), KeysError> {
        file::create(&self.path)?;
        self.reload(self.set().grace)
    }

    /// Takes back what [`make`](Self::make) has made: another gateway was faster. This waits for the disk.
    pub fn unmake(&self) {
        let _ = std::fs::remove_file(&self.path);
        self.set.store(Arc::new(KeySet::new(Vec::new(), self.set().grace)));
    }

    /// Reads the file again; without one there go on being none. This waits for the disk.
    ///
    /// # Errors
    ///
    /// When it cannot be used: what was read before stays in force.
    pub fn reload(&self, grace: Duration) -> Result<(), KeysError> {
        if self.set().is_empty() && !self.path.exists() {
            return Ok(());
        }
        self.set.store(Arc::new(KeySet::new(file::read(&self.path)?, grace)));
        self.changes.send_replace(());
        Ok(())
    }

    /// Other gateways of one service open what is sealed to these.
    pub fn set_others(&self, fingerprints: Vec<String>) {
        self.others.store(Arc::new(fingerprints));
    }

    /// Whether this key is another gateway's, and not here yet: keys are renewed on one gateway after the other.
    pub fn is_anothers(&self, key: &Digest) -> bool {
        let print = key.to_string();
        self.others.load().contains(&print) && !self.set().has(&[print])
    }

    /// Says that sealed requests are left to the other gateways, and what helps.
    pub fn warn_of_none(&self) {
        let path = self.path.display();
        tracing::warn!(
            "sealed requests are left to the other gateways: copy their file of keys to {path}, and start again"
        );
    }

    /// Why this gateway does not join its group, which has these keys; `show` is a command that shows them, `instead`
    /// what makes this file the group's.
    pub fn another_set(&self, theirs: &[String], show: String, instead: String) -> KeysError {
        KeysError::AnotherSet { path: self.path.clone(), theirs: theirs.join(", "), show, instead }
    }

    /// Says when the file was read again.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Reads the file again whenever it changes, as long as what is returned lives.
    pub fn watch(self: &Arc<Keys>) -> Reload {
        let keys = self.clone();
        WatchedFiles::new([self.path.clone()]).watch(move || keys.reload(keys.set.load().grace))
    }

    /// The keys in force now.
    pub fn set(&self) -> Arc<KeySet> {
        self.set.load_full()
    }
}

impl KeySet {
    fn new(mut keys: Vec<Key>, grace: Duration) -> KeySet {
        // The suite that every client has first among those of one age.
        keys.sort_by_key(|key| (std::cmp::Reverse(key.created), key.secret.public().suite()));
        KeySet { keys, grace }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Opens a request that was published on `topic` and has arrived then, in milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// `unauthorized` without the key, `malformed` when it does not open. Neither says more.
    pub fn open(&self, sealed: &SealedRequest, topic: &str, arrived: u64) -> Result<Opened, Rejected> {
        let mut keys = self.keys.iter().filter(|key| !self.is_retired(key, arrived));
        let Some(key) = keys.find(|key| key.secret.public().fingerprint() == sealed.key) else {
            return Err(SealedRequest::unknown_key(sealed.form));
        };
        let unopened = || SealedRequest::unopened(sealed.form);
        if sealed.suite != key.secret.public().suite().as_str() {
            return Err(unopened());
        }
        key.secret.open(&sealed.encapsulated, &sealed.sealed, topic).map_err(|_| unopened())
    }

    /// What the status lists: the keys that open, the newest first.
    pub fn published(&self) -> Vec<PublishedKey> {
        let now = now_ms();
        let open = self.keys.iter().filter(|key| !self.is_retired(key, now));
        open.map(|key| PublishedKey::of(key.secret.public())).collect()
    }

    /// Whether all keys with these fingerprints are in it, retired or not.
    pub fn has(&self, fingerprints: &[String]) -> bool {
        let own: Vec<String> =
            self.keys.iter().map(|key| key.secret.public().fingerprint().to_string()).collect();
        fingerprints.iter().all(|print| own.contains(print))
    }

    /// The fingerprints of the keys that open, the newest first, as gateways of a group note them.
    pub fn fingerprints(&self) -> Vec<String> {
        self.published().into_iter().map(|key| key.fingerprint).collect()
    }

    /// Names the set: two gateways that have it open the same requests. Whoever joins a group compares it.
    pub fn fingerprint(&self) -> Digest {
        let mut prints: Vec<_> = self.keys.iter().map(|key| key.secret.public().fingerprint().0).collect();
        prints.sort();
        Digest::of(&prints.concat())
    }

    fn is_retired(&self, key: &Key, at_ms: u64) -> bool {
        let until = key.replaced.map(|replaced| replaced.saturating_add(self.grace.as_secs()));
        until.is_some_and(|until| at_ms / 1000 >= until)
    }
}

impl PublishedKey {
    fn of(key: &offload_seal::PublicKey) -> PublishedKey {
        PublishedKey {
            suite: key.suite().as_str(),
            public: STANDARD.encode(key.as_bytes()),
            fingerprint: key.fingerprint().to_string(),
        }
    }
}

impl Key {
    /// One new key of each suite, made now.
    fn generate() -> Result<Vec<Key>, offload_seal::SealError> {
        let created = now_ms() / 1000;
        let key = |suite| Ok(Key { secret: SecretKey::generate(suite)?, created, replaced: None });
        Suite::ALL.into_iter().map(key).collect()
    }
}

/// Milliseconds since 1970, by the clock on the wall.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_millis().try_into().unwrap_or(u64::MAX)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use offload_protocol::answer::AnswerForm;
    use offload_protocol::error::ErrorKind;
    use std::os::unix::fs::PermissionsExt;

    fn config(folder: &Path) -> config::Config {
        config::Config { data_dir: folder.to_owned(), ..Default::default() }
    }

    fn sealed(key: &Key) -> SealedRequest {
        let public = key.secret.public();
        let sealed = public.seal(b"{}", "localCode/d").unwrap();
        SealedRequest {
            form: AnswerForm::Json,
            sealed: sealed.ciphertext.into(),
            encapsulated: sealed.encapsulated.into(),
            key: public.fingerprint(),
            suite: public.suite().as_str().to_owned(),
        }
    }

    #[test]
    fn a_replaced_key_opens_for_the_grace_time() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, is_new) = Keys::open(&config(folder.path())).unwrap();
        assert!(is_new);
        let before = keys.set();
        let rotated = rotate(&path(&config(folder.path()))).unwrap();
        assert_eq!(rotated.len(), 2);
        keys.reload(Duration::from_secs(60)).unwrap();
        let after = keys.set();
        assert_ne!(before.fingerprint(), after.fingerprint());
        assert_eq!((before.keys.len(), after.keys.len()), (2, 4));
        let now = now_ms();
        for key in before.keys.iter().chain(&after.keys) {
            let sealed = sealed(key);
            assert_eq!(after.open(&sealed, "localCode/d", now).unwrap().plaintext, b"{}");
        }
        let later = now + 62_000;
        let kind = |key: &Key| after.open(&sealed(key), "localCode/d", later).err().map(|e| e.error.kind);
        assert!(before.keys.iter().all(|key| kind(key) == Some(ErrorKind::Unauthorized)));
        assert!(rotated.iter().all(|key| kind(key).is_none()));
        assert_eq!(after.published().len(), 4, "what still opens is listed");
        assert_eq!(after.published()[0].suite, "x25519-sha256-chacha20poly1305");
        assert_eq!(after.published()[0].fingerprint, rotated[0].secret.public().fingerprint().to_string());
    }

    #[test]
    fn each_part_of_a_sealed_request_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, _) = Keys::open(&config(folder.path())).unwrap();
        let set = keys.set();
        let [x25519, x_wing] = &set.keys[..] else { panic!("one a suite") };
        let good = sealed(x25519);
        let kind = |sealed: SealedRequest, topic: &str| {
            set.open(&sealed, topic, now_ms()).err().map(|rejected| rejected.error.kind)
        };
        assert_eq!(kind(good.clone(), "localCode/d"), None);
        assert_eq!(kind(good.clone(), "localCode/e"), Some(ErrorKind::Malformed));
        let other = SealedRequest { key: Digest::of(b"another"), ..good.clone() };
        assert_eq!(kind(other, "localCode/d"), Some(ErrorKind::Unauthorized));
        let other = SealedRequest { key: x_wing.secret.public().fingerprint(), ..good.clone() };
        assert_eq!(kind(other, "localCode/d"), Some(ErrorKind::Malformed));
        for suite in ["", "xwing-sha256-chacha20poly1305", "none"] {
            let other = SealedRequest { suite: suite.to_owned(), ..good.clone() };
            assert_eq!(kind(other, "localCode/d"), Some(ErrorKind::Malformed));
        }
    }

    #[test]
    fn the_file_is_its_owners_alone_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let (keys, _) = Keys::open(&config).unwrap();
        let print = keys.set().fingerprint();
        let path = path(&config);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let missing = list(&folder.path().join("missing")).err().map(|error| error.to_string());
        assert!(missing.is_some_and(|error| error.contains("offload-rt keys rotate")));
        let (again, is_new) = Keys::open(&config).unwrap();
        assert_eq!((again.set().fingerprint(), is_new), (print, false));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Keys::open(&config).is_err_and(|error| error.to_string().contains("chmod 600")));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "{\"format\":1,\"keys\":[{}]}").unwrap();
        assert!(Keys::open(&config).is_err());
        std::fs::write(&path, "{\"format\":2,\"keys\":[]}").unwrap();
        assert!(keys.reload(Duration::ZERO).is_err());
        assert_eq!(keys.set().fingerprint(), print, "what was read before stays in force");
    }
}
