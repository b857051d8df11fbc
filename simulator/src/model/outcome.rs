//! What becomes of a request, as its device knows it.

use offload_policy::GivenUp;
use offload_policy::fair_queue::Full;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was run.
    Ok,
    /// The device has too much waiting.
    BusyFlow,
    /// The device's account has.
    BusyAccount,
    /// All together have.
    BusyTotal,
    /// Its deadline came before it could start.
    Expired,
    /// The guest has used its CPU time.
    CpuLimit,
    /// The guest has used its wall-clock time.
    WallLimit,
    /// There is no room for more requests that are on their way to another site.
    BusySites,
    /// Its site is away.
    Unreachable,
    /// It may have run at another site, and no answer came in time.
    Timeout,
    /// There was no answer, and the device has given up.
    Unanswered,
}

impl Outcome {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Ok,
        Self::BusyFlow,
        Self::BusyAccount,
        Self::BusyTotal,
        Self::Expired,
        Self::CpuLimit,
        Self::WallLimit,
        Self::BusySites,
        Self::Unreachable,
        Self::Timeout,
        Self::Unanswered,
    ];

    /// What reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::BusyFlow => "busy (device)",
            Self::BusyAccount => "busy (account)",
            Self::BusyTotal => "busy (all)",
            Self::Expired => "expired",
            Self::CpuLimit => "limit (cpu)",
            Self::WallLimit => "limit (wall)",
            Self::BusySites => "busy (sites)",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Unanswered => "no answer",
        }
    }

    /// Whether the gateway has run it, and remembers that it came to this.
    pub fn is_of_a_run(self) -> bool {
        matches!(self, Self::Ok | Self::CpuLimit | Self::WallLimit)
    }

    /// Whether the gateway asks the device to come back.
    pub fn is_busy(self) -> bool {
        matches!(self, Self::BusyFlow | Self::BusyAccount | Self::BusyTotal | Self::BusySites)
    }

    /// Whether it says that nothing was run, so that another gateway may run it and its `id` is not remembered.
    pub fn is_refusal(self) -> bool {
        self.is_busy() || self == Self::Unreachable
    }
}

impl From<GivenUp> for Outcome {
    fn from(why: GivenUp) -> Self {
        match why {
            GivenUp::Timeout => Self::Timeout,
            GivenUp::Expired => Self::Expired,
            GivenUp::Unknown | GivenUp::Away(_) | GivenUp::Silent(_) => Self::Unreachable,
        }
    }
}

impl From<Full> for Outcome {
    fn from(full: Full) -> Self {
        match full {
            Full::Flow => Self::BusyFlow,
            Full::Account => Self::BusyAccount,
            Full::Total => Self::BusyTotal,
        }
    }
}
