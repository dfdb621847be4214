//! Runs `ringwal::fuzzing::record` on inputs of libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringwal::fuzzing::record(input));
