//! The gateway's site, as rules need to know it: the gate that it is, and whether all of its network is on this
//! machine.

use std::sync::atomic::{AtomicBool, Ordering};

/// The site of a gateway; that of one without a network has no gate.
#[derive(Debug, Default)]
pub struct Site {
    gate: Option<String>,
    /// Whether gateway and masters are reached by loopback alone: then no rule is needed to ask other sites.
    is_local: bool,
    /// Whether that is so for all gateways that the masters know: then no rule is needed to be asked by them.
    network_is_local: AtomicBool,
}

impl Site {
    /// Of the gateway that is this gate. `is_local` says whether only this machine reaches it and its masters.
    pub fn new(gate: Option<String>, is_local: bool) -> Site {
        Site { gate, is_local, network_is_local: AtomicBool::new(false) }
    }

    /// The gate, where there is one.
    pub fn gate(&self) -> Option<&str> {
        self.gate.as_deref()
    }

    /// Whether this is the gateway's own gate.
    pub fn is_own(&self, gate: &str) -> bool {
        self.gate() == Some(gate)
    }

    /// Whether only this machine reaches the gateway and its masters.
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Whether only this machine reaches any of the gateways and masters of the network, as far as is known.
    pub fn network_is_local(&self) -> bool {
        self.is_local && self.network_is_local.load(Ordering::Acquire)
    }

    /// Says so, from now on.
    pub fn set_network_is_local(&self, is_local: bool) {
        self.network_is_local.store(is_local, Ordering::Release);
    }
}
