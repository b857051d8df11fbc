//! `[idempotency]`: how long a request with an `id` is known as one that has been run.

use super::table::table;
use super::{ByteSize, TimeSpan};

table! {
    /// How long a request with an `id` is known as one that has been run, and gets the same answer again.
    pub struct Idempotency {
        /// How long an outcome is kept; with zero a repetition is recognized only while the request runs.
        pub retention: TimeSpan = TimeSpan::secs(600), in TimeSpan::ZERO..=TimeSpan::secs(86_400);
        /// Outcomes that are kept. Beyond that the oldest outcome of the user or address that has most is dropped.
        pub outcomes: usize = 65_536, in 1..=10_000_000;
        /// Bytes of these outcomes, in memory; an outcome that is larger is not kept. Default: 64MiB, or what
        /// `[limits]` allows one outcome if that is more.
        pub bytes: ByteSize = ByteSize::mib(64), in ByteSize::kib(64)..=ByteSize::gib(64);
        /// Sealed requests that are remembered, beside the others and in as many bytes again. None is forgotten before
        /// its time: beyond that further ones are answered "busy", those of whoever has most of them first.
        pub sealed: usize = 65_536, in 2..=10_000_000;
    }
}
