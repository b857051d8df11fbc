//! Packets by hand, for teaching and debugging: sessions (brokers, clients, routers, a master) on a virtual network,
//! whose packets are sealed by the code that seals real requests ([`offload_seal`]).
//!
//! From the wire up to the terminal: what travels ([`address`], [`code`], [`content`], [`packet`], [`keys`]); what a
//! session does with it, without I/O ([`connection`], [`endpoint`]); what is between sessions ([`network`]); what is
//! typed and shown ([`command`], [`help`], [`table`], [`display`], [`shell`]). Terminals and sockets are the command
//! line's.

pub mod address;
pub mod code;
pub mod command;
pub mod connection;
pub mod content;
pub mod display;
pub mod endpoint;
pub mod help;
pub mod keys;
pub mod network;
pub mod packet;
pub mod shell;
pub mod table;
