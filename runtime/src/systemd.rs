//! What systemd, or whatever speaks its protocol, hands over to a service and is told by it. Without it all of this is
//! empty, and does nothing.

mod notifier;
mod sockets;

pub use notifier::Notifier;
pub use sockets::{InheritedSockets, Role, SocketError};

use std::sync::Arc;

/// Both directions.
#[derive(Default)]
pub struct Systemd {
    /// Listening sockets that were open before the gateway started.
    pub sockets: InheritedSockets,
    /// Where the gateway says how it is.
    pub notifier: Arc<Notifier>,
}
