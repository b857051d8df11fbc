//! What happens in a world.

use super::failures::Trouble;
use crate::model::Outcome;

/// Something that happens. Sixteen bytes: there are as many as there are devices, at the least.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A device's arrival process is due.
    Due {
        /// The device.
        device: u32,
    },
    /// A device sends one request of a burst.
    Sends {
        /// The device.
        device: u32,
    },
    /// A request is at its gateway.
    Arrives {
        /// The request.
        request: u32,
        /// Its gateway.
        gateway: u32,
    },
    /// A gateway has read a request.
    Received {
        /// The request.
        request: u32,
        /// The gateway.
        gateway: u32,
        /// Which process of the gateway it was.
        incarnation: u16,
        /// Whether a broker counts it as this gateway's until it is answered.
        is_handed_out: bool,
    },
    /// A worker's slice ends.
    SliceEnds {
        /// The gateway.
        gateway: u32,
        /// Its worker.
        worker: u16,
        /// Which process of the gateway it was.
        incarnation: u16,
    },
    /// A guest that slept goes on.
    Wakes {
        /// The gateway.
        gateway: u32,
        /// The guest.
        guest: u32,
        /// Its worker.
        worker: u16,
        /// Which process of the gateway it was.
        incarnation: u16,
    },
    /// A gateway looks for what is overdue.
    Looks {
        /// The gateway.
        gateway: u32,
    },
    /// A device has an answer.
    Answered {
        /// The request.
        request: u32,
        /// After how many milliseconds a busy gateway asks it to come back.
        retry_after: u32,
        /// What the answer says.
        outcome: Outcome,
    },
    /// A device has waited for too long.
    TimesOut {
        /// The request.
        request: u32,
        /// Which sending of it.
        attempt: u16,
    },
    /// A device sends a request again.
    SendsAgain {
        /// The request.
        request: u32,
    },
    /// A gateway of a work queue has claimed a request.
    Claimed {
        /// The request.
        request: u32,
        /// The gateway.
        gateway: u32,
        /// Which process of the gateway it was.
        incarnation: u16,
    },
    /// The outcome of a request is safe, and can be answered.
    Recorded {
        /// The request.
        request: u32,
        /// The gateway.
        gateway: u32,
        /// Which process of the gateway it was.
        incarnation: u16,
        /// What the answer says.
        outcome: Outcome,
    },
    /// A work queue has not heard of a gateway for as long as it waits.
    Overdue {
        /// The gateway.
        gateway: u32,
        /// Which process of the gateway it was.
        incarnation: u16,
    },
    /// A message between routers is at its master.
    AtMaster {
        /// The message.
        packet: u32,
    },
    /// A message between routers is at the one that it is for.
    AtGate {
        /// The message.
        packet: u32,
        /// The router's gateway.
        gateway: u32,
    },
    /// A router looks for what is overdue.
    Routes {
        /// Its gateway.
        gateway: u32,
    },
    /// A router says how busy its gateway is.
    TellsLoad {
        /// Its gateway.
        gateway: u32,
    },
    /// A router tries to join a master.
    Joins {
        /// Its gateway.
        gateway: u32,
        /// Which of its connections.
        connection: u16,
    },
    /// A router and its master have not heard of each other for long.
    Silence {
        /// The router's gateway.
        gateway: u32,
        /// Which of its connections.
        connection: u16,
        /// Which session of that it was.
        session: u32,
    },
    /// Something goes wrong.
    Fails(Trouble),
    /// It is over.
    Recovers(Trouble),
    /// An interval of the recorder ends.
    IntervalEnds,
}

impl Event {
    /// The gateway whose process sees it, which it does not while it is stopped.
    pub fn gateway(self) -> Option<u32> {
        match self {
            Self::Received { gateway, .. }
            | Self::SliceEnds { gateway, .. }
            | Self::Wakes { gateway, .. }
            | Self::Claimed { gateway, .. }
            | Self::Recorded { gateway, .. }
            | Self::AtGate { gateway, .. }
            | Self::Routes { gateway }
            | Self::TellsLoad { gateway }
            | Self::Looks { gateway } => Some(gateway),
            _ => None,
        }
    }
}
