//! Bytes to packets: `broker/src/fuzzing/packets.rs` says what is fed and what is checked.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| offload_broker::fuzzing::packets(data));
