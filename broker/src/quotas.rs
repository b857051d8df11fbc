//! What one identity may take of what all share: connections, memory for packets, the time of the threads, its rate of
//! sending. What it holds is counted in its account.

pub(crate) mod account;
pub(crate) mod connection_limits;
pub(crate) mod fair_share;
pub(crate) mod input_budget;
pub(crate) mod rate;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    config::Config,
    quotas::{
        account::{Account, Accounts},
        connection_limits::ConnectionLimits,
        fair_share::FairShare,
        input_budget::InputBudget,
    },
    stats::Stats,
};

/// The quotas of one broker.
pub(crate) struct Quotas {
    /// Connections, in all and for each address.
    pub connections: Arc<ConnectionLimits>,
    /// What each identity holds.
    pub accounts: Accounts,
    /// Memory for packets that have not come completely.
    pub input: Arc<InputBudget>,
    /// The time of the threads that serve connections.
    shares: FairShare,
    /// From when on `shares` and the rates of accounts count time.
    started: Instant,
}

impl Quotas {
    pub fn new(config: &Config) -> Self {
        Self {
            connections: Arc::new(ConnectionLimits::new(config)),
            accounts: Accounts::default(),
            input: Arc::new(InputBudget::new(config)),
            shares: FairShare::new(),
            started: Instant::now(),
        }
    }

    /// Adds what is counted here.
    pub fn count_into(&self, stats: &mut Stats) {
        stats.connections = self.connections.open();
        stats.input_bytes = self.input.held();
        stats.input_waits = self.input.waits();
    }

    /// Says how many threads serve connections.
    pub fn set_threads(&self, threads: usize) {
        self.shares.set_threads(threads);
    }

    /// Charges an account the time since `started`, which was spent for it.
    pub fn charge(&self, account: &Account, started: Instant) {
        let now = Instant::now();
        self.shares.charge(&account.usage, now - started, now.duration_since(self.started));
    }

    /// The same for the address of a client that is not known yet.
    pub fn charge_unknown(&self, address: &Account, started: Instant) {
        let now = Instant::now();
        self.shares.charge_unknown(&address.usage, now - started, now.duration_since(self.started));
    }

    /// Until when nothing is to be done for an account, because it has used up its share of the threads.
    pub fn over_share(&self, account: &Account, now: Instant) -> Option<Instant> {
        let until = self.shares.held_until(&account.usage, now.duration_since(self.started))?;
        Some(self.started + until)
    }

    /// Until when nothing of an account is to be read, because it sent faster than it may.
    pub fn over_rate(&self, account: &Account, config: &Config) -> Option<Instant> {
        let until = account.rates.held_until(config, self.clock())?;
        Some(self.started + until)
    }

    /// The time of the rates of accounts.
    pub fn clock(&self) -> Duration {
        self.started.elapsed()
    }
}
