//! Why a connection ends, and what follows from it.

use crate::{
    reason::{Reason, Violation},
    registry::Ending,
    session::Evicted,
};

#[derive(Debug)]
pub(super) enum End {
    /// DISCONNECT.
    Goodbye {
        reason: u8,
        session_expiry: Option<u32>,
    },
    /// The client closed without one, or the network failed.
    Lost,
    Violation(Violation),
    /// The session is another connection's, or has ended.
    Evicted(Reason),
    KeepAlive,
    /// The client takes nothing any more.
    Stalled,
    /// A packet that has begun does not come.
    TooSlow,
    Shutdown,
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<Evicted> for End {
    fn from(Evicted(reason): Evicted) -> Self {
        Self::Evicted(reason)
    }
}

impl End {
    /// What the session is told.
    pub fn ending(&self) -> Ending {
        match *self {
            Self::Goodbye { reason, session_expiry } => Ending { publish_will: reason != 0, session_expiry },
            Self::Shutdown => Ending { publish_will: false, session_expiry: None },
            _ => Ending { publish_will: true, session_expiry: None },
        }
    }

    /// What the client is told in DISCONNECT, if it is still there to be told.
    pub fn reason(&self) -> Option<Reason> {
        match *self {
            Self::Goodbye { .. } | Self::Lost | Self::Stalled => None,
            Self::Violation(violation) => Some(violation.reason),
            Self::Evicted(reason) => Some(reason),
            // What the standard has for a packet that is not complete in time (section 4.13.1) is nearest to this.
            Self::KeepAlive | Self::TooSlow => Some(Reason::KeepAliveTimeout),
            Self::Shutdown => Some(Reason::ServerShuttingDown),
        }
    }
}
