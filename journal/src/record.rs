//! Records, and the batches that put and remove them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::blobs::Blob;
use crate::format::{BLOB_BYTES, BlobName, DIGEST_AT, Entry, PUT_BYTES, REMOVE_BYTES, frame_bytes};
use crate::ids::{BlobDigest, RecordId};

/// A record as recovery hands it back.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its id, by which it can be removed.
    pub id: RecordId,
    /// What it is, in the words of whoever put it.
    pub kind: u8,
    /// What was put.
    pub bytes: Vec<u8>,
    /// The blob that it names, whole by its digest.
    pub blob: Option<Blob>,
}

/// Records to put and to remove, all or none of them: see [`Journal::append`](crate::Journal::append).
#[derive(Debug)]
pub struct Batch {
    ids: Arc<AtomicU64>,
    pub(crate) body: Vec<u8>,
    pub(crate) blobs: Vec<(RecordId, Blob)>,
    pub(crate) payloads: Vec<Payload>,
    pub(crate) usage: Usage,
    /// Bytes of the longest record.
    pub(crate) longest: usize,
}

impl Batch {
    pub(crate) fn new(ids: Arc<AtomicU64>) -> Batch {
        Batch {
            ids,
            body: Vec::new(),
            blobs: Vec::new(),
            payloads: Vec::new(),
            usage: Usage::default(),
            longest: 0,
        }
    }

    /// Puts a record. Bytes of [`BLOB_FROM`](crate::BLOB_FROM) and more belong into a blob.
    pub fn put(&mut self, kind: u8, bytes: &[u8]) -> RecordId {
        self.put_entry(kind, bytes, None)
    }

    /// Puts a record that names a blob, which is kept for as long as such a record lives.
    pub fn put_blob(&mut self, kind: u8, bytes: &[u8], blob: &Blob) -> RecordId {
        self.put_entry(kind, bytes, Some(blob))
    }

    /// Puts a record with a payload, which is made a blob on the journal's thread before the batch is written: the
    /// batch keeps its place, and nobody waits here. All batches behind it wait for that, too. Without room on the disk
    /// for the payload the batch is dropped, and its completion gets an error of the kind `StorageFull`.
    pub fn put_payload(&mut self, kind: u8, bytes: &[u8], payload: Vec<u8>) -> RecordId {
        let digest_at = self.body.len() + DIGEST_AT;
        // The digest is found on the journal's thread: it takes 20 ms for 8 MB where the processor does not help.
        let name = BlobName { digest: BlobDigest([0; 32]), bytes: payload.len() as u64 };
        let record = self.put_named(kind, bytes, Some(name));
        self.payloads.push(Payload { record, digest_at, bytes: payload });
        record
    }

    /// Removes a record. One that is not there any more is no error.
    pub fn remove(&mut self, id: RecordId) {
        Entry::Remove { id }.encode(&mut self.body);
    }

    /// Whether nothing is put or removed.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    fn put_entry(&mut self, kind: u8, bytes: &[u8], blob: Option<&Blob>) -> RecordId {
        let name = blob.map(|blob| BlobName { digest: blob.digest(), bytes: blob.len() });
        let id = self.put_named(kind, bytes, name);
        self.blobs.extend(blob.map(|blob| (id, blob.clone())));
        id
    }

    fn put_named(&mut self, kind: u8, bytes: &[u8], name: Option<BlobName>) -> RecordId {
        let id = RecordId(self.ids.fetch_add(1, Ordering::Relaxed));
        Entry::Put { id, kind, blob: name, bytes }.encode(&mut self.body);
        self.usage.add(Usage::of_record(bytes.len(), name.is_some()));
        self.longest = self.longest.max(bytes.len());
        id
    }
}

/// What a record names and is no blob yet.
#[derive(Debug)]
pub(crate) struct Payload {
    pub record: RecordId,
    /// Where its digest is in the body of the batch.
    pub digest_at: usize,
    pub bytes: Vec<u8>,
}

/// What records take of a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub records: u64,
    /// Bytes of the log that the records need, in a frame of their own each, with the frames that will remove them.
    pub bytes: u64,
}

impl Usage {
    pub fn of_record(bytes: usize, has_blob: bool) -> Usage {
        let entry = PUT_BYTES + bytes + if has_blob { BLOB_BYTES } else { 0 };
        Usage { records: 1, bytes: (frame_bytes(entry) + frame_bytes(REMOVE_BYTES)) as u64 }
    }

    pub fn add(&mut self, other: Usage) {
        self.records += other.records;
        self.bytes += other.bytes;
    }

    pub fn subtract(&mut self, other: Usage) {
        self.records -= other.records;
        self.bytes -= other.bytes;
    }
}
