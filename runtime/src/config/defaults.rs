//! Defaults that depend on the machine.

use std::env::{home_dir, var_os};
use std::path::PathBuf;

/// Name of a gateway on a host whose own name cannot be used.
const FALLBACK_NAME: &str = "gateway";

/// The host's name, as far as it is a gateway name.
pub(super) fn name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if super::is_gateway_name(&host) { host } else { FALLBACK_NAME.to_owned() }
}

/// `/var/lib` for root, otherwise where the XDG Base Directory Specification puts state.
pub(super) fn data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/offload-rt");
    }
    // The specification says to ignore a relative path.
    let state = var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || home_dir().unwrap_or_default().join(".local/state");
    state.unwrap_or_else(home).join("offload-rt")
}

/// Processor cores that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}
