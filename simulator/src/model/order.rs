//! What is asked of a gateway.

use crate::clock::Nanos;

/// Whom a request is counted for: account, and device.
pub type Key = (u32, u32);

/// What is to be run for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The request's number in the world.
    pub request: u32,
    /// The CPU time that its guest takes, the worker's own included.
    pub demand: Nanos,
    /// How long the guest sleeps first.
    pub sleep: Nanos,
    /// Whether its slices can be ended.
    pub yields: bool,
}

/// What is asked of a gateway.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// For whom.
    pub key: Key,
    /// What it holds in memory.
    pub bytes: usize,
    /// The program's number.
    pub program: u32,
    /// When it is not to be started any more.
    pub deadline: Option<Nanos>,
    /// What it needs besides, where that is simulated.
    pub need: Option<ModuleNeed>,
    /// What is to be run.
    pub job: Job,
}

/// What a request needs besides a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModuleNeed {
    /// The module's number, of all in the world.
    pub module: u32,
    /// Its size when it is compiled.
    pub size: usize,
    /// Time on a core to compile or build it.
    pub compile: Nanos,
    /// What a worker takes to load it.
    pub load: Nanos,
    /// For a native program, the time until its sandbox is there.
    pub native: Option<Nanos>,
}
