//! What one identity may make the broker hold and do, and what all may together.

pub(crate) mod account;
pub(crate) mod connection_limits;
pub(crate) mod fair_share;
pub(crate) mod input_budget;
pub(crate) mod rate;
