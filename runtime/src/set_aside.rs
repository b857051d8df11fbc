//! Requests that are set aside: each a folder of plain files, with all that it takes to run the request again.
//!
//! The folders are below the data directory. Who looks after the gateway can read and move them while it runs, and
//! without it: `offload-rt jobs` does no more than that.
//!
//! | folder | holds |
//! | --- | --- |
//! | `set-aside/<number>` | a request that has crashed the gateway, and is not run any more |
//! | `retry/<number>` | one that is to be run once more: the gateway takes it up ([`retries`]) |
//!
//! | file of each | holds |
//! | --- | --- |
//! | `request.json` | who sent it, when, on which topic, within which limits: a [`Document`] |
//! | `payload` | the bytes of the message |
//! | `module.wasm` | the module, where the gateway has it |
//! | `README` | how to run it again, for people |
//! | `taken` | nothing; below `retry` alone: the gateway has taken it up |
//!
//! A folder is written under another name, synced and moved into place: it is there as a whole, or not at all.

mod document;
pub mod retries;

use crate::fingerprint::Fingerprint;
pub use document::{Asker, Document, Limits};
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// Requests that are kept, at the most; then the oldest goes. Somebody who has that many has long been told by the log,
/// and each crash of the gateway adds one at the most.
pub const MAX_JOBS: usize = 64;
/// Bytes of them all, at the most: as for the number. More than a message of the largest size, with its module, takes.
pub const MAX_BYTES: u64 = 512 << 20;

/// Folder of those that are set aside.
const SET_ASIDE: &str = "set-aside";
/// Folder of those that are to be run again.
const RETRY: &str = "retry";
/// The files of each.
const REQUEST: &str = "request.json";
const PAYLOAD: &str = "payload";
const MODULE: &str = "module.wasm";
const README: &str = "README";
const TAKEN: &str = "taken";
/// Prefix of what is not whole, or on its way out.
const HIDDEN: char = '.';

/// Only the owner reads, writes and enters.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The longest document that is read, in bytes: a topic, names and user properties fit into it many times.
const MAX_DOCUMENT: u64 = 8 << 20;

/// Why a request that is set aside cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// There is none of this number.
    #[error("there is no request {0} that is set aside; `offload-rt jobs list` shows what there is")]
    NotFound(u64),
    /// It is on its way already.
    #[error("request {0} is to be run again already")]
    Retried(u64),
    /// The gateway has it.
    #[error(
        "request {number} is being run again by the gateway, and goes when it is answered; while no gateway runs its \
         folder can be removed: {}",
        folder.display()
    )]
    Taken {
        /// Names it.
        number: u64,
        /// Where it is.
        folder: PathBuf,
    },
    /// Its document says something else than a gateway writes.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The operating system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The requests of one data directory that are set aside.
pub struct SetAside {
    data_dir: PathBuf,
    /// The numbers of those that this process knows, so that what is sent again and again is set aside once. Locked
    /// while one is written.
    known: Mutex<HashMap<Fingerprint, u64>>,
}

/// One request that is set aside.
#[derive(Debug)]
pub struct Job {
    /// Names it.
    pub number: u64,
    /// What is known of it.
    pub document: Document,
    /// Where it is.
    pub folder: PathBuf,
    /// Whether it is to be run again.
    pub is_retried: bool,
    /// Whether the gateway has taken it up.
    pub is_taken: bool,
    /// Bytes of its files.
    pub bytes: u64,
}

/// What is set aside.
pub struct Evidence<'e> {
    /// What is known of it.
    pub document: Document,
    /// What it is known again by.
    pub fingerprint: Fingerprint,
    /// The message.
    pub payload: &'e [u8],
    /// The module, where it is known.
    pub module: Option<&'e [u8]>,
}

impl SetAside {
    /// Those of this data directory, which need not be there.
    pub fn of(data_dir: &Path) -> SetAside {
        SetAside { data_dir: data_dir.to_owned(), known: Mutex::default() }
    }

    /// Sets a request aside, durably, unless it is there already; the oldest go where there is no room. Returns its
    /// number. Waits for the disk.
    ///
    /// # Errors
    ///
    /// When the system refuses, or it is larger than all together may be.
    pub fn keep(&self, evidence: &Evidence<'_>) -> Result<u64, JobError> {
        let mut known = self.known();
        let folder = self.data_dir.join(SET_ASIDE);
        let print = evidence.fingerprint.to_hex();
        let is_it = |job: &Job| !job.is_retried && job.document.fingerprints.contains(&print);
        // Its number may be another one's by now.
        if let Some(number) = known.get(&evidence.fingerprint)
            && self.job(*number).is_ok_and(|job| is_it(&job))
        {
            return Ok(*number);
        }
        let there = self.jobs()?;
        if let Some(job) = there.iter().find(|job| is_it(job)) {
            known.insert(evidence.fingerprint, job.number);
            return Ok(job.number);
        }
        let number = self.numbers()?.last().map_or(1, |last| last + 1);
        make_folder(&folder)?;
        let new = folder.join(format!("{HIDDEN}new"));
        remove(&new)?;
        make_folder(&new)?;
        let text = evidence.document.to_json();
        let readme = evidence.document.readme(number);
        let mut files =
            vec![(REQUEST, text.as_bytes()), (PAYLOAD, evidence.payload), (README, readme.as_bytes())];
        files.extend(evidence.module.map(|module| (MODULE, module)));
        let bytes = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        if bytes > MAX_BYTES {
            let source =
                io::Error::other(format!("{bytes} bytes, more than the {MAX_BYTES} of all together"));
            return Err(JobError::Io { path: new, source });
        }
        for (name, bytes) in files {
            write(&new.join(name), bytes)?;
        }
        sync(&new)?;
        self.make_room(there, bytes)?;
        let place = folder.join(number.to_string());
        fs::rename(&new, &place).map_err(|source| JobError::Io { path: place, source })?;
        sync(&folder)?;
        sync(&self.data_dir)?;
        known.insert(evidence.fingerprint, number);
        Ok(number)
    }

    /// All of them, by number. What cannot be read is left out; [`unreadable`](Self::unreadable) has it.
    ///
    /// # Errors
    ///
    /// When the folders cannot be read.
    pub fn jobs(&self) -> Result<Vec<Job>, JobError> {
        Ok(self.numbers()?.into_iter().filter_map(|number| self.job(number).ok()).collect())
    }

    /// Why some cannot be read.
    ///
    /// # Errors
    ///
    /// When the folders cannot be read.
    pub fn unreadable(&self) -> Result<Vec<JobError>, JobError> {
        Ok(self.numbers()?.into_iter().filter_map(|number| self.job(number).err()).collect())
    }

    /// The one of this number.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be read.
    pub fn job(&self, number: u64) -> Result<Job, JobError> {
        let folder = self.find(number)?;
        let path = folder.join(REQUEST);
        let document = read_document(&path)?;
        let is_retried = folder.starts_with(self.data_dir.join(RETRY));
        let is_taken = folder.join(TAKEN).exists();
        let bytes = [REQUEST, PAYLOAD, README, MODULE]
            .iter()
            .filter_map(|name| fs::metadata(folder.join(name)).ok())
            .map(|metadata| metadata.len())
            .sum();
        Ok(Job { number, document, folder, is_retried, is_taken, bytes })
    }

    /// This one is to be run once more.
    ///
    /// # Errors
    ///
    /// When there is none, it is to be run again already, or the system refuses.
    pub fn retry(&self, number: u64) -> Result<(), JobError> {
        let job = self.job(number)?;
        if job.is_retried {
            return Err(JobError::Retried(number));
        }
        let folder = self.data_dir.join(RETRY);
        make_folder(&folder)?;
        let place = folder.join(number.to_string());
        fs::rename(&job.folder, &place).map_err(|source| JobError::Io { path: place, source })?;
        sync(&folder)?;
        sync(&self.data_dir.join(SET_ASIDE))?;
        sync(&self.data_dir)
    }

    /// Removes this one.
    ///
    /// # Errors
    ///
    /// When there is none, the gateway runs it again in this moment, or the system refuses.
    pub fn drop(&self, number: u64) -> Result<(), JobError> {
        let folder = self.find(number)?;
        if folder.join(TAKEN).exists() {
            return Err(JobError::Taken { number, folder });
        }
        discard(&folder)
    }

    /// Those that are to be run again, by number.
    fn retried(&self) -> Result<Vec<u64>, JobError> {
        numbers_in(&self.data_dir.join(RETRY))
    }

    /// Marks one as taken up.
    fn take(&self, number: u64) -> Result<(), JobError> {
        write(&self.data_dir.join(RETRY).join(number.to_string()).join(TAKEN), b"")
    }

    /// One that was taken up is set aside as it was before.
    fn put_back(&self, number: u64) -> Result<(), JobError> {
        let name = number.to_string();
        let (from, to) = (self.data_dir.join(RETRY).join(&name), self.data_dir.join(SET_ASIDE).join(&name));
        let taken = from.join(TAKEN);
        fs::remove_file(&taken).map_err(|source| JobError::Io { path: taken, source })?;
        fs::rename(from, &to).map_err(|source| JobError::Io { path: to, source })?;
        sync(&self.data_dir.join(SET_ASIDE))
    }

    /// One that was run again has been answered.
    fn end_retry(&self, number: u64) -> Result<(), JobError> {
        discard(&self.data_dir.join(RETRY).join(number.to_string()))
    }

    fn find(&self, number: u64) -> Result<PathBuf, JobError> {
        let places = [SET_ASIDE, RETRY].map(|folder| self.data_dir.join(folder).join(number.to_string()));
        places.into_iter().find(|place| place.is_dir()).ok_or(JobError::NotFound(number))
    }

    fn numbers(&self) -> Result<Vec<u64>, JobError> {
        let mut numbers = numbers_in(&self.data_dir.join(SET_ASIDE))?;
        numbers.extend(self.retried()?);
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Drops the oldest until there is room for one more of this size.
    fn make_room(&self, there: Vec<Job>, bytes: u64) -> Result<(), JobError> {
        let mut there: Vec<Job> = there.into_iter().filter(|job| !job.is_retried).collect();
        let mut taken: u64 = there.iter().map(|job| job.bytes).sum();
        while there.len() >= MAX_JOBS || (taken + bytes > MAX_BYTES && !there.is_empty()) {
            let oldest = there.remove(0);
            tracing::warn!(
                number = oldest.number,
                "a request that was set aside is dropped: there is room for {MAX_JOBS}, and {MAX_BYTES} bytes"
            );
            taken -= oldest.bytes;
            discard(&oldest.folder)?;
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Fingerprint, u64>> {
        self.known.lock().expect("no panic while the lock is held")
    }
}

impl Job {
    /// The message.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn payload(&self) -> Result<Vec<u8>, JobError> {
        let path = self.folder.join(PAYLOAD);
        fs::read(&path).map_err(|source| JobError::Io { path, source })
    }

    /// Where the module is, if it is there.
    pub fn module(&self) -> Option<PathBuf> {
        Some(self.folder.join(MODULE)).filter(|path| path.exists())
    }
}

fn numbers_in(folder: &Path) -> Result<Vec<u64>, JobError> {
    let io = |source| JobError::Io { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(error)),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(io)?.file_name();
        // No other spelling of a number: a folder has one name.
        let number = name.to_str().and_then(|name| Some((name, name.parse::<u64>().ok()?)));
        numbers.extend(number.filter(|(name, number)| *name == number.to_string()).map(|(_, number)| number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn read_document(path: &Path) -> Result<Document, JobError> {
    let io = |source| JobError::Io { path: path.to_owned(), source };
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_DOCUMENT).read_to_end(&mut text)).map_err(io)?;
    serde_json::from_slice(&text)
        .map_err(|error| JobError::Damaged { path: path.to_owned(), reason: error.to_string() })
}

fn make_folder(folder: &Path) -> Result<(), JobError> {
    let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(folder);
    made.map_err(|source| JobError::Io { path: folder.to_owned(), source })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), JobError> {
    let io = |source| JobError::Io { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(FILE_MODE).open(path).map_err(io)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io)
}

fn sync(folder: &Path) -> Result<(), JobError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| JobError::Io { path: folder.to_owned(), source })
}

/// Removes a folder so that it is never half there under its name.
fn discard(folder: &Path) -> Result<(), JobError> {
    let io = |source| JobError::Io { path: folder.to_owned(), source };
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let hidden = folder.with_file_name(format!("{HIDDEN}{name}"));
    remove(&hidden)?;
    fs::rename(folder, &hidden).map_err(io)?;
    remove(&hidden)?;
    folder.parent().map_or(Ok(()), sync)
}

fn remove(folder: &Path) -> Result<(), JobError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(JobError::Io { path: folder.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    fn document(number: u8) -> Document {
        let client = Client { principal: None, flow: "device".into(), account: "::1".into(), web: false };
        Document {
            set_aside: "2026-11-29T22:22:14Z".to_owned(),
            crashes: 2,
            reference: "abc".to_owned(),
            fingerprints: vec![print(number).to_hex()],
            gateway: "1.2.3".to_owned(),
            client: Asker::of(&client),
            topic: "inputCode/device".to_owned(),
            form: "raw module".to_owned(),
            id: None,
            code: "module".to_owned(),
            response_topic: Some("result/device/x".to_owned()),
            correlation_data: Some(b"\0\xff".to_vec()),
            user_properties: vec![("arg".to_owned(), "1".to_owned())],
            limits: Limits::default(),
            payload_bytes: 3,
        }
    }

    fn print(number: u8) -> Fingerprint {
        Fingerprint([number; 32])
    }

    fn keep(set_aside: &SetAside, number: u8, payload: &[u8]) -> u64 {
        let (document, fingerprint) = (document(number), print(number));
        let evidence = Evidence { document, fingerprint, payload, module: Some(b"\0asm") };
        set_aside.keep(&evidence).unwrap()
    }

    fn numbers(set_aside: &SetAside) -> Vec<u64> {
        set_aside.jobs().unwrap().iter().map(|job| job.number).collect()
    }

    #[test]
    fn what_is_set_aside_is_there_with_all_that_is_known_of_it() {
        let folder = TempDir::new().unwrap();
        let set_aside = SetAside::of(folder.path());
        assert!(set_aside.jobs().unwrap().is_empty());
        assert_eq!(keep(&set_aside, 1, b"one"), 1);
        assert_eq!(keep(&set_aside, 2, b"two"), 2);
        let job = SetAside::of(folder.path()).job(1).unwrap();
        assert_eq!(job.document, document(1));
        assert_eq!(job.payload().unwrap(), b"one");
        assert_eq!(fs::read(job.module().unwrap()).unwrap(), b"\0asm");
        assert!(!job.is_retried && !job.is_taken && job.bytes > 7);
        let readme = fs::read_to_string(job.folder.join(README)).unwrap();
        assert!(readme.contains("offload-rt jobs retry 1"), "{readme}");
        for path in [&job.folder, &job.folder.join(PAYLOAD)] {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        }
    }

    #[test]
    fn the_same_request_is_set_aside_once_by_this_process_and_by_the_next() {
        let folder = TempDir::new().unwrap();
        let set_aside = SetAside::of(folder.path());
        assert_eq!([1, 2, 1].map(|number| keep(&set_aside, number, b"")), [1, 2, 1]);
        let next = SetAside::of(folder.path());
        assert_eq!([2, 3].map(|number| keep(&next, number, b"")), [2, 3]);
        // Dropped, it is set aside anew when it comes again.
        next.drop(2).unwrap();
        assert_eq!(keep(&next, 2, b""), 4);
        // Dropped again, it finds another one of its number.
        next.drop(4).unwrap();
        assert_eq!([5, 2].map(|number| keep(&next, number, b"")), [4, 5]);
        assert_eq!(numbers(&next), [1, 3, 4, 5]);
    }

    #[test]
    fn the_oldest_go_where_there_are_too_many() {
        let folder = TempDir::new().unwrap();
        let set_aside = SetAside::of(folder.path());
        for number in 0..=MAX_JOBS as u8 {
            keep(&set_aside, number, b"");
        }
        let left = numbers(&set_aside);
        assert_eq!((left.len(), left[0]), (MAX_JOBS, 2));
    }

    #[test]
    fn one_that_is_to_be_run_again_moves_and_can_be_dropped_until_it_is_taken_up() {
        let folder = TempDir::new().unwrap();
        let set_aside = SetAside::of(folder.path());
        keep(&set_aside, 1, b"one");
        keep(&set_aside, 2, b"two");
        set_aside.retry(1).unwrap();
        assert!(matches!(set_aside.retry(1), Err(JobError::Retried(1))));
        assert!(set_aside.job(1).unwrap().is_retried);
        assert_eq!(set_aside.retried().unwrap(), [1]);
        assert!(!set_aside.job(1).unwrap().is_taken);
        set_aside.take(1).unwrap();
        assert!(set_aside.job(1).unwrap().is_taken);
        assert!(matches!(set_aside.drop(1), Err(JobError::Taken { number: 1, .. })));
        // What has crashed the gateway again is set aside again, under another number.
        assert_eq!(keep(&set_aside, 1, b"one"), 3);
        set_aside.end_retry(1).unwrap();
        assert_eq!(numbers(&set_aside), [2, 3]);
        set_aside.retry(2).unwrap();
        set_aside.drop(2).unwrap();
        assert_eq!(numbers(&set_aside), [3]);
        for missing in [set_aside.drop(2), set_aside.retry(7), set_aside.job(0).map(drop)] {
            assert!(matches!(missing, Err(JobError::NotFound(_))), "{missing:?}");
        }
    }

    #[test]
    fn one_that_was_taken_up_can_be_put_back() {
        let folder = TempDir::new().unwrap();
        let set_aside = SetAside::of(folder.path());
        keep(&set_aside, 1, b"one");
        set_aside.retry(1).unwrap();
        set_aside.take(1).unwrap();
        set_aside.put_back(1).unwrap();
        let job = set_aside.job(1).unwrap();
        assert!(!job.is_retried && !job.is_taken);
        set_aside.retry(1).unwrap();
        assert!(!set_aside.job(1).unwrap().is_taken, "it is as it was");
    }

    #[test]
    fn what_is_damaged_hides_nothing_else() {
        let folder = TempDir::new().unwrap();
        let set_aside = SetAside::of(folder.path());
        keep(&set_aside, 1, b"");
        keep(&set_aside, 2, b"");
        fs::write(set_aside.job(1).unwrap().folder.join(REQUEST), "{").unwrap();
        for name in ["x", "007", ".3", "-1"] {
            fs::create_dir(folder.path().join(SET_ASIDE).join(name)).unwrap();
        }
        assert_eq!(numbers(&set_aside), [2]);
        let unreadable = set_aside.unreadable().unwrap();
        assert!(matches!(&unreadable[..], [JobError::Damaged { .. }]), "{unreadable:?}");
        assert_eq!(keep(&set_aside, 3, b""), 3, "its number is not given again");
        set_aside.drop(1).unwrap();
        assert!(set_aside.unreadable().unwrap().is_empty());
    }
}
