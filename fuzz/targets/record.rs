//! `ringwal::fuzzing::record` on what libFuzzer thinks of.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringwal::fuzzing::record(input));
