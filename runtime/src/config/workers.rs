//! `[workers]`: the threads that run guests.

use super::table::table;
use super::{TimeSpan, defaults};

table! {
    /// The threads that run guests, each with its own engine and its own pool of slots.
    pub struct Workers {
        /// Worker threads. Default: one for each core.
        pub count: usize = defaults::cores(), in 1..=1_024;
        /// Guests that one worker holds at once, those that sleep too. Each slot reserves 4 GiB of address space and,
        /// when in use, 5 memory mappings: count x slots x 5 must stay below the system's vm.max_map_count.
        pub slots: usize = 128, in 1..=4_096;
        /// Part of all slots that one principal may hold while others wait.
        pub slot_share: f64 = 0.5, in 0.001..=1.0;
        /// Longest time that a guest runs before another one has its turn.
        pub slice: TimeSpan = TimeSpan::millis(1), in TimeSpan::micros(100)..=TimeSpan::millis(100);
    }
}
