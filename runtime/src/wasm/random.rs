//! Randomness for guests, in bounded pieces that cost fuel, so that a loop over it ends like any other.

use super::guest_state::GuestState;
use wasmtime::{Result, StoreContextMut, Trap};

/// Bytes made before the worker is given back.
pub const CHUNK: usize = 16 << 10;

/// Bytes that cost one unit of fuel.
const BYTES_PER_FUEL: u64 = 4;

/// Takes the fuel for this many bytes.
///
/// # Errors
///
/// `Trap::OutOfFuel` when there is not enough.
pub fn charge(store: &mut StoreContextMut<'_, GuestState>, bytes: usize) -> Result<()> {
    let left = store.get_fuel()?.checked_sub(bytes as u64 / BYTES_PER_FUEL);
    store.set_fuel(left.unwrap_or(0))?;
    left.map(|_| ()).ok_or(Trap::OutOfFuel.into())
}

/// Fills a piece of at most [`CHUNK`] bytes.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| wasmtime::format_err!("no randomness: {error}"))
}
