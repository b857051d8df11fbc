//! Files of any content: `journal/src/fuzzing/segments.rs` says what is fed and what is checked.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| offload_journal::fuzzing::segments(data));
