//! How busy the workers are.

/// How busy all workers are together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Threads that run guests.
    pub workers: usize,
    /// Guests that have started.
    pub running: usize,
    /// Requests that were admitted and are not with a worker: what is compiled, built or run natively is among them.
    pub waiting: usize,
    /// Guests that have started and wait for their next slice.
    pub runnable: usize,
    /// Workers that have panicked since the start, and were restarted.
    pub restarted: u64,
}
