//! `[workers]`: the threads that run guests.

use super::share::percent;
use super::table::table;
use super::{ByteSize, Refusal, TimeSpan, bounds, defaults};
use offload_policy::Shares;

table! {
    /// The threads that run guests, each with its own engine and its own pool of slots.
    pub struct Workers {
        /// Worker threads. Default: one for each core.
        pub count: usize = defaults::cores(), in 1..=1_024;
        /// Memory for guests: half for what slots keep between them, half for loaded modules (`compiler.loaded_bytes`)
        /// and for what guests grow beyond their slots. When that is used up, or one principal's guests have as much of
        /// it as is left for others, a guest that asks for more is ended, `busy`. Default: a quarter of the machine's.
        pub memory: ByteSize = defaults::quarter_of_memory(), in ByteSize::mib(16)..=ByteSize::gib(4_096);
        /// Guests that one worker holds at once, those that sleep too. Each slot reserves 4 GiB of address space and,
        /// when in use, 5 memory mappings: where the system allows less, there are fewer. Default: what fits into half
        /// of the memory, 3.5 MiB each, 1024 at the most.
        pub slots: Option<usize> = None;
        /// Part of all slots that one client may hold while others wait.
        pub slot_share: f64 = 0.5, in 0.01..=1.0;
        /// Part of all slots that one user, or all clients without a name at one address, may hold while others wait.
        pub account_share: f64 = 0.75, in 0.01..=1.0;
        /// How much the threads of workers give way to the threads that receive requests, and to other processes: 0
        /// (not at all) to 19, as `nice` has it. What is known to be short is run by the latter, beside computations
        /// that take long.
        pub niceness: u16 = 5, in 0..=19;
        /// Longest time that a guest runs before another one has its turn.
        pub slice: TimeSpan = TimeSpan::micros(500), in TimeSpan::micros(100)..=TimeSpan::millis(100);
    }
}

/// Most slots of one worker.
const MAX_SLOTS: usize = 65_536;

impl Workers {
    /// What of the slots one client, and one account, may hold.
    pub fn shares(&self) -> Shares {
        Shares { flow: percent(self.slot_share), account: percent(self.account_share) }
    }

    pub(super) fn check(&self, refusals: &mut Vec<Refusal>) {
        refusals.extend(bounds::out_of_range("workers.slots", self.slots, MAX_SLOTS));
    }
}
