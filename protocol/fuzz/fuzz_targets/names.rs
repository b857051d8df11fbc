//! Topics, filters and digests: `protocol/src/fuzzing/names.rs` says what is fed and what is checked.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| offload_protocol::fuzzing::names(data));
