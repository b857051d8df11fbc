//! Answers in every form: `protocol/src/fuzzing/answers.rs` says what is fed and what is checked.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| offload_protocol::fuzzing::answers(data));
