//! What a run has shown, and how sure that is.

pub mod confidence;
pub mod histogram;
pub mod recorder;
pub mod warm_up;

pub use confidence::Estimate;
pub use histogram::Histogram;
pub use recorder::{GatewaySample, GroupSample, Recorder};
