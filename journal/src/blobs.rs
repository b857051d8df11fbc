//! Blobs: large payloads, once each, in files that are named by their SHA-256 digests.
//!
//! A blob is durable, with its name, before a record can name it. It is kept for as long as a [`Blob`] lives: the
//! journal has one for each record that names it, its users have others. When the last one goes, the journal's thread
//! removes the file, but not before the removal of the last record is durable.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};

use sha2::{Digest, Sha256};

use crate::error::{Failed, Refused};
use crate::format::BlobName;
use crate::ids::BlobDigest;
use crate::storage::{Access, Storage};

/// The folder of the blobs.
const FOLDER: &str = "blobs";
/// Ends the name of a file whose content may not be whole.
const PARTIAL: &str = ".partial";
/// Bytes that are hashed at a time where a file is checked.
const CHUNK_BYTES: usize = 256 * 1024;

/// A blob that is durable, and stays so for as long as this or a clone of it lives.
#[derive(Clone)]
pub struct Blob(Arc<Reference>);

struct Reference {
    name: BlobName,
    /// Dangling for a journal that was only read.
    table: Weak<Blobs>,
}

impl Blob {
    /// Names a blob of a journal that is only read.
    pub(crate) fn unowned(name: BlobName) -> Blob {
        Blob(Arc::new(Reference { name, table: Weak::new() }))
    }

    /// Its digest.
    pub fn digest(&self) -> BlobDigest {
        self.0.name.digest
    }

    /// Its bytes.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> u64 {
        self.0.name.bytes
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Blob").field(&self.digest()).field(&self.len()).finish()
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            table.lock().unreferenced.push(self.name.digest);
        }
    }
}

/// All blobs of a journal.
pub(crate) struct Blobs {
    storage: Arc<dyn Storage>,
    /// Bytes of all together.
    most_bytes: u64,
    table: Mutex<Table>,
    /// Signalled when a file was written or removed.
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    entries: HashMap<BlobDigest, Entry>,
    /// Bytes of all entries.
    bytes: u64,
    /// Bytes of payloads that are to be blobs.
    reserved: u64,
    /// Those whose last reference went; some may have new ones.
    unreferenced: Vec<BlobDigest>,
}

struct Entry {
    bytes: u64,
    state: State,
}

enum State {
    Writing,
    Durable(Weak<Reference>),
    Removing,
}

impl Blobs {
    /// None yet. Makes their folder.
    pub fn open(storage: Arc<dyn Storage>, most_bytes: u64) -> io::Result<Arc<Blobs>> {
        storage.create_folder(FOLDER)?;
        storage.sync_folder("")?;
        Ok(Arc::new(Blobs { storage, most_bytes, table: Mutex::default(), changed: Condvar::new() }))
    }

    /// Takes over a blob that is durable and whole.
    pub fn adopt(self: &Arc<Self>, name: BlobName) -> Blob {
        let mut table = self.lock();
        if let Some(blob) = table.entries.get(&name.digest).and_then(Entry::reference) {
            return blob;
        }
        let (blob, state) = self.reference(name);
        table.bytes += name.bytes;
        table.entries.insert(name.digest, Entry { bytes: name.bytes, state });
        blob
    }

    /// Removes all files that were not taken over.
    pub fn remove_others(&self) -> io::Result<()> {
        let known: HashSet<String> = self.lock().entries.keys().map(path).collect();
        let files = self.storage.list(FOLDER)?.into_iter().map(|file| format!("{FOLDER}/{file}"));
        files.filter(|file| !known.contains(file)).try_for_each(|file| self.storage.remove(&file))
    }

    /// Makes a blob durable, or finds that it is. Of those who write the same one at once, one does and the others
    /// wait.
    pub fn write(self: &Arc<Self>, digest: BlobDigest, bytes: &[u8]) -> Result<Blob, Refused> {
        let name = BlobName { digest, bytes: bytes.len() as u64 };
        if let Some(blob) = self.find_or_begin(name)? {
            return Ok(blob);
        }
        let written = self.write_file(name.digest, bytes);
        let mut table = self.lock();
        let result = match written {
            Ok(()) => {
                let (blob, state) = self.reference(name);
                table.entries.insert(name.digest, Entry { bytes: name.bytes, state });
                Ok(blob)
            }
            Err(error) => {
                table.forget(&name.digest);
                Err(error)
            }
        };
        drop(table);
        self.changed.notify_all();
        result
    }

    /// Keeps room for a payload that is to be a blob, until that is written or dropped.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, Refused> {
        if bytes > self.most_bytes {
            return Err(Refused::TooLarge { bytes, most: self.most_bytes });
        }
        let mut table = self.lock();
        if table.bytes + table.reserved + bytes > self.most_bytes {
            return Err(Refused::Full);
        }
        table.reserved += bytes;
        Ok(Reservation { blobs: self.clone(), bytes })
    }

    /// Removes the files of those without a reference. Whatever removed their last records has to be durable.
    pub fn remove_unreferenced(&self) -> io::Result<()> {
        let mut table = self.lock();
        while let Some(digest) = table.unreferenced.pop() {
            let Some(entry) = table.entries.get_mut(&digest) else { continue };
            match &entry.state {
                State::Durable(reference) if reference.strong_count() == 0 => entry.state = State::Removing,
                _ => continue,
            }
            drop(table);
            let removed = self.storage.remove(&path(&digest));
            table = self.lock();
            table.forget(&digest);
            self.changed.notify_all();
            removed?;
        }
        Ok(())
    }

    /// Bytes of all blobs.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// The blob, if it is durable; `None` after its entry says that it is being written.
    fn find_or_begin(self: &Arc<Self>, name: BlobName) -> Result<Option<Blob>, Refused> {
        let mut table = self.lock();
        while let Some(entry) = table.entries.get_mut(&name.digest) {
            if let State::Durable(_) = entry.state {
                if let Some(blob) = entry.reference() {
                    return Ok(Some(blob));
                }
                let (blob, state) = self.reference(name);
                entry.state = state;
                return Ok(Some(blob));
            }
            table = self.changed.wait(table).expect("no panic while the lock is held");
        }
        if name.bytes > self.most_bytes {
            return Err(Refused::TooLarge { bytes: name.bytes, most: self.most_bytes });
        }
        if table.bytes + name.bytes > self.most_bytes {
            return Err(Refused::Full);
        }
        table.bytes += name.bytes;
        table.entries.insert(name.digest, Entry { bytes: name.bytes, state: State::Writing });
        Ok(None)
    }

    fn write_file(&self, digest: BlobDigest, bytes: &[u8]) -> Result<(), Refused> {
        let (path, partial) = (path(&digest), format!("{}{PARTIAL}", path(&digest)));
        // A disk that is full has lost nothing that was promised.
        let full_or_failed = |error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refused::Full,
            _ => Refused::Failed(Failed::new(error)),
        };
        let written = (|| {
            let file = self.storage.open(&partial, Access::Create)?;
            file.preallocate(bytes.len() as u64)?;
            file.write_at(bytes, 0)?;
            Ok(file)
        })();
        let file = match written.map_err(full_or_failed) {
            Err(refused) => {
                // What cannot be removed now goes at the next start.
                let _ = self.storage.remove(&partial);
                return Err(refused);
            }
            Ok(file) => file,
        };
        let synced = file.sync_data().and_then(|()| {
            self.storage.rename(&partial, &path)?;
            self.storage.sync_folder(FOLDER)
        });
        synced.map_err(|error| Refused::Failed(Failed::new(error)))
    }

    fn reference(self: &Arc<Self>, name: BlobName) -> (Blob, State) {
        let reference = Arc::new(Reference { name, table: Arc::downgrade(self) });
        let state = State::Durable(Arc::downgrade(&reference));
        (Blob(reference), state)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no panic while the lock is held")
    }
}

/// Room for a payload that is to be a blob.
pub(crate) struct Reservation {
    blobs: Arc<Blobs>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.blobs.lock().reserved -= self.bytes;
    }
}

impl Entry {
    fn reference(&self) -> Option<Blob> {
        match &self.state {
            State::Durable(reference) => reference.upgrade().map(Blob),
            State::Writing | State::Removing => None,
        }
    }
}

impl Table {
    fn forget(&mut self, digest: &BlobDigest) {
        if let Some(entry) = self.entries.remove(digest) {
            self.bytes -= entry.bytes;
        }
    }
}

impl Blob {
    pub(crate) fn name(&self) -> BlobName {
        self.0.name
    }
}

/// The bytes of a blob, whole by its digest.
pub(crate) fn read(storage: &dyn Storage, name: BlobName) -> io::Result<Vec<u8>> {
    let file = storage.open(&path(&name.digest), Access::Read)?;
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the blob is not what its name says");
    if file.len()? != name.bytes {
        return Err(damaged());
    }
    let mut bytes = vec![0; usize::try_from(name.bytes).map_err(|_| damaged())?];
    let count = file.read_at(&mut bytes, 0)?;
    (count == bytes.len() && BlobDigest::of(&bytes) == name.digest).then_some(bytes).ok_or_else(damaged)
}

/// What is wrong with a blob's file, if anything is.
pub(crate) fn verify(storage: &dyn Storage, name: BlobName) -> io::Result<Result<(), BlobDamage>> {
    let file = match storage.open(&path(&name.digest), Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(BlobDamage::Missing)),
        file => file?,
    };
    if file.len()? != name.bytes {
        return Ok(Err(BlobDamage::Altered));
    }
    let (mut hasher, mut chunk, mut offset) = (Sha256::new(), vec![0; CHUNK_BYTES], 0);
    loop {
        match file.read_at(&mut chunk, offset)? {
            0 => break,
            count => {
                hasher.update(&chunk[..count]);
                offset += count as u64;
            }
        }
    }
    let whole = BlobDigest(hasher.finalize().into()) == name.digest;
    Ok(if whole { Ok(()) } else { Err(BlobDamage::Altered) })
}

/// What is wrong with the file of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobDamage {
    /// There is none.
    Missing,
    /// Its content does not have the digest.
    Altered,
}

pub(crate) fn path(digest: &BlobDigest) -> String {
    format!("{FOLDER}/{digest}")
}
