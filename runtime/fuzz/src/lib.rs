//! The broker's records without the gateway: their own files. The gateway as a whole would bring wasmtime, which takes
//! half an hour to build with instrumentation.

pub use sources::durability;

#[path = "../../src"]
mod sources {
    pub mod durability {
        pub mod encoding;
        pub mod kind;

        pub mod sessions {
            pub mod format;
            pub mod fuzzing;
        }
    }
}
