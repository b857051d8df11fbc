//! Running guests: the engines, the workers that drive them, and what a guest may call.

pub mod artifact;
pub mod capacity;
pub mod context;
pub mod engine;
pub mod folder;
pub mod guest;
mod guest_state;
mod limit_reached;
mod limiter;
pub mod linking;
mod loaded;
pub mod memory;
pub mod metering;
pub mod occupancy;
mod open_files;
pub mod preview1;
pub mod preview2;
mod random;
mod ready_list;
mod recent_runs;
mod slice_clock;
mod standard_streams;
mod stdio;
mod ticker;
mod worker;
pub mod workers;
