//! What the embedded broker keeps in the journal: sessions that outlive their connection, their messages, retained
//! messages.
//!
//! Each record of the broker is one of the journal, under a kind of its own, in the form of [`format`]. The broker's
//! keys are the journal's ids, so nothing has to be looked up. A record that is too long for the log is a blob.

pub mod format;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

use super::moment::Moment;
use offload_broker::Storage;
use offload_broker::storage::{self, Batch, Key, NotStored, OnDurable, Ticket};
use offload_journal::{BLOB_FROM, Failed, Journal, Record, RecordId, Refused};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The journal as the broker's storage, and what it begins with.
pub struct BrokerStorage {
    /// Where it keeps records.
    pub storage: Arc<dyn Storage>,
    /// Those that an earlier process has left.
    pub records: Vec<(Key, storage::Record)>,
}

impl BrokerStorage {
    /// Takes over the journal's records of the broker's kinds. This waits for the disk: not for a thread that must not
    /// block.
    pub fn recover(journal: &Arc<Journal>, records: Vec<Record>) -> BrokerStorage {
        let (mut whole, mut unreadable) = (Vec::with_capacity(records.len()), 0);
        for record in records {
            match read(journal, &record) {
                Ok(decoded) => whole.push((Key(record.id.0), decoded)),
                Err(error) => {
                    unreadable += 1;
                    tracing::debug!(kind = record.kind, %error, "a record of the broker cannot be read");
                }
            }
        }
        if unreadable > 0 {
            tracing::error!(
                records = unreadable,
                "sessions or retained messages cannot be read, by this version at least: they are left alone; \
                 `offload-rt journal show` lists them"
            );
        }
        BrokerStorage { storage: Arc::new(JournalStorage(journal.clone())), records: whole }
    }
}

fn read(journal: &Journal, record: &Record) -> io::Result<storage::Record> {
    let payload;
    let bytes = match &record.blob {
        Some(blob) => {
            payload = journal.read_blob(blob)?;
            &payload
        }
        None => &record.bytes,
    };
    format::decode(record.kind, bytes)
        .map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))
}

struct JournalStorage(Arc<Journal>);

impl Storage for JournalStorage {
    fn batch(&self) -> Box<dyn Batch> {
        Box::new(JournalBatch { journal: self.0.clone(), batch: self.0.batch() })
    }

    fn withdraw(&self, Ticket(number): Ticket) -> bool {
        self.0.withdraw(offload_journal::Ticket(number))
    }

    fn now(&self) -> storage::Moment {
        storage::Moment(Moment::now().parts())
    }

    fn age(&self, storage::Moment(parts): storage::Moment) -> Duration {
        Moment::of_parts(parts).age(&Moment::now())
    }
}

struct JournalBatch {
    journal: Arc<Journal>,
    batch: offload_journal::Batch,
}

impl Batch for JournalBatch {
    fn put(&mut self, record: storage::Record) -> Key {
        let (kind, bytes) = format::encode(&record);
        // A long one is written as a blob: by the journal's thread, since nothing waits for the disk here.
        let RecordId(id) = match bytes.len() {
            ..BLOB_FROM => self.batch.put(kind, &bytes),
            _ => self.batch.put_payload(kind, &[], bytes),
        };
        Key(id)
    }

    fn remove(&mut self, Key(id): Key) {
        self.batch.remove(RecordId(id));
    }

    fn commit(self: Box<Self>, on_durable: Option<OnDurable>) -> Result<Ticket, NotStored> {
        let JournalBatch { journal, batch } = *self;
        let staged = match on_durable {
            Some(on_durable) => {
                let staged = journal
                    .stage(batch, |durable| on_durable(durable.map_err(|failed| not_durable(&failed))));
                journal.commit();
                staged
            }
            None => journal.stage_lazily(batch),
        };
        staged.map(|ticket| Ticket(ticket.0)).map_err(|refused| match refused {
            Refused::Full | Refused::TooLarge { .. } => NotStored::Full,
            Refused::Closed | Refused::Failed(_) => NotStored::Failed,
        })
    }
}

/// A disk that is full is no failure.
fn not_durable(failed: &Failed) -> NotStored {
    match failed.cause().kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => NotStored::Full,
        _ => NotStored::Failed,
    }
}
