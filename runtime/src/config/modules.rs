//! `[modules]`: the modules that clients have sent, kept so that their digest is enough the next time.

use std::path::PathBuf;

use super::table::table;
use super::{ByteSize, Refusal};

table! {
    /// The modules that clients have sent, kept in the data directory so that their digest is enough the next time.
    pub struct Modules {
        /// Whether a digest is enough for everybody once anybody has sent the module. Otherwise each principal has
        /// its own, and does not learn what others have.
        pub shared: bool = false;
        /// Bytes of one principal's modules; the least recently used go first.
        pub per_principal: ByteSize = ByteSize::mib(64), in ByteSize::mib(1)..=ByteSize::gib(64);
        /// Bytes of all modules; what several principals have is stored once.
        pub total: ByteSize = ByteSize::mib(512), in ByteSize::mib(1)..=ByteSize::gib(1024);
        /// Files of modules, `.wasm` or `.wat`, that are compiled and loaded before the first request. Their digest is
        /// enough for everybody who may send modules.
        pub preload: Vec<PathBuf> = Vec::new();
    }
}

impl Modules {
    pub(super) fn validate(&self) -> Result<(), Refusal> {
        if self.per_principal > self.total {
            let problem = format!("{} is more than modules.total", self.per_principal);
            return Err(Refusal::new("modules.per_principal", problem)
                .accepting(format!("at most modules.total, {}", self.total)));
        }
        Ok(())
    }
}
