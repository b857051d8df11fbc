//! What a process and its folder take, as the kernel tells.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, WaitOptions, getpid, waitpid};

/// Name of the folder of a journal, which has bounds of its own.
const JOURNAL: &str = "journal";

/// What a run watches for growth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Open descriptors of the process.
    pub descriptors: usize,
    /// Its memory, in KiB.
    pub memory_kib: u64,
    /// Files and folders below the folder, but for those of a journal, which keeps long outcomes for minutes.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Resources {
    /// Of this process, and of this folder.
    pub fn of(process: u32, folder: &Path) -> Resources {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count);
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory_kib = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
        let mut resources =
            Resources { descriptors, memory_kib: memory_kib.unwrap_or(0), ..Resources::default() };
        resources.add(folder, 1);
        resources
    }

    /// Of two processes together.
    pub fn plus(self, other: Resources) -> Resources {
        Resources {
            descriptors: self.descriptors + other.descriptors,
            memory_kib: self.memory_kib + other.memory_kib,
            files: self.files + other.files,
            bytes: self.bytes + other.bytes,
        }
    }

    /// Files and folders below this folder.
    pub fn files_below(folder: &Path) -> usize {
        let mut resources = Resources::default();
        resources.add(folder, 1);
        resources.files
    }

    fn add(&mut self, folder: &Path, counted: usize) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            self.files += counted;
            if metadata.is_dir() {
                let counted = if entry.file_name() == JOURNAL { 0 } else { counted };
                self.add(&entry.path(), counted);
            } else {
                self.bytes += metadata.len();
            }
        }
    }
}

/// The children of a process, with their names; of this process, those that have ended are collected first, but for
/// `own`, which somebody waits for.
pub fn children(of: u32, own: &[u32]) -> Vec<(u32, String)> {
    let ours = of == getpid().as_raw_nonzero().get().unsigned_abs();
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name is in parentheses and can hold anything, parentheses too.
        let Some((begin, rest)) = stat.rsplit_once(") ") else { continue };
        let name = begin.split_once(" (").map_or("", |(_, name)| name).to_owned();
        let mut fields = rest.split(' ');
        let (state, parent) = (fields.next(), fields.next());
        if parent != Some(&of.to_string()) || own.contains(&id) {
            continue;
        }
        let dead = state == Some("Z");
        if dead && ours {
            // It is of nobody else's interest: an orphan of what was killed.
            let _ = waitpid(Pid::from_raw(id.cast_signed()), WaitOptions::NOHANG);
        } else if !dead {
            children.push((id, name));
        }
    }
    children
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("a")).expect("a folder");
        fs::write(folder.path().join("a/b"), b"12345").expect("a file");
        let resources = Resources::of(std::process::id(), folder.path());
        assert!(resources.descriptors > 2 && resources.memory_kib > 0, "{resources:?}");
        assert_eq!((resources.files, resources.bytes), (2, 5));
        fs::rename(folder.path().join("a"), folder.path().join(JOURNAL)).expect("it is renamed");
        let resources = Resources::of(std::process::id(), folder.path());
        assert_eq!((resources.files, resources.bytes), (1, 5));
    }

    #[test]
    fn a_child_is_seen_and_its_end_too() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep starts");
        let this = std::process::id();
        let seen = |own: &[u32]| children(this, own).iter().any(|(id, _)| *id == child.id());
        assert!(seen(&[]));
        assert!(!seen(&[child.id()]));
        let id = child.id();
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
        assert!(!children(this, &[]).iter().any(|(other, _)| *other == id));
    }
}
