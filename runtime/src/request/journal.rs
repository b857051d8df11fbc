//! What outlives a crash: the journal has a request before its publisher may believe that it is safe.
//!
//! A request at QoS 1 or 2 on the embedded broker is put into the journal, and runs while the disk syncs. Its publisher
//! hears that it is safe when the record is durable, or when all who got its answer have acknowledged that: so a short
//! request needs no disk at all ([`kept`]). The outcome of a request with an `id` is durable before it is answered,
//! whatever the QoS and the broker ([`outcome`]). What an earlier process has left is in [`recovery`](super::recovery).

pub mod describe;
pub mod kept;
pub mod outcome;
pub mod promise;
mod record;

use crate::log_sampling::sampled;
use crate::stopping::stopping_error;
use offload_journal::{BLOB_FROM, Batch, Blob, BlobDigest, Journal, Record, RecordId, Refused};
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::Digest;
use offload_seal::AnswerKey;
pub use record::{Arrived, Draft};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::Handle;

/// Keeps requests and outcomes.
pub struct RequestJournal {
    journal: Arc<Journal>,
    /// Bytes of all large payloads together.
    max_payloads: u64,
    /// Where large payloads are written.
    runtime: Handle,
    /// Requests that are left for the next process.
    left: AtomicUsize,
    /// Seals the outcomes of sealed requests.
    secret: Option<AnswerKey>,
}

impl RequestJournal {
    /// In this journal, with the limits of this configuration.
    pub fn new(journal: Arc<Journal>, max_payloads: u64, runtime: Handle) -> RequestJournal {
        RequestJournal { journal, max_payloads, runtime, left: AtomicUsize::new(0), secret: None }
    }

    /// Takes outcomes of sealed requests too, sealed with a key that derives from this one, so that no copy of the
    /// journal shows them.
    #[must_use]
    pub fn sealing(self, secret: &[u8; 32]) -> RequestJournal {
        let derived = Digest::of(&[&b"offload-rt sealed outcomes 1"[..], secret].concat());
        RequestJournal { secret: Some(AnswerKey::new(&derived.0)), ..self }
    }

    /// Seals the outcomes of sealed requests.
    pub fn secret(&self) -> Option<&AnswerKey> {
        self.secret.as_ref()
    }

    /// Has what was staged written.
    pub fn commit(&self) {
        self.journal.commit();
    }

    /// How many requests are left for the next process.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    /// One request more is.
    pub fn leave(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes records, with the next sync.
    pub fn remove(&self, ids: impl IntoIterator<Item = RecordId>) {
        let mut batch = self.journal.batch();
        ids.into_iter().for_each(|id| batch.remove(id));
        if !batch.is_empty() {
            // A journal that has failed, or was closed, has said so.
            let _ = self.journal.append_lazily(batch);
        }
    }

    /// Waits until all that was appended so far is durable, or never will be.
    pub async fn flush(&self) {
        let (done, durable) = tokio::sync::oneshot::channel();
        let tell = move |_| done.send(()).unwrap_or_default();
        // An empty batch is durable when all before it are.
        if self.journal.append(self.journal.batch(), tell).is_ok() {
            let _ = durable.await;
        }
    }

    /// Whether a payload of this length can be kept beside the log.
    fn has_room_for(&self, payload: usize) -> bool {
        self.journal.stats().blob_bytes + payload as u64 <= self.max_payloads
    }

    /// Puts a record, with what is long beside the log. Waits for the disk if anything is.
    fn put(&self, batch: &mut Batch, kind: u8, head: &[u8], long: &[u8]) -> Result<RecordId, Refused> {
        if is_short(head, long) {
            return Ok(batch.put(kind, &[head, long].concat()));
        }
        if head.len() < BLOB_FROM / 2 {
            let blob = self.journal.write_blob(BlobDigest::of(long), long)?;
            return Ok(batch.put_blob(kind, head, &blob));
        }
        let whole = [head, long].concat();
        let blob = self.journal.write_blob(BlobDigest::of(&whole), &whole)?;
        Ok(batch.put_blob(kind, &[], &blob))
    }

    /// What [`put`](Self::put) has put: what of it is in the record, and what is beside the log. Waits for the disk.
    pub fn read(&self, record: &Record) -> io::Result<Vec<u8>> {
        let read = |blob: &Blob| self.journal.read_blob(blob);
        let long = record.blob.as_ref().map(read).transpose()?.unwrap_or_default();
        Ok([&record.bytes[..], &long].concat())
    }
}

/// Whether a record of these two parts needs no blob.
fn is_short(head: &[u8], long: &[u8]) -> bool {
    head.len() + long.len() < BLOB_FROM
}

/// To a request that the journal does not take.
pub fn refusal(refused: &Refused) -> WireError {
    match refused {
        Refused::Full => {
            sampled!(
                warn,
                "the journal is full: requests are answered `busy`. Raise journal.log, journal.payloads or \
                 journal.records, or make room on the disk"
            );
            let message = "the journal is full (journal.log, journal.payloads, journal.records, or the disk), try \
                           again after 5 s";
            WireError::new(ErrorKind::Busy, message)
        }
        Refused::TooLarge { bytes, most } => {
            let message = format!("request: {bytes} bytes, the journal takes {most}");
            WireError::new(ErrorKind::TooLarge, message)
        }
        // The process ends.
        Refused::Failed(_) | Refused::Closed => stopping_error(),
    }
}
