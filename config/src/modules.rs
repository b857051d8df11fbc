//! `[modules]`: the modules that clients have sent, kept so that their digest is enough the next time.

use super::ByteSize;
use super::table::table;
use std::path::PathBuf;

table! {
    /// The modules that clients have sent, kept in the data directory so that their digest is enough the next time.
    pub struct Modules {
        /// Whether a digest is enough for every client once any client has sent the module. Otherwise each principal
        /// has modules of its own, and does not learn which ones others have.
        pub shared: bool = false;
        /// Bytes of one principal's modules; the least recently used go first, and a module that is larger is run and
        /// not kept. Default: 64MiB, or `limits.module` if that is more.
        pub per_principal: ByteSize = ByteSize::mib(64), in ByteSize::mib(1)..=ByteSize::gib(64);
        /// Bytes of all modules; what several principals have is stored once.
        pub total: ByteSize = ByteSize::mib(512), in ByteSize::mib(1)..=ByteSize::gib(1024);
        /// Files of modules, `.wasm` or `.wat`, that are compiled and loaded before the first request. Their digest is
        /// enough for every client that may send modules.
        pub preload: Vec<PathBuf> = Vec::new();
    }
}
