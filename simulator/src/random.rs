//! What is random, and yet the same in each run of a seed.

pub mod distribution;
mod exponential;
pub mod stream;

pub use distribution::Distribution;
pub use stream::Stream;
