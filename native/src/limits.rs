//! What one sandbox may use.

use std::time::Duration;

/// What one sandbox, with all its processes, may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxLimits {
    /// CPU time of all processes together; one process alone is stopped by the kernel at the next full second.
    pub cpu: Duration,
    /// Wall-clock time from the start of the sandbox.
    pub wall: Duration,
    /// Memory of all processes together, in bytes. Pages that a fork shares count for each of the processes. The work
    /// directory is extra.
    pub memory: u64,
    /// Mappings of all processes together: of each the kernel keeps a record. Over it a sandbox ends as over its
    /// memory.
    pub mappings: u64,
    /// Processes and threads at a time, two of which are the sandbox's own.
    pub processes: u64,
    /// Size of any one file, in bytes.
    pub file_size: u64,
    /// Size of the work directory, in bytes. It is in memory.
    pub work_dir: u64,
    /// Files, directories and links in the work directory. They are the kernel's memory.
    pub files: u64,
    /// Descriptors that one process may have open.
    pub open_files: u64,
    /// Standard output, in bytes; the sandbox is ended by the first byte more.
    pub stdout: usize,
    /// Standard error, in bytes. A run loses what exceeds it; a build is ended.
    pub stderr: usize,
}

const MIB: u64 = 1024 * 1024;

impl SandboxLimits {
    /// For a build: what `gcc -O2` needs for a file of some thousand lines, with room. `stdout` is the largest
    /// program.
    pub fn build() -> Self {
        Self {
            cpu: Duration::from_secs(20),
            wall: Duration::from_secs(30),
            memory: 512 * MIB,
            mappings: 16_384,
            processes: 64,
            file_size: 32 * MIB,
            work_dir: 64 * MIB,
            files: 16_384,
            open_files: 256,
            stdout: 16 << 20,
            stderr: 1 << 20,
        }
    }

    /// For a run.
    pub fn run() -> Self {
        Self {
            cpu: Duration::from_secs(10),
            wall: Duration::from_secs(30),
            memory: 256 * MIB,
            mappings: 16_384,
            processes: 32,
            file_size: 16 * MIB,
            work_dir: 16 * MIB,
            files: 4_096,
            open_files: 64,
            stdout: 1 << 20,
            stderr: 64 << 10,
        }
    }

    /// The address space that one process may reserve: thread stacks and allocators reserve far more than they use, and
    /// use is what [`SandboxLimits::memory`] bounds. This is what holds between two measurements of it.
    pub(crate) fn address_space(&self) -> u64 {
        self.memory.saturating_mul(2).saturating_add(256 * MIB)
    }
}
