//! The bytes of an HTTP connection: every answer is whole, and of a kind that the interface has.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millstream::fuzzing::requests(data));
