//! `[queue]`: how many requests may wait.

use super::ByteSize;
use super::share::percent;
use super::table::table;
use offload_policy::{AdmissionLimits, DEFAULT_WAITING_PER_FLOW, DEFAULT_WAITING_TOTAL, Load};

table! {
    /// How many requests may wait for a worker; more are answered `busy` at once.
    pub struct Queue {
        /// Requests of one client: a user, or a client id without one.
        pub per_principal: usize = DEFAULT_WAITING_PER_FLOW, in 1..=1_000_000;
        /// Requests of all clients together.
        pub total: usize = DEFAULT_WAITING_TOTAL, in 1..=1_000_000;
        /// Bytes (code, arguments, stdin) of one client's requests. A single request with more is answered `too-large`.
        pub bytes_per_principal: ByteSize = ByteSize::mib(64), in ByteSize::mib(1)..=ByteSize::gib(64);
        /// Bytes of all requests together.
        pub bytes_total: ByteSize = ByteSize::mib(256), in ByteSize::mib(1)..=ByteSize::gib(64);
        /// Part of both totals that the requests of one user, or of all anonymous clients of one address, may take.
        pub account_share: f64 = 0.75, in 0.01..=1.0;
    }
}

impl Queue {
    /// What may wait.
    pub fn admission_limits(&self) -> AdmissionLimits {
        AdmissionLimits {
            per_flow: Load { requests: self.per_principal, bytes: self.bytes_per_principal.as_usize() },
            total: Load { requests: self.total, bytes: self.bytes_total.as_usize() },
            account_share: percent(self.account_share),
        }
    }
}
