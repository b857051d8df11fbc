//! `native` and `[sandbox]`: whether source is built and run, as what, and within which limits.

use super::table::{Setting, quoted, table};
use super::{ByteSize, Refusal, TimeSpan, bounds, defaults};
use offload_native::{Compilers, Mechanism};
use serde::Deserialize;
use std::path::PathBuf;

/// Whether source is built and run, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NativeMode {
    /// Natively where the gateway's own broker listens on loopback alone, not at all elsewhere.
    Auto,
    /// Natively, in the sandbox.
    Native,
    /// As the wasm module that it is built into, as any module.
    Wasm,
    /// Natively, and as wasm too, whose answer is compared and dropped.
    Compare,
    /// Not at all.
    Off,
}

impl Setting for Vec<Mechanism> {
    const FORM: &'static str = "a list of \"process-limit\", \"measurement\", \"file-count\"";
    fn to_toml(&self) -> Option<String> {
        Some(format!("[{}]", self.iter().map(|one| quoted(one.name())).collect::<Vec<_>>().join(", ")))
    }
}

impl Setting for Compilers {
    const FORM: &'static str = "\"as-called\", \"unoptimized\" or \"tcc\"";
    fn to_toml(&self) -> Option<String> {
        Some(quoted(self.name()))
    }
}

impl Setting for NativeMode {
    const FORM: &'static str = "\"auto\" (\"native\" where only this machine can ask, else \"off\"), \"native\", \
                              \"wasm\", \"compare\" or \"off\"";
    fn to_toml(&self) -> Option<String> {
        Some(quoted(match self {
            NativeMode::Auto => "auto",
            NativeMode::Native => "native",
            NativeMode::Wasm => "wasm",
            NativeMode::Compare => "compare",
            NativeMode::Off => "off",
        }))
    }
}

table! {
    /// What source may use where it is built, and where it is run natively. Time, output and input of a run are those
    /// of `[limits]`.
    pub struct Sandbox {
        /// bubblewrap, 0.8 or newer. A name is looked for in PATH.
        pub bubblewrap: PathBuf = PathBuf::from("bwrap");
        /// Builds and runs at full speed at once. One client never holds all of them while there are two or more.
        /// Default: the number of cores, at least two.
        pub concurrency: usize = defaults::cores().max(2), in 1..=1_024;
        /// How long a build or run counts as one of these while others wait. Then it goes on beside them.
        pub hold: TimeSpan = TimeSpan::millis(400), in TimeSpan::millis(1)..=TimeSpan::secs(3_600);
        /// Builds and runs in all, with those that go on beside others; each may take all of its memory. One client has
        /// at most a quarter of them, one user or address at most half. Default: four times `concurrency`.
        pub places: Option<usize> = None;
        /// Memory of one run, all its processes together. A request can ask for less.
        pub memory: ByteSize = ByteSize::mib(256), in ByteSize::mib(16)..=ByteSize::gib(64);
        /// Processes and threads of one run; two of them are the sandbox's own.
        pub processes: u64 = 32, in 3..=4_096;
        /// The work directory of one run; it is in memory.
        pub work_dir: ByteSize = ByteSize::mib(16), in ByteSize::mib(1)..=ByteSize::gib(16);
        /// Time on a core for one build.
        pub build_cpu: TimeSpan = TimeSpan::secs(20), in TimeSpan::secs(1)..=TimeSpan::secs(3_600);
        /// Time from start to end for one build.
        pub build_wall: TimeSpan = TimeSpan::secs(30), in TimeSpan::secs(1)..=TimeSpan::secs(3_600);
        /// Memory of one build, all its processes together.
        pub build_memory: ByteSize = ByteSize::mib(512), in ByteSize::mib(64)..=ByteSize::gib(64);
        /// What compiles where a native build calls a compiler: the one that is called (`as-called`), the same without
        /// optimizing (`unoptimized`), or `tcc` for C that it knows. The latter two give a faster first answer and
        /// slower programs.
        pub compilers: Compilers = Compilers::AsCalled;
        /// Runs that are compared with wasm at once, or wait for that (`native = "compare"`); each holds its input and
        /// its outputs. Further runs are answered and not compared.
        pub compared: usize = 64, in 1..=65_536;
        /// Built programs kept in memory, all together; the least recently used go first.
        pub memory_cache: ByteSize = ByteSize::mib(32), in ByteSize::mib(1)..=ByteSize::gib(64);
        /// Built programs kept in the data directory, all together; the least recently used go first.
        pub disk_cache: ByteSize = ByteSize::mib(256), in ByteSize::mib(1)..=ByteSize::gib(1024);
        /// Protections of the sandbox that this machine lacks and that you do without: `offload-rt doctor` shows which
        /// it has, docs/security.md what is lost. Source is refused while one is missing that is not named here.
        pub accept: Vec<Mechanism> = Vec::new();
    }
}

/// Most builds and runs, whatever their memory comes to.
const MAX_PLACES: usize = 4_096;

impl Sandbox {
    /// Builds and runs in all.
    pub fn places(&self) -> usize {
        self.places.unwrap_or(4 * self.concurrency).max(self.concurrency)
    }

    pub(super) fn check(&self, refusals: &mut Vec<Refusal>) {
        refusals.extend(bounds::out_of_range("sandbox.places", self.places, MAX_PLACES));
    }
}
