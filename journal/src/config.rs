//! The limits of a journal, and what its completions promise.

use std::time::Duration;

use crate::format::{HEADER_BYTES, REMOVE_BYTES, frame_bytes};
pub use crate::format::{MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES};

/// Payloads from here on, in bytes, belong into a blob, which is a file of its own: below, what a file costs (its name
/// has to be durable too) is more than what a copy in the log does.
pub const BLOB_FROM: usize = 64 * 1024;

/// The longest batch in bytes, unless segments are small: what one write brings to the disk in a few milliseconds.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Segments that are not in use: one that the next frames go to, one for what is copied forward meanwhile, and one for
/// a recovery, which never writes behind what it finds.
pub(crate) const RESERVED_SEGMENTS: usize = 3;

/// Segments that a journal has from the beginning: those in reserve, and as many to work with.
pub(crate) const INITIAL_SEGMENTS: usize = 2 * RESERVED_SEGMENTS;

/// The fewest segments that the log may be limited to.
pub const MIN_SEGMENTS: u64 = 8;

/// When a batch counts as durable. A journal that is off is none: do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After fdatasync. Loses nothing that was completed, neither by `kill -9` nor by a power cut, as long as the disk
    /// keeps what it says that it has.
    Always,
    /// After write. Loses nothing by `kill -9`; a power cut or a crash of the kernel loses what was completed since the
    /// last fdatasync. A batch is whole or gone even so, and none is lost before a later one.
    Batch {
        /// The longest time between the write of a batch and the fdatasync that covers it begins.
        sync_interval: Duration,
    },
}

/// The longest time that [`Durability::Batch`] leaves a batch in memory alone, unless configured otherwise.
pub const DEFAULT_SYNC_INTERVAL: Duration = Duration::from_millis(100);

/// What a journal may take. All limits but `queued_bytes` hold across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// When a batch counts as durable. Default: [`Durability::Always`].
    pub durability: Durability,
    /// Bytes of a segment, a multiple of 4096; a journal keeps what it was made with. Default: 4 MiB, so that the two
    /// more fdatasyncs that a new segment costs come once in thousands of batches.
    pub segment_bytes: u64,
    /// Bytes of all segments together. The log begins with six of them and grows to twice what is live. Records may
    /// take half of it: so the cleaner copies at most one byte for each one that it frees. Default: 256 MiB.
    pub log_bytes: u64,
    /// Bytes of all blobs together. Default: 1 GiB.
    pub blob_bytes: u64,
    /// Live records; each takes some 40 bytes of memory. Default: one million.
    pub records: u64,
    /// Bytes of batches in memory that wait to be written. Default: 16 MiB.
    pub queued_bytes: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            durability: Durability::Always,
            segment_bytes: 4 * 1024 * 1024,
            log_bytes: 256 * 1024 * 1024,
            blob_bytes: 1024 * 1024 * 1024,
            records: 1_000_000,
            queued_bytes: 16 * 1024 * 1024,
        }
    }
}

impl Config {
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        if !self.segment_bytes.is_multiple_of(HEADER_BYTES as u64) {
            return Err("the bytes of a segment are no multiple of 4096");
        }
        if !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&self.segment_bytes) {
            return Err("a segment has 16 KiB to 64 MiB");
        }
        if self.log_bytes < MIN_SEGMENTS * self.segment_bytes {
            return Err("the log has at least eight segments");
        }
        Ok(())
    }
}

/// What follows from the sizes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub segment_bytes: u64,
    /// The most segments.
    pub segments: usize,
}

/// Bytes of the frame that ends a segment.
pub(crate) const SEAL_BYTES: usize = frame_bytes(REMOVE_BYTES);

impl Layout {
    pub fn new(segment_bytes: u64, log_bytes: u64) -> Layout {
        Layout { segment_bytes, segments: (log_bytes / segment_bytes).max(MIN_SEGMENTS) as usize }
    }

    /// Bytes of a segment that batches can have.
    pub fn room(&self) -> usize {
        self.segment_bytes as usize - HEADER_BYTES - SEAL_BYTES
    }

    /// The longest body of a batch. No more than a quarter of a segment, so that little is left over at its end.
    pub fn longest_batch(&self) -> usize {
        MAX_BATCH_BYTES.min(self.room() / 4 - frame_bytes(0))
    }

    /// The longest record outside of a blob. The cleaner packs records anew: with no more than an eighth of a segment
    /// each, it leaves little over.
    pub fn longest_record(&self) -> usize {
        BLOB_FROM.min(self.room() / 8)
    }

    /// Bytes that live records may take with this many segments, by [`Usage`](crate::record::Usage).
    pub fn capacity(&self, segments: usize) -> u64 {
        (segments.saturating_sub(RESERVED_SEGMENTS) * self.room() / 2) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        let config = Config::default();
        assert_eq!(config.validate(), Ok(()));
        assert!(Config { segment_bytes: 5000, ..config.clone() }.validate().is_err());
        assert!(Config { segment_bytes: 8192, ..config.clone() }.validate().is_err());
        assert!(Config { segment_bytes: 2 * MAX_SEGMENT_BYTES, ..config.clone() }.validate().is_err());
        assert!(Config { log_bytes: 7 * config.segment_bytes, ..config.clone() }.validate().is_err());
    }

    #[test]
    fn the_cleaner_has_room_whatever_the_size_of_segments() {
        for segment_bytes in [MIN_SEGMENT_BYTES, 1 << 20, MAX_SEGMENT_BYTES] {
            let layout = Layout::new(segment_bytes, MIN_SEGMENTS * segment_bytes);
            assert!(layout.longest_record() < layout.longest_batch());
            assert!(layout.longest_batch() < layout.room() / 2);
        }
    }
}
