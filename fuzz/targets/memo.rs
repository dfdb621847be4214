//! Runs `ringwal::fuzzing::memo` on inputs of libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringwal::fuzzing::memo(input));
