//! How much room there is for guests: from the memory that they may have, and from what the system allows.

use super::{ByteSize, Compiler, WASM_PAGE, Workers, slot};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::ptr::null_mut;
use std::time::Duration;

/// Address space of one memory of a slot, in bytes: the 4 GiB that 32 bits address, and guards around them. With less,
/// each access would be checked.
const MEMORY_ADDRESS_SPACE: usize = (4 << 30) + (64 << 20);

/// Memory mappings of a slot in use.
const SLOT_MAPPINGS: usize = 5;

/// Mappings that are left to everything else in the process.
const OTHER_MAPPINGS: usize = 4_096;

/// Most slots of one worker, unless the configuration says so: a thousand guests that wait are many for one core.
const MOST_SLOTS: usize = offload_policy::DEFAULT_SLOTS;

/// Memory mappings of a loaded module: its headers, its code, its data, and its image in the slot that it last ran in.
const MODULE_MAPPINGS: usize = 4;

/// The part of memory, mappings and descriptors that is for loaded modules by default: one in this number.
const MODULES_PART: usize = 8;

/// Bytes of modules that one worker keeps loaded, unless the configuration says so: some hundreds of usual ones.
const LOADED_BYTES: usize = 64 << 20;

/// Linux's default where nothing can be read.
const DEFAULT_MAX_MAP_COUNT: usize = 65_530;

/// What the system allows this process.
#[derive(Clone, Copy, Debug)]
pub struct System {
    /// Memory mappings (`vm.max_map_count`).
    pub mappings: usize,
    /// Open files (`ulimit -n`).
    pub descriptors: usize,
    /// Bytes of address space that can be reserved.
    pub address_space: usize,
}

/// The room for guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolCapacity {
    /// Guests of one worker.
    pub slots: usize,
    /// Bytes of linear memory, of all guests together, beyond what each slot keeps.
    pub memory: usize,
    /// Modules that one worker keeps loaded.
    pub loaded: LoadedLimits,
    /// Why there are fewer slots than wanted.
    pub shortage: Option<Shortage>,
}

/// How many modules a worker keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedLimits {
    /// Bytes of them.
    pub bytes: usize,
    /// Their number: each takes memory mappings and a descriptor too.
    pub modules: usize,
    /// When they are unloaded though there is room for them.
    pub idle: Idle,
}

/// When values that are not used any more are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Time without a use after which a value is dropped.
    pub after: Duration,
    /// Bytes of the most recently used values that stay in any case.
    pub bytes: usize,
}

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// Of memory mappings.
    #[error("vm.max_map_count allows {0} mappings; raise it with `sysctl vm.max_map_count=…`")]
    Mappings(usize),
    /// Of address space, of which some processors and limits leave little.
    #[error(
        "{0} GiB of address space can be reserved, and each slot takes 4; see `ulimit -v`, and whether the kernel is \
         built for 39 bits"
    )]
    AddressSpace(usize),
}

impl System {
    /// Asks it. `wanted` is the address space that is tried to be reserved first.
    pub fn look(wanted: usize) -> System {
        let mappings = fs::read_to_string("/proc/sys/vm/max_map_count").ok();
        let mappings = mappings.and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT_MAX_MAP_COUNT);
        let mut address_space = wanted;
        while address_space > MEMORY_ADDRESS_SPACE && !can_reserve(address_space) {
            address_space -= address_space / 4;
        }
        let descriptors = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
        System { mappings, descriptors, address_space }
    }
}

/// Whether this many bytes can be reserved in one piece, as a pool does.
fn can_reserve(bytes: usize) -> bool {
    // SAFETY: a new mapping at an address of the kernel's choice, which nothing can access and which is removed here.
    unsafe {
        match mmap_anonymous(null_mut(), bytes, ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE) {
            Ok(at) => munmap(at, bytes).is_ok(),
            Err(_) => false,
        }
    }
}

impl PoolCapacity {
    /// The room that `workers` ask for, as far as this system has it.
    pub fn new(workers: &Workers, compiler: &Compiler) -> PoolCapacity {
        let wanted = wanted_slots(workers, compiler);
        PoolCapacity::within(
            workers,
            compiler,
            System::look(wanted * workers.count * address_space(compiler)),
        )
    }

    /// Half of the memory is for what slots keep between guests; the rest for loaded modules, half of it at the most,
    /// and for what guests need beyond their slots.
    fn within(workers: &Workers, compiler: &Compiler, system: System) -> PoolCapacity {
        let wanted = wanted_slots(workers, compiler);
        let loaded = loaded(workers, compiler, system);
        let others = OTHER_MAPPINGS + loaded.modules * MODULE_MAPPINGS * workers.count;
        let mapped = system.mappings.saturating_sub(others) / SLOT_MAPPINGS / workers.count;
        let addressed = system.address_space / address_space(compiler) / workers.count;
        let (slots, shortage) = match () {
            () if wanted <= mapped.min(addressed) => (wanted, None),
            () if mapped < addressed => (mapped, Some(Shortage::Mappings(system.mappings))),
            () => (addressed, Some(Shortage::AddressSpace(system.address_space >> 30))),
        };
        let memory = beyond_slots(workers, compiler);
        PoolCapacity { slots: slots.max(1), memory, loaded, shortage }
    }
}

/// The least memory of guests (`workers.memory`) for each worker: one slot has half of it.
pub fn least_memory(compiler: &Compiler) -> ByteSize {
    ByteSize::new((resident(compiler) as u64).saturating_mul(2))
}

/// Linear memory that one guest can have while no other needs any, in whole pages.
pub fn most_of_one_guest(workers: &Workers, compiler: &Compiler) -> ByteSize {
    let bytes = slot::MEMORY_KEEP_RESIDENT.saturating_add(beyond_slots(workers, compiler)) as u64;
    ByteSize::new(bytes - bytes % WASM_PAGE.bytes())
}

/// The memory of guests (`workers.memory`) of which one guest can have so much.
pub fn memory_for_one_guest(guest: ByteSize, workers: &Workers, compiler: &Compiler) -> ByteSize {
    let beyond = guest.as_usize().saturating_sub(slot::MEMORY_KEEP_RESIDENT);
    let loaded = compiler.loaded_bytes.map_or(LOADED_BYTES.saturating_mul(workers.count), ByteSize::as_usize);
    let whole = beyond.saturating_add(loaded).saturating_mul(2) as u64;
    ByteSize::new(whole.div_ceil(1 << 20).saturating_mul(1 << 20))
}

/// Bytes of linear memory, of all guests together, beyond what each slot keeps.
fn beyond_slots(workers: &Workers, compiler: &Compiler) -> usize {
    let loaded = loaded_bytes(workers, compiler).saturating_mul(workers.count);
    (workers.memory.as_usize() / 2).saturating_sub(loaded)
}

/// Slots of one worker, by the configuration alone.
pub fn wanted_slots(workers: &Workers, compiler: &Compiler) -> usize {
    let kept = workers.memory.as_usize() / 2 / workers.count;
    workers.slots.unwrap_or_else(|| (kept / resident(compiler)).clamp(1, MOST_SLOTS))
}

/// Modules of one worker: as many as the configuration says, but no more than a part of what the system has for all.
fn loaded(workers: &Workers, compiler: &Compiler, system: System) -> LoadedLimits {
    let bytes = loaded_bytes(workers, compiler);
    let mapped = system.mappings / MODULES_PART / MODULE_MAPPINGS / workers.count;
    let opened = system.descriptors / MODULES_PART / workers.count;
    let idle = compiler.idle();
    LoadedLimits { bytes, idle, modules: compiler.loaded_modules.min(mapped).min(opened).max(1) }
}

/// Bytes of the modules of one worker.
fn loaded_bytes(workers: &Workers, compiler: &Compiler) -> usize {
    // Nothing is checked yet when a configuration asks.
    let count = workers.count.max(1);
    let memory = workers.memory.as_usize() / count;
    match compiler.loaded_bytes {
        Some(bytes) => (bytes.as_usize() / count).min(memory / 4),
        None => LOADED_BYTES.min(memory / MODULES_PART),
    }
}

/// Address space of one slot, in bytes.
fn address_space(compiler: &Compiler) -> usize {
    compiler.memories * MEMORY_ADDRESS_SPACE
}

/// What one slot keeps between guests at the most, in bytes. Its stack is not cleared, so that of it stays what the
/// deepest guest has used.
fn resident(compiler: &Compiler) -> usize {
    // Nothing is checked yet when a configuration asks.
    let memories = compiler.memories.saturating_mul(slot::MEMORY_KEEP_RESIDENT);
    let tables = compiler.tables.max(compiler.component_tables);
    let tables = tables.saturating_mul(slot::TABLE_KEEP_RESIDENT);
    memories.saturating_add(tables).saturating_add(slot::ASYNC_STACK_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: System = System { mappings: 1 << 20, descriptors: 1 << 20, address_space: 1 << 47 };

    fn workers(count: usize, memory: ByteSize) -> Workers {
        Workers { count, memory, ..Default::default() }
    }

    fn capacity(workers: &Workers, system: System) -> PoolCapacity {
        PoolCapacity::within(workers, &Compiler::default(), system)
    }

    #[test]
    fn half_of_the_memory_is_for_slots() {
        // 2 MiB of memory, 4 tables of 64 KiB, 1.25 MiB of stack.
        assert_eq!(resident(&Compiler::default()), (3 << 20) + (512 << 10));
        let small = capacity(&workers(4, ByteSize::gib(1)), PLENTY);
        let idle = Idle { after: Duration::from_secs(4), bytes: 8 << 20 };
        let loaded = LoadedLimits { bytes: 32 << 20, modules: 256, idle };
        assert_eq!(
            small,
            PoolCapacity { slots: 512 * 2 / 7 / 4, memory: (512 - 4 * 32) << 20, loaded, shortage: None }
        );
        assert_eq!(capacity(&workers(1, ByteSize::gib(64)), PLENTY).slots, MOST_SLOTS);
        assert_eq!(capacity(&workers(64, ByteSize::mib(64)), PLENTY).slots, 1);
    }

    #[test]
    fn loaded_modules_have_a_part_of_the_memory() {
        let of = |count, memory, loaded_bytes| {
            let compiler = Compiler { loaded_bytes, ..Default::default() };
            let capacity = PoolCapacity::within(&workers(count, memory), &compiler, PLENTY);
            (capacity.loaded.bytes, capacity.memory)
        };
        assert_eq!(of(2, ByteSize::gib(4), None), (64 << 20, (2048 - 128) << 20));
        assert_eq!(of(4, ByteSize::mib(64), None), (2 << 20, 24 << 20));
        assert_eq!(of(2, ByteSize::gib(4), Some(ByteSize::mib(512))), (256 << 20, (2048 - 512) << 20));
        assert_eq!(of(2, ByteSize::gib(4), Some(ByteSize::gib(8))), (512 << 20, 1 << 30));
    }

    #[test]
    fn a_number_in_the_configuration_goes_first() {
        let workers = Workers { slots: Some(7), ..workers(2, ByteSize::gib(8)) };
        assert_eq!(capacity(&workers, PLENTY).slots, 7);
    }

    #[test]
    fn few_mappings_or_bits_leave_fewer_slots_and_it_is_said() {
        let workers = workers(2, ByteSize::gib(8));
        let mappings = OTHER_MAPPINGS + 1_600;
        let few = capacity(&workers, System { mappings, ..PLENTY });
        // An eighth of 5 696 is for 4 mappings of 89 modules of 2 workers.
        assert_eq!(few.loaded.modules, 89);
        assert_eq!((few.slots, few.shortage), (88, Some(Shortage::Mappings(mappings))));
        let few = capacity(&workers, System { descriptors: 1_024, ..PLENTY });
        assert_eq!((few.loaded.modules, few.shortage), (64, None));
        let narrow = capacity(&workers, System { address_space: 1 << 39, ..PLENTY });
        assert_eq!((narrow.slots, narrow.shortage), (63, Some(Shortage::AddressSpace(512))));
    }

    #[test]
    fn this_system_is_asked() {
        let system = System::look(MEMORY_ADDRESS_SPACE);
        assert!(system.mappings > OTHER_MAPPINGS && system.address_space == MEMORY_ADDRESS_SPACE);
        assert!(System::look(usize::MAX / 2).address_space < usize::MAX / 2, "no machine has 63 bits");
    }
}
