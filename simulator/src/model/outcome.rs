//! What becomes of a request, as its device knows it.

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
    /// There was no answer, and the device has given up.
    Unanswered,
}

impl Outcome {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::BusyFlow,
        Self::BusyAccount,
        Self::BusyTotal,
        Self::Expired,
        Self::CpuLimit,
        Self::WallLimit,
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
            Self::Unanswered => "no answer",
        }
    }

    /// Whether the gateway has run it, and remembers that it came to this.
    pub fn is_of_a_run(self) -> bool {
        matches!(self, Self::Ok | Self::CpuLimit | Self::WallLimit)
    }

    /// Whether the gateway asks the device to come back.
    pub fn is_busy(self) -> bool {
        matches!(self, Self::BusyFlow | Self::BusyAccount | Self::BusyTotal)
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
