//! A crash test that does not trust what it tests.
//!
//! Clients with a small MQTT client of their own send requests and messages to a real gateway, which is killed by
//! SIGKILL at moments that follow from a seed, and started again; of networks, links are cut and servers die too. A
//! ledger has all that was sent, acknowledged and received. After each round it has to agree with what was promised:
//! what was acknowledged is answered or delivered, an `id` is answered with the same bytes each time, nothing reaches
//! the wrong client, and nothing is left over.
//!
//! - `ledger`: what was sent and what came, and where these contradict each other; without I/O.
//! - `mqtt`: packets, and the client's side of a session.
//! - `client`: one client on one connection after the other.
//! - `deployment`: the servers that are killed.
//! - `link`: the ways between servers, which are cut.
//! - `run`: rounds, and what happens in them.

pub mod answer;
pub mod client;
pub mod deployment;
pub mod key;
pub mod ledger;
pub mod link;
pub mod load;
pub mod mqtt;
pub mod process;
pub mod random;
pub mod report;
pub mod request;
pub mod resources;
pub mod run;
