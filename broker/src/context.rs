//! What every part of a broker works with.

use crate::{config::Config, quotas::Quotas, stats::Counters, throttle::Throttle};

pub(crate) struct BrokerContext {
    pub config: Config,
    pub counters: Counters,
    /// For log lines about what clients cause.
    pub throttle: Throttle,
    pub quotas: Quotas,
}

impl BrokerContext {
    pub fn new(config: Config) -> Self {
        Self {
            counters: Counters::default(),
            throttle: Throttle::new(),
            quotas: Quotas::new(&config),
            config,
        }
    }
}
