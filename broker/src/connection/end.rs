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
    /// What the client has asked for is to be stored, and never will be.
    StorageFailed,
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
            Self::StorageFailed => Some(Reason::ServerUnavailable),
            Self::Shutdown => Some(Reason::ServerShuttingDown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_and_the_client_are_told_of_each_end() {
        let goodbye = |reason| End::Goodbye { reason, session_expiry: Some(7) };
        for (end, publish_will, session_expiry, reason) in [
            (goodbye(0), false, Some(7), None),
            (goodbye(4), true, Some(7), None), // DISCONNECT with will
            (End::Lost, true, None, None),
            (End::Stalled, true, None, None),
            (Violation::protocol("").into(), true, None, Some(Reason::ProtocolError)),
            (Evicted(Reason::SessionTakenOver).into(), true, None, Some(Reason::SessionTakenOver)),
            (End::KeepAlive, true, None, Some(Reason::KeepAliveTimeout)),
            (End::TooSlow, true, None, Some(Reason::KeepAliveTimeout)),
            (End::StorageFailed, true, None, Some(Reason::ServerUnavailable)),
            (End::Shutdown, false, None, Some(Reason::ServerShuttingDown)),
        ] {
            assert_eq!(end.ending(), Ending { publish_will, session_expiry }, "{end:?}");
            assert_eq!(end.reason(), reason, "{end:?}");
        }
    }
}
