//! Damage to whole journals: `journal/src/fuzzing/damage.rs` says what is fed and what is checked.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| offload_journal::fuzzing::damage(data));
