//! What requests are held to, and what they can name: what may be another after the configuration was read again.

use super::decode::bounds;
use crate::config::{Answers, Config, Limits};
use crate::programs::Programs;
use offload_protocol::request::Bounds;

/// One state of it. A request keeps the one that it came in with.
pub struct Settings {
    /// Programs that requests can name.
    pub programs: Programs,
    /// What a request may use.
    pub limits: Limits,
    /// How much a request may carry.
    pub bounds: Bounds,
    /// Where answers may go.
    pub answers: Answers,
}

impl Settings {
    /// As `config` says.
    pub fn new(config: &Config, programs: Programs) -> Settings {
        let (limits, answers) = (config.limits.clone(), config.answers.clone());
        Settings { programs, bounds: bounds(&limits), limits, answers }
    }
}
