//! `[compiler]`: the child process that compiles modules.

use super::capacity::Idle;
use super::table::table;
use super::{ByteSize, Refusal, TimeSpan, bounds, defaults};
use std::path::PathBuf;

/// The least of what a module may have of a kind: the built-in program has some of each.
const LEAST: usize = 32;

table! {
    /// The child process that compiles modules, and what is refused before it starts. Compilers have no limits of their
    /// own: some small modules take minutes and gigabytes.
    pub struct Compiler {
        /// Program of the child. Default: the gateway's own.
        pub program: Option<PathBuf> = None;
        /// Time on a core for one module, in whole seconds. A program in JavaScript with its interpreter takes 12
        /// seconds on a server.
        pub cpu: TimeSpan = TimeSpan::secs(60), in TimeSpan::secs(1)..=TimeSpan::secs(3_600);
        /// Time from start to end for one module, without the time in which it is stopped.
        pub wall: TimeSpan = TimeSpan::secs(180), in TimeSpan::millis(10)..=TimeSpan::secs(3_600);
        /// Address space of one child.
        pub memory: ByteSize = ByteSize::gib(1), in ByteSize::mib(64)..=ByteSize::gib(64);
        /// Children that run at full speed at once. One client never holds all of them while there are two or more.
        /// Default: half of the cores, at least two.
        pub concurrency: usize = defaults::cores().div_ceil(2).max(2), in 1..=1_024;
        /// How long a child runs at full speed while others wait. Then it makes room for one of these: it goes on at
        /// the lowest priority, or is stopped until its next round.
        pub hold: TimeSpan = TimeSpan::millis(100), in TimeSpan::millis(1)..=TimeSpan::secs(3_600);
        /// Children in all: those at full speed, and those that made room for others and hold their memory. One client
        /// has at most a quarter of them, one user or address at most half. Default: four times `concurrency`.
        pub children: Option<usize> = None;
        /// Whether large modules are first compiled by a compiler that takes a tenth of the time (Winch), while the
        /// optimizing one (Cranelift) works in the background and takes over.
        pub baseline: bool = true;
        /// Size from which on a module is large; smaller ones are optimized as fast.
        pub baseline_from: ByteSize = ByteSize::kib(32), in ByteSize::new(0)..=ByteSize::mib(256);
        /// Modules that run on baseline code until they are optimized. One more is optimized before its first answer.
        pub background: usize = 16, in 1..=1_024;
        /// Largest artifact that a child may return.
        pub max_artifact: ByteSize = ByteSize::mib(64), in ByteSize::kib(64)..=ByteSize::gib(1);
        /// Artifacts kept in memory, all together; the least recently used go first.
        pub memory_cache: ByteSize = ByteSize::mib(64), in ByteSize::mib(1)..=ByteSize::gib(64);
        /// Artifacts kept in the data directory, all together; the least recently used go first.
        pub disk_cache: ByteSize = ByteSize::gib(1), in ByteSize::mib(1)..=ByteSize::gib(1024);
        /// Modules that a worker keeps loaded; the least recently used of the principal that has most go first. There
        /// are fewer where an eighth of the system's memory mappings and open files does not suffice.
        pub loaded_modules: usize = 256, in 1..=65_536;
        /// Memory of the modules that all workers keep loaded; each worker has an equal part. It is part of
        /// `workers.memory`, at most a quarter of that. Modules beyond it count as memory of guests. Default: an eighth
        /// of `workers.memory`, at most 64MiB for each worker.
        pub loaded_bytes: Option<ByteSize> = None;
        /// How long artifacts in memory and loaded modules stay after their last use; then they go, except `idle_bytes`
        /// of those that were used last. They come back from the data directory.
        pub idle_after: TimeSpan = TimeSpan::secs(4), in TimeSpan::secs(1)..=TimeSpan::secs(86_400);
        /// Bytes of artifacts, and bytes of modules in each worker, that stay in any case.
        pub idle_bytes: ByteSize = ByteSize::mib(8), in ByteSize::new(0)..=ByteSize::gib(64);
        /// Types of a module.
        pub types: usize = 10_000, in LEAST..=1_000_000;
        /// Functions of a module.
        pub functions: usize = 50_000, in LEAST..=1_000_000;
        /// Bytes of one function's body.
        pub function_body: ByteSize = ByteSize::mib(1), in ByteSize::kib(1)..=ByteSize::mib(7);
        /// Blocks inside of each other in a function. Compilers make one for each case of a switch.
        pub nesting: usize = 4_096, in LEAST..=65_536;
        /// Locals of one function, parameters not counted.
        pub locals: usize = 10_000, in LEAST..=50_000;
        /// Data segments of a module. The linker of Go makes tens of thousands, and stops at the default.
        pub data_segments: usize = 100_000, in LEAST..=100_000;
        /// Element segments of a module.
        pub element_segments: usize = 4_096, in 1..=100_000;
        /// Imports of a module, or of all modules of a component together.
        pub imports: usize = 10_000, in LEAST..=100_000;
        /// Exports of a module.
        pub exports: usize = 10_000, in LEAST..=1_000_000;
        /// Globals of a module.
        pub globals: usize = 10_000, in 1..=1_000_000;
        /// Tables of a module.
        pub tables: usize = 1, in 1..=16;
        /// Memories of a module, or of all instances of a component together.
        pub memories: usize = 1, in 1..=16;
        /// Tables of all instances of a component together. What makes a component of a preview 1 module adds one.
        pub component_tables: usize = 4, in 1..=16;
        /// Modules and components inside of a component, at all levels. Each count above is for all of them together.
        pub nested: usize = 64, in 1..=4_096;
        /// Instances that a component makes of modules and components, at all levels.
        pub instances: usize = 64, in 1..=4_096;
        /// Functions that a component passes to or takes from its modules; each is code to be compiled.
        pub adapters: usize = 2_000, in 1..=100_000;
        /// What a component defines in all: types, instances, aliases, functions, imports and exports.
        pub definitions: usize = 20_000, in 1..=1_000_000;
    }
}

/// Most children, whatever their memory comes to.
const MAX_CHILDREN: usize = 4_096;

impl Compiler {
    /// Children in all.
    pub fn children(&self) -> usize {
        self.children.unwrap_or(4 * self.concurrency).max(self.concurrency)
    }

    /// When artifacts and modules that nobody asks for give their memory back.
    pub fn idle(&self) -> Idle {
        Idle { after: self.idle_after.duration(), bytes: self.idle_bytes.as_usize() }
    }

    pub(super) fn check(&self, refusals: &mut Vec<Refusal>) {
        // The child's limit is RLIMIT_CPU, which counts in seconds.
        refusals.extend(bounds::fraction_of_seconds("compiler.cpu", self.cpu));
        refusals.extend(bounds::out_of_range("compiler.children", self.children, MAX_CHILDREN));
    }
}
