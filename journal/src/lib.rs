//! A durable set of records: put, removed, and there again after a crash, in the order in which they were put.
//!
//! The records are opaque bytes with a kind; the journal knows nothing of requests, MQTT or clients. They change in
//! [batches](Batch) that are there as a whole after a crash, or not at all. Whoever appends one hears by a completion,
//! on the journal's own thread, that it is durable. Large payloads are kept once each, as [blobs](Blob), by digest.
//!
//! ```
//! use offload_journal::{Config, Journal};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("journal");
//! let (journal, recovery) = Journal::open(&path, &Config::default())?;
//! assert!(recovery.records.is_empty());
//! let mut batch = journal.batch();
//! batch.put(1, b"a request");
//! let (done, completion) = std::sync::mpsc::channel();
//! journal.append(batch, move |result| done.send(result).expect("awaited"))?;
//! // Acknowledged after this, and never lost.
//! completion.recv()??;
//! journal.close()?;
//!
//! let (journal, recovery) = Journal::open(&path, &Config::default())?;
//! assert_eq!(recovery.records[0].bytes, b"a request");
//! let mut batch = journal.batch();
//! batch.remove(recovery.records[0].id);
//! journal.append(batch, |_| {})?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! | | completed with [`Durability::Always`] | with [`Durability::Batch`] |
//! | --- | --- | --- |
//! | `kill -9`, a panic, a crash of the process | nothing is lost | nothing is lost |
//! | power cut, crash of the kernel | nothing is lost | what came in the last 100 ms, or what is configured |
//! | a disk that says it has synced, and has not | what it lost; reported where a later batch is there | the same |
//! | a bit that flips on the disk | the batch that it is in; reported, unless it is the last one of all | the same |
//!
//! After any crash a batch is whole or gone, no batch is lost while a later one is kept, and nothing comes back whose
//! removal was completed. There is no mode that promises nothing: do without a journal then.
//!
//! A failed write or fsync is never tried again. The journal has [failed](Failed) from then on: completions that wait
//! get the cause, [`Journal::append`] returns it, and [`Journal::on_failure`] tells it once. What was completed before
//! is there after a restart. A disk that is *full* is no failure: room for records is reserved before it is needed, so
//! appending is [`Refused::Full`] and removing goes on.
//!
//! # Group commit
//!
//! A batch that finds the thread asleep is written and synced at once. What comes during that sync is the next group:
//! one `pwrite` and one `fdatasync` for all of it. No timer delays anybody. Appending is a push under a lock.
//!
//! Until a batch is taken for a group, it can be [withdrawn](Journal::withdraw), and is never written: a record that is
//! not needed any more when its turn comes costs no disk. Several batches, or a batch and the work that may make it
//! needless, are [staged](Journal::stage) first and [committed](Journal::commit) together. A batch that nobody waits
//! for, such as the removal of a record, is [appended lazily](Journal::append_lazily): it is written with the next
//! group, at the latest after 50 ms.
//!
//! A record that is too long for the log can be put with [its payload](Batch::put_payload): the thread makes that a
//! blob before it writes the batch. Whoever may block makes the blob itself, and holds up nobody.
//!
//! # Space
//!
//! The log is a ring of segments, used and recycled first in, first out, so that a removal outlives the record that it
//! removes. A segment without live records is free. When fewer than three segments are free, the cleaner copies the
//! live records of the oldest one to the end of the log, a little after each group. Live records take at most half of
//! the log, by their bytes with those of the frames that will remove them, so there is always room to remove.
//!
//! | limit | default | |
//! | --- | --- | --- |
//! | [`Config::log_bytes`] | 256 MiB | all segments; begins with six of them, grows to twice what is live |
//! | [`Config::segment_bytes`] | 4 MiB | one segment, 16 KiB to 64 MiB; in memory while it is cleaned or recovered |
//! | [`Config::records`] | 1 000 000 | live records; 40 bytes of memory each |
//! | [`Config::blob_bytes`] | 1 GiB | all blobs |
//! | [`Config::queued_bytes`] | 16 MiB | batches that wait to be written |
//! | [`MAX_BATCH_BYTES`] | 1 MiB | a batch, and no more than a quarter of a segment |
//! | [`BLOB_FROM`] | 64 KiB | a record outside of a blob, and no more than an eighth of a segment |
//! | [`MAX_SET_ASIDE_BYTES`] | 256 MiB | damaged bytes that are kept |
//!
//! Recovery holds all live records in memory once.
//!
//! # The folder
//!
//! | name | holds |
//! | --- | --- |
//! | `lock` | nothing; locked (flock) by the process that has the journal open |
//! | `segment-0000` … | the segments, in no order: their headers say which is which |
//! | `blobs/<SHA-256>` | a blob; with `.partial` one that is being written |
//! | `damaged/` | what recovery could not read, by where it was; never read again, remove it at will |
//!
//! # The format, version 1
//!
//! Numbers are little endian. A segment begins with a header of 4096 bytes:
//!
//! | at | bytes | |
//! | --- | --- | --- |
//! | 0 | 8 | `offloadJ`; this and the next two are the same in every version |
//! | 8 | 4 | version |
//! | 12 | 4 | CRC32C of the first 12 bytes |
//! | 16 | 8 | segment id: grows with each use of a file |
//! | 24 | 8 | sequence number of the first frame; all before it were durable when this was written |
//! | 32 | 8 | start: frames before this one hold nothing live |
//! | 40 | 8 | no frame before the segment has this record id or a later one |
//! | 48 | 8 | salt: random, the same in the whole journal |
//! | 56 | 4 | bytes of the segment |
//! | 60 | 4 | CRC32C of the bytes from 16 on |
//!
//! Then frames, one a batch, each at a multiple of 8:
//!
//! | at | bytes | |
//! | --- | --- | --- |
//! | 0 | 4 | CRC32C of the salt, the rest of the frame's header, and its body |
//! | 4 | 4 | bytes of the body |
//! | 8 | 8 | segment id: an old frame of a recycled file has another one |
//! | 16 | 8 | sequence number: the next in the whole journal, without gaps |
//! | 24 | 8 | all frames before this one were durable when this was written |
//! | 32 | | the body: entries |
//!
//! | entry | bytes |
//! | --- | --- |
//! | record | `1`, kind (1), length (4), record id (8), the record |
//! | record with a blob | `2`, kind (1), length (4), record id (8), digest (32), bytes of the blob (8), the record |
//! | removal | `3`, record id (8) |
//! | start | `4`, sequence number (8); ends a segment, so that older ones can be recycled |
//!
//! A recycled file gets its new header, synced, before any new frame. A recovery never writes behind what it has found:
//! it begins a segment, and that segment's header cuts off whatever is left of the torn tail. Another version of the
//! format is refused, never misread.
//!
//! # Torn or damaged
//!
//! Frames say what was durable when they were written, so recovery knows which missing frames had been promised. One
//! that was not is the torn tail of a crash: it is cut off, with all that was written in the same moment, and counted
//! in [`Recovery::torn_bytes`]. One that was is [`Damage`]: what is whole before and behind it counts, the damaged
//! bytes are set aside, and whatever is live is copied out of the damaged segment. A record that a damaged batch had
//! removed may be back. What nothing behind it tells of, the last frame of a journal that was not closed or its whole
//! last segment, cannot be told from a torn tail.

mod blobs;
mod config;
mod error;
mod format;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod ids;
mod journal;
mod log;
mod record;
mod recovery;
mod segment;
mod storage;
mod writer;

pub use blobs::{Blob, BlobDamage};
pub use config::{
    BLOB_FROM, Config, DEFAULT_SYNC_INTERVAL, Durability, MAX_BATCH_BYTES, MAX_SEGMENT_BYTES,
    MIN_SEGMENT_BYTES, MIN_SEGMENTS,
};
pub use error::{Failed, OpenError, Refused};
pub use format::FORMAT_VERSION;
pub use ids::{BlobDigest, RecordId};
pub use journal::{Health, Journal, MAX_SET_ASIDE_BYTES, check, check_on, salvage};
pub use record::{Batch, Record};
pub use recovery::{Damage, Recovery, Region};
pub use storage::{Access, Disk, File, Storage};
pub use writer::{Stats, Ticket};
