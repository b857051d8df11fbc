//! The entities of a world, each as a state machine: time comes in as a parameter, what follows goes out as values or
//! to what is handed in for it.

pub mod broker;
pub mod device;
pub mod disk;
pub mod gateway;
mod idle;
pub mod link;
pub mod modules;
pub mod order;
pub mod outcome;
pub mod pool;
pub mod request;
pub mod router;
pub mod scheduler;

pub use broker::Broker;
pub use device::Device;
pub use gateway::Gateway;
pub use link::LinkState;
pub use modules::ModuleCounters;
pub use order::ModuleNeed;
pub use outcome::Outcome;
pub use request::{Progress, Request};
pub use router::{MasterState, Router, RouterCounters};
