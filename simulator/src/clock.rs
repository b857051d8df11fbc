//! Virtual time: what it is counted in, and what happens when.

pub mod calendar;
mod soon;

/// A virtual time, or a length of it, in nanoseconds: 584 years of them.
pub type Nanos = u64;

/// One second.
pub const SECOND: Nanos = 1_000_000_000;

/// One millisecond.
pub const MILLISECOND: Nanos = 1_000_000;

/// One microsecond.
pub const MICROSECOND: Nanos = 1_000;

/// As the policy takes times.
pub fn policy_time(time: Nanos) -> offload_policy::Time {
    offload_policy::Time::from_nanos(time)
}

/// From a time of the policy's.
pub fn from_policy(time: offload_policy::Time) -> Nanos {
    time.as_nanos()
}

/// In seconds.
pub fn seconds(time: Nanos) -> f64 {
    time as f64 / SECOND as f64
}
