//! `[limits]`: what one request may use.

use super::table::table;
use super::{ByteSize, Refusal, TimeSpan};

/// WebAssembly's page: a memory has a whole number of them.
pub const WASM_PAGE: ByteSize = ByteSize::kib(64);

table! {
    /// What one request may use. A request can ask for less, never for more.
    pub struct Limits {
        /// Instructions, in wasmtime's fuel: about one for each WebAssembly instruction, and one for each byte or
        /// element that an instruction fills or copies.
        pub fuel: u64 = 10_000_000_000, in 1..=u64::MAX / 2;
        /// Time on a core.
        pub cpu: TimeSpan = TimeSpan::secs(10), in TimeSpan::millis(1)..=TimeSpan::secs(86_400);
        /// Time from start to end, sleeping included.
        pub wall: TimeSpan = TimeSpan::secs(30), in TimeSpan::millis(1)..=TimeSpan::secs(86_400);
        /// Linear memory, in whole pages of 64KiB. Growth beyond it fails; a guest that cannot do without it ends.
        /// Default: 64MiB, or what `workers.memory` has for one guest if that is less.
        pub memory: ByteSize = ByteSize::mib(64), in WASM_PAGE..=ByteSize::gib(4);
        /// Elements of all tables together.
        pub table_elements: usize = 20_000, in 1..=10_000_000;
        /// Standard output.
        pub stdout: ByteSize = ByteSize::mib(1), in ByteSize::new(1)..=ByteSize::mib(256);
        /// Standard error; what is longer is cut off.
        pub stderr: ByteSize = ByteSize::kib(64), in ByteSize::new(0)..=ByteSize::mib(256);
        /// Standard input.
        pub stdin: ByteSize = ByteSize::mib(8), in ByteSize::new(0)..=ByteSize::mib(256);
        /// A module or component.
        pub module: ByteSize = ByteSize::mib(24), in ByteSize::new(8)..=ByteSize::mib(256);
        /// Source and how it is built; of several files their paths and contents.
        pub source: ByteSize = ByteSize::mib(1), in ByteSize::kib(1)..=ByteSize::mib(64);
        /// Number of files of one request's source.
        pub files: usize = 1_000, in 1..=10_000;
        /// Number of arguments.
        pub args: usize = 256, in 0..=65_536;
        /// Bytes of all arguments together.
        pub args_bytes: ByteSize = ByteSize::kib(64), in ByteSize::new(0)..=ByteSize::mib(16);
        /// Number of environment variables.
        pub env: usize = 64, in 0..=65_536;
        /// Bytes of all environment variables together, names and values.
        pub env_bytes: ByteSize = ByteSize::kib(64), in ByteSize::new(0)..=ByteSize::mib(16);
    }
}

impl Limits {
    pub(super) fn check(&self, refusals: &mut Vec<Refusal>) {
        if !self.memory.bytes().is_multiple_of(WASM_PAGE.bytes()) {
            let problem = format!("{} is no whole number of pages", self.memory);
            let refusal = Refusal::new("limits.memory", problem);
            refusals.push(refusal.accepting(format!("a multiple of {WASM_PAGE}")));
        }
    }
}
