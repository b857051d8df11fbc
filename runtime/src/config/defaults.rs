//! Defaults that depend on the machine.

use std::env::{home_dir, var_os};
use std::fs;
use std::path::PathBuf;

use super::ByteSize;

/// Name of a gateway on a host whose own name cannot be used.
const FALLBACK_NAME: &str = "gateway";

/// Memory for guests on the smallest machine.
const LEAST_MEMORY_MIB: u64 = 64;

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

/// A quarter of the machine's memory, or of what the control group leaves of it.
pub(super) fn quarter_of_memory() -> ByteSize {
    let machine = rustix::system::sysinfo();
    let machine = machine.totalram as u64 * u64::from(machine.mem_unit);
    // Version 2's, then version 1's; "max", or more than the machine has, where there is no limit.
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .find_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    let memory = machine.min(group.unwrap_or(u64::MAX)) / 4;
    ByteSize::mib((memory >> 20).max(LEAST_MEMORY_MIB))
}
