//! What one slot of an engine keeps, and the stack that its guest has.

/// Linear memory that a pool slot keeps mapped between guests, in bytes: room for a stack of 1 MiB, which Rust has by
/// default, and data. Clearing it with `memset` is several times cheaper than giving the pages back and faulting them
/// in again, and without it a second thread makes the pool slower (page-table locks). Which of it a guest has written,
/// the kernel tells where it can (`PAGEMAP_SCAN`); elsewhere all of it is cleared.
pub const MEMORY_KEEP_RESIDENT: usize = 2 << 20;

/// The same for tables, in bytes.
pub const TABLE_KEEP_RESIDENT: usize = 64 << 10;

/// Stack that wasm code may use before it traps, in bytes, counted anew at each entry into wasm: wasmtime takes it from
/// where the stack is then, since a store that can block may be entered on another stack.
pub const MAX_WASM_STACK: usize = 512 << 10;

/// Entries into wasm that stand on one fiber at once, at the most. A start function, `_start`, `run` and its
/// post-return are entered one after the other. They call each other's components and the destructors of guests'
/// resources as wasm calls wasm, without a new entry. A host function that returns a list enters a second time, to have
/// the guest's `realloc` place it; from there no third is possible, since a component may call no import and drop no
/// resource until `realloc` has returned (`may_leave` in the canonical ABI). Modules have no `realloc` that the host
/// calls, and take one entry.
const ENTRIES: usize = 2;

/// Stack of what the host does above an entry, in bytes: a call of WASI with all that it polls, or a growth of memory.
/// Random bytes, `realloc` and a growth inside of it together were found to take less than 4 KiB.
const HOST_STACK: usize = 128 << 10;

/// Stack of a guest's fiber, in bytes: `realloc` may run to its limit when the guest that called the host has reached
/// its own. It is mapped as it is used.
pub const ASYNC_STACK_SIZE: usize = fiber_stack(MAX_WASM_STACK);

/// The fiber of a guest whose code may use so much of the stack at each entry.
pub const fn fiber_stack(wasm_stack: usize) -> usize {
    ENTRIES * (wasm_stack + HOST_STACK)
}
