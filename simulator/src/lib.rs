//! Fleets in virtual time: devices, links and gateways, on the very scheduling code that the gateway runs
//! ([`offload_policy`]). A seed and a version give the same run, to the byte.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`clock`] | virtual time, and the calendar of events |
//! | [`random`] | a stream of random numbers for each entity, and distributions |
//! | [`scenario`] | a world as a TOML file describes it, with what is refused |
//! | [`model`] | devices, links and gateways as state machines |
//! | [`world`] | all of them, driven by the calendar: one replica |
//! | [`statistics`] | what a replica has shown, warm-up, confidence |
//! | [`replicas`] | several, on as many threads as there are cores |
//! | [`report`] | what is told of replicas: tables, JSON, HTML |
//! | [`validation`] | how far from the real system it was |
//! | [`planning`] | how few gateways, workers or slots are enough |
//! | [`swarm`] | random worlds, in search of one that breaks an invariant |
//! | [`session`] | packets by hand, between sessions on a virtual network |
//! | [`cli`] | the command line |

#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
pub mod model;
pub mod planning;
pub mod random;
pub mod replicas;
pub mod report;
pub mod scenario;
#[cfg(feature = "cli")]
pub mod session;
pub mod statistics;
#[cfg(feature = "cli")]
pub mod swarm;
pub mod validation;
pub mod world;
mod wrapping;
