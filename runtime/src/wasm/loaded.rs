//! The modules that a worker keeps loaded: a bounded number of bytes, fairly shared between the accounts that had them
//! loaded.

use super::artifact::Artifact;
use super::linking::LinkedProgram;
use super::memory::{GuestMemory, MemoryLease};
use crate::config::capacity::{Idle, LoadedLimits};
use crate::flow::Name;
use crate::wasm::engine::Tier;
use object::{Object, ObjectSection};
use offload_policy::FairCache;
use offload_protocol::error::WireError;
use offload_protocol::request::Digest;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A program in a worker's engine.
pub struct Loaded {
    pub(super) program: LinkedProgram,
    /// Whether a run of it has ended in this engine: the first one may take long, whatever the program does, since the
    /// image of its memory is made in it.
    has_run: AtomicBool,
}

impl Loaded {
    fn new(program: LinkedProgram) -> Loaded {
        Loaded { program, has_run: AtomicBool::new(false) }
    }

    /// A run has ended.
    pub fn set_has_run(&self) {
        self.has_run.store(true, Ordering::Relaxed);
    }

    /// Whether all that is made of it once is there.
    pub fn has_run(&self) -> bool {
        self.has_run.load(Ordering::Relaxed)
    }
}

/// Name of the section of an artifact that holds what memories are filled with.
const DATA_SECTION: &str = ".rodata.wasm";

/// Bytes that an engine keeps beside what it has mapped, for a module of ordinary size.
const ENGINE_DATA: usize = 32 << 10;

/// Bytes that an artifact takes in an engine: a copy of it all, and the image of its memory that is made of its data
/// when it first runs.
fn loaded_size(artifact: &Artifact) -> usize {
    let file = object::File::parse(&*artifact.code).ok();
    let data = file.and_then(|file| Some(file.section_by_name(DATA_SECTION)?.size()));
    artifact.size() + data.map_or(0, |bytes| bytes as usize) + ENGINE_DATA
}

/// The modules that one worker has loaded. One that runs stays; of the others go first those that [`FairCache`] names.
///
/// What there is no room for even so is loaded too, and counts as memory of its account's guests until it goes.
pub struct LoadedModules {
    limits: LoadedLimits,
    /// By whose account had them loaded; their weight is in bytes.
    entries: FairCache<Name, (Digest, Tier), Entry, Instant>,
    memory: Arc<GuestMemory>,
}

struct Entry {
    loaded: Arc<Loaded>,
    /// It is not idle, whether anyone asks for it or not.
    is_warm: bool,
    /// For what was over the limit when it was loaded.
    _over: MemoryLease,
}

impl Entry {
    fn is_running(&self) -> bool {
        Arc::strong_count(&self.loaded) > 1
    }
}

impl LoadedModules {
    /// Nothing yet. What there is no room for is `memory` of guests.
    pub fn new(limits: LoadedLimits, memory: Arc<GuestMemory>) -> LoadedModules {
        LoadedModules { limits, entries: FairCache::new(), memory }
    }

    /// One that is there; from now on it is the most recently used.
    pub fn get(&mut self, artifact: &Artifact, now: Instant) -> Option<Arc<Loaded>> {
        self.entries.get(&artifact.key(), now).map(|entry| entry.loaded.clone())
    }

    /// One that is there, of which nothing but this question is known.
    pub fn peek(&self, artifact: &Artifact) -> Option<&Loaded> {
        self.entries.peek(&artifact.key()).map(|entry| &*entry.loaded)
    }

    /// Loads one that is not there, on this account.
    ///
    /// # Errors
    ///
    /// `busy` when what runs leaves no room for it, and those of `load`.
    pub fn load(
        &mut self,
        artifact: &Artifact,
        account: &Name,
        now: Instant,
        load: impl FnOnce() -> Result<LinkedProgram, WireError>,
    ) -> Result<Arc<Loaded>, WireError> {
        let bytes = loaded_size(artifact);
        let over = self.make_room(bytes, account)?;
        let loaded = Arc::new(Loaded::new(load()?));
        let entry = Entry { loaded: loaded.clone(), is_warm: false, _over: over };
        let replaced = self.entries.insert(artifact.key(), entry, account.clone(), bytes, now);
        assert!(replaced.is_none(), "what is there is not loaded again");
        Ok(loaded)
    }

    /// From now on one that is there stays as long as there is room for it.
    pub fn keep_warm(&mut self, artifact: &Artifact) {
        if let Some(entry) = self.entries.peek_mut(&artifact.key()) {
            entry.is_warm = true;
        }
    }

    /// Unloads what is idle, and says after what time to look again, if there is more than may stay.
    pub fn unload_idle(&mut self, now: Instant) -> Option<Duration> {
        let Idle { after, bytes: stays } = self.limits.idle;
        while self.bytes() > stays {
            let may_go = |entry: &Entry| !entry.is_running() && !entry.is_warm;
            let (&key, last_use) = self.entries.least_recently_used(may_go)?;
            let idle = now.saturating_duration_since(last_use);
            if idle < after {
                return Some(after - idle);
            }
            self.entries.remove(&key);
        }
        None
    }

    /// Unloads what it must for this many bytes more, and pays for those that there is no room for even so.
    fn make_room(&mut self, bytes: usize, account: &Name) -> Result<MemoryLease, WireError> {
        let LoadedLimits { bytes: max_bytes, modules, .. } = self.limits;
        while (self.bytes() + bytes > max_bytes || self.entries.len() >= modules)
            && self.entries.evict_for(account, bytes, |entry| !entry.is_running()).is_some()
        {}
        let mut over = self.memory.lease(account.clone());
        over.grow((self.bytes() + bytes).saturating_sub(max_bytes).min(bytes))
            .map_err(|limit| WireError::new(limit.kind, limit.message))?;
        Ok(over)
    }

    fn bytes(&self) -> usize {
        self.entries.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine;
    use super::super::guest::{self, Budget, Context, Input};
    use super::super::linking::Linkers;
    use super::*;
    use crate::config::{Compiler, Limits};
    use offload_protocol::error::ErrorKind;
    use std::time::{Duration, Instant};
    use wasm_encoder as encode;

    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;
    const IDLE: Idle = Idle { after: Duration::from_secs(4), bytes: 100 * KIB };

    fn engine() -> wasmtime::Engine {
        engine::worker(2, &Limits::default(), &Compiler::default()).unwrap()
    }

    /// A command with this many bytes of data, which differ by its number.
    fn module(number: u32, data: usize) -> Vec<u8> {
        let mut types = encode::TypeSection::new();
        types.ty().function([], []);
        let mut functions = encode::FunctionSection::new();
        functions.function(0);
        let mut memories = encode::MemorySection::new();
        let pages = (data as u64).div_ceil(64 * KIB as u64);
        memories.memory(encode::MemoryType {
            minimum: pages,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        let mut exports = encode::ExportSection::new();
        exports.export("_start", encode::ExportKind::Func, 0);
        let mut code = encode::CodeSection::new();
        let mut body = encode::Function::new([]);
        body.instruction(&encode::Instruction::End);
        code.function(&body);
        let mut bytes = vec![1; data];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        let mut segments = encode::DataSection::new();
        segments.active(0, &encode::ConstExpr::i32_const(0), bytes);
        let mut module = encode::Module::new();
        module
            .section(&types)
            .section(&functions)
            .section(&memories)
            .section(&exports)
            .section(&code)
            .section(&segments);
        module.finish()
    }

    fn compiled(engine: &wasmtime::Engine, number: u32, data: usize) -> Artifact {
        let code = engine.precompile_module(&module(number, data)).unwrap().into_boxed_slice();
        Artifact { digest: Digest::of(&number.to_le_bytes()), tier: Tier::Optimized, code }
    }

    /// Modules that are as large as it is said, though all are loaded from one that is small.
    struct Pretended {
        program: LinkedProgram,
        modules: LoadedModules,
        now: Instant,
    }

    impl Pretended {
        fn new(bytes: usize, modules: usize, memory: usize) -> Pretended {
            let linkers = Linkers::new(engine()).unwrap();
            let program = linkers.load(&compiled(linkers.engine(), 0, 4)).unwrap();
            let memory = Arc::new(GuestMemory::new(memory));
            let limits = LoadedLimits { bytes, modules, idle: IDLE };
            Pretended { program, modules: LoadedModules::new(limits, memory), now: Instant::now() }
        }

        fn artifact(name: &str, bytes: usize) -> Artifact {
            let code = vec![0; bytes - ENGINE_DATA].into();
            Artifact { digest: Digest::of(name.as_bytes()), tier: Tier::Optimized, code }
        }

        /// Loads one of 100 KiB.
        fn load(&mut self, account: &str, name: &str) -> Result<Arc<Loaded>, ErrorKind> {
            self.load_sized(account, name, 100 * KIB)
        }

        fn load_sized(&mut self, account: &str, name: &str, bytes: usize) -> Result<Arc<Loaded>, ErrorKind> {
            let program = self.program.clone();
            let artifact = Pretended::artifact(name, bytes);
            self.modules
                .load(&artifact, &account.into(), self.now, || Ok(program))
                .map_err(|error| error.kind)
        }

        fn use_it(&mut self, name: &str) {
            assert!(self.modules.get(&Pretended::artifact(name, 100 * KIB), self.now).is_some());
        }

        fn has(&self, name: &str) -> bool {
            self.modules.peek(&Pretended::artifact(name, 100 * KIB)).is_some()
        }
    }

    #[test]
    fn the_account_that_has_most_makes_room_its_least_recently_used_first() {
        let mut pretended = Pretended::new(400 * KIB, 100, 0);
        for (account, name) in [("one", "1"), ("many", "2"), ("many", "3"), ("many", "4"), ("many", "5")] {
            assert!(pretended.load(account, name).is_ok());
        }
        assert_eq!(
            ["1", "2", "3", "4", "5"].map(|name| pretended.has(name)),
            [true, false, true, true, true]
        );
        pretended.use_it("3");
        assert!(pretended.load("another", "6").is_ok());
        assert_eq!(
            ["1", "3", "4", "5", "6"].map(|name| pretended.has(name)),
            [true, true, false, true, true]
        );
        assert_eq!(pretended.modules.bytes(), 400 * KIB);
    }

    #[test]
    fn what_runs_stays_and_what_is_beyond_it_is_memory_of_guests() {
        let mut pretended = Pretended::new(200 * KIB, 100, 150 * KIB);
        let memory = pretended.modules.memory.clone();
        let mut running: Vec<_> = ["1", "2"].map(|name| pretended.load("a", name).unwrap()).into();
        assert_eq!(memory.taken(), 0);
        running.push(pretended.load("a", "3").unwrap());
        assert_eq!(memory.taken(), 100 * KIB);
        assert_eq!(pretended.load("a", "4").err(), Some(ErrorKind::Busy));
        assert_eq!(memory.taken(), 100 * KIB, "what is refused takes nothing");
        running.clear();
        assert!(pretended.load("a", "4").is_ok());
        assert_eq!((pretended.modules.bytes(), memory.taken()), (200 * KIB, 100 * KIB));
        assert!(pretended.load("a", "5").is_ok());
        assert_eq!((pretended.modules.bytes(), memory.taken()), (200 * KIB, 0));
    }

    #[test]
    fn a_large_one_does_not_put_out_those_of_others_that_have_less() {
        let mut pretended = Pretended::new(250 * KIB, 100, 200 * KIB);
        assert!(pretended.load("small", "1").is_ok());
        for name in ["2", "3"] {
            assert!(pretended.load_sized("large", name, 300 * KIB).is_ok());
            assert_eq!((pretended.modules.bytes(), pretended.modules.memory.taken()), (400 * KIB, 150 * KIB));
        }
        assert!(pretended.has("1"));
        assert!(pretended.load("small", "4").is_ok());
        assert_eq!((pretended.modules.bytes(), pretended.modules.memory.taken()), (200 * KIB, 0));
    }

    #[test]
    fn their_number_is_bounded_too() {
        let mut pretended = Pretended::new(MIB, 2, 0);
        for name in ["1", "2", "3"] {
            assert!(pretended.load("a", name).is_ok());
        }
        assert_eq!(["1", "2", "3"].map(|name| pretended.has(name)), [false, true, true]);
    }

    #[test]
    fn what_nobody_asks_for_is_unloaded_but_for_what_was_used_last() {
        let mut pretended = Pretended::new(MIB, 100, 0);
        let second = Duration::from_secs(1);
        let running = pretended.load("a", "running").unwrap();
        for name in ["1", "2", "3"] {
            assert!(pretended.load("a", name).is_ok());
            pretended.now += second;
        }
        pretended.use_it("1");
        assert_eq!(
            pretended.modules.unload_idle(pretended.now),
            Some(2 * second),
            "2 was used two seconds ago"
        );
        pretended.now += 2 * second;
        assert_eq!(pretended.modules.unload_idle(pretended.now), Some(second));
        assert_eq!(["1", "2", "3"].map(|name| pretended.has(name)), [true, false, true]);
        pretended.now += 2 * second;
        assert_eq!(pretended.modules.unload_idle(pretended.now), None);
        assert_eq!(["running", "1", "2", "3"].map(|name| pretended.has(name)), [true, false, false, false]);
        drop(running);
        assert_eq!(pretended.modules.unload_idle(pretended.now), None);
        assert!(pretended.has("running"), "the bytes of what runs stay");
        for name in ["warm", "cold"] {
            assert!(pretended.load("a", name).is_ok());
        }
        pretended.modules.keep_warm(&Pretended::artifact("warm", 100 * KIB));
        pretended.now += 9 * second;
        assert_eq!(pretended.modules.unload_idle(pretended.now), None);
        assert_eq!(["warm", "cold", "running"].map(|name| pretended.has(name)), [true, false, false]);
    }

    /// Bytes of the images that wasmtime has made of modules' memories in this process.
    fn images() -> u64 {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let images = open.filter(|file| {
            std::fs::read_link(file.path()).is_ok_and(|name| name.to_string_lossy().starts_with("/memfd:"))
        });
        images.filter_map(|image| Some(std::fs::metadata(image.path()).ok()?.len())).sum()
    }

    #[test]
    fn modules_with_much_data_take_no_more_than_they_may() {
        const DATA: usize = 7_000_000;
        const LIMIT: usize = 64 << 20;
        let linkers = Linkers::new(engine()).unwrap();
        let memory = Arc::new(GuestMemory::new(64 * MIB));
        let limits = LoadedLimits { bytes: LIMIT, modules: 256, idle: IDLE };
        let mut modules = LoadedModules::new(limits, memory.clone());
        let account: Name = "a".into();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut most = 0;
        for number in 0..120 {
            let artifact = compiled(linkers.engine(), number, DATA);
            assert!(loaded_size(&artifact) > 2 * DATA, "its data counts as it is and as an image");
            let loaded =
                modules.load(&artifact, &account, Instant::now(), || linkers.load(&artifact)).unwrap();
            let context = Context { reply_id: "a".into(), request_id: None };
            let input = Arc::new(Input {
                name: "a".into(),
                args: vec![],
                env: vec![],
                stdin: bytes::Bytes::new(),
                folder: None,
                context,
                stream: None,
            });
            let budget = Budget {
                fuel: 1_000,
                cpu: Duration::MAX,
                wall: Duration::MAX,
                memory: 64 * MIB,
                table_elements: 1,
                stdout: 0,
                stderr: 0,
            };
            let end = Instant::now() + Duration::from_secs(3600);
            let lease = memory.lease(account.clone());
            let run = guest::run(loaded.program.clone(), input, budget, lease, end, Arc::default());
            assert_eq!(runtime.block_on(run).result, Ok(0));
            assert!(modules.bytes() <= LIMIT);
            most = most.max(images());
        }
        assert!(most > DATA as u64, "each had an image while it was loaded");
        assert!(
            most <= LIMIT as u64 / 2,
            "{most} bytes of images: half of what is counted is the artifacts'"
        );
    }
}
