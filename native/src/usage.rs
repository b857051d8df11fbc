//! What all processes of a sandbox use together.
//!
//! Resource limits of the kernel hold for one process each, and control groups can be written on few machines; `/proc`
//! is there for everyone.

use rustix::process::Pid;
use std::io::{BufRead, BufReader};
use std::time::Duration;
use std::{fs, io};

/// What all processes of a sandbox use together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, that of ended processes included.
    pub cpu: Duration,
    /// Bytes that no file on a disk backs, resident or swapped out, and those of page tables.
    pub memory: u64,
    /// Bytes that could be mapped, whether or not there is anything.
    pub address_space: u64,
    pub threads: u64,
}

impl Usage {
    fn add(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.memory += other.memory;
        self.address_space += other.address_space;
        self.threads += other.threads;
    }
}

/// Bytes that a socket may hold by default, on most machines: `net.core.wmem_default`.
const SOCKET_BUFFER: u64 = 212_992;

/// Bytes that are read of a list of mappings at a time.
const MAPS_AT_ONCE: usize = 64 * 1024;

/// How often the processes are gone through where some end meanwhile: one that hands its memory on to a new process,
/// and ends, is seen by one of these walks.
const WALKS: usize = 3;

/// Of the processes below `root`, the first in its process namespace, `most` at the most. A process that loses its
/// parent there becomes its child, so none leaves the tree. An error says that the root itself cannot be read.
pub fn of(root: Pid, most: u64) -> io::Result<Usage> {
    let root = root.as_raw_nonzero().get();
    let mut usage = Usage::default();
    for _ in 0..WALKS {
        let mut walked = of_one(root, true)?;
        let mut ended = false;
        let all = walk(root, most, |pid| {
            // A process that has ended meanwhile is in its parent's times, or will be.
            let one = of_one(pid, false).unwrap_or_default();
            ended |= one.memory == 0;
            walked.add(one);
        });
        usage.cpu = usage.cpu.max(walked.cpu);
        usage.memory = usage.memory.max(walked.memory);
        usage.address_space = usage.address_space.max(walked.address_space);
        usage.threads = usage.threads.max(walked.threads);
        if all && !ended {
            break;
        }
    }
    // Not there on kernels without CONFIG_PROC_CHILDREN: better no sandbox than one that measures nothing.
    fs::metadata(format!("/proc/{root}/task/{root}/children"))?;
    Ok(usage)
}

/// Mappings of all of them together, counted until they are more than `enough`. Each is the kernel's memory, some 450
/// bytes.
pub fn mappings(root: Pid, most: u64, enough: u64) -> u64 {
    let mut count = 0;
    walk(root.as_raw_nonzero().get(), most, |pid| {
        let Ok(maps) = fs::File::open(format!("/proc/{pid}/maps")) else { return };
        let mut lines = BufReader::with_capacity(MAPS_AT_ONCE, maps).split(b'\n');
        while count <= enough && lines.next().is_some_and(|line| line.is_ok()) {
            count += 1;
        }
    });
    count
}

/// Bytes that the sockets of a sandbox may hold, which no process's figures count: what each may send before it is
/// read. Where the kernel does not tell their number there are none: a filter of system calls lets few programs have
/// any.
pub fn sockets(root: Pid) -> u64 {
    let number = |path: String, name: &str| value(&fs::read_to_string(path).ok()?, name);
    let of_root = format!("/proc/{}/net/sockstat", root.as_raw_nonzero());
    let buffer = || number("/proc/sys/net/core/wmem_default".to_owned(), "").unwrap_or(SOCKET_BUFFER);
    match number(of_root, "sockets: used") {
        None | Some(0) => 0,
        Some(sockets) => sockets.saturating_mul(buffer()),
    }
}

/// Goes through the processes below `root`, at most `most`. False where one of them has ended meanwhile, whose children
/// are elsewhere now.
fn walk(root: i32, most: u64, mut look: impl FnMut(i32)) -> bool {
    let mut parents = vec![root];
    let mut seen = 1;
    let mut all = true;
    while let Some(parent) = parents.pop() {
        let Ok(children) = children(parent) else {
            all = false;
            continue;
        };
        for child in children {
            seen += 1;
            if seen > most {
                return all;
            }
            look(child);
            parents.push(child);
        }
    }
    all
}

pub fn children(pid: i32) -> io::Result<Vec<i32>> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // Threads come and go while they are listed.
        let Ok(children) = fs::read_to_string(task?.path().join("children")) else { continue };
        all.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Ok(all)
}

fn of_one(pid: i32, is_root: bool) -> io::Result<Usage> {
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "/proc is not as Linux has it");
    // First what one process can hand on to another.
    let memory = memory_of(pid)?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let usage = from_stat(&stat).ok_or_else(unreadable)?;
    // A process that has given its memory back and waits to be reaped has none; the root always has.
    Ok(Usage { memory: if is_root { memory.ok_or_else(unreadable)? } else { memory.unwrap_or(0) }, ..usage })
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

/// All but memory, of proc(5)'s stat.
fn from_stat(stat: &str) -> Option<Usage> {
    // The second field is the program's name, which may hold anything; it ends at the last parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<u64> =
        fields.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).take(21).collect();
    // As that page counts them, from 1.
    let field = |number: usize| fields.get(number - 3).copied();
    // Its own time in user and kernel mode, and that of children it has waited for.
    let ticks = field(14)? + field(15)? + field(16)? + field(17)?;
    let cpu = Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
    Some(Usage { cpu, memory: 0, threads: field(20)?, address_space: field(23)? })
}

fn resident(status: &str) -> Option<u64> {
    let kilobytes = |name| value(status, name);
    // Nothing hides from the measurement by being swapped out; kernels without swap have no such line.
    let resident = kilobytes("RssAnon:")? + kilobytes("RssShmem:")?;
    Some((resident + kilobytes("VmSwap:").unwrap_or(0) + kilobytes("VmPTE:").unwrap_or(0)) * 1024)
}

/// The number in one line of proc(5)'s status.
fn value(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    #[test]
    fn times_are_read_past_any_name() {
        let stat = "7 (a) R 1 (b) S 1 7 7 0 -1 4194304 0 0 0 0 100 50 25 25 20 0 3 0 77 8192 9";
        let usage = Usage { cpu: Duration::from_secs(2), memory: 0, address_space: 8192, threads: 3 };
        assert_eq!(from_stat(stat), Some(usage));
        assert_eq!(from_stat("7 (a) S 1 7"), None);
    }

    #[test]
    fn memory_is_what_no_file_backs() {
        assert_eq!(
            resident(
                "VmRSS:\t9 kB\nRssAnon:\t      4 kB\nRssFile:\t 3 kB\nRssShmem:\t 2 kB\nVmPTE:\t 7 kB\nVmSwap:\t 5 kB\n"
            ),
            Some(18 * 1024)
        );
        assert_eq!(resident("Name:\tx\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = of(rustix::process::getpid(), 1000).unwrap();
        assert!(usage.memory > 0 && usage.address_space > usage.memory && usage.threads > 0, "{usage:?}");
    }

    #[test]
    fn mappings_of_the_processes_below_are_counted_as_far_as_asked() {
        // It ends with its input, and has begun when it says something.
        let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        cat.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        cat.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let count = |enough| mappings(rustix::process::getpid(), 1000, enough);
        assert!(count(1000) > 4, "{}", count(1000));
        assert_eq!(count(2), 3);
        drop(cat.stdin.take());
        cat.wait().unwrap();
    }
}
