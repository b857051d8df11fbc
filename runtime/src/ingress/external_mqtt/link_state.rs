//! How things stand with an external broker.

use offload_mqtt::Version;

/// How things stand with the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// The first attempt is under way.
    Connecting,
    /// Requests are taken.
    Serving {
        /// The version of MQTT that is spoken.
        version: Version,
        /// Whether other gateways on this broker share the work.
        shared: bool,
    },
    /// There is no connection; the next attempt follows.
    Waiting {
        /// Why, in at most a few hundred characters.
        reason: String,
    },
    /// Another client uses our client id; the next attempt follows after a long wait.
    ClientIdConflict,
    /// The ingress has shut down.
    Stopped,
}
