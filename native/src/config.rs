//! What an operator may choose.

use crate::{Compilers, Mechanism, SandboxLimits};
use std::path::PathBuf;

/// An identity that no distribution hands out (above systemd's ranges, below 2^31).
const DEFAULT_UID: u32 = 1_879_100_000;

/// The operator's choices.
#[derive(Clone, Debug)]
pub struct Config {
    /// bubblewrap, 0.8 or newer. Default: `bwrap`, looked for in `PATH`.
    pub bubblewrap: PathBuf,
    /// User and group that sandboxes run as where the caller is root. It should own nothing. Default: 1879100000.
    /// Any other caller's sandboxes run as the caller, in a user namespace that holds no other identity.
    pub uid: u32,
    /// What a build sees of the host, read-only; what is missing is left out.
    /// Default: `/usr` and what belongs to it, without `/etc` but the linker's cache and Debian's choice of tools.
    pub toolchain: Vec<PathBuf>,
    /// What a run sees of the host, read-only. Default: the libraries.
    pub libraries: Vec<PathBuf>,
    /// What may be missing though a promise is broken without it; only a [`crate::Need::Promise`] can be done without.
    /// Default: nothing.
    pub accept: Vec<Mechanism>,
    /// What compiles in builds for this machine. Default: what is called.
    pub compilers: Compilers,
    /// Limits of a build.
    pub build: SandboxLimits,
    /// What a build may leave for its program's runs to find, in bytes of a work directory; at most
    /// [`crate::MAX_FOLDER`]. Default: a run's whole work directory.
    pub folder: u64,
}

impl Default for Config {
    fn default() -> Self {
        let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect();
        Self {
            bubblewrap: "bwrap".into(),
            uid: DEFAULT_UID,
            toolchain: paths(&[
                "/usr",
                "/bin",
                "/lib",
                "/lib32",
                "/lib64",
                "/libx32",
                "/etc/alternatives",
                "/etc/ld.so.cache",
            ]),
            libraries: paths(&[
                "/usr/lib",
                "/usr/lib32",
                "/usr/lib64",
                "/usr/libx32",
                "/usr/local/lib",
                "/lib",
                "/lib32",
                "/lib64",
                "/libx32",
                "/etc/ld.so.cache",
            ]),
            accept: Vec::new(),
            compilers: Compilers::default(),
            build: SandboxLimits::build(),
            folder: SandboxLimits::run().work_dir,
        }
    }
}
