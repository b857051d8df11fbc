//! Clients that are connected and subscribed, and do nothing: what a fleet mostly does.

use super::Connection;
use anyhow::{Context, Result};
use std::net::{SocketAddr, TcpStream};

/// Connected until dropped.
pub struct Crowd {
    _clients: Vec<TcpStream>,
}

impl Crowd {
    /// Connects this many, one after the other.
    pub fn connect(address: SocketAddr, count: usize) -> Result<Crowd> {
        let client = |index| {
            let connection = Connection::open(address, &format!("idle-{index}"));
            connection.map(Connection::into_stream).with_context(|| format!("idle client {index}"))
        };
        Ok(Crowd { _clients: (0..count).map(client).collect::<Result<_>>()? })
    }
}
