//! Configuration files: `config/src/fuzzing.rs` says what is fed and what is checked.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| offload_config::fuzzing::configuration(data));
