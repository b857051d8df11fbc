//! The configuration and the broker's records without the gateway: their own files, and stand-ins for the little that
//! these name beside them. The gateway as a whole would bring wasmtime, which takes half an hour to build with
//! instrumentation.

pub use sources::{auth, config, durability, once_cache, wasm};

#[path = "../../src"]
mod sources {
    pub mod auth {
        pub mod certificates;

        /// Files of passwords are not there when a configuration is fuzzed.
        pub mod passwords {
            use std::io;
            use std::path::Path;

            #[derive(Debug)]
            pub struct Passwords;

            impl Passwords {
                pub fn load(path: &Path) -> io::Result<Passwords> {
                    std::fs::metadata(path).map(|_| Passwords)
                }
            }
        }
    }

    pub mod config;

    pub mod durability {
        pub mod encoding;
        pub mod kind;

        pub mod sessions {
            pub mod format;
            pub mod fuzzing;
        }
    }

    pub mod once_cache {
        use std::time::Duration;

        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Idle {
            pub after: Duration,
            pub bytes: usize,
        }
    }

    pub mod wasm {
        pub mod capacity;

        /// Any values do: how much fits where is the tests' business.
        pub mod engine {
            pub const MEMORY_KEEP_RESIDENT: usize = 2 << 20;
            pub const TABLE_KEEP_RESIDENT: usize = 64 << 10;
            pub const ASYNC_STACK_SIZE: usize = 1 << 20;
        }

        pub mod loaded {
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct LoadedLimits {
                pub bytes: usize,
                pub modules: usize,
                pub idle: crate::once_cache::Idle,
            }
        }
    }
}
