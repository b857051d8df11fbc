//! `durability` and `[journal]`: what outlives a crash, and what that may take of the disk.

use super::table::{Setting, quoted, table};
use super::{ByteSize, TimeSpan};
use serde::Deserialize;

/// What a crash may lose of what the gateway has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Nothing.
    Always,
    /// Nothing when the process ends; the last moments when the machine does.
    Batch,
    /// All of it.
    Off,
}

impl Setting for Durability {
    const FORM: &'static str = "\"always\", \"batch\" or \"off\"";
    fn to_toml(&self) -> Option<String> {
        Some(quoted(match self {
            Durability::Always => "always",
            Durability::Batch => "batch",
            Durability::Off => "off",
        }))
    }
}

table! {
    /// The journal in the data directory: requests that were acknowledged and are not answered yet, outcomes of
    /// requests with an `id`, sessions and retained messages. Not used with `durability = "off"`. Where it is full,
    /// requests are answered `busy` until others have been answered.
    pub struct Journal {
        /// Disk space of the log. It begins with 24MiB or less, and grows to twice what is live. A start holds half of
        /// it in memory at most.
        pub log: ByteSize = ByteSize::mib(256), in ByteSize::mib(8)..=ByteSize::gib(64);
        /// Disk space of large payloads, from 64 KiB on, which are kept beside the log: each content once.
        pub payloads: ByteSize = ByteSize::gib(1), in ByteSize::mib(1)..=ByteSize::gib(1024);
        /// Live records. Each takes 40 bytes of memory.
        pub records: u64 = 1_000_000, in 64..=100_000_000;
        /// Bytes in memory that wait for the disk.
        pub queued: ByteSize = ByteSize::mib(16), in ByteSize::mib(1)..=ByteSize::gib(1);
        /// With `durability = "batch"`: the longest time between a write and the sync by which it outlives a power cut.
        pub sync_interval: TimeSpan = TimeSpan::millis(100), in TimeSpan::millis(1)..=TimeSpan::secs(60);
    }
}
