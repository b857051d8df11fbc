//! `[keys]`: the keys that requests are sealed to.

use super::TimeSpan;
use super::table::table;
use std::path::PathBuf;

table! {
    /// The keys that requests are sealed to. Gateways that take requests from one another's queue share one file.
    pub struct Keys {
        /// File with the secret keys, which only its owner may read; it is made where there is none. Default:
        /// `sealing-keys` in `data_dir`.
        pub path: Option<PathBuf> = None;
        /// How long a key that was replaced (`offload-rt keys rotate`) still opens requests.
        pub grace: TimeSpan = TimeSpan::secs(7 * 86_400), in TimeSpan::ZERO..=TimeSpan::secs(366 * 86_400);
    }
}
