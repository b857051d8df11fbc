//! The modules that clients have sent, kept in the data directory, so that their digest is enough the next time.
//!
//! A module is stored once, as `<digest>.wasm`. Who has it says an empty file in a folder for each owner,
//! `<owner>/<digest>`. An index of both is held in memory; the disk is read at start, and when a module is needed.

use crate::client::Client;
use crate::config;
use crate::data_dir;
use crate::log_sampling::sampled;
use bytes::Bytes;
use lru::LruCache;
use offload_protocol::request::Digest;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;
use std::{fs, io};

/// What an owner's entry costs beside the module: a file on disk, a line in the index. Bounds their number.
const ENTRY_COST: u64 = 4 << 10;

/// File name ending of a module.
const EXTENSION: &str = "wasm";

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

    /// The bytes of the hash.
    pub fn bytes(&self) -> [u8; 32] {
        self.0.0
    }
}

/// The modules that clients have sent.
#[derive(Clone)]
pub struct Library(Arc<Shared>);

struct Shared {
    directory: PathBuf,
    config: config::Modules,
    index: Mutex<Index>,
    /// One change of the disk at a time.
    writing: tokio::sync::Mutex<()>,
}

struct Index {
    /// The owners of each module, in the order of their last use.
    owned: LruCache<(Owner, Digest), ()>,
    contents: HashMap<Digest, Content>,
    /// Bytes that an owner is charged with.
    charged: HashMap<Owner, u64>,
    /// Bytes of all contents and entries.
    total: u64,
}

struct Content {
    bytes: u64,
    owners: usize,
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
        let index = Index {
            owned: LruCache::unbounded(),
            contents: HashMap::new(),
            charged: HashMap::new(),
            total: 0,
        };
        let shared = Shared { directory, config, index: Mutex::new(index), writing: Default::default() };
        shared.read()?;
        Ok(Library(Arc::new(shared)))
    }

    /// Whose a module is that this client sends.
    pub fn owner(&self, client: &Client) -> Owner {
        Owner::of(client, self.0.config.shared)
    }

    /// Whether this client has sent the module with this digest, which counts as a use of it.
    pub fn has(&self, client: &Client, digest: &Digest) -> bool {
        let owner = Owner::of(client, self.0.config.shared);
        self.0.lock().owned.get(&(owner, *digest)).is_some()
    }

    /// Keeps a module that a client has sent. A full or read-only disk costs the next request its short cut, not this
    /// one.
    pub async fn keep(&self, client: &Client, digest: Digest, module: Bytes) {
        let owner = Owner::of(client, self.0.config.shared);
        let _writing = self.0.writing.lock().await;
        let bytes = module.len() as u64;
        let Some(removed) = self.0.lock().make_room(&self.0, owner, digest, bytes) else { return };
        let shared = self.0.clone();
        let written = tokio::task::spawn_blocking(move || {
            removed.apply(&shared.directory);
            shared.write(owner, &digest, &module)
        });
        match written.await {
            Ok(Ok(())) => self.0.lock().insert(owner, digest, bytes),
            Ok(Err(error)) => {
                sampled!(warn, directory = %self.0.directory.display(), %error, "cannot keep a module");
            }
            Err(panic) => {
                sampled!(error, "keeping a module: {panic}");
            }
        }
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
        let removed = self.0.lock().forget(&self.0, &digest);
        let shared = self.0.clone();
        let _ = tokio::task::spawn_blocking(move || removed.apply(&shared.directory)).await;
        None
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("no panic while the lock is held")
    }

    fn content(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex()).with_extension(EXTENSION)
    }

    fn entry(&self, owner: &Owner, digest: &Digest) -> PathBuf {
        self.directory.join(owner.0.hex()).join(digest.hex())
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
        let mut index = self.lock();
        for (_, owner, digest) in entries {
            match contents.get(&digest) {
                Some(bytes) => match index.make_room(self, owner, digest, *bytes) {
                    Some(more) => {
                        removed.0.extend(more.0);
                        index.insert(owner, digest, *bytes);
                    }
                    None => removed.0.push(self.entry(&owner, &digest)),
                },
                None => removed.0.push(self.entry(&owner, &digest)),
            }
        }
        let without_owner = contents.keys().filter(|digest| !index.contents.contains_key(*digest));
        removed.0.extend(without_owner.map(|digest| self.content(digest)));
        removed.apply(&self.directory);
        Ok(())
    }

    fn write(&self, owner: Owner, digest: &Digest, module: &[u8]) -> io::Result<()> {
        let content = self.content(digest);
        if !content.is_file() {
            // Whole or not at all, whatever stops us in between.
            data_dir::make_folder(&self.directory)?;
            let mut partial = tempfile::NamedTempFile::new_in(&self.directory)?;
            partial.write_all(module)?;
            partial.persist(&content)?;
        }
        let entry = self.entry(&owner, digest);
        data_dir::make_folder(&self.directory.join(owner.0.hex()))?;
        fs::File::create(entry)?.set_modified(SystemTime::now())
    }
}

impl Index {
    /// Evicts what must go so that `owner` can have this module; `None` where nothing is to be written, because it has
    /// it already or it is too large for what one owner may have.
    fn make_room(&mut self, shared: &Shared, owner: Owner, digest: Digest, bytes: u64) -> Option<Removed> {
        let (quota, total) = (shared.config.per_principal.bytes(), shared.config.total.bytes());
        let charge = bytes + ENTRY_COST;
        if self.owned.contains(&(owner, digest)) || charge > quota {
            return None;
        }
        let mut removed = Removed::default();
        while self.charged.get(&owner).copied().unwrap_or(0) + charge > quota {
            let oldest = self.owned.iter().rev().find(|((whose, _), ())| *whose == owner);
            let (_, digest) = *oldest?.0;
            self.remove(shared, owner, digest, &mut removed);
        }
        loop {
            let stored = if self.contents.contains_key(&digest) { 0 } else { bytes };
            if self.total + stored + ENTRY_COST <= total {
                return Some(removed);
            }
            let (owner, digest) = *self.owned.peek_lru()?.0;
            self.remove(shared, owner, digest, &mut removed);
        }
    }

    fn insert(&mut self, owner: Owner, digest: Digest, bytes: u64) {
        self.owned.put((owner, digest), ());
        let content = self.contents.entry(digest).or_insert(Content { bytes, owners: 0 });
        if content.owners == 0 {
            self.total += bytes;
        }
        content.owners += 1;
        self.total += ENTRY_COST;
        *self.charged.entry(owner).or_default() += bytes + ENTRY_COST;
    }

    fn remove(&mut self, shared: &Shared, owner: Owner, digest: Digest, removed: &mut Removed) {
        if self.owned.pop(&(owner, digest)).is_none() {
            return;
        }
        removed.0.push(shared.entry(&owner, &digest));
        let content = self.contents.get_mut(&digest).expect("what is owned is there");
        content.owners -= 1;
        let (bytes, last) = (content.bytes, content.owners == 0);
        self.total -= ENTRY_COST;
        if last {
            self.contents.remove(&digest);
            self.total -= bytes;
            removed.0.push(shared.content(&digest));
        }
        let charged = self.charged.get_mut(&owner).expect("an owner is charged");
        *charged -= bytes + ENTRY_COST;
        if *charged == 0 {
            self.charged.remove(&owner);
        }
    }

    /// Takes a module from all that have it.
    fn forget(&mut self, shared: &Shared, digest: &Digest) -> Removed {
        let owners = self.owned.iter().filter(|((_, owned), ())| owned == digest);
        let owners: Vec<Owner> = owners.map(|((owner, _), ())| *owner).collect();
        let mut removed = Removed::default();
        owners.into_iter().for_each(|owner| self.remove(shared, owner, *digest, &mut removed));
        removed
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
        library.keep(client, digest, bytes).await;
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
        library.keep(&one, Digest::of(&large), large.clone()).await;
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
        library.keep(&one, digest, bytes.clone()).await;
        assert_eq!(library.load(&digest).await, Some(bytes));
    }
}
