//! The modules that clients have sent, kept in the data directory, so that their digest is enough the next time.
//!
//! A module is stored once, as `<digest>.wasm`. Who has it says an empty file in a folder for each owner,
//! `<owner>/<digest>`, whose time of change is that of the last use. An index of both is held in memory; the disk is
//! read at start, and when a module is needed.

mod index;

use crate::client::Client;
use crate::config;
use crate::data_dir;
use crate::fair_semaphore::{FairSemaphore, SHARES};
use crate::log_sampling::sampled;
use bytes::Bytes;
use index::{Found, Index};
use offload_policy::{PermitLimits, Time, Urgency};
use offload_protocol::request::{Digest, StoredModule};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;
use std::{fs, io};
use tokio::runtime::Handle;

/// What an owner's entry costs beside the module: a file on disk, a line in the index. Bounds their number.
const ENTRY_COST: u64 = 4 << 10;

/// File name ending of a module.
const EXTENSION: &str = "wasm";

/// Longer than a change of some files takes.
const LONG: Time = Time::from_secs(3600);

/// Who may list and change modules next is decided by these permits, so that nobody waits for all that another one has
/// asked for. What is permitted changes the disk in turn. No permit is taken back: each is for a few files.
const PERMITS: PermitLimits =
    PermitLimits { concurrency: 2, quantum: LONG, slots: 8, shares: SHARES, round: None };

/// The owner of a module: the hash of a principal, which may be any text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Owner(Digest);

impl Owner {
    /// The owner of what this client sends: the client itself, or all clients together where modules are `shared`.
    pub fn of(client: &Client, shared: bool) -> Owner {
        Owner(match (&client.principal, shared) {
            (_, true) => Digest::of(b"everybody"),
            (None, false) => Digest::of(b"nobody"),
            (Some(principal), false) => Digest::of(format!("principal {principal}").as_bytes()),
        })
    }

    /// The owner with this hash.
    pub fn of_hash(hash: Digest) -> Owner {
        Owner(hash)
    }

    /// The hash.
    pub fn hash(&self) -> Digest {
        self.0
    }
}

/// The modules that clients have sent.
#[derive(Clone)]
pub struct Library(Arc<Shared>);

struct Shared {
    directory: PathBuf,
    config: config::Modules,
    index: Mutex<Index>,
    permits: FairSemaphore,
    /// One change of the disk at a time.
    writing: tokio::sync::Mutex<()>,
}

/// Why a module is not kept.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// It is larger than all that one owner may have.
    #[error("module: {bytes} bytes, the limit for what is kept is {most} bytes (modules.per_principal)")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The most that fits.
        most: u64,
    },
    /// All that could go to make room for it is waited for by requests.
    #[error("no room for the module beside those that requests wait for, try again after 1 s")]
    NoRoom,
    /// The disk refuses.
    #[error("{0}")]
    Disk(io::Error),
}

/// A module that a request waits for: removed, it is there as long as this is.
pub struct Pin {
    shared: Arc<Shared>,
    owner: Owner,
    digest: Digest,
}

/// What is to be removed from the disk.
#[derive(Default)]
struct Removed(Vec<PathBuf>);

impl Library {
    /// Opens (creates) the library in `directory`, whose parent is there.
    ///
    /// # Errors
    ///
    /// When the directory cannot be created or read.
    pub fn open(directory: PathBuf, config: config::Modules) -> io::Result<Library> {
        data_dir::make_folder(&directory)?;
        let index = Mutex::new(Index::new(config.per_principal.bytes(), config.total.bytes()));
        let permits = FairSemaphore::new(PERMITS);
        let shared = Shared { directory, config, index, permits, writing: Default::default() };
        shared.read()?;
        Ok(Library(Arc::new(shared)))
    }

    /// Whose a module is that this client sends.
    pub fn owner(&self, client: &Client) -> Owner {
        Owner::of(client, self.0.config.shared)
    }

    /// Whether all clients share what each of them sends.
    pub fn is_for_all(&self) -> bool {
        self.0.config.shared
    }

    /// Whether this client has sent the module with this digest, which counts as a use of it.
    pub fn has(&self, client: &Client, digest: &Digest) -> bool {
        self.0.lock().touch(self.owner(client), *digest, SystemTime::now())
    }

    /// A module that this client has sent, for a request that waits for it; which counts as a use of it.
    pub fn pin(&self, client: &Client, digest: &Digest) -> Option<Pin> {
        let (owner, digest) = (self.owner(client), *digest);
        let mut index = self.0.lock();
        let has_it = index.touch(owner, digest, SystemTime::now()) && index.pin(owner, digest);
        has_it.then(|| Pin { shared: self.0.clone(), owner, digest })
    }

    /// What this client has sent, the last used first. What all clients share is nobody's.
    pub async fn list(&self, client: &Client) -> Vec<StoredModule> {
        if self.is_for_all() {
            return Vec::new();
        }
        let _permit = self.0.permits.acquire(client, Urgency::Awaited).await;
        self.0.lock().list(self.owner(client))
    }

    /// Whether one owner may have a module of this size.
    ///
    /// # Errors
    ///
    /// [`NotKept::TooLarge`].
    pub fn takes(&self, bytes: u64) -> Result<(), NotKept> {
        self.0.lock().takes(bytes)
    }

    /// Keeps a module that a client has sent; `durably` it outlives a power cut when this returns.
    ///
    /// # Errors
    ///
    /// When there is no room for it, or the disk is full or read-only.
    pub async fn keep(
        &self,
        client: &Client,
        digest: Digest,
        module: Bytes,
        durably: bool,
    ) -> Result<StoredModule, NotKept> {
        let owner = self.owner(client);
        let _permit = self.0.permits.acquire(client, Urgency::Awaited).await;
        let _writing = self.0.writing.lock().await;
        let bytes = module.len() as u64;
        let mut removed = Vec::new();
        let room = self.0.lock().make_room(owner, digest, bytes, &mut removed);
        let removed = self.0.files_of(removed);
        let shared = self.0.clone();
        let written = tokio::task::spawn_blocking(move || {
            removed.apply(&shared.directory);
            match room {
                Ok(Found::Here) if !durably => Ok(()),
                Ok(found) => {
                    let written = shared.write(owner, &digest, &module, durably);
                    if let (Err(_), Found::Room) = (&written, found) {
                        shared.take_back(&owner, &digest);
                    }
                    written.map_err(NotKept::Disk)
                }
                Err(error) => Err(error),
            }
        });
        written.await.map_err(|panic| NotKept::Disk(panic.into()))??;
        Ok(self.0.lock().insert(owner, digest, bytes, SystemTime::now()))
    }

    /// Forgets a module of this client, and says whether there was one. Requests that wait for it get it still. What
    /// all clients share stays.
    ///
    /// # Errors
    ///
    /// When the disk refuses; then it is there still.
    pub async fn remove(&self, client: &Client, digest: Digest, durably: bool) -> io::Result<bool> {
        let _permit = self.0.permits.acquire(client, Urgency::Awaited).await;
        self.remove_of(self.owner(client), digest, durably).await
    }

    /// The same of this owner.
    ///
    /// # Errors
    ///
    /// As for a client.
    pub async fn remove_of(&self, owner: Owner, digest: Digest, durably: bool) -> io::Result<bool> {
        let _writing = self.0.writing.lock().await;
        if self.is_for_all() || !self.0.lock().has(owner, digest) {
            return Ok(false);
        }
        let shared = self.0.clone();
        let work = move || {
            shared.remove_entry(&owner, &digest, durably)?;
            let removed = shared.lock().remove(owner, digest);
            shared.files_of(removed).apply(&shared.directory);
            Ok(())
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(panic.into())).map(|()| true)
    }

    /// The module with this digest, as it was sent. One that is gone or damaged is forgotten.
    pub async fn load(&self, digest: &Digest) -> Option<Bytes> {
        let (shared, digest) = (self.0.clone(), *digest);
        let read = tokio::task::spawn_blocking(move || fs::read(shared.content(&digest))).await.ok()?;
        if let Ok(module) = read
            && Digest::of(&module) == digest
        {
            return Some(module.into());
        }
        sampled!(warn, %digest, "a module is missing or damaged in the data directory: clients must send it again");
        let _writing = self.0.writing.lock().await;
        let removed = self.0.lock().forget(digest);
        let removed = self.0.files_of(removed);
        let shared = self.0.clone();
        let _ = tokio::task::spawn_blocking(move || removed.apply(&shared.directory)).await;
        None
    }

    /// Notes on the disk when modules were used since `since`, so that the next process knows it.
    pub async fn note_uses(&self, since: SystemTime) {
        let used = self.0.lock().used_since(since);
        let shared = self.0.clone();
        let _writing = self.0.writing.lock().await;
        let note = move || {
            for (owner, digest, used) in used {
                // One that has gone by now is not made again.
                let entry = fs::File::options().write(true).open(shared.entry(&owner, &digest));
                let _ = entry.and_then(|entry| entry.set_modified(used));
            }
        };
        let _ = tokio::task::spawn_blocking(note).await;
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let (owner, digest) = (self.owner, self.digest);
        if !self.shared.lock().unpin(owner, digest) {
            return;
        }
        // Without a runtime, at the end of all, the next start finds what nobody has.
        let Ok(runtime) = Handle::try_current() else { return };
        let shared = self.shared.clone();
        runtime.spawn(async move {
            let _writing = shared.writing.lock().await;
            let removed = shared.lock().clear(owner, digest);
            let (removed, shared) = (shared.files_of(removed), shared.clone());
            let _ = tokio::task::spawn_blocking(move || removed.apply(&shared.directory)).await;
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("no panic while the lock is held")
    }

    fn content(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex()).with_extension(EXTENSION)
    }

    fn folder(&self, owner: &Owner) -> PathBuf {
        self.directory.join(owner.0.hex())
    }

    fn entry(&self, owner: &Owner, digest: &Digest) -> PathBuf {
        self.folder(owner).join(digest.hex())
    }

    fn files_of(&self, gone: Vec<index::Gone>) -> Removed {
        let files = gone.into_iter().flat_map(|index::Gone { owner, digest, is_last }| {
            [Some(self.entry(&owner, &digest)), is_last.then(|| self.content(&digest))]
        });
        Removed(files.flatten().collect())
    }

    /// Fills the index from the disk; removes what is incomplete or over the limits.
    fn read(&self) -> io::Result<()> {
        let (mut contents, mut entries, mut removed) = (HashMap::new(), Vec::new(), Removed::default());
        for file in fs::read_dir(&self.directory)? {
            let file = file?;
            let path = file.path();
            if file.file_type()?.is_dir() {
                let Some(owner) = digest_of(&path).map(Owner) else { continue };
                for entry in fs::read_dir(&path)? {
                    let entry = entry?;
                    if let Some(digest) = digest_of(&entry.path()) {
                        entries.push((entry.metadata()?.modified()?, owner, digest));
                    }
                }
            } else if let Some(digest) = digest_of(&path) {
                contents.insert(digest, file.metadata()?.len());
            } else {
                // What a write left that was cut off.
                removed.0.push(path);
            }
        }
        entries.sort_by_key(|(used, ..)| *used);
        let (mut index, mut gone) = (self.lock(), Vec::new());
        for (used, owner, digest) in entries {
            let bytes = contents.get(&digest).copied();
            let fits = bytes.filter(|bytes| index.make_room(owner, digest, *bytes, &mut gone).is_ok());
            match fits {
                Some(bytes) => drop(index.insert(owner, digest, bytes, used)),
                None => removed.0.push(self.entry(&owner, &digest)),
            }
        }
        removed.0.extend(self.files_of(gone).0);
        let without_owner = contents.keys().filter(|digest| !index.is_stored(digest));
        removed.0.extend(without_owner.map(|digest| self.content(digest)));
        removed.apply(&self.directory);
        Ok(())
    }

    fn write(&self, owner: Owner, digest: &Digest, module: &[u8], durably: bool) -> io::Result<()> {
        let content = self.content(digest);
        let is_whole = |file: fs::Metadata| file.is_file() && file.len() == module.len() as u64;
        if !fs::metadata(&content).is_ok_and(is_whole) {
            // Whole or not at all, whatever stops us in between.
            data_dir::make_folder(&self.directory)?;
            let mut partial = tempfile::NamedTempFile::new_in(&self.directory)?;
            partial.write_all(module)?;
            partial.persist(&content)?;
        }
        let folder = self.folder(&owner);
        data_dir::make_folder(&folder)?;
        fs::File::create(self.entry(&owner, digest))?.set_modified(SystemTime::now())?;
        if durably {
            for file in [&content, &self.entry(&owner, digest), &folder, &self.directory] {
                fs::File::open(file)?.sync_all()?;
            }
        }
        Ok(())
    }

    /// Removes what was written of a module that is not kept after all.
    fn take_back(&self, owner: &Owner, digest: &Digest) {
        let is_last = !self.lock().is_stored(digest);
        let gone = index::Gone { owner: *owner, digest: *digest, is_last };
        self.files_of(vec![gone]).apply(&self.directory);
    }

    /// The first step of a removal. After it no process has the entry.
    fn remove_entry(&self, owner: &Owner, digest: &Digest, durably: bool) -> io::Result<()> {
        match fs::remove_file(self.entry(owner, digest)) {
            Ok(()) if durably => fs::File::open(self.folder(owner))?.sync_all(),
            // Whoever has cleared the data directory wanted it gone too.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Removed {
    /// `directory` is the library's.
    fn apply(self, directory: &Path) {
        for path in self.0 {
            // What is left behind is found at the next start.
            let _ = fs::remove_file(&path);
            // With an owner's last module its folder goes too; one that holds more stays.
            let _ = path.parent().filter(|folder| *folder != directory).map(fs::remove_dir);
        }
    }
}

/// The digest that a file or folder is named after.
fn digest_of(path: &Path) -> Option<Digest> {
    let complete = path.extension().is_none_or(|ending| ending == EXTENSION);
    let digits = path.file_stem().filter(|_| complete)?.to_str()?;
    format!("sha256:{digits}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ByteSize;
    use std::os::unix::fs::PermissionsExt;

    fn client(principal: Option<&str>) -> Client {
        Client {
            principal: principal.map(Arc::from),
            flow: "connection".into(),
            account: "account".into(),
            web: false,
        }
    }

    fn config(shared: bool, modules: u64) -> config::Modules {
        let bytes = ByteSize::new(modules * (100 + ENTRY_COST));
        config::Modules {
            shared,
            per_principal: bytes,
            total: ByteSize::new(2 * bytes.bytes()),
            ..Default::default()
        }
    }

    fn module(n: u8) -> (Digest, Bytes) {
        let bytes = Bytes::from(vec![n; 100]);
        (Digest::of(&bytes), bytes)
    }

    async fn keep(library: &Library, client: &Client, n: u8) {
        let (digest, bytes) = module(n);
        library.keep(client, digest, bytes, false).await.ok();
    }

    fn has(library: &Library, client: &Client, n: u8) -> bool {
        library.has(client, &module(n).0)
    }

    /// Contents and entries on disk.
    fn files(directory: &Path) -> (usize, usize) {
        let (mut contents, mut entries) = (0, 0);
        for file in fs::read_dir(directory).unwrap() {
            let file = file.unwrap();
            match file.file_type().unwrap().is_dir() {
                true => entries += fs::read_dir(file.path()).unwrap().count(),
                false => contents += 1,
            }
        }
        (contents, entries)
    }

    #[tokio::test]
    async fn what_one_has_sent_another_does_not_have_and_is_stored_once() {
        let directory = tempfile::tempdir().unwrap();
        let library = Library::open(directory.path().into(), config(false, 4)).unwrap();
        let (nobody, one, other) = (client(None), client(Some("one")), client(Some("other")));
        keep(&library, &one, 1).await;
        assert!(has(&library, &one, 1) && !has(&library, &other, 1) && !has(&library, &nobody, 1));
        keep(&library, &other, 1).await;
        keep(&library, &nobody, 1).await;
        assert!(has(&library, &other, 1) && has(&library, &nobody, 1));
        assert_eq!(files(directory.path()), (1, 3));
        assert_eq!(library.load(&module(1).0).await, Some(module(1).1));
    }

    #[tokio::test]
    async fn shared_modules_are_everybodys() {
        let directory = tempfile::tempdir().unwrap();
        let library = Library::open(directory.path().into(), config(true, 4)).unwrap();
        keep(&library, &client(Some("one")), 1).await;
        assert!(has(&library, &client(None), 1) && has(&library, &client(Some("other")), 1));
    }

    /// Nobody lists and removes what all have.
    #[tokio::test]
    async fn shared_modules_are_neither_listed_nor_removed() {
        let directory = tempfile::tempdir().unwrap();
        let library = Library::open(directory.path().into(), config(true, 4)).unwrap();
        let one = client(Some("one"));
        keep(&library, &one, 1).await;
        assert!(library.list(&one).await.is_empty());
        assert!(!library.remove(&one, module(1).0, true).await.unwrap() && has(&library, &one, 1));
    }

    #[tokio::test]
    async fn what_is_removed_is_there_for_whoever_waits_for_it_and_then_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let library = Library::open(directory.path().into(), config(false, 4)).unwrap();
        let (one, other) = (client(Some("one")), client(Some("other")));
        let (digest, bytes) = module(1);
        let stored = library.keep(&one, digest, bytes.clone(), true).await.unwrap();
        assert_eq!(library.list(&one).await, [stored]);
        keep(&library, &other, 1).await;
        assert!(library.pin(&client(None), &digest).is_none());
        let pin = library.pin(&one, &digest).unwrap();
        assert!(library.remove(&one, digest, true).await.unwrap());
        assert!(library.list(&one).await.is_empty() && library.pin(&one, &digest).is_none());
        assert!(!library.remove(&one, digest, true).await.unwrap(), "it is removed once");
        assert!(library.remove(&other, digest, false).await.unwrap());
        assert_eq!(library.load(&digest).await, Some(bytes));
        drop(pin);
        let cleared = async {
            while files(directory.path()) != (0, 0) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG.into(), cleared).await.unwrap();
        assert_eq!(Library::open(directory.path().into(), config(false, 4)).unwrap().list(&one).await, []);
    }

    #[tokio::test]
    async fn a_restart_knows_when_modules_were_used() {
        let directory = tempfile::tempdir().unwrap();
        let one = client(Some("one"));
        let library = Library::open(directory.path().into(), config(false, 4)).unwrap();
        for n in [1, 2] {
            keep(&library, &one, n).await;
        }
        let since = SystemTime::now();
        assert!(has(&library, &one, 1));
        library.note_uses(since).await;
        let listed = library.list(&one).await;
        let again = Library::open(directory.path().into(), config(false, 4)).unwrap();
        assert_eq!(again.list(&one).await[0], listed[0]);
        assert_eq!(listed[0].digest, module(1).0);
    }

    #[tokio::test]
    async fn a_quota_evicts_its_owners_modules_and_nobody_elses() {
        let directory = tempfile::tempdir().unwrap();
        let library = Library::open(directory.path().into(), config(false, 2)).unwrap();
        let (one, other) = (client(Some("one")), client(Some("other")));
        keep(&library, &other, 9).await;
        for n in [1, 2] {
            keep(&library, &one, n).await;
        }
        assert!(has(&library, &one, 1), "which is a use of it");
        keep(&library, &one, 3).await;
        assert!(has(&library, &one, 1) && !has(&library, &one, 2) && has(&library, &one, 3));
        assert!(has(&library, &other, 9));
        assert_eq!(files(directory.path()), (3, 3));
        let large = Bytes::from(vec![0; 20_000]);
        library.keep(&one, Digest::of(&large), large.clone(), false).await.unwrap_err();
        assert!(!library.has(&one, &Digest::of(&large)) && has(&library, &one, 1), "it can never fit");
    }

    #[tokio::test]
    async fn the_bound_for_all_evicts_what_was_used_least_recently() {
        let directory = tempfile::tempdir().unwrap();
        let library = Library::open(directory.path().into(), config(false, 1)).unwrap();
        for n in [1, 2, 3] {
            keep(&library, &client(Some(&format!("client {n}"))), n).await;
        }
        assert!(!has(&library, &client(Some("client 1")), 1));
        assert!(has(&library, &client(Some("client 2")), 2) && has(&library, &client(Some("client 3")), 3));
        assert_eq!(files(directory.path()), (2, 2));
    }

    #[tokio::test]
    async fn a_restart_finds_what_was_kept_and_clears_what_is_incomplete() {
        let directory = tempfile::tempdir().unwrap();
        let one = client(Some("one"));
        {
            let library = Library::open(directory.path().into(), config(false, 4)).unwrap();
            for n in [1, 2, 3] {
                keep(&library, &one, n).await;
            }
        }
        fs::remove_file(directory.path().join(module(2).0.hex()).with_extension(EXTENSION)).unwrap();
        fs::write(directory.path().join(".tmpX"), "half").unwrap();
        fs::write(directory.path().join(module(8).0.hex()).with_extension(EXTENSION), "no owner").unwrap();
        let library = Library::open(directory.path().into(), config(false, 4)).unwrap();
        assert!(has(&library, &one, 1) && !has(&library, &one, 2) && has(&library, &one, 3));
        assert_eq!(files(directory.path()), (2, 2));
    }

    #[tokio::test]
    async fn a_data_directory_that_is_gone_is_not_made_again() {
        let data_dir = tempfile::tempdir().unwrap();
        let directory = data_dir.path().join("modules");
        let library = Library::open(directory.clone(), config(false, 4)).unwrap();
        let one = client(Some("one"));
        keep(&library, &one, 1).await;
        fs::remove_dir_all(&directory).unwrap();
        keep(&library, &one, 2).await;
        assert!(has(&library, &one, 2), "its own folder is made again");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        for folder in fs::read_dir(&directory).unwrap().flatten().filter(|file| file.path().is_dir()) {
            assert_eq!(mode(&folder.path()), 0o700);
        }
        fs::remove_dir_all(&data_dir).unwrap();
        keep(&library, &one, 3).await;
        assert!(!has(&library, &one, 3) && !data_dir.path().exists());
    }

    #[tokio::test]
    async fn a_damaged_module_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let library = Library::open(directory.path().into(), config(false, 4)).unwrap();
        let one = client(Some("one"));
        keep(&library, &one, 1).await;
        let (digest, bytes) = module(1);
        fs::write(directory.path().join(digest.hex()).with_extension(EXTENSION), "other").unwrap();
        assert_eq!(library.load(&digest).await, None);
        assert!(!has(&library, &one, 1));
        assert_eq!(files(directory.path()), (0, 0));
        library.keep(&one, digest, bytes.clone(), false).await.unwrap();
        assert_eq!(library.load(&digest).await, Some(bytes));
    }
}
