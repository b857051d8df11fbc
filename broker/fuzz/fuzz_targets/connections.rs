//! Whole connections: `broker/src/fuzzing/connections.rs` says what is fed and what is checked.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| offload_broker::fuzzing::connections(data));
