//! What outlives a crash: one journal below the data directory, for all who keep something in it.
//!
//! [`open`] gives the journal and what an earlier process has left in it. Whoever keeps records there has kinds of its
//! own ([`kind`]), takes its records out of [`Recovered`] at the start, and appends to the journal from then on.
//!
//! A journal that has failed takes nothing any more. The gateway then ends, with [`EXIT_JOURNAL_FAILED`]: what was
//! acknowledged is in the journal, and the next process runs it.

pub mod encoding;
mod failure;
pub mod kind;
pub mod moment;
mod recovered;
pub mod sessions;

use crate::config::{self, Config};
use crate::data_dir::DataDir;
use failure::report;
pub use failure::{EXIT_JOURNAL_FAILED, Failure};
use offload_journal::{Journal, OpenError};
pub use recovered::Recovered;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The journal's folder in the data directory.
pub const FOLDER: &str = "journal";

/// The fewest bytes of a segment: its records can be as long as those that are no blobs.
const MIN_SEGMENT_BYTES: u64 = 1 << 20;
/// The most bytes of a segment: as the journal's own default.
const MAX_SEGMENT_BYTES: u64 = 4 << 20;
/// Segments in a log of the default size. A smaller log has smaller ones, so that little of it is preallocated.
const SEGMENTS: u64 = 64;
/// The journal's sizes are multiples of it.
const PAGE_BYTES: u64 = 4096;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the journal {}: {source}; `offload-rt journal check` says more", path.display())]
pub struct DurabilityError {
    path: PathBuf,
    source: OpenError,
}

/// An open journal, or none.
pub struct Opened {
    /// `None` with `durability = "off"`.
    pub journal: Option<Arc<Journal>>,
    /// What is in it.
    pub recovered: Recovered,
    /// Tells when it has failed.
    pub failure: Failure,
    /// Whether nothing that was in it is lost.
    pub is_whole: bool,
}

/// Opens the journal of this data directory. This waits for the disk: not for a thread that must not block.
///
/// # Errors
///
/// When another process has it open, another version has written it, or the system refuses.
pub fn open(config: &Config, data_dir: &DataDir) -> Result<Opened, DurabilityError> {
    let (path, failure) = (data_dir.path().join(FOLDER), Failure::default());
    let Some(journal_config) = journal_config(config) else {
        if path.exists() {
            tracing::warn!(
                path = %path.display(),
                "durability is \"off\", and there is a journal: it is left alone, with whatever was acknowledged and \
                 not answered; another value of `durability` runs that"
            );
        }
        return Ok(Opened { journal: None, recovered: Recovered::default(), failure, is_whole: true });
    };
    let opened = Journal::open(&path, &journal_config);
    let (journal, recovery) = opened.map_err(|source| DurabilityError { path: path.clone(), source })?;
    report(&path, &recovery);
    let is_whole = recovery.damage.is_empty();
    let signal = failure.clone();
    journal.on_failure(move |failed| signal.tell(&failed));
    Ok(Opened { journal: Some(Arc::new(journal)), recovered: recovery.records.into(), failure, is_whole })
}

/// The folder of the journal in this data directory.
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join(FOLDER)
}

/// The journal's limits; `None` where there is to be none.
pub fn journal_config(config: &Config) -> Option<offload_journal::Config> {
    let limits = &config.journal;
    let durability = match config.durability {
        config::Durability::Always => offload_journal::Durability::Always,
        config::Durability::Batch => {
            offload_journal::Durability::Batch { sync_interval: limits.sync_interval.duration() }
        }
        config::Durability::Off => return None,
    };
    let segment_bytes = (limits.log.bytes() / SEGMENTS).clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES);
    Some(offload_journal::Config {
        durability,
        segment_bytes: segment_bytes - segment_bytes % PAGE_BYTES,
        log_bytes: limits.log.bytes(),
        blob_bytes: limits.payloads.bytes(),
        records: limits.records,
        queued_bytes: limits.queued.bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ByteSize, Durability};

    fn config(durability: Durability, log: ByteSize) -> Config {
        Config { durability, journal: config::Journal { log, ..Default::default() }, ..Config::default() }
    }

    #[test]
    fn the_smallest_log_and_the_default_are_limits_that_the_journal_takes() {
        let folder = tempfile::tempdir().unwrap();
        for (name, log) in [("small", ByteSize::mib(8)), ("default", config::Journal::default().log)] {
            let limits = journal_config(&config(Durability::Always, log)).unwrap();
            Journal::open(&folder.path().join(name), &limits).unwrap();
        }
        assert_eq!(journal_config(&Config::default()).unwrap(), offload_journal::Config::default());
    }

    #[test]
    fn a_journal_is_there_again_and_left_alone_when_it_is_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let data_dir = DataDir::open(&path).unwrap();
        let always = config(Durability::Always, ByteSize::mib(8));
        let off = config(Durability::Off, ByteSize::mib(8));
        assert!(open(&off, &data_dir).unwrap().journal.is_none());
        assert!(!path.join(FOLDER).exists());
        let opened = open(&always, &data_dir).unwrap();
        let journal = opened.journal.unwrap();
        let mut batch = journal.batch();
        batch.put(kind::REQUEST, b"a request");
        journal.append(batch, |_| {}).unwrap();
        drop(journal);
        assert!(open(&off, &data_dir).unwrap().recovered.take(kind::REQUEST).is_empty());
        let mut opened = open(&always, &data_dir).unwrap();
        let records = opened.recovered.take(kind::REQUEST);
        assert_eq!(records.iter().map(|record| &record.bytes[..]).collect::<Vec<_>>(), [b"a request"]);
        assert!(opened.recovered.take(kind::REQUEST).is_empty());
    }
}
