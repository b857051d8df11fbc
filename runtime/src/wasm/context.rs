//! `offload:guest/context` for components: what a guest may ask about its request. `wit/context.wit` describes it.
//!
//! These are wrapped by hand: `bindgen!` hands the store, which knows the fuel, to host functions only with wasmtime's
//! `component-model-async`, and that is all of the async ABI for one call. wasmtime compares the types when it links a
//! guest; the guest example `request`, which is built from `wit/`, imports all four.

use super::guest_state::GuestState;
use std::time::Instant;
use wasmtime::component::Linker;
use wasmtime::{Result, StoreContextMut};

/// What the name of every interface of the package starts with.
pub const PACKAGE: &str = "offload:guest/";

/// The interface, in the version that this gateway serves.
const INTERFACE: &str = "offload:guest/context@0.1.0";

/// Adds the interface to a linker.
pub fn add_to_linker(linker: &mut Linker<GuestState>) -> Result<()> {
    let mut context = linker.instance(INTERFACE)?;
    context.func_wrap("reply-id", |store: StoreContextMut<'_, GuestState>, (): ()| {
        Ok((store.data().context.reply_id.to_string(),))
    })?;
    context.func_wrap("request-id", |store: StoreContextMut<'_, GuestState>, (): ()| {
        Ok((store.data().context.request_id.as_ref().map(ToString::to_string),))
    })?;
    context.func_wrap("time-left", |store: StoreContextMut<'_, GuestState>, (): ()| {
        let left = store.data().deadline.saturating_duration_since(Instant::now());
        Ok((u64::try_from(left.as_nanos()).unwrap_or(u64::MAX),))
    })?;
    context.func_wrap("fuel-left", |store: StoreContextMut<'_, GuestState>, (): ()| Ok((store.get_fuel()?,)))
}
