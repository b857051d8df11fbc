//! placeholder
mod blobs;
mod config;
mod error;
mod format;
mod journal;
mod log;
mod record;
mod recovery;
mod segment;
mod storage;
mod writer;

pub use blobs::{Blob, BlobDamage, BlobDigest};
pub use config::{
    BLOB_FROM, Config, DEFAULT_SYNC_INTERVAL, Durability, MAX_BATCH_BYTES, MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES,
    MIN_SEGMENTS,
};
pub use error::{Failed, OpenError, Refused};
pub use format::FORMAT_VERSION;
pub use journal::{Health, Journal, MAX_SET_ASIDE_BYTES, check, check_on, salvage};
pub use record::{Batch, Record, RecordId};
pub use recovery::{Damage, Recovery, Region};
pub use storage::{Access, Disk, File, Storage};
pub use writer::Stats;
