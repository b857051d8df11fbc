//! One configuration of wasmtime for every engine of the gateway, and for the compile child.
//!
//! Code compiled by one engine runs on another only if all that shapes the code is equal, so there is a single place
//! where it is chosen.

use crate::config::{Compiler, Limits, slot};
use wasmparser::WasmFeatures;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy};

/// Whether the kernel tells which pages of a slot a guest has written (`PAGEMAP_SCAN`, Linux 6.7 and newer), so that
/// the pool clears these alone. The pool asks by itself.
pub fn has_pagemap_scan() -> bool {
    PoolingAllocationConfig::is_pagemap_scan_available()
}

/// Bytes of instance state (globals, function and table descriptors) that one instance may need.
pub const MAX_CORE_INSTANCE_SIZE: usize = 1 << 20;

/// The same for a component, the state of its modules' instances included.
pub const MAX_COMPONENT_INSTANCE_SIZE: usize = 1 << 20;

/// Which compiler makes the code. Either meters fuel alike: instructions by their number, and bulk operations by their
/// length (see [`super::metering`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Tier {
    /// Winch: compiles in one pass, in a tenth of the time, code that runs at half the speed.
    Baseline,
    /// Cranelift.
    Optimized,
}

/// How much more stack baseline code gets than optimized code: it keeps each value in memory, and no program that runs
/// when it is optimized may run out of stack before.
const BASELINE_STACK: usize = 4;

/// What of WebAssembly guests may use: components, and WebAssembly 3 without threads, memories of 64 bits and what
/// needs a garbage collector. The baseline compiler knows less.
pub fn wasm_features() -> WasmFeatures {
    let garbage_collected = WasmFeatures::GC_TYPES | WasmFeatures::EXCEPTIONS;
    // No guest can own more than the 4 GiB that 32 bits address, and memories of 64 bits bring bounds checks.
    let omitted = garbage_collected | WasmFeatures::THREADS | WasmFeatures::MEMORY64;
    WasmFeatures::WASM3.difference(omitted) | WasmFeatures::COMPONENT_MODEL
}

/// What shapes compiled code: the same where it is run and for the compile child. (wasmtime is built without its
/// parallel compilation: the child has one thread, so that its seccomp filter needs no clone and bystanders keep a
/// core.)
fn code_config(tier: Tier) -> Config {
    let mut config = Config::new();
    let (strategy, stack) = match tier {
        Tier::Baseline => (Strategy::Winch, BASELINE_STACK),
        Tier::Optimized => (Strategy::Cranelift, 1),
    };
    config.strategy(strategy);
    // Both meters: fuel bounds the work, epochs end a slice.
    config.consume_fuel(true);
    config.epoch_interruption(true);
    config.max_wasm_stack(stack * slot::MAX_WASM_STACK);
    config.async_stack_size(slot::fiber_stack(stack * slot::MAX_WASM_STACK));
    config.wasm_features(wasm_features().complement(), false);
    if tier == Tier::Optimized {
        // An engine that does not support one of them is an error.
        config.wasm_features(wasm_features(), true);
    }
    // The same input gives the same output on every machine of a fleet.
    config.relaxed_simd_deterministic(true);
    // Components are run without the async ABI, which costs each call.
    config.concurrency_support(false);
    config
}

/// The compile child's engine: produces artifacts, never runs them.
pub fn compiler(tier: Tier) -> wasmtime::Result<Engine> {
    Engine::new(&code_config(tier))
}

/// The proposals of WebAssembly that guests may use, by name, in the order in which the validator has them.
///
/// # Errors
///
/// When there is no compiler for this processor.
pub fn proposals() -> wasmtime::Result<Vec<String>> {
    use wasmparser::WasmFeatures;
    let mut features = compiler(Tier::Optimized)?.get_wasm_features();
    // Those that are no proposals; and without its types there is nothing to use of garbage collection.
    if !features.contains(WasmFeatures::GC_TYPES) {
        features.remove(WasmFeatures::GC);
    }
    features.remove(WasmFeatures::FLOATS | WasmFeatures::GC_TYPES);
    Ok(features.iter_names().map(|(name, _)| name.to_lowercase().replace('_', "-")).collect())
}

/// The engine that runs baseline code, for all workers. It has no pool: what runs on it is replaced soon.
///
/// # Errors
///
/// When there is no baseline compiler for this processor.
pub fn baseline() -> wasmtime::Result<Engine> {
    Engine::new(&code_config(Tier::Baseline))
}

/// A worker's engine: its own pool of slots.
///
/// # Errors
///
/// When the address space that the pool reserves (4 GiB and guards a slot) cannot be had.
pub fn worker(slots: usize, limits: &Limits, compiler: &Compiler) -> wasmtime::Result<Engine> {
    pooling(Tier::Optimized, pool(slots as u32, limits, compiler))
}

/// An engine that runs nothing: what of this tier it can load fits into the slots of the workers.
///
/// # Errors
///
/// When the address space of one slot's tables cannot be had, or there is no such compiler for this processor.
pub fn validator(tier: Tier, limits: &Limits, compiler: &Compiler) -> wasmtime::Result<Engine> {
    let mut pool = pool(0, limits, compiler);
    // wasmtime also compares a module's tables with all that the pool has.
    pool.total_tables(slot_tables(compiler));
    pooling(tier, pool)
}

/// Tables of a slot, which is for a module or for a component: what either may need.
fn slot_tables(compiler: &Compiler) -> u32 {
    compiler.tables.max(compiler.component_tables) as u32
}

fn pool(slots: u32, limits: &Limits, compiler: &Compiler) -> PoolingAllocationConfig {
    let (core_instances, memories) = (compiler.instances as u32, compiler.memories as u32);
    let slot_tables = slot_tables(compiler);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(slots.saturating_mul(core_instances))
        .max_core_instances_per_component(core_instances)
        .total_memories(slots * memories)
        .max_memories_per_module(memories)
        .max_memories_per_component(memories)
        .total_tables(slots * slot_tables)
        // A component's module may have as many as the whole component: a module of its own was counted before.
        .max_tables_per_module(slot_tables)
        .max_tables_per_component(compiler.component_tables as u32)
        .total_stacks(slots)
        .total_component_instances(slots)
        .max_memory_size(limits.memory.as_usize())
        .table_elements(limits.table_elements)
        .max_core_instance_size(MAX_CORE_INSTANCE_SIZE)
        .max_component_instance_size(MAX_COMPONENT_INSTANCE_SIZE)
        .linear_memory_keep_resident(slot::MEMORY_KEEP_RESIDENT)
        .table_keep_resident(slot::TABLE_KEEP_RESIDENT)
        // A process that is forked has the file for it open too, beyond exec: whoever starts a stranger's program by a
        // fork closes it, as the sandbox does with all that it does not pass on.
        .pagemap_scan(Enabled::Auto);
    pool
}

fn pooling(tier: Tier, pool: PoolingAllocationConfig) -> wasmtime::Result<Engine> {
    let mut config = code_config(tier);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}
