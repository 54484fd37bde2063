//! Queries and paths of URLs: within their limits, and passed on as they are.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millstream::fuzzing::query(data));
