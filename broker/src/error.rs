//! What can go wrong for whoever embeds the broker. What clients do wrong never comes this far.

use std::{io, net::SocketAddr};

/// Errors of [`Broker::serve`](crate::Broker::serve).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no authentication yet, so only this machine may connect.
    #[error("refusing to serve {0}: without authentication only loopback addresses are served")]
    NotLoopback(SocketAddr),
    /// A limit of the configuration contradicts another or the standard.
    #[error("configuration: {0}")]
    Config(&'static str),
    /// The listener does not say where it listens.
    #[error("listener: {0}")]
    Listener(#[from] io::Error),
}
