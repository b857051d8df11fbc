//! What every part of a broker works with.

use std::sync::Arc;

use crate::{config::Config, quotas::Quotas, stats::Counters, storage::Storage, throttle::Throttle};

pub(crate) struct BrokerContext {
    pub config: Config,
    pub counters: Counters,
    /// For log lines about what clients cause.
    pub throttle: Throttle,
    pub quotas: Quotas,
    /// Where what outlives the process is kept.
    pub storage: Option<Arc<dyn Storage>>,
}

impl BrokerContext {
    pub fn new(config: Config, storage: Option<Arc<dyn Storage>>) -> Self {
        Self {
            counters: Counters::default(),
            throttle: Throttle::new(),
            quotas: Quotas::new(&config),
            config,
            storage,
        }
    }
}
