//! Running guests: the engines, the workers that drive them, and what a guest may call.

pub mod capacity;
pub mod context;
pub mod engine;
mod executor;
pub mod folder;
pub mod guest;
mod job;
mod limiter;
pub mod linking;
mod loaded;
pub mod memory;
pub mod metering;
mod open_files;
mod parker;
pub mod preview1;
pub mod preview2;
mod random;
mod ready_list;
mod scheduler;
mod slice_clock;
mod standard_streams;
mod stdio;
mod ticker;
mod worker;
pub mod workers;
