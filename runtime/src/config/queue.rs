//! `[queue]`: how many requests may wait.

use super::table::table;
use super::{ByteSize, Refusal};

table! {
    /// How many requests may wait for a worker; more are answered `busy` at once.
    pub struct Queue {
        /// Requests of one client: a user, or a client id without one.
        pub per_principal: usize = 4_096, in 1..=1_000_000;
        /// Requests of all together.
        pub total: usize = 16_384, in 1..=1_000_000;
        /// Bytes (code, arguments, stdin) of one client's requests. Above the largest request, or it never gets in.
        pub bytes_per_principal: ByteSize = ByteSize::mib(64), in ByteSize::mib(1)..=ByteSize::gib(64);
        /// Bytes of all together.
        pub bytes_total: ByteSize = ByteSize::mib(256), in ByteSize::mib(1)..=ByteSize::gib(64);
        /// Part of both totals that the requests of one user, or of all clients without a name at one address, may take.
        pub account_share: f64 = 0.75, in 0.001..=1.0;
    }
}

impl Queue {
    pub(super) fn validate(&self) -> Result<(), Refusal> {
        if self.per_principal > self.total {
            let problem = format!("{} is more than queue.total", self.per_principal);
            return Err(Refusal::new("queue.per_principal", problem)
                .accepting(format!("at most queue.total, {}", self.total)));
        }
        Ok(())
    }
}
