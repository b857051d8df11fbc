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
        /// Memory for guests. Half of it stays with the slots between guests; half is for loaded modules
        /// (`compiler.loaded_bytes`) and for guests that grow beyond their slots. A guest that asks for more than is
        /// left, or whose principal then had more than is left for others, is ended, `busy`. Default: a quarter of the
        /// machine's.
        pub memory: ByteSize = defaults::quarter_of_memory(), in ByteSize::mib(16)..=ByteSize::gib(4_096);
        /// Guests that one worker holds at once, sleeping ones included. Each slot reserves 4 GiB of address space and,
        /// when in use, 5 memory mappings; where the system allows less, there are fewer slots. Default: what fits into
        /// half of the memory at 3.5 MiB each, at most 1024.
        pub slots: Option<usize> = None;
        /// Part of all slots that one client may hold while others wait.
        pub slot_share: f64 = 0.5, in 0.01..=1.0;
        /// Part of all slots that one user, or all anonymous clients of one address, may hold while others wait.
        pub account_share: f64 = 0.75, in 0.01..=1.0;
        /// Niceness of the workers' threads, 0 to 19: how much they give way to the threads that receive requests, and
        /// to other processes. Programs that are known to be short run on the receiving threads, beside long
        /// computations.
        pub niceness: u16 = 5, in 0..=19;
        /// Longest time that a guest runs before another one runs.
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
