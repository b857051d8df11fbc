//! Defaults that depend on the machine.

use super::ByteSize;
use std::env::{home_dir, var_os};
use std::fs;
use std::path::PathBuf;

/// Name of a gateway on a host whose own name cannot be used.
const FALLBACK_NAME: &str = "gateway";

/// Memory for guests on the smallest machine.
const LEAST_MEMORY_MIB: u64 = 64;

/// The host's name, as far as it is a gateway name.
pub(super) fn name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if is_gateway_name(&host) { host } else { FALLBACK_NAME.to_owned() }
}

/// The name is a level of a topic, and part of client ids and logs.
pub(super) fn is_gateway_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(allowed)
}

/// `/var/lib` for root, otherwise where the XDG Base Directory Specification puts state; empty where the environment
/// and the user database name no folder.
pub(super) fn data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/offload-rt");
    }
    state_folder(var_os("XDG_STATE_HOME").map(PathBuf::from), home_dir())
        .map_or_else(PathBuf::new, |state| state.join("offload-rt"))
}

/// The specification says to ignore a relative path.
fn state_folder(state: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let in_home = || home.filter(absolute).map(|home| home.join(".local/state"));
    state.filter(absolute).or_else(in_home)
}

/// Processor cores that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// A quarter of the machine's memory.
pub(super) fn quarter_of_memory() -> ByteSize {
    ByteSize::mib(((memory().bytes() / 4) >> 20).max(LEAST_MEMORY_MIB))
}

/// The machine's memory, or what the control group leaves of it.
pub(super) fn memory() -> ByteSize {
    let machine = rustix::system::sysinfo();
    let machine = machine.totalram as u64 * u64::from(machine.mem_unit);
    // Version 2's, then version 1's; "max", or more than the machine has, where there is no limit.
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .find_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    ByteSize::new(machine.min(group.unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_kept_where_the_specification_says_or_nowhere() {
        let folder = |state: Option<&str>, home: Option<&str>| {
            state_folder(state.map(PathBuf::from), home.map(PathBuf::from))
        };
        assert_eq!(folder(Some("/s"), Some("/h")), Some("/s".into()));
        for state in [None, Some(""), Some("relative")] {
            assert_eq!(folder(state, Some("/h")), Some("/h/.local/state".into()));
            for home in [None, Some(""), Some("relative")] {
                assert_eq!(folder(state, home), None);
            }
        }
    }
}
