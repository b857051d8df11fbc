//! What a run has shown, and how sure that is.

pub mod conditions;
pub mod confidence;
pub mod histogram;
pub mod recorder;
pub mod warm_up;

pub use conditions::Conditions;
pub use confidence::Estimate;
pub use histogram::Histogram;
pub use recorder::{GatewaySample, GroupSample, Recorder};
