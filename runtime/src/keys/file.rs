//! The file of keys: JSON, replaced as a whole, readable by its owner alone.

use super::{Key, parent};
use crate::keys::now_ms;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use offload_seal::{SealError, SecretKey, Suite};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The version of the file. Another one is not read.
const FORMAT: u32 = 1;
/// Only the owner reads and writes.
const MODE: u32 = 0o600;
/// Keys that a file keeps: a rotation forgets the oldest beyond them, which have been replaced many times.
const MAX_KEYS: usize = 32;
/// The longest file, in bytes: one with as many keys is far shorter.
const MAX_FILE: u64 = 1 << 16;

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Others than its owner may read it.
    #[error("the keys in {} are open to others (mode {mode:03o}): chmod 600 it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold what it should.
    #[error("{} holds no keys of this version: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no file.
    #[error(
        "there are no keys in {}: a gateway makes them when it starts first, or `offload-rt keys rotate` does; where \
         gateways share their requests, copy the file of one that serves",
        path.display()
    )]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// The gateways that share its requests have other keys.
    #[error(
        "the set of keys in {} is not its group's: the gateways of the group open {theirs}, and it has not all of \
         these (`{show}` shows theirs, `offload-rt keys list` its own); copy the file of a gateway that serves (keys \
         are renewed by `offload-rt keys rotate` on one of them, whose file is then copied to all); if this file is \
         to be the group's, {instead}",
        path.display()
    )]
    AnotherSet {
        /// The file.
        path: PathBuf,
        /// The fingerprints of the group's keys.
        theirs: String,
        /// The command that shows them.
        show: String,
        /// What makes this file the group's.
        instead: String,
    },
    /// The operating system refuses.
    #[error("cannot use the keys in {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// No keys can be made.
    #[error("cannot make keys: {0}")]
    Random(#[from] SealError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    keys: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    suite: String,
    /// Base64.
    secret: Zeroizing<String>,
    /// Seconds since 1970.
    created: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaced: Option<u64>,
}

/// Makes the file with new keys, unless it is there. Returns whether it has made it.
pub fn create(path: &Path) -> Result<bool, KeysError> {
    if path.exists() {
        return Ok(false);
    }
    let temporary = write_beside(path, &Key::generate()?)?;
    // Of two that start at once, one has made the keys of both.
    let linked = fs::hard_link(&temporary, path);
    let _ = fs::remove_file(&temporary);
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        linked => linked.and_then(|()| sync(path)).map(|()| true).map_err(io_error(path)),
    }
}

/// The keys in the file.
pub fn read(path: &Path) -> Result<Vec<Key>, KeysError> {
    let io = io_error(path);
    let damaged = |problem: String| KeysError::Damaged { path: path.to_owned(), problem };
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KeysError::Missing { path: path.to_owned() },
        _ => io(error),
    })?;
    let mode = file.metadata().map_err(&io)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeysError::Open { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(Vec::new());
    file.take(MAX_FILE).read_to_end(&mut text).map_err(&io)?;
    // serde's own message may quote what it has read.
    let document: Document = serde_json::from_slice(&text)
        .map_err(|error| damaged(format!("line {}, column {}", error.line(), error.column())))?;
    if document.format != FORMAT {
        return Err(damaged(format!("format {}", document.format)));
    }
    if document.keys.is_empty() {
        return Err(damaged("no key".to_owned()));
    }
    let key = |Entry { suite, secret, created, replaced }: Entry| {
        let suite: Suite = suite.parse().map_err(|_| damaged("a suite that it does not know".to_owned()))?;
        let secret = STANDARD.decode(secret.as_bytes()).map(Zeroizing::new);
        let secret = secret.ok().and_then(|secret| SecretKey::from_bytes(suite, &secret).ok());
        let secret = secret.ok_or_else(|| damaged("a secret that is none".to_owned()))?;
        Ok(Key { secret, created, replaced })
    };
    document.keys.into_iter().map(key).collect()
}

/// Puts new keys in the place of those in the file, which still open for their grace time. Makes the file where there
/// is none. Returns the new keys.
///
/// # Errors
///
/// When the file cannot be read or written.
pub fn rotate(path: &Path) -> Result<Vec<Key>, KeysError> {
    create(path)?;
    let io = io_error(path);
    // Two rotations at once are two rotations.
    let directory = File::open(parent(path)).map_err(&io)?;
    flock(&directory, FlockOperation::LockExclusive).map_err(|error| io(error.into()))?;
    let mut keys = read(path)?;
    let now = now_ms() / 1000;
    for key in &mut keys {
        key.replaced.get_or_insert(now);
    }
    keys.sort_by_key(|key| std::cmp::Reverse(key.created));
    let mut all = Key::generate()?;
    let new = all.len();
    for key in &mut all {
        // Newer than what it replaces, whatever the clock says.
        let newest = keys.first().map_or(0, |newest| newest.created + 1);
        key.created = key.created.max(newest);
    }
    all.extend(keys);
    all.truncate(MAX_KEYS);
    let temporary = write_beside(path, &all)?;
    fs::rename(&temporary, path).and_then(|()| sync(path)).map_err(&io)?;
    all.truncate(new);
    Ok(all)
}

/// The keys in the file, the newest first.
///
/// # Errors
///
/// When the file cannot be read.
pub fn list(path: &Path) -> Result<Vec<Key>, KeysError> {
    let mut keys = read(path)?;
    keys.sort_by_key(|key| (std::cmp::Reverse(key.created), key.secret.public().suite()));
    Ok(keys)
}

/// Writes a file beside `path` that can take its place.
fn write_beside(path: &Path, keys: &[Key]) -> Result<PathBuf, KeysError> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let entry = |key: &Key| Entry {
        suite: key.secret.public().suite().as_str().to_owned(),
        secret: Zeroizing::new(STANDARD.encode(&*key.secret.to_bytes())),
        created: key.created,
        replaced: key.replaced,
    };
    let document = Document { format: FORMAT, keys: keys.iter().map(entry).collect() };
    let text =
        Zeroizing::new(serde_json::to_vec_pretty(&document).expect("texts and numbers can be written"));
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(MODE).open(&temporary)?;
        file.write_all(&text)?;
        // Root may renew the keys of a gateway that is another user.
        if let Ok(old) = fs::metadata(path).or_else(|_| fs::metadata(parent(path)))
            && old.uid() != file.metadata()?.uid()
        {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.sync_all()
    };
    write().map_err(io_error(path))?;
    Ok(temporary)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> KeysError {
    move |source| KeysError::Io { path: path.to_owned(), source }
}
