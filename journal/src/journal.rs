//! The journal as its users see it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::blobs::{self, Blob, BlobDamage, Blobs};
use crate::config::{Config, DEFAULT_SYNC_INTERVAL, Durability, Layout};
use crate::error::{Failed, OpenError, Refused, While};
use crate::ids::{BlobDigest, RecordId};
use crate::log::Log;
use crate::record::Batch;
use crate::recovery::{Damage, Recovery, Region, Scan, scan};
use crate::storage::{Access, Disk, Storage};
use crate::writer::{Completion, Shared, Stats, Ticket, Writer};

/// The folder of what was damaged.
const DAMAGED: &str = "damaged";

/// Bytes that the folder of what was damaged may take: what comes when it is full is reported and not kept.
pub const MAX_SET_ASIDE_BYTES: u64 = 256 * 1024 * 1024;

/// An open journal. Dropping it makes durable what was appended; see [`close`](Self::close).
pub struct Journal {
    storage: Arc<dyn Storage>,
    shared: Arc<Shared>,
    blobs: Arc<Blobs>,
    ids: Arc<AtomicU64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Whether a journal takes batches.
#[derive(Clone, Debug)]
pub enum Health {
    /// It does.
    Sound,
    /// It never will again: a write or sync has failed.
    Failed(Failed),
}

impl Journal {
    /// Opens the journal in a folder, and makes both where they are not there (the parent has to be). Whatever was
    /// damaged is copied into `damaged` in that folder, and what is whole is written anew, so that the next opening
    /// finds no damage.
    ///
    /// # Errors
    /// When the configuration contradicts itself, another process has the journal open, another version has written it,
    /// or the system refuses.
    pub fn open(path: &Path, config: &Config) -> Result<(Journal, Recovery), OpenError> {
        Self::open_on(Arc::new(Disk::create(path).doing("make the journal's folder")?), config)
    }

    /// Opens the journal on a storage.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on(storage: Arc<dyn Storage>, config: &Config) -> Result<(Journal, Recovery), OpenError> {
        config.validate().map_err(OpenError::Config)?;
        let lock = storage.lock(true).map_err(in_use)?;
        let mut scan = scan(&*storage)?;
        scan.check_blobs(&*storage).doing("read a blob")?;
        set_aside(&*storage, &scan).doing("set damaged bytes aside")?;
        let segment_bytes = scan.header.map_or(config.segment_bytes, |header| header.segment_bytes);
        let layout = Layout::new(segment_bytes, config.log_bytes);
        let salt = match scan.header {
            Some(header) => header.salt,
            None => getrandom::u64()
                .map_err(|error| io::Error::other(error.to_string()))
                .doing("get a random number")?,
        };
        let blobs = Blobs::open(storage.clone(), config.blob_bytes).doing("open the blobs")?;
        let adopted: HashMap<RecordId, Blob> =
            scan.live.iter().filter_map(|(id, record)| Some((*id, blobs.adopt(record.blob?)))).collect();
        let blob_of = |id| adopted.get(&id).cloned();
        let lost = scan.damage.iter().filter_map(Damage::lost_record).collect::<Vec<_>>();
        let log = Log::open(storage.clone(), layout, salt, &scan, blob_of, &lost).doing("open the log")?;
        // Not before what removed their records is durable.
        blobs.remove_others().doing("remove blobs that nobody names")?;
        let shared = Arc::new(Shared::new(config, &layout, &log));
        let ids = Arc::new(AtomicU64::new(log.next_record()));
        let writer = Writer::new(shared.clone(), blobs.clone(), log, config.durability, lock);
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run());
        let thread = Mutex::new(Some(thread.doing("start the journal's thread")?));
        let recovery = scan.into_recovery(|name| blobs.adopt(name));
        Ok((Journal { storage, shared, blobs, ids, thread }, recovery))
    }

    /// An empty batch.
    pub fn batch(&self) -> Batch {
        Batch::new(self.ids.clone())
    }

    /// Appends a batch: after a crash all of it is there, or nothing. This takes a lock for a moment and waits for no
    /// disk; batches are written in the order of these calls, and the completions are called in that order, on the
    /// journal's thread. Whatever they do delays the next sync.
    ///
    /// The completion comes when the batch is durable ([`Durability`](crate::Durability) says what that is), or with
    /// the cause when it may not be. One that panics is reported by the panic hook, and leaves the journal as it is.
    ///
    /// # Errors
    /// When the batch is not taken; the completion is dropped. A batch without new records is never [`Refused::Full`]:
    /// an empty one tells when all before it is durable, however full the journal is.
    pub fn append(
        &self,
        batch: Batch,
        on_durable: impl FnOnce(Result<(), Failed>) + Send + 'static,
    ) -> Result<(), Refused> {
        self.stage(batch, on_durable)?;
        self.commit();
        Ok(())
    }

    /// As [`append`](Self::append), but the batch may wait for [`commit`](Self::commit), which has to follow soon.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn stage(
        &self,
        batch: Batch,
        on_durable: impl FnOnce(Result<(), Failed>) + Send + 'static,
    ) -> Result<Ticket, Refused> {
        self.stage_with(batch, Some(Box::new(on_durable)))
    }

    /// Has what was staged, on any thread, written as soon as the disk is free.
    pub fn commit(&self) {
        self.shared.commit();
    }

    /// Appends a batch that nobody waits for: it is written with the next one that somebody waits for, at the latest
    /// after 50 ms, and in its place among the others. This is for removals, whose loss has a record come back.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn append_lazily(&self, batch: Batch) -> Result<(), Refused> {
        self.stage_lazily(batch).map(drop)
    }

    /// As [`append_lazily`](Self::append_lazily), for one that may be [withdrawn](Self::withdraw).
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn stage_lazily(&self, batch: Batch) -> Result<Ticket, Refused> {
        self.stage_with(batch, None)
    }

    fn stage_with(&self, mut batch: Batch, on_durable: Option<Completion>) -> Result<Ticket, Refused> {
        let payloads = std::mem::take(&mut batch.payloads).into_iter();
        let reserved = payloads
            .map(|payload| Ok((self.blobs.reserve(payload.bytes.len() as u64)?, payload)))
            .collect::<Result<_, Refused>>()?;
        self.shared.stage(batch, reserved, on_durable)
    }

    /// Takes back a batch that waits to be written: none of it is, and its completion is dropped. False when it is too
    /// late for that; the completion comes then.
    pub fn withdraw(&self, ticket: Ticket) -> bool {
        self.shared.withdraw(ticket)
    }

    /// Makes bytes durable as a blob that records can name, or finds that they are. `digest` is that of the bytes
    /// ([`BlobDigest::of`], which takes some 20 ms for 8 MB where the processor has no instructions for it), and is
    /// believed until the blob is read. This waits for the disk: not for a thread that must not block.
    ///
    /// # Errors
    /// When there is no room. A failure of the disk fails the journal.
    pub fn write_blob(&self, digest: BlobDigest, bytes: &[u8]) -> Result<Blob, Refused> {
        if let Some(failed) = self.shared.failed() {
            return Err(failed.into());
        }
        let blob = self.blobs.write(digest, bytes);
        if let Err(Refused::Failed(failed)) = &blob {
            self.shared.fail(failed.clone());
        }
        blob
    }

    /// The bytes of a blob, whole by its digest. This waits for the disk.
    ///
    /// # Errors
    /// What the system says; `InvalidData` when the file was altered.
    pub fn read_blob(&self, blob: &Blob) -> io::Result<Vec<u8>> {
        blobs::read(&*self.storage, blob.name())
    }

    /// Whether the journal takes batches.
    pub fn health(&self) -> Health {
        self.shared.failed().map_or(Health::Sound, Health::Failed)
    }

    /// Is told once, when the journal fails: on the thread that has found it out, or on this one when it has failed
    /// already.
    pub fn on_failure(&self, hook: impl FnOnce(Failed) + Send + 'static) {
        self.shared.on_failure(Box::new(hook));
    }

    /// What it holds.
    pub fn stats(&self) -> Stats {
        self.shared.stats(&self.blobs)
    }

    /// Writes what was appended, makes it durable, and ends: nothing more is taken, and the folder is free for another
    /// process. This waits for the disk.
    ///
    /// # Errors
    /// When the journal has failed, now or before.
    pub fn close(&self) -> Result<(), Failed> {
        self.shared.close();
        let mut thread = self.thread.lock().expect("no panic while the lock is held");
        // A completion may drop the last reference, on the thread itself.
        if let Some(thread) =
            thread.take().filter(|thread| thread.thread().id() != std::thread::current().id())
        {
            thread.join().expect("the journal's thread catches panics");
        }
        drop(thread);
        self.shared.failed().map_or(Ok(()), Err)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Whoever appended has heard of a failure.
        let _ = self.close();
    }
}

/// Reads a journal that no process has open, and changes nothing.
///
/// # Errors
/// `NotFound` when there is none; otherwise as [`Journal::open`].
pub fn check(path: &Path) -> Result<Recovery, OpenError> {
    check_on(&Disk::existing(path).doing("find the journal's folder")?)
}

/// Reads the journal on a storage, and changes nothing.
///
/// # Errors
/// As [`check`].
pub fn check_on(storage: &dyn Storage) -> Result<Recovery, OpenError> {
    let _lock = storage.lock(false).map_err(in_use)?;
    let mut scan = scan(storage)?;
    scan.check_blobs(storage).doing("read a blob")?;
    Ok(scan.into_recovery(Blob::unowned))
}

/// Copies what is whole of a journal into a new one in another folder; the records have new ids there, in the same
/// order. The old one is not changed.
///
/// # Errors
/// When one of the two cannot be opened, there is a journal in the other folder, or it has no room.
pub fn salvage(from: &Path, into: &Path, config: &Config) -> Result<Recovery, OpenError> {
    let storage = Disk::existing(from).doing("find the journal's folder")?;
    let recovery = check_on(&storage)?;
    // One sync at the end is enough.
    let durability = Durability::Batch { sync_interval: DEFAULT_SYNC_INTERVAL };
    let (journal, found) = Journal::open(into, &Config { durability, ..config.clone() })?;
    if !found.records.is_empty() || !found.damage.is_empty() {
        return Err(OpenError::Occupied);
    }
    for record in &recovery.records {
        let mut batch = journal.batch();
        match &record.blob {
            Some(blob) => {
                let bytes = blobs::read(&storage, blob.name()).doing("read a blob")?;
                batch.put_blob(record.kind, &record.bytes, &journal.write_blob(blob.digest(), &bytes)?);
            }
            None => {
                batch.put(record.kind, &record.bytes);
            }
        }
        append_and_wait(&journal, batch)?;
    }
    journal.close().map_err(Refused::from)?;
    Ok(recovery)
}

fn append_and_wait(journal: &Journal, batch: Batch) -> Result<(), Refused> {
    let (done, durable) = std::sync::mpsc::channel();
    journal.append(batch, move |result| drop(done.send(result)))?;
    Ok(durable.recv().expect("every batch is completed")?)
}

/// Copies what is damaged, before its files are used again.
fn set_aside(storage: &dyn Storage, scan: &Scan) -> io::Result<()> {
    if scan.damage.is_empty() {
        return Ok(());
    }
    storage.create_folder(DAMAGED)?;
    let mut room = MAX_SET_ASIDE_BYTES;
    for file in storage.list(DAMAGED)? {
        room = room.saturating_sub(storage.open(&format!("{DAMAGED}/{file}"), Access::Read)?.len()?);
    }
    for damage in &scan.damage {
        match damage {
            Damage::Batches { sequences, regions } => {
                for region in regions {
                    copy(storage, region, sequences.start, &mut room)?;
                }
            }
            Damage::Header { file } => {
                let bytes = 0..storage.open(file, Access::Read)?.len()?;
                copy(storage, &Region { file: file.clone(), bytes }, scan.end, &mut room)?;
            }
            Damage::Blob { digest, damage: BlobDamage::Altered, .. } => {
                let to = format!("{DAMAGED}/blob-{digest}");
                match storage.rename(&blobs::path(digest), &to) {
                    // Another record has named it too.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    renamed => renamed?,
                }
            }
            Damage::Blob { damage: BlobDamage::Missing, .. } => {}
        }
    }
    storage.sync_folder("")?;
    storage.sync_folder(DAMAGED)
}

fn copy(storage: &dyn Storage, region: &Region, sequence: u64, room: &mut u64) -> io::Result<()> {
    let length = region.bytes.end - region.bytes.start;
    let Some(rest) = room.checked_sub(length) else { return Ok(()) };
    *room = rest;
    let mut bytes = vec![0; length as usize];
    let count = storage.open(&region.file, Access::Read)?.read_at(&mut bytes, region.bytes.start)?;
    let to = format!("{DAMAGED}/{sequence}-{}-{}", region.file, region.bytes.start);
    let file = storage.open(&to, Access::Create)?;
    file.write_at(&bytes[..count], 0)?;
    file.sync_data()
}

fn in_use(source: io::Error) -> OpenError {
    match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse,
        _ => OpenError::Io { doing: "lock the journal", source },
    }
}
