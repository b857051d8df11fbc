//! The gateway's data directory: what outlives the process, used by one gateway at a time.
//!
//! | file | holds |
//! | --- | --- |
//! | `lock` | the process id of the gateway that holds the lock on this file |
//! | `format` | the version of the directory's layout |
//! | `instance` | a random id of this directory, from which the client id on an external broker derives |
//! | `mac-key` | the key that authenticates compiled modules |
//! | `journal/` | what outlives a crash ([`crate::durability`]) |
//! | `sealing-keys` | the keys that requests are sealed to ([`crate::keys`]) |
//! | `sealed-after` | since when it is known which sealed requests were run |
//! | `suspects` | what runs now, and what ran when an earlier process crashed ([`crate::suspects`]) |
//! | `set-aside/`, `retry/` | requests that have crashed the gateway ([`crate::set_aside`]) |

use offload_protocol::request::Digest;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The layout that this gateway writes. It reads this one and none that is newer.
const FORMAT: u32 = 1;
/// What is written once the format is there.
const WRITTEN_LATER: [&str; 4] = ["instance", "journal", "mac-key", "suspects"];
/// Only the owner reads, writes and enters.
const DIRECTORY_MODE: u32 = 0o700;
/// Only the owner reads and writes.
const FILE_MODE: u32 = 0o600;
/// Bytes of the key of the MAC: as many as SHA-256 gives.
const KEY_BYTES: usize = 32;
/// Random bytes of the instance id. Their hex digits leave room for `offload-rt-` in the 23 characters that every
/// MQTT 3.1.1 broker takes as client id (section 3.1.3.1).
const INSTANCE_BYTES: usize = 6;
/// The longest of these files, in bytes: none is larger unless it is not ours.
const MAX_FILE: u64 = 4096;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error(
        "the data directory {} is in use by another gateway (process {holder}): give each its own by --data-dir",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Its process id, as far as it is known.
        holder: String,
    },
    /// A newer gateway has written it.
    #[error(
        "the data directory {} has format {found}, and offload-rt {} knows formats up to {FORMAT}: start the version that \
         wrote it, or name another data directory by --data-dir or `data_dir`",
        path.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It holds what a gateway writes, and not the format of that.
    #[error(
        "the data directory {} does not say its format, and {file} is in it: it is no data directory, or a damaged one; \
         name another by --data-dir or `data_dir`",
        path.display()
    )]
    Unversioned {
        /// The directory.
        path: PathBuf,
        /// A file of the layout that is there.
        file: &'static str,
    },
    /// Others than its owner may enter it.
    #[error("the data directory {} is open to others (mode {mode:03o}): chmod 700 it", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file of the directory does not hold what it should.
    #[error("{} is damaged: remove it, or name another data directory by --data-dir or `data_dir`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("cannot use the data directory: {}: {source}; --data-dir or `data_dir` names another one", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// An open data directory. The lock goes with it, and with the process however that ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    instance: String,
    mac_key: MacKey,
    _lock: File,
}

/// The key, kept out of logs.
struct MacKey([u8; KEY_BYTES]);

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey")
    }
}

impl DataDir {
    /// Opens `path`, and makes it first where it does not exist (with its parents, mode 0700).
    ///
    /// # Errors
    ///
    /// When another process uses it, others may enter it, a newer gateway has written it, a file is damaged, or the
    /// system refuses.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(io)?;
        let mode = fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(DataDirError::Open { path: path.to_owned(), mode });
        }
        let lock = lock(path)?;
        check_format(path)?;
        let file = path.join("instance");
        let instance = read_or_create(&file, || Ok(hex(&random::<INSTANCE_BYTES>()?).into_bytes()))?;
        let instance = String::from_utf8(instance).ok().filter(|id| is_instance(id));
        let instance = instance.ok_or(DataDirError::Damaged { path: file })?;
        let file = path.join("mac-key");
        let key = read_or_create(&file, || Ok(random::<KEY_BYTES>()?.to_vec()))?;
        let mac_key = MacKey(key.try_into().map_err(|_| DataDirError::Damaged { path: file })?);
        Ok(DataDir { path: path.to_owned(), instance, mac_key, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names this directory among all: 12 hex digits, the same as long as the directory lives. The client id does not
    /// follow from it, since whoever knows that can take the gateway's session on a broker that does not bind client
    /// ids to users.
    pub fn instance(&self) -> String {
        let digest = Digest::of(format!("instance {}", self.instance).as_bytes());
        digest.hex()[..self.instance.len()].to_owned()
    }

    /// The client id of this gateway on an external broker: 23 characters.
    pub fn client_id(&self) -> String {
        format!("offload-rt-{}", self.instance)
    }

    /// The secret key that authenticates what the gateway has written for itself.
    pub fn mac_key(&self) -> &[u8; KEY_BYTES] {
        &self.mac_key.0
    }
}

/// Makes a folder in an open data directory, unless it is there; only the owner may enter it. A data directory that was
/// removed while its gateway runs is not made again: without its lock and its key it would not be the same.
///
/// # Errors
///
/// When its parent is not there, or the system refuses.
pub fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// How long a lock that is taken is asked for again: a gateway that was killed leaves it to the children that it was
/// about to start, until they have become the programs that they are to be.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// How long it waits in between.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Takes the lock and leaves our process id in it, for whoever finds it taken.
fn lock(directory: &Path) -> Result<File, DataDirError> {
    let path = directory.join("lock");
    let io = |source| DataDirError::Io { path: path.clone(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    let mut file = options.open(&path).map_err(io)?;
    let until = Instant::now() + LOCK_WAIT;
    let locked = loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(LOCK_RETRY),
            locked => break locked,
        }
    };
    match locked {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // The holder may not have written it yet, or nothing that is text.
            let known =
                (&file).take(MAX_FILE).read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = if known { holder.trim().to_owned() } else { "unknown".to_owned() };
            return Err(DataDirError::InUse { path: directory.to_owned(), holder });
        }
        Err(error) => return Err(io(error.into())),
    }
    file.set_len(0).map_err(io)?;
    file.rewind().map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

fn check_format(directory: &Path) -> Result<(), DataDirError> {
    let path = directory.join("format");
    // The format is written first: what has another file of the layout without it is not of this layout.
    let exists = |name: &&str| directory.join(name).symlink_metadata().is_ok();
    if !path.exists()
        && let Some(file) = WRITTEN_LATER.into_iter().find(|name| exists(name))
    {
        return Err(DataDirError::Unversioned { path: directory.to_owned(), file });
    }
    let text = read_or_create(&path, || Ok(format!("{FORMAT}\n").into_bytes()))?;
    let found = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse::<u32>().ok());
    match found {
        None | Some(0) => Err(DataDirError::Damaged { path }),
        Some(found) if found > FORMAT => Err(DataDirError::Newer { path: directory.to_owned(), found }),
        Some(_) => Ok(()),
    }
}

/// The content of `path`; where there is none yet, what `create` gives. It is there in full or not at all, whenever
/// the machine stops.
fn read_or_create(
    path: &Path,
    create: impl FnOnce() -> io::Result<Vec<u8>>,
) -> Result<Vec<u8>, DataDirError> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let write = || {
        let bytes = create()?;
        let temporary = path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(bytes)
    };
    let result = read().or_else(|error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => write(),
        _ => Err(error),
    });
    result.map_err(|source| DataDirError::Io { path: path.to_owned(), source })
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_instance(text: &str) -> bool {
    text.len() == 2 * INSTANCE_BYTES && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state/offload-rt");
        (parent, path)
    }

    #[test]
    fn a_new_directory_is_private_and_keeps_its_identity() {
        let (_parent, path) = fresh();
        let first = DataDir::open(&path).unwrap();
        let (id, key) = (first.client_id(), *first.mac_key());
        assert_eq!(id.len(), 23);
        assert_ne!(key, [0; KEY_BYTES]);
        assert!(!format!("{first:?}").contains(&format!("{key:?}")));
        for (file, expected) in [("", 0o700), ("mac-key", 0o600), ("instance", 0o600), ("lock", 0o600)] {
            assert_eq!(path.join(file).metadata().unwrap().permissions().mode() & 0o777, expected, "{file}");
        }
        drop(first);
        let second = DataDir::open(&path).unwrap();
        assert_eq!((second.client_id(), *second.mac_key()), (id, key));
        let other = fresh();
        assert_ne!(DataDir::open(&other.1).unwrap().instance(), second.instance());
    }

    #[test]
    fn a_second_gateway_is_told_who_has_it() {
        let (_parent, path) = fresh();
        let first = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused() {
        let (_parent, path) = fresh();
        drop(DataDir::open(&path).unwrap());
        fs::write(path.join("format"), "2\n").unwrap();
        let error = DataDir::open(&path).unwrap_err();
        assert!(matches!(error, DataDirError::Newer { found: 2, .. }));
        let told = error.to_string();
        assert!(
            told.contains("format 2") && told.contains("up to 1: start the version that wrote it"),
            "{told}"
        );
        assert_eq!(fs::read_to_string(path.join("format")).unwrap(), "2\n", "it is left as it was");
    }

    #[test]
    fn what_does_not_say_its_format_is_not_guessed_at() {
        for file in WRITTEN_LATER {
            let (_parent, path) = fresh();
            drop(DataDir::open(&path).unwrap());
            fs::write(path.join(file), "of another time").unwrap();
            fs::remove_file(path.join("format")).unwrap();
            let error = DataDir::open(&path).unwrap_err().to_string();
            assert!(error.contains("does not say its format"), "{error}");
            assert!(!path.join("format").exists());
        }
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        let (_parent, path) = fresh();
        drop(DataDir::open(&path).unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Open { mode: 0o755, .. })));
    }

    #[test]
    fn damaged_files_are_named() {
        for (file, content) in
            [("format", "one"), ("instance", "../../etc"), ("instance", ""), ("mac-key", "short")]
        {
            let (_parent, path) = fresh();
            drop(DataDir::open(&path).unwrap());
            fs::write(path.join(file), content).unwrap();
            let error = DataDir::open(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("{file} is damaged: ")), "{error}");
        }
    }

    #[test]
    fn a_lock_that_a_killed_gateway_leaves_to_its_children_for_a_moment_is_waited_for() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let held = DataDir::open(&path).unwrap();
        let (opens, opened) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                opens.send(()).unwrap();
                DataDir::open(&path).unwrap();
            });
            opened.recv().unwrap();
            drop(held);
        });
    }
}
