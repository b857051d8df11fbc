//! What all processes of a sandbox use together.
//!
//! Resource limits of the kernel hold for one process each, and control groups can be written on few machines; `/proc`
//! is there for everyone.

use rustix::process::Pid;
use std::time::Duration;
use std::{fs, io};

/// What all processes of a sandbox use together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, that of ended processes included.
    pub cpu: Duration,
    /// Bytes that no file on a disk backs, resident or swapped out.
    pub memory: u64,
}

/// Of the processes below `root`, the first in its process namespace: whoever loses his parent there becomes its child,
/// so nobody leaves the tree. At most `most` of them. An error says that the root itself cannot be read.
pub fn of(root: Pid, most: u64) -> io::Result<Usage> {
    let mut usage = of_one(root.as_raw_nonzero().get(), true)?;
    let mut parents = vec![root.as_raw_nonzero().get()];
    let mut seen = 1;
    while let Some(parent) = parents.pop() {
        // A process that has ended meanwhile is in its parent's times, or will be.
        for child in children(parent).unwrap_or_default() {
            seen += 1;
            if seen > most {
                return Ok(usage);
            }
            if let Ok(one) = of_one(child, false) {
                usage.cpu += one.cpu;
                usage.memory += one.memory;
            }
            parents.push(child);
        }
    }
    // Not there on kernels without CONFIG_PROC_CHILDREN: better no sandbox than one that measures nothing.
    fs::metadata(format!("/proc/{root}/task/{root}/children", root = root.as_raw_nonzero()))?;
    Ok(usage)
}

fn children(pid: i32) -> io::Result<Vec<i32>> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // Threads come and go while they are listed.
        let Ok(children) = fs::read_to_string(task?.path().join("children")) else { continue };
        all.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Ok(all)
}

fn of_one(pid: i32, is_root: bool) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "/proc is not as Linux has it");
    let cpu = cpu_time(&stat).ok_or_else(unreadable)?;
    // A process that has given its memory back and waits to be reaped has none; the root always has.
    let memory = memory_of(pid)?;
    Ok(Usage { cpu, memory: if is_root { memory.ok_or_else(unreadable)? } else { memory.unwrap_or(0) } })
}

/// Of all threads together. The first one may have ended while others go on; then only theirs tells.
fn memory_of(pid: i32) -> io::Result<Option<u64>> {
    let memory = resident(&fs::read_to_string(format!("/proc/{pid}/status"))?);
    if memory.is_some() {
        return Ok(memory);
    }
    let mut threads = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
    Ok(threads.find_map(|thread| resident(&fs::read_to_string(thread.path().join("status")).ok()?)))
}

/// How many filters of system calls a process has.
pub fn filters(pid: Pid) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()))?;
    value(&status, "Seccomp_filters:")
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "the kernel does not count filters"))
}

/// Inodes of the file system in memory that the sandbox of `root` has at `folder`.
pub fn files(root: Pid, folder: &str) -> io::Result<u64> {
    let of = rustix::fs::statvfs(format!("/proc/{}/root{folder}", root.as_raw_nonzero()))?;
    Ok(of.f_files.saturating_sub(of.f_ffree))
}

/// Fields 14 to 17 of proc(5)'s stat: its own time in user and kernel mode, and that of children it has waited for.
fn cpu_time(stat: &str) -> Option<Duration> {
    // The second field is the program's name, which may hold anything; it ends at the last parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 =
        fields.split_ascii_whitespace().skip(11).take(4).map(|n| n.parse::<u64>().unwrap_or(0)).sum();
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

fn resident(status: &str) -> Option<u64> {
    let kilobytes = |name| value(status, name);
    // Nothing hides from the measurement by being swapped out; kernels without swap have no such line.
    Some((kilobytes("RssAnon:")? + kilobytes("RssShmem:")? + kilobytes("VmSwap:").unwrap_or(0)) * 1024)
}

/// The number in one line of proc(5)'s status.
fn value(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_past_any_name() {
        let stat = "7 (a) R 1 (b) S 1 7 7 0 -1 4194304 0 0 0 0 100 50 25 25 20 0 1 0";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(2)));
    }

    #[test]
    fn memory_is_what_no_file_backs() {
        assert_eq!(
            resident(
                "VmRSS:\t9 kB\nRssAnon:\t      4 kB\nRssFile:\t 3 kB\nRssShmem:\t 2 kB\nVmSwap:\t 5 kB\n"
            ),
            Some(11 * 1024)
        );
        assert_eq!(resident("Name:\tx\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(of(rustix::process::getpid(), 1000).unwrap().memory > 0);
    }
}
