//! What must hold in every world, and that it did not.

use std::fmt;

use crate::clock::Nanos;
use crate::scenario::units::Time;

/// What must hold in every world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// A request is answered, unless a crash, a lost connection or its device's patience says otherwise.
    Lost,
    /// A request has one outcome, however often it is answered.
    AnsweredTwice,
    /// What may run runs: no worker is idle beside it, and no account or flow is served twice meanwhile.
    Starved,
    /// Nobody has more than its quota of the queue, of slots, of CPU and of wall-clock time.
    OverQuota,
    /// Who is within its quota is not refused.
    Refused,
    /// A buffer holds no more than its bound.
    OverBound,
    /// A request makes eight hops at the most, and never comes back to a gateway that had it.
    Wandering,
    /// A request is in one state at a time, and the books agree with what is there.
    Books,
    /// The code's own assertions hold.
    Panicked,
}

impl Invariant {
    /// What reports call a world in which it does not hold.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::AnsweredTwice => "answered twice",
            Self::Starved => "starved",
            Self::OverQuota => "over quota",
            Self::Refused => "refused within quota",
            Self::OverBound => "over bound",
            Self::Wandering => "wandering",
            Self::Books => "books",
            Self::Panicked => "panicked",
        }
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// The virtual time at which that was seen.
    pub at: Nanos,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.invariant.name(), Time(self.at), self.detail)
    }
}

/// What a part of a world has seen: the invariant, and the details.
pub type Seen = (Invariant, String);

/// Unless this holds, that was seen.
///
/// # Errors
/// If it does not hold.
pub fn ensure(holds: bool, invariant: Invariant, detail: impl FnOnce() -> String) -> Result<(), Seen> {
    if holds { Ok(()) } else { Err((invariant, detail())) }
}
